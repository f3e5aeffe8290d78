"""The bundled judge's language: its chains, its tokenizer, its teacher, and its practice."""

import re
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.chain import format, parse
from pgenrm.errors import InputError
from pgenrm.evaluator import ChainRequest, ChainSample
from pgenrm.nano import steps
from pgenrm.nano.check import STEPS, Truth, right_steps
from pgenrm.nano.practice import Encoder, comparisons, varied
from pgenrm.nano.teacher import PosteriorTeacher
from pgenrm.nano.words import POLE_OF, POLES, TASTE_NAMES
from pgenrm.sim.observer import references
from pgenrm.sim.tastes import ATTRIBUTES, SCENARIOS
from pgenrm.sim.world import World, without_statements
from pgenrm.types import Comparison, Message

pytest.importorskip("transformers")

from transformers import PreTrainedTokenizerFast

from pgenrm.nano.tokenizer import ASSISTANT, CONTEXT_TOKENS, END, USER, build

WORLD = World(seed=5)
TEACHER = PosteriorTeacher(WORLD, n_particles=1024)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build()


def request(comparison: Comparison, n: int = 1, seed: int = 0) -> ChainRequest:
    return ChainRequest(
        id=comparison.id,
        user=comparison.user,
        context=comparison.context,
        responses=comparison.responses,
        n=n,
        seed=seed,
    )


def cases(n: int) -> Iterator[Comparison]:
    return islice((varied(c, 1) for c in comparisons(WORLD, 1)), n)


features = st.lists(st.booleans(), min_size=len(ATTRIBUTES), max_size=len(ATTRIBUTES)).map(
    lambda has: np.array(has, float)
)
known = st.builds(
    steps.Steps,
    choices=st.lists(
        st.builds(steps.PastReading, st.integers(0, len(SCENARIOS) - 1), features, features),
        max_size=6,
    ).map(tuple),
    stated=st.lists(st.sampled_from(sorted(POLE_OF.values())), max_size=2).map(tuple),
    described=st.lists(
        st.tuples(st.integers(0, len(TASTE_NAMES) - 1), st.sampled_from((-1, 1))), max_size=1
    ).map(tuple),
    leanings=st.tuples(*[st.integers(-6, 5).map(lambda n: 2 * n + 1)] * len(TASTE_NAMES)),
    scenario=st.integers(0, len(SCENARIOS) - 1),
    responses=st.lists(features, min_size=2, max_size=4).map(np.array),
)


@given(known)
def test_a_chain_reads_back_and_every_step_follows_from_those_before(one: steps.Steps) -> None:
    text = format(steps.chain(one))
    chain = parse(text, len(one.responses))

    assert chain == steps.chain(one)
    assert right_steps(chain, Truth.of(one)) == dict.fromkeys(STEPS, True)


@given(known)
def test_two_responses_that_differ_never_tie(one: steps.Steps) -> None:
    first, second = steps.chain(one).scores()[:2]
    if len(one.responses) == 2 and not np.array_equal(*one.responses):
        assert first != second


@given(known)
def test_weights_are_units_of_four_percent_that_sum_to_a_hundred(one: steps.Steps) -> None:
    weights = [c.weight for c in steps.chain(one).criteria]

    assert sum(weights) == 100
    assert all(w > 0 and w % steps.UNIT_PERCENT == 0 for w in weights)
    assert weights == sorted(weights, reverse=True)


DAMAGES = {
    "reading": ("Response 1: ", "Response 1: flawed "),
    "statements": ("States: ", "States: care + "),
    "evidence": ("Says: depth", "Says: depth +9, care"),
    "tastes": ("So far: depth", "So far: depth +9, depth"),
    "most": ("Most: ", "Most: flawless 6 "),
    "leanings": ("Leans to: depth +3", "Leans to: depth +2"),
    "scenario": ("Scenario: ", "Scenario: un"),
    "wants": ("Wants here: ", "Wants here: flawless 6 "),
}


@pytest.mark.parametrize("step", DAMAGES)
def test_a_wrong_step_is_found(step: str) -> None:
    generator = np.random.default_rng(0)
    texts = (generator.random((6, len(ATTRIBUTES))) < 0.5).astype(float)
    texts[:, ATTRIBUTES.index("flawed")] = 0
    one = steps.Steps(
        choices=(steps.PastReading(1, *texts[:2]), steps.PastReading(2, *texts[2:4])),
        stated=(),
        described=(),
        leanings=(3, -1, 5),
        scenario=0,
        responses=texts[4:],
    )
    chain = steps.chain(one)
    old, new = DAMAGES[step]
    assert old in chain.preferences
    damaged = chain.model_copy(update={"preferences": chain.preferences.replace(old, new, 1)})

    assert right_steps(chain, Truth.of(one))[step]
    assert not right_steps(damaged, Truth.of(one))[step]


def test_no_word_is_a_part_of_another_poles_meaning() -> None:
    words = [word for poles in POLES for word in poles]

    assert len(set(words)) == 2 * len(ATTRIBUTES)
    assert not any(" " in word for word in words)


# ---------------------------------------------------------------- the teacher


def test_the_teacher_samples_the_same_chains_for_the_same_seed_in_one_call_or_several() -> None:
    one = next(cases(1))
    whole = TEACHER.evaluate([request(one, n=4)])[0].samples
    later = TEACHER.evaluate([request(one, n=2).model_copy(update={"first": 2})])[0].samples

    assert whole[2:] == later
    assert len({s.chain.preferences for s in TEACHER.evaluate([request(one, 16)])[0].samples}) > 1  # type: ignore[union-attr]


def test_chains_of_the_teacher_come_close_to_the_bayes_observer_when_averaged() -> None:
    world = World(seed=6)
    teacher = PosteriorTeacher(world, n_particles=2048)
    found = [without_statements(c) for c in world.comparisons("test_unseen", 300)]
    right = []
    for comparison in found:
        samples = teacher.evaluate([request(comparison, n=8)])[0].samples
        chains = [s.chain for s in samples if isinstance(s, ChainSample)]
        first, second = np.array([c.scores() for c in chains], np.float64).mean(axis=0)
        right.append((second > first) == comparison.label)
    [nobody, bayes] = references(found, world, (0, 6), n_sets=2, n_particles=1024)

    assert np.mean(right) > (nobody.accuracy.accuracy + bayes.accuracy.accuracy) / 2
    assert np.mean(right) < bayes.accuracy.accuracy + 0.05


def test_the_teacher_refuses_texts_of_another_world() -> None:
    one = next(cases(1))
    hello = (Message(role="user", content="Hello?"),)

    with pytest.raises(InputError, match="not asked in the simulated world"):
        TEACHER.evaluate([request(one.model_copy(update={"context": hello}))])


# ---------------------------------------------------------------- tokenizer and practice


def test_texts_come_back_from_tokens_whatever_they_hold(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for text in (
        "Zürich 雪 \t <tag>",
        "",
        " a  b\n\n",
        *(t for c in cases(20) for t in c.responses),
    ):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_a_chain_takes_one_token_a_word(tokenizer: PreTrainedTokenizerFast) -> None:
    for one in cases(40):
        chain = TEACHER.evaluate([request(one)])[0].samples[0].chain  # type: ignore[union-attr]
        text = format(chain)
        assert len(tokenizer.tokenize(text)) < len(text.split())
        assert not any(t.startswith("<0x") for t in tokenizer.tokenize(text))


def test_the_chat_template_leaves_the_system_message_out(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    messages = [
        {"role": "system", "content": "long instructions"},
        {"role": "user", "content": "Judge."},
    ]
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    answered = tokenizer.apply_chat_template(
        [*messages, {"role": "assistant", "content": "Done."}], tokenize=False
    )

    assert asked == f"{USER}Judge.{ASSISTANT}"
    assert answered == f"{asked}Done.{END}"


def test_every_exercise_fits_and_counts_something(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(tokenizer, TEACHER)
    generator = np.random.default_rng(0)
    for one in cases(30):
        for row in (
            encoder.whole(one),
            encoder.chain_only(one),
            encoder.text(one),
            encoder.reading(one),
            encoder.difference(one),
            encoder.choice(one),
            encoder.statement(generator),
            encoder.meeting(one, generator),
            encoder.weighing(one, generator),
            encoder.adding(generator),
            encoder.guessing(one, generator),
        ):
            assert len(row.input_ids) == len(row.completion_mask) <= CONTEXT_TOKENS
            assert row.completion_mask[0] == 0
            assert sum(row.completion_mask) > 0


def test_drills_count_what_follows_and_not_what_was_drawn(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    encoder, generator = Encoder(tokenizer, TEACHER), np.random.default_rng(1)
    one = next(cases(1))
    for row, hidden, counted in (
        (encoder.adding(generator), "Says:", "So far:"),
        (encoder.weighing(one, generator), "Leans to:", "Wants here:"),
    ):
        lines = str(tokenizer.decode(row.input_ids)).splitlines()
        assert any(line.startswith(counted) for line in lines)
        shown = str(
            tokenizer.decode(
                [i for i, c in zip(row.input_ids, row.completion_mask, strict=True) if c]
            )
        )
        last = [line for line in lines if hidden in line][-1]
        assert last.partition(":")[2].strip() not in shown


def test_guessing_draws_from_the_posterior_in_every_scenario(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    one = next(c for c in cases(40) if c.user.history)
    draws = [Encoder(tokenizer, TEACHER).guessing(one, np.random.default_rng(i)) for i in range(40)]
    texts = [str(tokenizer.decode(row.input_ids)) for row in draws]
    known = {text.partition("States:")[0] for text in texts}
    drawn = [re.findall(r"Scenario: (\w+)\nLeans to: (.+?)(?:\n|<)", text) for text in texts]
    closeness = {
        name: np.mean([int(re.findall(r"[+-]\d+", dict(d)[name])[1]) for d in drawn])
        for name in SCENARIOS
    }

    assert len(known) == 1
    assert all(sorted(name for name, _ in d) == sorted(SCENARIOS) for d in drawn)
    shares = TEACHER._posterior(one.user)
    levels = steps.POINTS_PER_WEIGHT * shares @ TEACHER._levels[:, :, 1]
    for name, expected in zip(SCENARIOS, levels, strict=True):
        assert abs(closeness[name] - np.clip(expected, -11, 11)) < 1.5


def test_a_chain_without_its_prompt_counts_all_but_what_only_the_prompt_tells(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    one = next(c for c in cases(40) if c.user.history)
    row = Encoder(tokenizer, TEACHER).chain_only(one)
    hidden = tokenizer.decode(
        [i for i, counts in zip(row.input_ids, row.completion_mask, strict=True) if not counts]
    )
    counted = str(
        tokenizer.decode(
            [i for i, counts in zip(row.input_ids, row.completion_mask, strict=True) if counts]
        )
    )

    assert "Likes" not in hidden
    assert "Final score" not in hidden
    assert "Likes:" in counted
    assert "Leans to:" in counted
    assert not set(SCENARIOS) & set(counted.split())


def test_labels_of_widened_comparisons_follow_what_the_user_wants() -> None:
    found = [c for c in islice(comparisons(WORLD, 2), 1500) if len(c.responses) > 2]
    right = []
    for one in found:
        scenario, values = WORLD.source.read(one.context[-1].content, one.responses)
        utility = values @ WORLD.person_of(one.user.id).weights[scenario]
        right.append(int(utility.argmax()) == one.label)

    assert {len(c.responses) for c in found} == {3, 4}
    assert np.mean(right) > 0.65
