"""The chain parser: golden chains, round trips, hostile texts, and scores that are never wrong."""

import doctest
import importlib
import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.chain import canonical, format, parse
from pgenrm.errors import FormatError, InputError
from pgenrm.evaluator import ChainRequest, ChainSample
from pgenrm.types import Criterion, EvaluationChain, Rating
from tests import cases
from tests.rewrite_golden_chains import CHAINS, result

GOLDEN = sorted(path.stem for path in CHAINS.glob("*.txt"))
MODULES = (
    "breakdown",
    "canonical",
    "draft",
    "fields",
    "grammar",
    "json_tail",
    "scores",
    "table",
    "wire",
)


def golden(name: str) -> tuple[str, dict[str, Any]]:
    text = (CHAINS / f"{name}.txt").read_bytes().decode("utf-8")
    return text, json.loads((CHAINS / f"{name}.json").read_text("utf-8"))


def read(text: str, n_responses: int = 2) -> EvaluationChain | None:
    """Parse, with None for a format error and nothing else."""
    try:
        return parse(text, n_responses)
    except FormatError:
        return None


READABLE = [name for name in GOLDEN if "chain" in golden(name)[1]]

# ---------------------------------------------------------------- golden chains


def test_there_are_at_least_sixty_golden_chains_good_and_broken() -> None:
    assert len(GOLDEN) >= 60
    assert len(GOLDEN) - len(READABLE) >= 20


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_chain_is_read_as_expected(name: str) -> None:
    text, case = golden(name)
    about = {key: case[key] for key in ("about", "n_responses")}
    assert about | result(text, case["n_responses"]) == case


@pytest.mark.parametrize("name", READABLE)
def test_what_was_read_can_be_written_and_read_again(name: str) -> None:
    text, case = golden(name)
    chain = parse(text, case["n_responses"])
    written = format(chain)
    assert parse(written, chain.n_responses) == chain
    assert ('"exact"' in written) == (name == "exact_chain")


@pytest.mark.parametrize("name", READABLE)
def test_a_cut_text_never_gives_another_score_than_the_whole(name: str) -> None:
    text, case = golden(name)
    whole = parse(text, case["n_responses"])
    drafts = {"draft_then_final": (8.0, 5.0)}  # complete objects of their own
    names = [criterion.name for criterion in whole.criteria]
    for end in range(len(text)):
        cut = read(text[:end], whole.n_responses)
        if cut is None or cut.stated_scores == drafts.get(name):
            continue
        for part, full in zip(cut.stated_scores, whole.stated_scores, strict=True):
            assert part in (None, full)
        for r, row in enumerate(cut.ratings):
            for criterion, rating in zip(cut.criteria, row, strict=True):
                if rating is not None:
                    expected = whole.ratings[r][names.index(criterion.name)]
                    assert expected is not None
                    assert rating.score == expected.score


@pytest.mark.parametrize("name", READABLE)
def test_exchanging_the_labels_of_two_responses_exchanges_their_scores(name: str) -> None:
    text, case = golden(name)
    label = re.compile(
        r"((?:response|antwort|réponse|respuesta|回答|ответ|응답)[ _]?|\bR)([12])(?!\d)", re.I
    )
    exchanged = label.sub(lambda m: m[1] + {"1": "2", "2": "1"}[m[2]], text)
    if exchanged == text or case["n_responses"] == 1 or name == "numbers_as_keys":
        pytest.skip("nothing to exchange")
    before, after = (parse(t, case["n_responses"]) for t in (text, exchanged))
    assert after.stated_scores == swapped(before.stated_scores)
    assert scores_of(after) == swapped(scores_of(before))


def swapped(rows: tuple[Any, ...]) -> tuple[Any, ...]:
    return (rows[1], rows[0], *rows[2:]) if rows else rows


def scores_of(chain: EvaluationChain) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(None if r is None else r.score for r in row) for row in chain.ratings)


# ---------------------------------------------------------------- round trips

hostile_words = st.sampled_from(
    [
        "Response 1",
        "Final score",
        "8/10",
        "(40%)",
        "<JSON_END>",
        "<think>",
        "```",
        "| 8 |",
        "A. ",
        '"',
    ]
)
texts = st.text(max_size=30) | st.lists(hostile_words | st.text(max_size=8), max_size=5).map(
    "\n".join
)
scores = st.floats(0, 10)


@st.composite
def chains(draw: st.DrawFn) -> EvaluationChain:
    """Any valid chain."""
    n_responses = draw(st.integers(1, 4))
    criteria = draw(
        st.lists(
            st.builds(
                Criterion,
                name=texts.filter(str.strip),
                weight=st.floats(0, 100),
                description=texts,
            ),
            max_size=4,
        )
    )
    rating = st.none() | st.builds(Rating, score=scores, reason=texts)
    row = st.tuples(*[rating] * len(criteria))
    return EvaluationChain(
        preferences=draw(texts),
        criteria=tuple(criteria),
        ratings=draw(st.just(()) | st.tuples(*[row] * n_responses)),
        stated_scores=draw(st.tuples(*[st.none() | scores] * n_responses)),
        rationale=draw(st.none() | texts),
    )


@given(chains())
@settings(max_examples=300)
def test_parsing_a_formatted_chain_gives_the_chain(chain: EvaluationChain) -> None:
    assert parse(format(chain), chain.n_responses) == chain


words = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyzäéßñ-' "), min_size=3, max_size=24)
phrases = words.map(lambda text: " ".join(text.strip("-' ").split())).filter(lambda t: len(t) > 2)
reasons = phrases | st.integers(0, 2000).map("{} words, 12.5 a line".format)


@given(
    st.lists(phrases, min_size=1, max_size=5, unique_by=str.lower),
    st.data(),
)
@settings(max_examples=200)
def test_an_ordinary_chain_is_written_in_the_plain_form(
    names: list[str], data: st.DataObject
) -> None:
    n_responses = data.draw(st.integers(1, 3))
    grade = st.integers(2, 20).map(lambda n: n / 2)
    names = [f"Criterion of {name}" for name in names]
    chain = EvaluationChain(
        preferences=data.draw(phrases),
        criteria=tuple(
            Criterion(
                name=name, weight=data.draw(st.integers(1, 99)), description=data.draw(phrases)
            )
            for name in names
        ),
        ratings=tuple(
            tuple(Rating(score=data.draw(grade), reason=data.draw(reasons)) for _ in names)
            for _ in range(n_responses)
        ),
        stated_scores=(None,) * n_responses,
    )
    chain = chain.model_copy(update={"stated_scores": chain.rubric_scores})
    assert '"exact"' not in format(chain)


def test_the_chains_of_the_attribute_evaluator_are_written_in_the_plain_form() -> None:
    comparison = cases.comparison()
    request = ChainRequest(
        id="a",
        user=comparison.user,
        context=comparison.context,
        responses=comparison.responses,
        n=8,
    )
    for sample in AttributeEvaluator().evaluate([request])[0].samples:
        assert isinstance(sample, ChainSample)
        assert '"exact"' not in format(sample.chain)


def test_the_wire_form_is_that_of_the_released_checkpoints() -> None:
    text = format(parse(golden("canonical")[0], 2))
    part_one, marked = text.split("<JSON_START>")
    value = json.loads(marked.removesuffix("<JSON_END>"))
    assert part_one.startswith("Wants short, friendly answers")
    assert list(value) == ["rationale", "better_response"]
    assert value["rationale"].startswith("A. Evaluation Criteria & Weights\n1. Brevity (60%)")
    assert value["better_response"] == {"response_1": 7, "response_2": 6.5}


def test_a_chain_without_criteria_has_an_empty_rationale() -> None:
    assert canonical.render((), ()) == ""


# ---------------------------------------------------------------- any text


@given(st.text(), st.integers(1, 5))
@settings(max_examples=300)
@example("{" * 3000, 2)
@example('{"a":' * 3000, 2)
@example('{"rationale": ' + "[" * 3000, 2)
@example('{"better_response": {"response_1": ' + "9" * 6000 + ', "response_2": 1}}', 2)
@example('{"better_response": {"response_1": Infinity, "response_2": -Infinity}}', 2)
@example('{"better_response": {"response_1": 1e999, "response_2": 1e-999}}', 2)
@example('\ud800{"rationale": "\\ud800", "better_response": [1, 2]}', 2)
@example('{"exact": {"preferences": "\\ud800", "stated_scores": [1]}}', 1)
@example('{"exact": {"preferences": 1}}', 1)
@example("<JSON_<JSON_START>START>{}", 1)
def test_any_text_gives_a_chain_or_a_format_error(text: str, n_responses: int) -> None:
    chain = read(text, n_responses)
    if chain is not None:
        assert chain.n_responses == n_responses
        assert EvaluationChain.model_validate_json(chain.model_dump_json()) == chain


@given(st.sampled_from(GOLDEN), st.randoms(use_true_random=False), st.data())
@settings(max_examples=400)
def test_a_damaged_chain_gives_a_chain_or_a_format_error(
    name: str, rng: random.Random, data: st.DataObject
) -> None:
    text, case = golden(name)
    for _ in range(data.draw(st.integers(1, 4))):
        at, n = rng.randrange(len(text) + 1), rng.randrange(20)
        inserted = data.draw(
            st.sampled_from(["", '"', "{", "}", "\n", "8", "/10", "%", "|", "\\", "<"])
        )
        text = text[:at] + inserted + text[at + n :]
    chain = read(text, case["n_responses"])
    if chain is not None:
        assert parse(format(chain), chain.n_responses) == chain


def test_deep_nesting_is_refused_inside_a_deep_stack_too() -> None:
    def deep(n: int) -> EvaluationChain | None:
        return deep(n - 1) if n else read('{"rationale": ' + '{"a": [' * 400 + "1")

    assert deep(sys.getrecursionlimit() // 2) is None


def test_the_number_of_responses_must_be_positive() -> None:
    with pytest.raises(InputError, match="n_responses is 0"):
        parse("", 0)


def test_a_format_error_names_what_is_missing_and_shows_the_end_of_the_text() -> None:
    with pytest.raises(FormatError, match="no score of response_2 in a text of 60 characters") as e:
        parse('<JSON_START>{"better_response": {"response_1": 7}}<JSON_END>', 2)
    assert e.value.missing == ("score of response_2",)


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        '"',
        " ",
        "<think>",
        '{"response_1":1,',
        '{"a":',
        '", ',
        "Response 1: 8/10\n",
        "Clarity (5%)\n",
    ],
)
@pytest.mark.parametrize("before", ["", '<JSON_START>{"rationale": "A (50%)\\nB (50%)\\n'])
def test_hostile_texts_are_read_in_linear_time(unit: str, before: str) -> None:
    def seconds(length: int) -> float:
        start = time.process_time()
        read(before + unit * (length // len(unit)))
        return time.process_time() - start

    short, long = (min(seconds(2**k) for _ in range(2)) for k in (15, 18))
    assert long < 30 * short + 0.1  # 8 when linear, 64 when quadratic


# ---------------------------------------------------------------- never a wrong rating

NAMES = ("Clarity", "Tone and warmth", "Depth", "Length", "Factual care", "Follow-up questions")
REASONS = (
    "",
    "short and to the point",
    "uses 3 examples, 2 of them new",
    "better than Response 2 (6/10)",
    "would be 9/10 without the last line",
    "100% on topic: no detours",
    "Depth is what it lacks, clarity it has",
    "2 x 3 = 6 is worked out",
)


def rating_lines(style: str, name: str, weight: int, score: float, reason: str) -> list[str]:
    after = f" - {reason}" if reason else ""
    return {
        "plain": [f"- {name}: {score:g}/10{after}"],
        "bare": [f"{name}: {score:g}{after}"],
        "bold": [f"* **{name} ({weight}%): {score:g}/10**{after}"],
        "bracket": [f"- {name} ({score:g}/10){after}"],
        "product": [f"- {name}: {score:g} x {weight}% = {score * weight / 100:g}"],
        "contribution": [f"- {name}: {score * weight / 100:g} ({score:g} × {weight / 100:g})"],
        "last": [f"- {name}: {reason or 'fine'}. Score: {score:g}/10"],
        "below": [f"{name}:", f"  Score: {score:g}/10", f"  Reason: {reason}"],
    }[style]


@given(
    names=st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True),
    style=st.sampled_from(
        ["plain", "bare", "bold", "bracket", "product", "contribution", "last", "below"]
    ),
    grouped_by_response=st.booleans(),
    has_headings=st.booleans(),
    has_totals=st.booleans(),
    data=st.data(),
)
@settings(max_examples=200)
def test_a_rating_is_right_or_left_out(
    names: list[str],
    style: str,
    grouped_by_response: bool,
    has_headings: bool,
    has_totals: bool,
    data: st.DataObject,
) -> None:
    weights = {2: [70, 30], 3: [50, 30, 20], 4: [40, 30, 20, 10]}[len(names)]
    grade = st.integers(2, 20).map(lambda n: n / 2)
    truth = [[data.draw(grade) for _ in names] for _ in range(2)]
    reasons = [[data.draw(st.sampled_from(REASONS)) for _ in names] for _ in range(2)]
    lines = ["A. Evaluation Criteria & Weights"] if has_headings else []
    lines += [f"{i}. {n} ({w}%)" for i, (n, w) in enumerate(zip(names, weights, strict=True), 1)]
    lines += ["", "B. Scoring Breakdown"] if has_headings else [""]
    if grouped_by_response:
        for r in range(2):
            lines.append(f"Response {r + 1}:")
            for k, name in enumerate(names):
                lines += rating_lines(style, name, weights[k], truth[r][k], reasons[r][k])
            total = sum(w * s for w, s in zip(weights, truth[r], strict=True)) / 100
            lines += [f"Final score: {total:g}"] if has_totals else []
    else:
        for k, name in enumerate(names):
            lines.append(f"{name} ({weights[k]}%)")
            for r in range(2):
                after = f" - {reasons[r][k]}" if reasons[r][k] else ""
                lines.append(f"- Response {r + 1}: {truth[r][k]:g}/10{after}")
        lines += ["Final scores", "Response 1: 5.5", "Response 2: 6.5"] if has_totals else []
    value = {
        "rationale": "\n".join(lines),
        "better_response": {"response_1": 9.9, "response_2": 0.1},
    }
    chain = parse("p\n<JSON_START>" + json.dumps(value) + "<JSON_END>", 2)
    assert [c.name for c in chain.criteria] == names
    assert [c.weight for c in chain.criteria] == weights
    for read_row, true_row in zip(scores_of(chain), truth, strict=False):
        for score, true in zip(read_row, true_row, strict=True):
            assert score in (None, true)
    if not any(re.search(r"\d", reason) for row in reasons for reason in row):
        assert chain.rubric_scores is not None


def test_docs_of_the_chain_modules_hold() -> None:
    for name in MODULES:
        outcome = doctest.testmod(importlib.import_module(f"pgenrm.chain.{name}"))
        assert outcome.failed == 0
    assert len(MODULES) + 1 == len(list(Path(canonical.__file__).parent.glob("*.py")))


def test_a_thinking_tag_that_is_only_spoken_of_costs_nothing() -> None:
    text = (
        "The user asked about the <think> tag in HTML.\n"
        '<JSON_START>{"rationale": "uses a <think> tag", '
        '"better_response": {"response_1": 7, "response_2": 4}}<JSON_END>'
    )
    assert parse(text, 2).stated_scores == (7, 4)


def test_an_exact_chain_that_disagrees_with_the_scores_beside_it_does_not_count() -> None:
    text = (
        '{"better_response": {"response_1": 2, "response_2": 9}, '
        '"exact": {"preferences": "x", "stated_scores": [10, 1]}}'
    )
    assert parse(text, 2).stated_scores == (2, 9)
