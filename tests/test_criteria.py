"""Criteria synthesis: a short list per user, or the reason why there is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.criteria import parse_criteria, synthesise_criteria
from pgenrm.engines.protocol import Completion, Sampling
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.errors import FormatError, InputError
from pgenrm.types import Failure, FailureKind, FinishReason, Preference, User
from tests.prompt_cases import COOK, LONELY

LIST = "- Short answers.\n- No jargon."
DOWN = Failure(kind=FailureKind.REQUEST, reason="server down")


@pytest.mark.parametrize(
    "text",
    [
        LIST,
        "* Short answers.\n\n*  No jargon.",
        "1. Short answers.\n2) **No jargon.**",
        "Here is what this person wants:\n• Short answers.\n  - No jargon.\nI hope this helps!",
        "<think>\n- warm?\n</think>\n- Short answers.\n- No jargon.\n- Short answers.",
    ],
)
def test_lists_are_read_as_models_write_them(text: str) -> None:
    assert parse_criteria(text) == ("Short answers.", "No jargon.")


@given(st.text())
def test_any_text_gives_criteria_or_a_format_error(text: str) -> None:
    try:
        criteria = parse_criteria(text)
    except FormatError:
        return
    assert criteria
    assert all(criterion.strip() == criterion for criterion in criteria)


def test_a_megabyte_of_blank_lines_is_read_in_little_time() -> None:
    with pytest.raises(FormatError, match="lines that begin with '- '"):
        parse_criteria("\n \n\t" * 300_000)


def test_each_user_gets_his_criteria_in_order() -> None:
    engine = ScriptedEngine([LIST, "- Warmth."])
    assert synthesise_criteria(engine, [COOK, LONELY]) == [
        ("Short answers.", "No jargon."),
        ("Warmth.",),
    ]
    prompts = [request.messages[1].content for request in engine.requests]
    assert "boil an egg" in prompts[0]
    assert "failed my exam" in prompts[1]
    assert not any(criterion in prompts[0] for criterion in COOK.criteria)
    assert engine.requests[0].seed != engine.requests[1].seed


def test_what_cannot_be_read_is_a_failure() -> None:
    engine = ScriptedEngine([DOWN, "Hard to say."])
    down, unreadable = synthesise_criteria(engine, [COOK, LONELY])
    assert down == DOWN
    assert isinstance(unreadable, Failure)
    assert (unreadable.kind, unreadable.text) == (FailureKind.FORMAT, "Hard to say.")


def test_a_half_written_last_criterion_is_left_out() -> None:
    cut = Completion(text=LIST + "\n- Numbers wh", finish_reason=FinishReason.LENGTH)
    only_half = Completion(text="- Sho", finish_reason=FinishReason.LENGTH)
    kept, lost = synthesise_criteria(ScriptedEngine([cut, only_half]), [COOK, LONELY])
    assert kept == ("Short answers.", "No jargon.")
    assert isinstance(lost, Failure)
    assert (lost.kind, lost.text) == (FailureKind.TRUNCATED, "- Sho")


def test_a_history_that_does_not_fit_is_a_failure_and_never_left_out_whole() -> None:
    engine = ScriptedEngine([LIST], context_window=400)
    long = Preference(context="word " * 5000, chosen="a " * 5000, rejected="b " * 5000)
    user = User(id="u", history=(long, long))
    lost, fine = synthesise_criteria(engine, [user, LONELY], sampling=Sampling(max_tokens=50))
    assert isinstance(lost, Failure)
    assert lost.kind is FailureKind.TOO_LONG
    assert fine == ("Short answers.", "No jargon.")


def test_a_user_without_a_real_choice_is_refused_by_name() -> None:
    same = Preference(context="q", chosen="a", rejected="a")
    with pytest.raises(InputError, match="'newcomer' has no past choice"):
        synthesise_criteria(ScriptedEngine([]), [User(id="newcomer", history=(same,))])
