"""What the chains of a comparison say, as arrays: the input of every aggregator.

Padded to [b, c, N] so that a judge's single comparison and a fit over thousands run the same code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pgenrm.types import JudgedChain, Judgment

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Chains:
    """The readable chains of one kind, own or neighbours', for b comparisons."""

    scores: Floats
    """[b, c, N], by response; 0 where there is no chain or no response."""
    order: Ints
    """[b, c]: number of the presentation order that the chain saw; -1 where there is no chain."""
    similarity: Floats
    """[b, c]: of the neighbour whose history it was written with; 0 for own chains."""
    agreement: Floats
    """[b, c]: log-likelihood of the user's held-out choices under the chain's rubric, at most 0;
    as `records_of` fills it where a chain was not checked."""

    @property
    def present(self) -> NDArray[np.bool_]:
        """[b, c]: where there is a chain."""
        return self.order >= 0

    def first(self, n: int) -> Self:
        """Keep the chains that stood among the first n asked for, if none of them was lost.

        Chain i of presentation order r was asked for as number i * n_orders + r.
        """
        n_orders = self.order.max(axis=1, initial=-1, keepdims=True) + 1
        within = np.zeros_like(self.order)
        for r in range(int(n_orders.max(initial=0))):
            is_r = self.order == r
            within[is_r] = (np.cumsum(is_r, axis=1) - 1)[is_r]
        kept = self.present & (within * n_orders + self.order < n)
        return type(self)(
            scores=self.scores * kept[..., None],
            order=np.where(kept, self.order, -1),
            similarity=self.similarity * kept,
            agreement=self.agreement * kept,
        )


@dataclass(frozen=True)
class Evidence:
    """What is known of b comparisons when their chains are in."""

    own: Chains
    neighbours: Chains
    n_history: Ints
    """[b]: past choices of the user that his own chains were written with."""
    n_responses: Ints
    """[b]: N of each comparison; padded responses stand behind."""

    def __len__(self) -> int:
        return len(self.n_history)

    @property
    def is_response(self) -> NDArray[np.bool_]:
        """[b, N]: where there is a response."""
        return np.arange(self.own.scores.shape[2]) < self.n_responses[:, None]

    def first(self, m: int, n: int) -> Self:
        """Return the evidence that Ind-m, Pro-n would have gathered: a part of this one."""
        return type(self)(
            self.own.first(m), self.neighbours.first(n), self.n_history, self.n_responses
        )

    def __getitem__(self, rows: slice | Ints | NDArray[np.bool_]) -> Self:
        def part(chains: Chains) -> Chains:
            return Chains(*(getattr(chains, field.name)[rows] for field in fields(Chains)))

        return type(self)(
            part(self.own), part(self.neighbours), self.n_history[rows], self.n_responses[rows]
        )


@dataclass(frozen=True)
class ChainRecord:
    """One readable chain in plain numbers."""

    scores: tuple[float, ...]
    """By response."""
    order: int
    similarity: float = 0.0
    agreement: float = 0.0


@dataclass(frozen=True)
class Record:
    """One comparison in plain numbers."""

    own: Sequence[ChainRecord]
    neighbours: Sequence[ChainRecord]
    n_history: int
    n_responses: int


def evidence_of(records: Sequence[Record]) -> Evidence:
    """Pad records to arrays."""
    width = max((record.n_responses for record in records), default=0)
    return Evidence(
        own=_padded([record.own for record in records], width),
        neighbours=_padded([record.neighbours for record in records], width),
        n_history=np.array([record.n_history for record in records], dtype=np.intp),
        n_responses=np.array([record.n_responses for record in records], dtype=np.intp),
    )


def concatenated(parts: Sequence[Evidence]) -> Evidence:
    """Join evidence that is padded to the same number of responses."""

    def joined(kind: Sequence[Chains]) -> Chains:
        width = max(chains.order.shape[1] for chains in kind)
        wide = [_widened(chains, width) for chains in kind]
        return Chains(
            *(np.concatenate([getattr(c, field.name) for c in wide]) for field in fields(Chains))
        )

    return Evidence(
        joined([part.own for part in parts]),
        joined([part.neighbours for part in parts]),
        np.concatenate([part.n_history for part in parts]),
        np.concatenate([part.n_responses for part in parts]),
    )


def _widened(chains: Chains, width: int) -> Chains:
    missing = width - chains.order.shape[1]
    return Chains(
        scores=np.pad(chains.scores, ((0, 0), (0, missing), (0, 0))),
        order=np.pad(chains.order, ((0, 0), (0, missing)), constant_values=-1),
        similarity=np.pad(chains.similarity, ((0, 0), (0, missing))),
        agreement=np.pad(chains.agreement, ((0, 0), (0, missing))),
    )


def record_of(judgment: Judgment) -> Record:
    """Turn a judgment, as stored by a run, back into what its verdict was made from."""
    orders: dict[tuple[int, ...], int] = {}
    for order in (j.order for js in (judgment.chains, judgment.failures) for j in js):
        orders.setdefault(order, len(orders))
    own, neighbours = records_of(judgment.chains, orders)
    return Record(own, neighbours, judgment.n_history, len(judgment.scores))


def records_of(
    chains: Sequence[JudgedChain], numbers: Mapping[tuple[int, ...], int]
) -> tuple[list[ChainRecord], list[ChainRecord]]:
    """Return own and neighbours' chains in plain numbers.

    A chain whose rubric could not be checked agrees like the mean of those of its kind that were:
    unknown is neither good nor bad. Without any, all agree alike.

    Args:
        chains: of one comparison.
        numbers: of its presentation orders.
    """
    own = [chain for chain in chains if chain.neighbour is None]
    neighbours = [chain for chain in chains if chain.neighbour is not None]
    return _plain(own, numbers), _plain(neighbours, numbers)


def _plain(
    chains: Sequence[JudgedChain], numbers: Mapping[tuple[int, ...], int]
) -> list[ChainRecord]:
    checked = [chain.agreement for chain in chains if chain.agreement is not None]
    usual = sum(checked) / len(checked) if checked else 0.0
    return [
        ChainRecord(
            scores=chain.scores,
            order=numbers[chain.order],
            similarity=chain.similarity or 0.0,
            agreement=usual if chain.agreement is None else chain.agreement,
        )
        for chain in chains
    ]


def _padded(rows: Sequence[Sequence[ChainRecord]], width: int) -> Chains:
    b, c = len(rows), max(map(len, rows), default=0)
    scores, order = np.zeros((b, c, width)), np.full((b, c), -1, dtype=np.intp)
    similarity, agreement = np.zeros((b, c)), np.zeros((b, c))
    for i, row in enumerate(rows):
        for j, chain in enumerate(row):
            scores[i, j, : len(chain.scores)] = chain.scores
            order[i, j] = chain.order
            similarity[i, j], agreement[i, j] = chain.similarity, chain.agreement
    return Chains(scores, order, similarity, agreement)


def squares_within_orders(evidence: Evidence) -> tuple[Floats, Floats]:
    """Return [b] sums of squares of own chains around their order's mean, and degrees of freedom.

    Of centred scores, averaged over the responses.
    """
    own = evidence.own
    squares, freedom = np.zeros(len(evidence)), np.zeros(len(evidence))
    if not own.order.size:
        return squares, freedom
    n = evidence.n_responses[:, None, None]
    is_response = evidence.is_response[:, None, :]
    centred = (own.scores - own.scores.sum(axis=2, keepdims=True) / n) * is_response
    for r in range(int(own.order.max(initial=-1)) + 1):
        is_r = (own.order == r)[..., None]
        count = is_r.sum(axis=1)
        mean = (centred * is_r).sum(axis=1) / np.maximum(count, 1)
        squares += (((centred - mean[:, None, :]) ** 2) * is_r / n).sum(axis=(1, 2))
        freedom += np.maximum(count[:, 0] - 1, 0)
    return squares, freedom


def pooled(chains: Chains, weights: Floats | None = None) -> Floats:
    """Return [b, N]: the mean over presentation orders of the mean over chains.

    Orders count alike, however many of their chains were lost, so that a taste for a position
    cancels. NaN where there is no chain.

    Args:
        chains: [b, c, N].
        weights: [b, c], of the chains within their order; None: equal.
    """
    weights = chains.present.astype(float) if weights is None else weights * chains.present
    n_orders = int(chains.order.max(initial=-1)) + 1
    total = np.zeros((len(chains.order), chains.scores.shape[2]))
    n_read = np.zeros(len(chains.order))
    for r in range(n_orders):
        share = weights * (chains.order == r)
        mass = share.sum(axis=1)
        is_read = mass > 0
        share = share / np.where(is_read, mass, 1.0)[:, None]
        total += (share[..., None] * chains.scores).sum(axis=1)
        n_read += is_read
    with np.errstate(invalid="ignore"):
        means: Floats = total / np.where(n_read, n_read, np.nan)[:, None]
    return means
