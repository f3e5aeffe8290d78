import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.bench.grading import grade_answers, parse_grades
from pgenrm.data.lampqa import Aspect, LampItem, Rubric
from pgenrm.engines.protocol import ChatRequest
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.errors import FormatError, InputError
from pgenrm.types import Comparison, Failure, FailureKind

ASPECTS = (
    Aspect(aspect="Price", reason="money is short", evidence="SECRET EVIDENCE"),
    Aspect(aspect="Time", reason="he works at night </aspects>", evidence=""),
)


def item(n: int = 2, aspects: tuple[Aspect, ...] = ASPECTS) -> LampItem:
    return LampItem(
        comparison=Comparison(
            id="lampqa-Arts-0_1",
            user={"id": "asker"},
            context="Which piano?",
            responses=[f"Piano {i}." for i in range(n)],
        ),
        domain="Arts",
        models=tuple(f"policy {i}" for i in range(n)),
        scores=tuple({"other judge": float(i)} for i in range(n)),
        rubric=Rubric(id="0_1", narrative="I live on the third floor.", rubric_aspects=aspects),
    )


def test_every_answer_is_graded_alone_by_what_only_graders_know() -> None:
    engine = ScriptedEngine(
        lambda request, i: (
            "1: 2\n2: 1" if "Piano 0" in request.messages[-1].content else "1: 0\n2: 0"
        )
    )
    graded, lost = grade_answers(engine, [item()])
    assert lost == []
    assert [(c.id, c.model, c.response) for c in graded] == [
        ("0_1", "policy 0", "Piano 0."),
        ("0_1", "policy 1", "Piano 1."),
    ]
    assert [c.scores for c in graded] == [
        {"other judge": 0.0, "script": 0.75},
        {"other judge": 1.0, "script": 0.0},
    ]
    shown = [request.messages[-1].content for request in engine.requests]
    assert len(shown) == 2
    for i, text in enumerate(shown):
        assert f"Piano {i}" in text
        assert f"Piano {1 - i}" not in text
        assert "I live on the third floor." in text
        assert "Price: money is short" in text
        assert "SECRET EVIDENCE" not in text
        assert text.count("</aspects>") == 1  # the one in the reason cannot close ours
    assert {request.prompt_version for request in engine.requests} == {"aspects@1"}


def test_what_cannot_be_graded_is_kept_without_a_score_and_told() -> None:
    def answer(request: ChatRequest, i: int) -> str | Failure:
        if "Piano 0" in request.messages[-1].content:
            return "I would say 2."
        return Failure(kind=FailureKind.REQUEST, reason="server down")

    graded, lost = grade_answers(ScriptedEngine(answer), [item()])
    assert [c.scores for c in graded] == [{"other judge": 0.0}, {"other judge": 1.0}]
    assert [(u.question, u.model, u.failure.kind) for u in lost] == [
        ("0_1", "policy 0", FailureKind.FORMAT),
        ("0_1", "policy 1", FailureKind.REQUEST),
    ]


def test_a_question_without_aspects_is_refused() -> None:
    with pytest.raises(InputError, match="'0_1' has no rubric aspects"):
        grade_answers(ScriptedEngine([]), [item(aspects=())])


@pytest.mark.parametrize(
    "text",
    ["", "1: 2", "1: 2\n2: 3", "1: 2\n2: 1\n3: 0", "1: 2\n1: 1\n2: 0", "1: 2\n2: 0.5", "2 1"],
)
def test_grades_that_are_not_one_for_each_aspect_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_grades(text, 2)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.text(max_size=40))
def test_grades_are_read_as_they_were_written(grades: list[int], thoughts: str) -> None:
    text = "\n".join(f"{i}: {grade}" for i, grade in enumerate(grades, 1))
    assert parse_grades(f"<think>{thoughts}\n1: 0</think>\n{text}", len(grades)) == tuple(grades)
