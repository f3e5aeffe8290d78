"""A neighbour's history opens the prompts of all who consult him, so that prefix caches hit."""

from itertools import takewhile

import pytest

from pgenrm.chain import format
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.judge import PGenRM
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.types import Comparison, Message, User
from tests.cases import chain
from tests.scaling_cases import TEXTS, FixedNeighbours, person

NEIGHBOUR = person(1)
RATED = NEIGHBOUR.model_copy(
    update={
        "history": tuple(
            pair.model_copy(update={"chosen_score": 80.0, "choice_attributes": {"tone": 7.0}})
            for pair in NEIGHBOUR.history
        )
    }
)
PLAIN = (person(2, n_pairs=1), person(3, n_pairs=4))
STATING = (
    PLAIN[0].model_copy(update={"criteria": ("No small talk.",), "demographics": {"age": "44"}}),
    PLAIN[1].model_copy(update={"self_description": "I read on a phone."}),
)
ROWS = (("How do I fix a flat tyre?", TEXTS[:2]), ("A poem about rain, please.", TEXTS[2:]))
"""Query and responses of each of two comparisons."""


def prompts_with_neighbour(neighbour: User, askers: tuple[User, ...]) -> list[tuple[Message, ...]]:
    """Return the messages that show the neighbour's history, one per asker."""
    engine = ScriptedEngine(lambda request, i: format(chain((7, 4))))
    source = FixedNeighbours([neighbour], frozenset(user.id for user in askers))
    comparisons = [
        Comparison(id=f"c{i}", user=user, context=query, responses=responses)
        for i, (user, (query, responses)) in enumerate(zip(askers, ROWS, strict=True))
    ]
    list(PGenRM(LanguageModelEvaluator(engine), 2, 1, neighbours=source).judge(comparisons))
    prompts = [request.messages for request in engine.requests]
    found = [p for p in prompts if any(neighbour.history[0].chosen in m.content for m in p)]
    assert len(found) == len(askers)
    return found


@pytest.mark.parametrize(
    ("neighbour", "askers"),
    [(NEIGHBOUR, PLAIN), (NEIGHBOUR, STATING), (RATED, PLAIN), (RATED, (PLAIN[0], STATING[1]))],
    ids=["choices only", "both state something", "ratings", "one states something"],
)
def test_all_who_consult_a_neighbour_share_the_prompt_up_to_the_end_of_his_history(
    neighbour: User, askers: tuple[User, ...]
) -> None:
    (system, user), (other_system, other_user) = prompts_with_neighbour(neighbour, askers)
    assert system == other_system
    pairs = zip(user.content, other_user.content, strict=False)
    shared = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    for pair in neighbour.history:
        assert all(text in shared for text in (pair.context[0].content, pair.chosen, pair.rejected))
    assert shared.index("</past_choices>") > shared.index(neighbour.history[-1].rejected)


def test_what_the_askers_state_stands_behind_the_neighbours_history() -> None:
    for (_, user), words in zip(
        prompts_with_neighbour(NEIGHBOUR, STATING), ("No small talk.", "on a phone"), strict=True
    ):
        assert user.content.index(words) > user.content.index("</past_choices>")
