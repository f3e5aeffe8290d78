"""What the plain judge of the package learns from: prompts of other judges, with their answers."""

import json
from functools import cache
from typing import Any

from pgenrm.methods.answers import read_scores
from pgenrm.nano.plain import rows
from pgenrm.nano.words import TASTE_NAMES
from pgenrm.sim.world import World

N = 120


@cache
def made() -> tuple[dict[str, Any], ...]:
    return tuple(rows(World(seed=8), seed=0, n=N))


def systems() -> dict[str, str]:
    """Return what the kinds of prompts begin with."""
    return {row["prompt"][0]["content"].split("\n")[0]: row["prompt"][0]["role"] for row in made()}


def is_persona(row: dict[str, Any]) -> bool:
    return "Write the persona" in row["prompt"][-1]["content"]


def test_every_answer_can_be_read_and_scores_seldom_tie() -> None:
    answers = [row["completion"][0]["content"] for row in made() if not is_persona(row)]
    assert len(answers) > N / 2
    pairs = [read_scores(answer, 2).stated_scores for answer in answers]
    assert sum(first == second for first, second in pairs) < 0.05 * len(pairs)


def test_personas_say_what_somebody_leans_to() -> None:
    personas = [row["completion"][0]["content"] for row in made() if is_persona(row)]
    assert personas
    assert len(set(personas)) > 1
    for persona in personas:
        head, _, levels = persona.partition(": ")
        assert head == "Leans to"
        assert [part.split()[0] for part in levels.split(", ")] == list(TASTE_NAMES)


def test_prompts_are_those_of_the_judges() -> None:
    """Each asks what a template of the package asks, so that the judge is used as it was taught."""
    asked = {row["prompt"][-1]["content"].rpartition("\n")[2] for row in made()}
    assert len(asked) == 3  # at once, after reasoning, and for a persona
    assert all(role == "system" for role in systems().values())
    assert len(systems()) == 3


def test_worked_examples_put_the_choice_first() -> None:
    examples = [
        row["prompt"][i + 1]["content"]
        for row in made()
        for i in range(1, len(row["prompt"]) - 1, 2)
    ]
    assert examples
    bare = 0
    for answer in examples:
        reasoning, _, scores = answer.rpartition("\n")
        bare += not reasoning
        assert len(set(json.loads(scores).values())) == 2
    assert 0 < bare < len(examples)


def test_no_prompt_tells_the_label() -> None:
    """Responses stand in either order, and the better one by taste is not always the first."""
    first = [
        scores["response_1"] > scores["response_2"]
        for row in made()
        if not is_persona(row)
        for scores in [json.loads(row["completion"][0]["content"].rpartition("\n")[2])]
    ]
    assert 0.3 < sum(first) / len(first) < 0.7


def test_the_same_seed_gives_the_same_rows() -> None:
    assert list(rows(World(seed=8), seed=0, n=5)) == list(made()[:5])
    assert list(rows(World(seed=8), seed=1, n=5)) != list(made()[:5])
