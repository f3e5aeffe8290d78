"""Where the queries and responses of a world come from: made up, or given."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pgenrm.seeding import derive_seed
from pgenrm.sim.tastes import Array

HELD_OUT_PART = 5
"""One query in five is for validation and test only."""


@dataclass(frozen=True)
class Draft:
    """A query and two responses, before anybody has chosen."""

    query: str
    scenario: int
    responses: tuple[str, str]
    features: Array
    """[2, n_attributes]; what `Source.read` finds in the texts."""


class Source(Protocol):
    """Draws pairs of responses and reads texts back as numbers."""

    version: str

    def draw(self, generator: np.random.Generator, *, narrow: bool, held_out: bool) -> Draft:
        """Draw a pair, without looking at any user.

        Args:
            generator: decides everything.
            narrow: the responses differ in little.
            held_out: take a query for validation and test, or one for training and history.
        """
        ...

    def read(self, query: str, responses: tuple[str, ...]) -> tuple[int, Array]:
        """Return the scenario and [n_responses, n_attributes], from the texts alone."""
        ...


def is_held_out(query: str) -> bool:
    """Whether a query belongs to validation and test; the same in every world."""
    return derive_seed("query", query) % HELD_OUT_PART == 0
