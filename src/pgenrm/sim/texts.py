"""Pairs of simulated responses.

They are drawn without looking at the user, so that what is shown tells nothing about him: only what
he chooses does.

In a wide pair every taste has its sides: the two responses take opposite ones, and each attribute
follows its side with the probability `coherence`. In a narrow pair they differ in two attributes of
one taste, both to the same side. Pairs whose texts would leave 15 to 60 words are drawn again.
"""

from typing import Final

import numpy as np

from pgenrm.errors import InputError
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.language import DATA_VERSION, QUERIES, Query, read_attributes, write_response
from pgenrm.sim.source import Draft, is_held_out
from pgenrm.sim.tastes import ATTRIBUTES, FLAWED, LOADINGS, SCENARIOS, TASTES, WANTED, Array

MIN_WORDS: Final = 15
MAX_WORDS: Final = 60
N_NARROW: Final = 2
"""Attributes that differ in a narrow pair."""

_SIDES: Final = np.sign(LOADINGS[:, : len(WANTED)])
"""[n_tastes, n_wanted]; which way an attribute goes when a response goes a taste's way."""
_TASTE_OF: Final = np.abs(_SIDES).argmax(axis=0)
"""[n_wanted]; the taste of an attribute."""
_SIGN_OF: Final = _SIDES.sum(axis=0)
_BY_PART: Final[dict[bool, list[list[Query]]]] = {
    held_out: [
        [q for q in QUERIES.values() if q.scenario == s and is_held_out(q.text) is held_out]
        for s in range(len(SCENARIOS))
    ]
    for held_out in (False, True)
}


class SimulatedTexts:
    """The source of the simulated world: queries and responses made up from attributes."""

    version = f"simulated texts {DATA_VERSION}"

    def __init__(self, config: WorldConfig) -> None:
        self._config = config

    def draw(self, generator: np.random.Generator, *, narrow: bool, held_out: bool) -> Draft:
        """Draw a query and two responses to it."""
        scenario = int(generator.integers(len(SCENARIOS)))
        queries = _BY_PART[held_out][scenario]
        query = queries[int(generator.integers(len(queries)))]
        while True:
            features = self._narrow(generator) if narrow else self._wide(generator)
            if generator.random() < self._config.flaw_share:
                features[int(generator.integers(2)), FLAWED] = 1
            first = write_response(query, features[0], generator)
            if _fits(first):
                second = write_response(query, features[1], generator)
                if _fits(second):
                    return Draft(query.text, scenario, (first, second), features)

    def _wide(self, generator: np.random.Generator) -> Array:
        side = generator.choice((-1, 1), size=len(TASTES))[_TASTE_OF] * _SIGN_OF
        follows = generator.random((2, len(WANTED))) < self._config.coherence
        features = np.zeros((2, len(ATTRIBUTES)))
        features[:, : len(WANTED)] = (np.stack([side, -side]) > 0) == follows
        return features

    def _narrow(self, generator: np.random.Generator) -> Array:
        features = np.zeros((2, len(ATTRIBUTES)))
        features[:, : len(WANTED)] = generator.random(len(WANTED)) < 0.5
        of_taste = np.flatnonzero(int(generator.integers(len(TASTES))) == _TASTE_OF)
        chosen = generator.permutation(of_taste)[:N_NARROW]
        features[0, chosen] = _SIGN_OF[chosen] > 0
        features[1, chosen] = _SIGN_OF[chosen] < 0
        return features[generator.permutation(2)]

    def read(self, query: str, responses: tuple[str, ...]) -> tuple[int, Array]:
        """Read the scenario and [n_responses, n_attributes] from the texts alone.

        Raises:
            InputError: the query is not of this world.
        """
        if query not in QUERIES:
            raise InputError(f"{query!r} is not asked in the simulated world")
        return QUERIES[query].scenario, np.stack([read_attributes(text) for text in responses])


def _fits(text: str) -> bool:
    return MIN_WORDS <= len(text.split()) <= MAX_WORDS
