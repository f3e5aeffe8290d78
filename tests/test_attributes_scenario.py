"""Queries are sorted into scenarios by cues."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.attributes.scenario import Scenario, classify
from pgenrm.sim.tastes import SCENARIOS
from pgenrm.sim.world import World
from pgenrm.types import Message

EXAMPLES = {
    Scenario.TECHNICAL: (
        "How do I set up a wifi router?",
        "```\nfoo()\n```\nWhat is wrong?",
        "Write a Python function that sorts a list.",
    ),
    Scenario.CREATIVE: ("Write a poem about autumn.", "Come up with a slogan for my bakery."),
    Scenario.EMOTIONAL: (
        "I feel so lonely since we broke up.",
        "My dog died and I can't stop crying",
    ),
    Scenario.FACTUAL: ("What is the capital of Peru?", "Why does bread rise?"),
    Scenario.OPINION: ("Should I rent or buy?", "Do you think school uniforms are a good thing?"),
    Scenario.CASUAL: ("hey, what's up", "Good morning!", "ok"),
}


def user(text: str) -> Message:
    return Message(role="user", content=text)


@pytest.mark.parametrize(
    ("scenario", "query"), [(s, query) for s, queries in EXAMPLES.items() for query in queries]
)
def test_examples_are_recognised(scenario: Scenario, query: str) -> None:
    assert classify([user(query)]) is scenario


@given(st.text())
def test_any_query_has_a_scenario(text: str) -> None:
    assert classify([user(text)]) in Scenario


def test_the_last_user_turn_counts_most_and_the_assistant_not_at_all() -> None:
    turns = [
        user("How do I fix a bug in Python code?"),
        Message(role="assistant", content="Tell me about your poem, story and lyrics."),
        user("I feel so sad and anxious today."),
    ]
    assert classify(turns) is Scenario.EMOTIONAL


def test_an_earlier_turn_decides_where_the_last_one_says_little() -> None:
    turns = [user("I feel anxious and sad since we broke up."), user("Explain why.")]
    assert classify(turns) is Scenario.EMOTIONAL


def test_pages_of_pasted_text_do_not_hide_the_instruction() -> None:
    pasted = "The bug in the code of the server was an error. " * 2000
    assert classify([user(f"Write a poem, a haiku, about this. {pasted}")]) is not Scenario.OPINION
    assert classify([user("Write a poem. " + "la la " * 200_000)]) is Scenario.CREATIVE


def test_queries_of_the_simulated_world_are_recognised() -> None:
    world = World(seed=1)
    comparisons = list(world.comparisons("test_unseen", 200))
    right = [
        classify(c.context) == SCENARIOS[world.source.read(c.context[-1].content, c.responses)[0]]
        for c in comparisons
    ]
    assert sum(right) >= 190
