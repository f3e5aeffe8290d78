"""The token budget: the documented order of cuts, all of them said, and never a response."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm.budget import FittedPrompt, fit_prompt
from pgenrm.errors import PromptTooLongError
from pgenrm.prompts import Template
from pgenrm.types import Message, Preference, User
from tests.prompt_cases import assistant_turn, user_turn

TEMPLATE = Template(
    "short",
    "{% block user %}{% for c in history %}H {{ c.chosen }} {{ c.rejected }}\n{% endfor %}"
    "{% for m in context %}T {{ m.content }}\n{% endfor %}"
    "{% for r in responses %}R {{ r }}\n{% endfor %}{% endblock %}",
)
CONTEXT = (
    user_turn("first"),
    *(turn for i in range(3) for turn in (assistant_turn(f"a{i}"), user_turn(f"u{i}"))),
    user_turn("query"),
)
RESPONSES = ("one", "two")


class Counter:
    """Counts characters as tokens, and how often it was asked."""

    def __init__(self) -> None:
        self.n_calls = 0

    def __call__(self, messages: Sequence[Message]) -> int:
        self.n_calls += 1
        return sum(len(m.content) for m in messages)


def user_of(*lengths: int) -> User:
    pairs = tuple(
        Preference(context="q", chosen=f"{i}" + "c" * n, rejected=f"{i}" + "r" * n)
        for i, n in enumerate(lengths)
    )
    return User(id="u", history=pairs)


def fit(user: User, budget_tokens: int | None, min_pairs: int = 0) -> FittedPrompt:
    return fit_prompt(
        TEMPLATE,
        user,
        CONTEXT,
        RESPONSES,
        count_tokens=Counter(),
        budget_tokens=budget_tokens,
        min_pairs=min_pairs,
    )


def test_what_fits_is_not_cut() -> None:
    user = user_of(3000, 10)
    without_limit = fit(user, None)
    assert without_limit.cuts == ()
    assert fit(user, Counter()(without_limit.messages)) == without_limit


def test_long_texts_of_the_history_are_shortened_first() -> None:
    prompt = fit(user_of(5000, 300), 6000)
    assert prompt.cuts == ("history: texts shortened to 2000 characters: 2",)
    text = prompt.messages[0].content
    assert "characters left out)" in text
    assert "1" + "c" * 300 in text  # the short pair is whole


def test_then_past_choices_go_oldest_first() -> None:
    prompt = fit(user_of(5000, 300, 300), 1400)
    assert prompt.cuts == ("history: oldest pairs left out: 1 of 3",)
    assert "H 1c" in prompt.messages[0].content
    assert "H 0c" not in prompt.messages[0].content


def test_then_middle_turns_go_oldest_first() -> None:
    prompt = fit(user_of(300), 68)
    assert prompt.cuts == (
        "history: oldest pairs left out: 1 of 1",
        "conversation: turns after the first user turn left out: 4",
    )
    assert prompt.messages[0].content.split("\n") == [
        *("T first", "T (turns left out here: 4)", "T a2", "T u2", "T query"),
        *("R one", "R two"),
    ]


def test_a_prompt_whose_fixed_parts_do_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(PromptTooLongError, match=r"needs 54 tokens .* only 40 are free; shorten"):
        fit(user_of(300), 40)


def test_pairs_of_equal_texts_are_left_out_and_said() -> None:
    same = Preference(context="q", chosen="same", rejected="same")
    user = User(id="u", history=(same, *user_of(5).history))
    prompt = fit(user, None)
    assert prompt.cuts == ("history: pair 1 left out: its two responses are the same text",)
    assert "same" not in prompt.messages[0].content


def test_the_most_recent_pairs_that_must_stay_stay() -> None:
    with pytest.raises(PromptTooLongError):
        fit(user_of(300, 300), 300, min_pairs=1)
    assert "H 1c" in fit(user_of(300, 300), 800, min_pairs=1).messages[0].content


@settings(max_examples=200)
@given(st.lists(st.integers(1, 6000), max_size=8), st.integers(0, 20_000))
def test_a_fitted_prompt_fits_and_shows_every_response_and_the_query(
    lengths: list[int], budget_tokens: int
) -> None:
    try:
        prompt = fit(user_of(*lengths), budget_tokens)
    except PromptTooLongError:
        assert budget_tokens < 100
        return
    text = prompt.messages[0].content
    assert Counter()(prompt.messages) <= budget_tokens
    assert "T first" in text
    assert text.endswith("T query\nR one\nR two")
    assert bool(prompt.cuts) == (prompt.messages != fit(user_of(*lengths), None).messages)


def test_tokens_are_counted_a_logarithmic_number_of_times() -> None:
    count = Counter()
    user = user_of(*[100] * 1000)
    fit_prompt(TEMPLATE, user, CONTEXT, RESPONSES, count_tokens=count, budget_tokens=10**9)
    assert count.n_calls == 1
    fit_prompt(TEMPLATE, user, CONTEXT, RESPONSES, count_tokens=count, budget_tokens=5000)
    assert count.n_calls <= 1 + 1 + 12
