"""The language model that rates coverage: over HTTP, with its faults."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.engines.openai import OpenAIEngine
from pgenrm.engines.protocol import Sampling
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.errors import FormatError, TrainingError
from pgenrm.train.process_judge import ModelCoverageJudge, analysis, parse_grades
from pgenrm.train.rewards import CoverageRequest
from pgenrm.types import (
    Comparison,
    Criterion,
    EvaluationChain,
    Failure,
    FailureKind,
    Preference,
    Rating,
    User,
)
from tests.server import Reply, Server, refuses, says, serve

CHAIN = EvaluationChain(
    preferences="Style: short. Values: honesty.",
    criteria=(Criterion(name="Brevity", weight=70, description="few words"),),
    ratings=((Rating(score=9.1, reason="Two lines."),), (Rating(score=2.3),)),
    stated_scores=(9.1, 2.3),
)


def asked(id_: str = "c0", *criteria: str) -> CoverageRequest:
    return CoverageRequest(
        id=id_,
        user_id="u",
        query="Why is the sky blue?",
        responses=("Scattering.", "Magic!"),
        criteria=criteria or ("Short answers.", "No jokes."),
        chain=CHAIN.model_copy(update={"preferences": f"{CHAIN.preferences} ({id_})"}),
    )


@contextmanager
def judging(
    script: Callable[[dict[str, Any], int], Reply], **options: Any
) -> Iterator[tuple[ModelCoverageJudge, Server]]:
    with serve(script) as server:
        engine = OpenAIEngine("judge", server.base_url, max_retries=0, context_window=4096)
        judge = ModelCoverageJudge(engine, first_wait_s=0.05, **options)
        try:
            yield judge, server
        finally:
            judge.close()


def prompt_of(body: dict[str, Any]) -> str:
    return "\n".join(message["content"] for message in body["messages"])


def is_ping(body: dict[str, Any]) -> bool:
    return "<analysis>" not in prompt_of(body)


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("1: 0.5\n2: 1", 0.75),
        ("2: 0\n1: 1", 0.5),
        ("<think>1: 0</think>\n1. 1.0\n2. .5", 0.75),
        ("Here you are:\n- 1: 0\n- **2**: 0", 0.0),
    ],
)
def test_grades_are_averaged(text: str, rating: float) -> None:
    assert parse_grades(text, 2) == rating


@pytest.mark.parametrize("text", ["", "1: 1", "1: 1\n1: 0", "1: 1\n2: 7", "1: 1\n2: 1\n3: 1"])
def test_grades_that_are_not_one_per_criterion_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_grades(text, 2)


@given(st.text(alphabet="0123456789.:-\n ab"), st.integers(1, 3))
def test_any_text_gives_a_share_or_a_format_error(text: str, n_criteria: int) -> None:
    with suppress(FormatError):
        assert 0 <= parse_grades(text, n_criteria) <= 1


def test_a_judge_sees_the_rubric_but_no_score_and_no_response() -> None:
    engine = ScriptedEngine(["1: 1\n2: 0"])
    assert ModelCoverageJudge(engine).rate([asked()]) == [0.5]
    prompt = engine.requests[0].messages[-1].content
    assert "Brevity (70%): few words" in prompt
    assert "Values: honesty." in prompt
    assert "1. Short answers.\n2. No jokes." in prompt
    for hidden in ("9.1", "2.3", "Two lines.", "Scattering.", "Magic!"):
        assert hidden not in prompt
    assert analysis(EvaluationChain(preferences="P", stated_scores=(1,))) == "P\n\nRubric:\n(none)"


def test_a_batch_is_rated_over_http_at_once_and_answers_are_kept(tmp_path: Path) -> None:
    def grade(body: dict[str, Any], n_earlier: int) -> Reply:
        time.sleep(0.05)
        return says("1: 1\n2: 0.5" if "(c1)" in prompt_of(body) else "1: 0\n2: 0")

    requests = [asked(f"c{i}") for i in range(8)]
    for _ in range(2):
        with judging(grade, cache=tmp_path / "cache.sqlite") as (judge, server):
            # Two addresses would be two judges; the cache belongs to a run and its one server.
            ratings = judge.rate(requests)
            assert ratings == [0, 0.75, 0, 0, 0, 0, 0, 0]
            n_calls = len(server.calls)
            assert server.max_under_way > 1
            assert judge.rate(requests) == ratings
            assert len(server.calls) == n_calls


def test_what_cannot_be_rated_is_a_failure_and_never_a_zero() -> None:
    def grade(body: dict[str, Any], n_earlier: int) -> Reply:
        if "(c0)" in prompt_of(body):
            return says("Well covered!")
        return refuses(400) if "(c1)" in prompt_of(body) else says("1: 1\n2: 1")

    bare = asked("c3").model_copy(update={"criteria": ()})
    with judging(grade, patience_s=30) as (judge, _):
        started = time.monotonic()
        found = judge.rate([asked("c0"), asked("c1"), asked("c2"), bare])
        assert time.monotonic() - started < 15  # a server that answers is not waited for
    kinds = [f.kind if isinstance(f, Failure) else f for f in found]
    assert kinds == [FailureKind.FORMAT, FailureKind.REQUEST, 1.0, FailureKind.FORMAT]


def test_a_server_that_dies_and_comes_back_costs_nothing_but_time(tmp_path: Path) -> None:
    back_at = time.monotonic() + 1.0

    def grade(body: dict[str, Any], n_earlier: int) -> Reply:
        if time.monotonic() < back_at:
            return Reply(cut_at=0)  # hangs up
        return says("Yes" if is_ping(body) else "1: 1\n2: 0")

    with judging(grade, patience_s=60, cache=tmp_path / "cache.sqlite") as (judge, _):
        assert judge.rate([asked("c0"), asked("c1")]) == [0.5, 0.5]
    assert time.monotonic() > back_at


def test_what_a_server_lost_is_asked_again_when_it_is_back_before_anybody_looks(
    tmp_path: Path,
) -> None:
    lost: list[str] = []

    def grade(body: dict[str, Any], n_earlier: int) -> Reply:
        if is_ping(body):
            return says("Yes")
        if not lost:
            lost.append(prompt_of(body))
            return refuses(400)  # not asked again by the engine
        return says("1: 1\n2: 0")

    with judging(grade, patience_s=60, cache=tmp_path / "cache.sqlite") as (judge, _):
        assert judge.rate([asked("c0"), asked("c1")]) == [0.5, 0.5]
    assert lost


def test_a_server_that_stays_dead_stops_the_run_with_a_reason() -> None:
    with (
        judging(lambda body, n: refuses(503), patience_s=0.3) as (judge, _),
        pytest.raises(TrainingError, match=r"openai:judge has not answered for 0.3 s"),
    ):
        judge.rate([asked()])


def test_criteria_wait_for_a_server_that_is_not_up_yet() -> None:
    up_at = time.monotonic() + 0.5

    def script(body: dict[str, Any], n_earlier: int) -> Reply:
        if time.monotonic() < up_at:
            return Reply(cut_at=0)  # hangs up
        return says("- Be brief.")

    pair = Preference(context="Question?", chosen="Chosen", rejected="Rejected")
    silent = User(id="silent", history=(pair,))
    one = Comparison(id="a", user=silent, context="Now?", responses=("A", "B"), label=0)
    with judging(script, patience_s=60) as (judge, _):
        assert judge.criteria([one]) == {"silent": ("Be brief.",)}
    with (
        judging(lambda body, n: refuses(503), patience_s=0.3) as (judge, _),
        pytest.raises(TrainingError, match=r"has not answered for 0.3 s"),
    ):
        judge.criteria([one])


def test_a_judge_that_only_thinks_is_alive_and_has_no_grade() -> None:
    with judging(lambda body, n: says("<think>1: 1\n2: 1"), patience_s=30) as (judge, _):
        (found,) = judge.rate([asked()])
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.FORMAT


def test_criteria_are_those_stated_or_synthesised_from_the_whole_history() -> None:
    engine = ScriptedEngine(["- Likes numbers.\n- No chat."])
    judge = ModelCoverageJudge(engine)
    pairs = tuple(
        Preference(context=f"Question {i}?", chosen=f"Chosen {i}", rejected=f"Rejected {i}")
        for i in range(3)
    )

    def comparison(id_: str, user: User) -> Comparison:
        responses = ("Secret winner", "Secret loser")
        return Comparison(id=id_, user=user, context="Now?", responses=responses, label=0)

    found = judge.criteria(
        [
            comparison("a", User(id="stating", criteria=("Be brief.",))),
            comparison("b", User(id="silent", history=pairs[:2])),
            comparison("c", User(id="silent", history=pairs[1:])),
            comparison("d", User(id="unknown")),
        ]
    )
    assert found == {"stating": ("Be brief.",), "silent": ("Likes numbers.", "No chat.")}
    (request,) = engine.requests
    prompt = json.dumps([m.content for m in request.messages])
    assert all(f"Chosen {i}" in prompt for i in range(3))
    assert "Secret" not in prompt  # labels are not supervision of the process


def test_a_prompt_that_does_not_fit_the_judge_is_a_failure() -> None:
    engine = ScriptedEngine(["1: 1"], context_window=300)
    judge = ModelCoverageJudge(engine, sampling=Sampling(max_tokens=10))
    (found,) = judge.rate([asked("c0", "word " * 400)])
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.TOO_LONG
    assert engine.requests == []
