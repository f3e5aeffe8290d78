"""The seam between the judge and whoever knows similar users (paper, section 3.4, Pro-n)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pgenrm.types import User


@dataclass(frozen=True)
class NeighbourQuery:
    """Who is looked for: users like this one, in this scenario."""

    user_id: str
    """Never among his own neighbours."""
    scenario: str
    """As `pgenrm.attributes.scenario.classify` names the situation of the query."""
    analyses: tuple[str, ...]
    """The preference-modelling parts of chains written for him so far; empty where the source
    `knows` him in this scenario."""
    n: int
    """How many neighbours are wanted."""


@dataclass(frozen=True)
class Neighbour:
    """A similar user."""

    user: User
    """With the history to show: the same whoever asks, so that prefix caches hit."""
    similarity: float
    """Cosine of the two users' analyses, in [-1, 1]."""


@dataclass(frozen=True)
class Neighbourhood:
    """The answer to a query."""

    prototype: int
    """Index of the nearest prototype."""
    neighbours: tuple[Neighbour, ...]
    """Most similar first; fewer than asked for where there are no more users at all."""
    n_outside: int = 0
    """How many of them had to come from other prototypes."""


class NeighbourSource(Protocol):
    """Finds similar users. May be called from several threads at once."""

    @property
    def name(self) -> str:
        """What identifies its answers; a run continues only under the same one.

        What stands before a slash, where there is one, names what was learnt, and stays when users
        come and go: see `learnt`.
        """
        ...

    def knows(self, user_id: str, scenario: str) -> bool:
        """Say whether the user's analysis in this scenario is stored."""
        ...

    def find(self, queries: Sequence[NeighbourQuery]) -> list[Neighbourhood]:
        """Return one neighbourhood per query, in order."""
        ...


def learnt(name: str) -> str:
    """Return what the name of a source says about what it has learnt; calibrations rest on that.

    >>> learnt("prototypes:1f/2e")
    'prototypes:1f'
    """
    return name.partition("/")[0]
