"""Generated evidence and a source of fixed neighbours, for the tests of scaling."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from pgenrm.neighbours import Neighbour, Neighbourhood, NeighbourQuery
from pgenrm.scaling.evidence import ChainRecord, Record
from pgenrm.scaling.shrinkage import ShrinkageWeights
from pgenrm.seeding import rng
from pgenrm.types import Comparison, Message, Preference, User

Array = NDArray[np.float64]

TEXTS = (
    "Take it to a shop.",
    "First, remove the wheel. Then find the hole, patch it and pump the tyre up again!",
    "- remove the wheel\n- find the hole\n- patch it",
    "I am so sorry to hear that :) A flat tyre is no fun at all, but together we will fix it.",
)
"""Answers that the attribute evaluator tells apart."""


def past_choice(i: int) -> Preference:
    """A choice whose texts occur nowhere else: number i stands in all three."""
    return Preference(
        context=(Message(role="user", content=f"question {i}, how do I cook rice?"),),
        chosen=f"chosen {i}. {TEXTS[i % 4]}",
        rejected=f"rejected {i}. {TEXTS[(i + 1) % 4]}",
    )


def person(number: int, n_pairs: int = 3) -> User:
    """User `person-7` has the choices 700, 701, ..."""
    return User(
        id=f"person-{number}",
        history=tuple(past_choice(100 * number + i) for i in range(n_pairs)),
    )


def asked_by(
    user: User, id: str = "c0", responses: Sequence[str] = TEXTS[:2], label: int | None = 0
) -> Comparison:
    query = (Message(role="user", content="How do I fix a flat tyre?"),)
    return Comparison(id=id, user=user, context=query, responses=tuple(responses), label=label)


@dataclass
class FixedNeighbours:
    """Gives everyone the same people, himself excepted, in an order that depends on who asks."""

    people: Sequence[User]
    known: frozenset[str] = frozenset()
    name = "fixed"

    def __post_init__(self) -> None:
        self.queries: list[NeighbourQuery] = []

    def knows(self, user_id: str, scenario: str) -> bool:
        return user_id in self.known

    def find(self, queries: Sequence[NeighbourQuery]) -> list[Neighbourhood]:
        self.queries.extend(queries)
        return [self._found(query) for query in queries]

    def _found(self, query: NeighbourQuery) -> Neighbourhood:
        assert query.analyses or query.user_id in self.known
        others = [user for user in self.people if user.id != query.user_id]
        drawn = rng("fixed neighbours", query.user_id).permutation(len(others))[: query.n]
        return Neighbourhood(
            prototype=3,
            neighbours=tuple(
                Neighbour(others[j], similarity=0.95 - i / 50) for i, j in enumerate(drawn)
            ),
            n_outside=1,
        )


# ---------------------------------------------------------------- evidence as it may come


def record(seed: int, n_responses: int, m: int, n: int) -> Record:
    """Anything that chains may say: lost chains leave orders uneven."""
    random = rng("record", seed)

    def chains(count: int, *, of_neighbours: bool) -> list[ChainRecord]:
        return [
            ChainRecord(
                scores=tuple(random.uniform(0, 10, n_responses).round(3).tolist()),
                order=int(random.integers(n_responses)),
                similarity=float(random.uniform(-1, 1)) if of_neighbours else 0.0,
                agreement=-float(random.exponential(5)) if random.random() < 0.7 else 0.0,
            )
            for _ in range(count)
        ]

    return Record(
        own=chains(m, of_neighbours=False),
        neighbours=chains(n, of_neighbours=True),
        n_history=int(random.integers(20)),
        n_responses=n_responses,
    )


def records(min_responses: int = 1) -> st.SearchStrategy[Record]:
    chains = st.integers(0, 9)
    return st.builds(record, st.integers(0), st.integers(min_responses, 4), chains, chains)


def some_weights(seed: int, n_comparisons: int = 0) -> ShrinkageWeights:
    """Weights that a fit might find: anything, but chains never count less for being better."""
    random = rng("weights", seed)
    groups = ShrinkageWeights().model_dump()
    for name, group in groups.items():
        if isinstance(group, dict):
            low, high = (0, 3) if name == "chains" else (-2, 2)
            groups[name] = {field: random.uniform(low, high) for field in group}
    return ShrinkageWeights.model_validate(groups | {"n_comparisons": n_comparisons})


# ---------------------------------------------------------------- evidence of a known kind


@dataclass(frozen=True)
class Blend:
    """How labels arise: with probability softmax(own * own signal + neighbours * theirs)."""

    own: float
    neighbours: float


def generated(
    n: int,
    blend: Blend,
    *,
    m: int = 8,
    n_neighbours: int = 8,
    noise: float = 0.0,
    n_responses: int = 2,
    seed: int = 0,
) -> tuple[list[Record], list[int], Array]:
    """Return records, labels and [n, n_responses] true probabilities.

    Args:
        n: comparisons.
        blend: of the signals that the chains show.
        m: own chains each, in turn over the orders.
        n_neighbours: neighbours' chains each.
        noise: points, of each chain around its signal.
        n_responses: of each comparison.
        seed: of all of it.
    """
    random = rng("generated", seed)
    own = random.normal(5.5, 1.0, (n, n_responses))
    theirs = random.normal(5.5, 1.0, (n, n_responses))
    utility = blend.own * own + blend.neighbours * theirs
    odds = np.exp(utility - utility.max(axis=1, keepdims=True))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    labels = [int(random.choice(n_responses, p=p)) for p in probabilities]

    def chains(signal: Array, count: int, similarity: float) -> list[ChainRecord]:
        drawn = signal + noise * random.standard_normal((count, n_responses))
        return [
            ChainRecord(tuple(row.tolist()), order=i % n_responses, similarity=similarity)
            for i, row in enumerate(drawn)
        ]

    data = [
        Record(chains(own[i], m, 0.0), chains(theirs[i], n_neighbours, 0.9), 3, n_responses)
        for i in range(n)
    ]
    return data, labels, probabilities
