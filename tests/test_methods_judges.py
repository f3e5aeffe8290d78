"""Judges of table 1: what their prompts hold, and that it moves their verdicts."""

import json
from collections.abc import Callable, Sequence

import pytest

from pgenrm.cli.models import NANO_CHAIN_TOKENS
from pgenrm.engines.openai import OpenAIEngine
from pgenrm.engines.protocol import ChatRequest
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.methods.altered import ShuffledUsers
from pgenrm.methods.judges import JUDGE_SAMPLING, ROWS, Judge, Signal
from pgenrm.methods.protocol import Method
from pgenrm.sim import World, WorldConfig
from pgenrm.types import Comparison, FailureKind, Message, Outcome, Preference, User
from pgenrm.verdict import digest
from tests.method_cases import accuracy
from tests.reading_engine import answer, reading_engine
from tests.server import Body, Reply, chat, choice, serve

SHORT = "Take it to a shop."
LONG = (
    "First, remove the wheel and look for the hole. Then patch it with care, wait until the "
    "glue is dry, put everything back and pump the tyre up again. For example, with a hand pump "
    "it takes about five minutes, and a study shows that most people manage it at once."
)

MARKS = {
    Signal.DEMOGRAPHICS: "mark-demographics",
    Signal.HISTORY: "mark-history",
    Signal.SELF_DESCRIPTION: "mark-description",
    Signal.STATED_STYLE: "mark-style",
    Signal.CHOICE_ATTRIBUTES: "mark-attributes",
}
USER = User(
    id="mark-id",
    history=tuple(
        Preference(
            context=f"mark-history context {i}",
            chosen=f"mark-history chosen {i}",
            rejected=f"mark-history rejected {i}",
            chosen_score=77 + i,
            rejected_score=11 + i,
            choice_attributes={"mark-attributes": 60 + i},
        )
        for i in range(5)
    ),
    criteria=("mark-style",),
    self_description="mark-description",
    demographics={"work": "mark-demographics"},
)


def asked(user: User, label: int | None = None, id: str = "c0") -> Comparison:
    return Comparison(
        id=id, user=user, context="How do I fix a tyre?", responses=(SHORT, LONG), label=label
    )


def prompts(name: str, comparison: Comparison, *, adapt: bool = True) -> list[str]:
    engine = reading_engine()
    judge = Judge(name, engine)
    if adapt:
        judge.adapt([comparison.user])
    judge.score([comparison])
    return ["\n".join(m.content for m in request.messages) for request in engine.requests]


@pytest.mark.parametrize("name", ROWS)
def test_a_prompt_holds_exactly_the_signals_that_its_row_names(name: str) -> None:
    for prompt in prompts(name, asked(USER)):
        shown = {signal for signal, mark in MARKS.items() if mark in prompt}
        assert shown == ROWS[name].signals
        assert ("77" in prompt or "78" in prompt or "79" in prompt or "80" in prompt) == (
            Signal.CHOICE_ATTRIBUTES in shown
        )
        assert USER.id not in prompt


@pytest.mark.parametrize("name", ROWS)
def test_a_prompt_does_not_depend_on_the_label(name: str) -> None:
    found = {tuple(prompts(name, asked(USER, label))) for label in (None, 0, 1)}
    assert len(found) == 1


@pytest.mark.parametrize("name", ["judge-history", "judge-choice-attributes", "judge-psi"])
def test_three_past_choices_are_shown_and_none_without_adaptation(name: str) -> None:
    mark = "mark-attributes: 6" if name == "judge-choice-attributes" else "mark-history chosen"
    assert all(prompt.count(mark) == 3 for prompt in prompts(name, asked(USER)))
    assert all(prompt.count(mark) == 0 for prompt in prompts(name, asked(USER), adapt=False))


def test_a_past_choice_in_the_very_context_is_not_shown() -> None:
    telling = Preference(context="How do I fix a tyre?", chosen=SHORT, rejected=LONG)
    other = Preference(context="And a chain?", chosen="Oil it.", rejected="Replace it.")
    user = User(id="u", history=(telling, other))
    for prompt in prompts("judge-history", asked(user)):
        assert prompt.count(SHORT) == prompt.count(LONG) == 1
        assert "Oil it." in prompt


@pytest.mark.parametrize("name", ROWS)
def test_a_judge_is_a_method_that_asks_in_both_orders(name: str) -> None:
    engine = reading_engine()
    judge: Method = Judge(name, engine)
    judge.fit([], [])
    judge.adapt([USER])
    comparison = asked(USER, label=1)
    [judgment] = judge.score([comparison])
    first, second = (request.messages[-1].content for request in engine.requests)
    assert (first.index(SHORT) < first.index(LONG)) is (second.index(SHORT) > second.index(LONG))
    assert judgment.comparison_digest == digest(comparison)
    assert judgment.order_consistency == 1.0
    assert len(judgment.chains) == 2
    assert judgment.n_prompt_tokens > 0
    assert judgment.n_completion_tokens > 0
    assert judgment.prompt_version in judge.version
    assert (judgment.n_history > 0) == bool(
        ROWS[name].signals & {Signal.HISTORY, Signal.CHOICE_ATTRIBUTES}
    )


PULLS: dict[str, Callable[[bool], User]] = {
    "judge-demographics": lambda short: User(
        id="u", demographics={"wish": "short answers" if short else "long, detailed answers"}
    ),
    "judge-history": lambda short: User(
        id="u",
        history=tuple(
            Preference(
                context=f"How do I fix {part}?",
                chosen=SHORT if short else LONG,
                rejected=LONG if short else SHORT,
            )
            for part in ("a brake", "a chain", "a saddle")
        ),
    ),
    "judge-self-description": lambda short: User(
        id="u", self_description="I want it brief." if short else "I want every detail, at length."
    ),
    "judge-stated-style": lambda short: User(
        id="u", criteria=["Short answers, please." if short else "Long, thorough answers, please."]
    ),
    "judge-choice-attributes": lambda short: User(
        id="u",
        history=(
            Preference(
                context="Hm?",
                chosen="a",
                rejected="b",
                choice_attributes={"brevity": 90 * short, "detail": 90 * (not short)},
            ),
        ),
    ),
    "judge-psi": lambda short: User(
        id="u", criteria=["Short answers, please." if short else "Long, thorough answers, please."]
    ),
}


def chosen_by(name: str, user: User) -> int | None:
    judge = Judge(name, reading_engine())
    judge.adapt([user])
    [judgment] = judge.score([asked(user)])
    return judgment.choice


@pytest.mark.parametrize("name", PULLS)
def test_the_signal_arrives_and_moves_the_verdict(name: str) -> None:
    assert chosen_by(name, PULLS[name](True)) == 0
    assert chosen_by(name, PULLS[name](False)) == 1


@pytest.mark.parametrize("signal", PULLS)
@pytest.mark.parametrize("name", ["judge-default", "judge-cot"])
def test_judges_without_signals_are_moved_by_none(name: str, signal: str) -> None:
    assert chosen_by(name, PULLS[signal](True)) == chosen_by(name, PULLS[signal](False))


def test_the_signal_arrives_over_http() -> None:
    def reads(body: Body, _: int) -> Reply:
        text = answer([Message.model_validate(m) for m in body["messages"]])
        return chat(*[choice(text, i) for i in range(body.get("n") or 1)])

    with serve(reads) as server:
        engine = OpenAIEngine("m", base_url=server.base_url, api_key="none")
        judge = Judge("judge-stated-style", engine)
        users = [PULLS["judge-stated-style"](is_short) for is_short in (True, False)]
        found = [
            judge.score([asked(user, label=label, id=f"c{label}")])[0]
            for label, user in enumerate(users)
        ]
        engine.close()
    assert [judgment.outcome for judgment in found] == [Outcome.CORRECT, Outcome.CORRECT]
    assert len(server.calls) == 4
    assert all(call["temperature"] == 0 for call in server.calls)


def test_an_unreadable_answer_leaves_the_comparison_unscored_and_is_kept() -> None:
    judge = Judge("judge-cot", ScriptedEngine(lambda request, _: "Both are nice."))
    [judgment] = judge.score([asked(USER, label=0)])
    assert judgment.outcome is Outcome.UNSCORED
    assert [f.failure.kind for f in judgment.failures] == [FailureKind.FORMAT] * 2
    assert judgment.failures[0].failure.text == "Both are nice."


def test_a_judge_that_likes_the_first_position_ties() -> None:
    def first(request: ChatRequest, _: int) -> str:
        return json.dumps({"response_1": 8, "response_2": 3})

    [judgment] = Judge("judge-default", ScriptedEngine(first)).score([asked(USER, label=0)])
    assert judgment.outcome is Outcome.TIE
    assert [chain.scores for chain in judgment.chains] in (
        [(8.0, 3.0), (3.0, 8.0)],
        [(3.0, 8.0), (8.0, 3.0)],
    )


def test_versions_differ_with_row_model_and_settings() -> None:
    engine = reading_engine()
    judges = [
        *(Judge(name, engine) for name in ROWS),
        Judge("judge-cot", engine, m=4),
        Judge("judge-history", engine, n_history=None),
        Judge("judge-cot", ScriptedEngine([], model="other")),
    ]
    assert len({judge.version for judge in judges}) == len(judges)
    assert Judge("judge-cot", engine).version == Judge("judge-cot", reading_engine()).version


# ---------------------------------------------------------------- on the simulated world


@pytest.fixture(scope="module")
def choices() -> list[Comparison]:
    """Of 60 users, each with a clear taste that he states and that his past choices show."""
    config = WorldConfig(
        **{"primary": 3.0, "swap": 0.0, "quirk_share": 0.0, "narrow_share": 0.0},
        **{"criteria_share": 1.0, "description_share": 1.0, "n_test": 2},
    )
    return list(World(config, seed=7).comparisons("test_unseen", 120))


def share_right(method: Method, comparisons: Sequence[Comparison]) -> float:
    method.adapt(list({c.user.id: c.user for c in comparisons}.values()))
    return accuracy(method, comparisons)


@pytest.mark.parametrize(
    "name", ["judge-history", "judge-stated-style", "judge-self-description", "judge-psi"]
)
def test_a_judge_uses_what_it_is_shown_of_the_user(name: str, choices: list[Comparison]) -> None:
    engine = reading_engine()
    own = share_right(Judge(name, engine), choices)
    of_others = share_right(ShuffledUsers(Judge(name, engine)), choices)
    of_nobody = share_right(Judge("judge-cot", engine), choices)
    assert own > of_others + 0.15
    assert own > of_nobody + 0.1
    assert of_others < of_nobody + 0.05


@pytest.mark.local
@pytest.mark.slow
def test_the_bundled_judge_uses_what_it_is_shown_of_the_user(choices: list[Comparison]) -> None:
    """In the only row whose prompt it knows."""
    from pgenrm.engines.nano import NanoEngine

    engine = NanoEngine(n_threads=1)
    sampling = JUDGE_SAMPLING.model_copy(update={"max_tokens": NANO_CHAIN_TOKENS})
    judges = [Judge("judge-psi", engine, sampling=sampling) for _ in range(2)]
    some = choices[:40]
    own, of_others = share_right(judges[0], some), share_right(ShuffledUsers(judges[1]), some)
    engine.close()
    assert own > of_others + 0.2
