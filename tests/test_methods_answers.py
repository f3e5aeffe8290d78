"""Answers of judges are read strictly: scores or a format error, nothing in between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.errors import FormatError
from pgenrm.few_shot import Demonstration
from pgenrm.methods.answers import read_scores


@pytest.mark.parametrize(
    ("text", "scores", "reasoning"),
    [
        ('{"response_1": 7, "response_2": 4.5}', (7, 4.5), ""),
        ('Short.\n{"response_2": 1, "response_1": 10}\n', (10, 1), "Short."),
        ('Why {not}?\n```json\n{"response_1": 7,\n "response_2": 4}\n```', (7, 4), "Why {not}?"),
        (
            '{"response_1": 1, "response_2": 9}. No:\n{"response_1": 2, "response_2": 3}',
            (2, 3),
            None,
        ),
        ('<think>{"a": 1}</think>Fine. {"response_1": 2, "response_2": 3}', (2, 3), "Fine."),
    ],
)
def test_reasoning_and_scores_are_read(
    text: str, scores: tuple[float, ...], reasoning: str | None
) -> None:
    chain = read_scores(text, 2)
    assert chain.stated_scores == scores
    assert reasoning is None or chain.preferences == reasoning
    assert chain.criteria == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not end in a JSON object"),
        ("Response 1 is better.", "does not end in a JSON object"),
        ('{"response_1": 7, "response_2": 4} I hope this helps!', "does not end"),
        ('{"response_1": 7, "response_2": 4', "does not end"),
        ('{"response_1": 7, "response_2": }', "not valid JSON"),
        ('{"response_1": 7}', "given for response_1, not for response_1, response_2"),
        ("{}", "given for nothing"),
        ('{"response_1": 7, "response_2": 4, "response_3": 1}', "response_3, not for"),
        ('{"response_1": 7, "response_1": 4}', "response_1, response_1"),
        ('{"response_1": "7", "response_2": 4}', "response_1 is '7'"),
        ('{"response_1": true, "response_2": 4}', "response_1 is True"),
        ('{"response_1": 7, "response_2": null}', "response_2 is None"),
        ('{"response_1": NaN, "response_2": 4}', "response_1 is nan"),
        ('{"response_1": 7, "response_2": 0}', "response_2 is 0, not a number from 1 to 10"),
        ('{"response_1": 11, "response_2": 4}', "response_1 is 11"),
    ],
)
def test_whatever_is_not_of_the_form_is_refused(text: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        read_scores(text, 2)


@given(st.text() | st.text(alphabet='{}":,.0123456789respon_ \n'), st.integers(1, 3))
def test_any_text_gives_scores_or_a_format_error(text: str, n_responses: int) -> None:
    try:
        chain = read_scores(text, n_responses)
    except FormatError:
        return
    assert len(chain.stated_scores) == n_responses


SCORES = st.floats(1, 10).map(lambda x: round(x, 2))


@given(st.text(), SCORES, SCORES, st.booleans())
def test_the_answer_of_a_demonstration_is_of_the_form_that_is_read(
    reasoning: str, chosen: float, rejected: float, is_swapped: bool
) -> None:
    shown = Demonstration(
        context="Tea?",
        chosen="Green.",
        rejected="Black.",
        is_swapped=is_swapped,
        reasoning=reasoning,
        scores=(chosen, rejected),
    )
    read = dict(zip(shown.responses, read_scores(shown.answer, 2).stated_scores, strict=True))
    assert read == {"Green.": chosen, "Black.": rejected}
