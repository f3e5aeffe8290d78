"""Stated wishes are mapped to attributes where they name them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.attributes.measure import ATTRIBUTES
from pgenrm.attributes.stated import stated_directions
from pgenrm.types import User

WISHES = {
    "Short answers please": {"length": -1},
    "no emojis": {"playfulness": -1},
    "I like step-by-step lists": {"lists": 1},
    "Please no emojis, lists or headings.": {"playfulness": -1, "lists": -1, "headings": -1},
    "no emojis and short answers": {"playfulness": -1, "length": -1},
    "not too long": {"length": -1},
    "I don't like long answers": {"length": -1},
    "I don’t like long answers": {"length": -1},
    "I don't mind long answers, but no jokes": {"playfulness": -1},
    "not only short but also warm": {"length": -1, "warmth": 1},
    "Long texts make me tired.": {"length": -1},
    "I'm tired of disclaimers, and emojis bore me": {"disclaimers": -1, "playfulness": -1},
    "I prefer lists over prose": {"lists": 1},
    "Use prose instead of lists": {"lists": -1},
    "simple words rather than technical jargon": {"word_length": -1},
    "avoid being too formal; keep it brief": {"formality": -1, "length": -1},
    "fewer bullet points, more examples": {"lists": -1, "examples": 1},
    "Give me sources and numbers, without fluff": {"sources": 1, "numbers": 1, "length": -1},
    "be warm but not wordy": {"warmth": 1, "length": -1},
    "Ask me questions if something is unclear": {"questions": 1},
    "I am left-handed and live in Rome": {},
}


def named(user: User) -> dict[str, float]:
    directions = stated_directions(user)
    return {a.name: float(d) for a, d in zip(ATTRIBUTES, directions, strict=True) if d}


@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_is_read_with_its_negations(wish: str) -> None:
    assert named(User(id="u", criteria=(wish,))) == WISHES[wish]
    assert named(User(id="u", criteria=(wish.upper(),))) == WISHES[wish]


def test_a_self_description_counts_less_than_a_criterion() -> None:
    user = User(id="u", criteria=("short answers",), self_description="I love jokes.")
    assert named(user) == {"length": -1, "playfulness": 0.5}


def test_contradicting_wishes_cancel() -> None:
    assert named(User(id="u", criteria=("short answers", "long answers"))) == {}


def test_repeating_a_wish_does_not_raise_it() -> None:
    assert named(User(id="u", criteria=("short", "brief", "concise"))) == {"length": -1}


@given(st.lists(st.text().filter(str.strip), max_size=3), st.none() | st.text())
def test_any_statement_gives_directions_between_minus_one_and_one(
    criteria: list[str], description: str | None
) -> None:
    directions = stated_directions(
        User(id="u", criteria=tuple(criteria), self_description=description)
    )
    assert (np.abs(directions) <= 1).all()
