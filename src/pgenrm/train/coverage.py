"""The process reward of the simulated world: a chain against the weights that decide the choices.

Deterministic, and free of a language model's moods: what CRE can do at best is measured with it.
Deliberately left out: how general quality is weighed. The world's flaw is disliked by everybody, so
naming it says nothing about a user.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pgenrm.attributes.measure import ATTRIBUTES as MEASURES
from pgenrm.attributes.render import CRITERIA
from pgenrm.errors import InputError
from pgenrm.nano.check import wishes
from pgenrm.nano.words import POLE_OF
from pgenrm.rows import load_value
from pgenrm.sim.card import Card
from pgenrm.sim.tastes import ATTRIBUTES, FLAWED, MEASURED, WANTED
from pgenrm.sim.world import Split, World
from pgenrm.train.rewards import CoverageRequest, Criteria
from pgenrm.types import Comparison, EvaluationChain, Failure

Meaning = Callable[[str], tuple[str, int] | None]
"""Name of a criterion -> (attribute of the world, 1 for wanting it or -1 for wanting it absent);
None for a name that means no attribute."""

_SEEN_BY: Final = {measure: name for name, measure in MEASURED.items()}
_FLAW: Final = ATTRIBUTES[FLAWED]


def attribute_meaning(name: str) -> tuple[str, int] | None:
    """Read a criterion of the attribute evaluator.

    >>> attribute_meaning("Long and thorough"), attribute_meaning("Witty")
    (('detailed', 1), None)
    """
    if name not in CRITERIA:
        return None
    measure, direction = CRITERIA[name]
    attribute = _SEEN_BY.get(MEASURES[measure].name)
    return None if attribute is None else (attribute, 1 if direction else -1)


def nano_meaning(name: str) -> tuple[str, int] | None:
    """Read a criterion of the bundled judge.

    >>> nano_meaning("no-questions")
    ('question', -1)
    """
    if name not in POLE_OF:
        return None
    attribute, sign = POLE_OF[name]
    return ATTRIBUTES[attribute], sign


class Words(NamedTuple):
    """Whose words a chain's criteria are."""

    meaning: Meaning
    tells_apart: bool
    """Whether a rubric holds only attributes in which the responses differ."""
    wishes: Callable[[EvaluationChain], Mapping[str, float]] | None = None
    """Reads attribute -> signed strength from PART 1; None where no line of it says so."""


def nano_wishes(chain: EvaluationChain) -> dict[str, float]:
    """Return what PART 1 of a chain of the bundled judge wants; nothing where it does not say."""
    return {ATTRIBUTES[a]: float(sign * n) for a, sign, n in wishes(chain) or ()}


WORDS: Final = {
    "attributes": Words(attribute_meaning, tells_apart=False),
    "nano": Words(nano_meaning, tells_apart=True, wishes=nano_wishes),
}
N_CHECKED: Final = 8
"""Users of whom one comparison is looked at, to see that the world is theirs."""
N_COVERED: Final = 5
"""Of a user's strongest wishes, which a rubric should hold; as many as the bundled judge names."""


def signed_weights(chain: EvaluationChain, meaning: Meaning) -> dict[str, float]:
    """Return the rubric's weights by attribute, negative where its absence is wanted.

    A criterion that means no attribute stands under its own name.
    """
    weights: dict[str, float] = {}
    for criterion in chain.criteria:
        attribute, sign = meaning(criterion.name) or (criterion.name, 1)
        weights[attribute] = weights.get(attribute, 0.0) + sign * criterion.weight
    return weights


def coverage(rubric: Mapping[str, float], truth: Mapping[str, float]) -> float:
    """Rate a rubric against what a user truly wants, in [0, 1].

    The rubric's weights times the true ones, relative to the best rubric: the user's `N_COVERED`
    strongest wishes in their true proportions give 1, and leaving one out costs what it weighs. A
    wish of the wrong sign counts against the right ones, one that is nobody's takes weight from the
    others, and what is worse than nothing is 0.

    Args:
        rubric: attribute -> weight, of any scale.
        truth: attribute -> weight, for all attributes that users differ about.

    >>> coverage({"list": 80, "warm": -60}, {"list": 4, "warm": -3})
    1.0
    >>> coverage({"list": 100}, {"list": 4, "warm": -3})
    0.8
    >>> coverage({"list": 100}, {"list": -4, "warm": -3})
    0.0
    """
    agreement = sum(weight * truth.get(name, 0.0) for name, weight in rubric.items())
    strongest = sorted(map(abs, truth.values()), reverse=True)[:N_COVERED]
    best = float(np.linalg.norm(strongest) * np.linalg.norm(list(rubric.values())))
    return round(min(1.0, max(0.0, agreement / best)), 6) if best > 0 else 0.0


class WorldCoverage:
    """A coverage judge that knows the simulated users; see `pgenrm.train.rewards.CoverageJudge`."""

    def __init__(self, world: World, words: Words) -> None:
        """Set up the judge.

        Args:
            world: whose users the comparisons are of.
            words: in which the criteria of the judged chains are.
        """
        self.world = world
        self.words = words
        self._weights = lru_cache(maxsize=100_000)(self._weights_of)

    @classmethod
    def load(cls, directory: Path, words: Words) -> "WorldCoverage":
        """Make the world again that `pgenrm simulate` wrote to a directory.

        Raises:
            InputError: it has no readable `card.json`, or that of a world over given responses.
        """
        card = load_value(directory / "card.json", Card)
        world = World(card.config, card.seed)
        if card.source != world.source.version:
            raise InputError(
                f"{directory / 'card.json'}: its texts are {card.source!r}, and this version of "
                f"pgenrm makes {world.source.version!r}; simulate the world again, without given "
                "responses"
            )
        return cls(world, words)

    def criteria(self, comparisons: Sequence[Comparison]) -> Criteria:
        """Return nothing: the users' weights are known.

        Raises:
            InputError: the comparisons are of another world.
        """
        of_users = {c.user.id: c for c in comparisons}
        for one in list(of_users.values())[:N_CHECKED]:
            choices = self.world.of_user(self.world.person_of(one.user.id), Split)
            same = next((known for _, _, known in choices if known.id == one.id), one)
            if (same.context, same.responses[:2]) != (one.context, one.responses[:2]):
                raise InputError(
                    f"{one.id} has other texts in the judge's world (seed {self.world.seed}); "
                    "judge.world must be the world that the comparisons are of"
                )
        return {}

    def rate(self, requests: Sequence[CoverageRequest]) -> list[float | Failure]:
        """Return the coverage of each chain by the true weights in the query's scenario.

        That of the rubric or of the wishes in PART 1, whichever is lower: a rubric that does not
        follow from them earns no more than they do.
        """
        return [self._rated(request) for request in requests]

    def truth(self, request: CoverageRequest) -> dict[str, float]:
        """Return what the user truly wants here: attribute -> weight in log-odds.

        For words that tell responses apart, of the attributes in which these differ.

        Raises:
            InputError: the user is not one of this world.
        """
        scenario, features = self.world.source.read(request.query, request.responses)
        weights = self._weights(request.user_id, scenario)
        if not self.words.tells_apart:
            return weights
        differs = dict(zip(ATTRIBUTES, np.ptp(features, axis=0) > 0, strict=True))
        return {name: weight for name, weight in weights.items() if differs[name]}

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _rated(self, request: CoverageRequest) -> float:
        said: list[Mapping[str, float]] = [signed_weights(request.chain, self.words.meaning)]
        if self.words.wishes is not None:
            said.append(self.words.wishes(request.chain))
        truth = self.truth(request)
        return min(
            coverage({name: w for name, w in weights.items() if name != _FLAW}, truth)
            for weights in said
        )

    def _weights_of(self, user_id: str, scenario: int) -> dict[str, float]:
        row = self.world.person_of(user_id).weights[scenario]
        return {name: float(row[ATTRIBUTES.index(name)]) for name in WANTED}
