"""Fit the aggregator and the stopping rule on the judgments of validation users.

Validation users must not be among the users whose histories serve as neighbours, nor among those
who are judged later. Their comparisons are judged once, at the largest m and n that will be used;
every smaller number of chains is a part of that.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import numpy as np

from pgenrm.errors import InputError
from pgenrm.neighbours import learnt
from pgenrm.rows import load_value
from pgenrm.scaling.aggregate import ChainScale
from pgenrm.scaling.evidence import Evidence, Ints, Record, concatenated, evidence_of, record_of
from pgenrm.scaling.reliability import Reliability, reliability
from pgenrm.scaling.shrinkage import Shrinkage, ShrinkageWeights
from pgenrm.scaling.stopping import StoppingRule, rounds
from pgenrm.seeding import rng
from pgenrm.types import Judgment, Value

MAX_PARTS: Final = 4
N_FITTED: Final = 4000
"""Every comparison stands in the fit up to four times, each time with another number of chains, as
long as that makes no more than 4,000 in all."""
MIN_USERS: Final = 40
"""Fewer users than this settle neither the weights nor an error level."""


class HistoryBand(Value):
    """Comparisons of users with about as many past choices."""

    low: int
    high: int
    """Past choices shown, `low` to `high`."""
    n: int
    neighbour_weight: float
    """Mean share of the neighbours in the scores, in [0, 1], with all chains."""


class Calibration(Value):
    """What validation users teach about combining and stopping."""

    evaluator: str
    """Whose chains it was fitted on."""
    neighbour_source: str | None = None
    """What the neighbours were found by, see `pgenrm.neighbours.learnt`; None: no neighbours."""
    are_rubrics_checked: bool = False
    """Whether neighbours' rubrics were tried on the user's own choices."""
    weights: ShrinkageWeights
    stopping: StoppingRule
    reliability: Reliability
    """On one half of the users, with weights fitted on the other; all chains."""
    by_history: tuple[HistoryBand, ...] = ()
    """By rising number of past choices: 0, 1, 2 to 3, 4 to 7, ..."""

    def aggregator(self) -> Shrinkage:
        """Return the fitted aggregator."""
        return Shrinkage(self.weights)

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        partial = Path(path).with_name(Path(path).name + ".partial")
        partial.write_text(self.model_dump_json(indent=1) + "\n", "utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: the file cannot be read, or holds something else.
        """
        return load_value(path, cls)


def calibrate(
    judgments: Iterable[Judgment],
    *,
    error: float = 0.002,
    scale: ChainScale = ChainScale.RAW,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Calibration:
    """Fit aggregator and stopping rule.

    Args:
        judgments: of labelled comparisons of validation users, all by one evaluator with neighbours
            from the same prototypes, with one m and without sequential stopping; one comparison may
            be judged several times with different amounts of history. Read one by one; of each only
            its numbers are kept.
        error: of sequential stopping, see `StoppingRule`.
        scale: what is done to a chain's scores before averaging.
        seed: of the parts of the chains that the fit sees.
        progress: called with the log score after every step of the fit.

    Raises:
        InputError: there are too few users, several evaluators, prototypes or numbers of own
            chains, or judgments that stopped early.
    """
    known = _Known()
    for judgment in judgments:
        known.add(judgment)
    users = sorted(set(known.user_ids))
    if len(known.evaluators) > 1:
        names = ", ".join(sorted(known.evaluators))
        raise InputError(f"chains of several evaluators ({names}); fit each alone")
    if len(known.sources) > 1:
        names = ", ".join(sorted(known.sources))
        raise InputError(f"neighbours from several prototypes ({names}); fit each alone")
    if len(known.ms) > 1:
        numbers = ", ".join(map(str, sorted(known.ms)))
        raise InputError(f"comparisons with different numbers of own chains ({numbers}); use one m")
    if len(users) < MIN_USERS:
        raise InputError(
            f"{len(users)} users with scored and labelled comparisons; {MIN_USERS} are needed"
        )
    evidence, labels, user_ids = evidence_of(known.records), known.labels, known.user_ids
    m, n = known.ms.pop(), known.n
    in_half = np.isin(np.array(user_ids), _half(users, seed))
    first = np.flatnonzero(in_half)
    half = fit_weights(
        evidence[first],
        [labels[i] for i in first.tolist()],
        [user_ids[i] for i in first.tolist()],
        caps=(m, n),
        scale=scale,
        seed=seed,
    )
    weights = fit_weights(
        evidence, labels, user_ids, caps=(m, n), scale=scale, seed=seed, progress=progress
    )
    rule = StoppingRule(stages=rounds(m, n), error=error)
    return Calibration(
        evaluator=known.evaluators.pop(),
        neighbour_source=known.sources.pop() if known.sources else None,
        are_rubrics_checked=known.are_rubrics_checked,
        weights=weights.weights_,
        stopping=rule.fit(evidence, user_ids, weights) if m else rule,
        reliability=_reliability(half, evidence[~in_half], np.array(labels)[~in_half]),
        by_history=_by_history(evidence, weights),
    )


@dataclass
class _Known:
    """What is kept of the judgments that can be used."""

    records: list[Record] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    user_ids: list[str] = field(default_factory=list)
    evaluators: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    are_rubrics_checked: bool = False
    ms: set[int] = field(default_factory=set)
    """Numbers of own chains that were asked for."""
    n: int = 0
    """Most neighbours' chains that any comparison was asked for."""

    def add(self, judgment: Judgment) -> None:
        if judgment.is_settled is not None:
            raise InputError(
                f"{judgment.id!r} was judged with sequential stopping; judge validation users "
                "without --adaptive, so that all their chains are there"
            )
        if judgment.label is None or not judgment.chains or len(judgment.scores) == 1:
            return
        asked = [c.neighbour for c in judgment.chains] + [f.neighbour for f in judgment.failures]
        n_own = asked.count(None)
        self.ms.add(n_own)
        self.n = max(self.n, len(asked) - n_own)
        self.are_rubrics_checked |= any(
            chain.neighbour is not None and chain.agreement is not None for chain in judgment.chains
        )
        self.records.append(record_of(judgment))
        self.labels.append(judgment.label)
        self.user_ids.append(judgment.user_id)
        self.evaluators.add(judgment.evaluator)
        if judgment.neighbour_source is not None:
            self.sources.add(learnt(judgment.neighbour_source))


def _half(users: Sequence[str], seed: int) -> list[str]:
    shuffled = rng("calibration halves", seed).permutation(len(users)).tolist()
    return [users[i] for i in shuffled[: len(users) // 2]]


def fit_weights(
    evidence: Evidence,
    labels: Sequence[int],
    user_ids: Sequence[str],
    *,
    caps: tuple[int, int] | None = None,
    scale: ChainScale = ChainScale.RAW,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Shrinkage:
    """Fit the aggregator on parts of the chains, few and many, with and without neighbours.

    Args:
        evidence: of validation users, all chains.
        labels: [b], the preferred responses.
        user_ids: [b].
        caps: the m and n that were asked for; None takes the most readable chains of a comparison.
        scale: what is done to a chain's scores before averaging.
        seed: which part of its chains a comparison is shown with.
        progress: called with the log score after every step.
    """
    designs = _designs(*(caps or _most(evidence)))
    n_parts = max(1, min(MAX_PARTS, N_FITTED // max(len(evidence), 1)))
    which = rng("calibration parts", seed).integers(len(designs), size=(n_parts, len(evidence)))
    parts, of_row = [], []
    for number, (m, n) in enumerate(designs):
        for repeat in range(n_parts):
            here = np.flatnonzero(which[repeat] == number)
            parts.append(evidence[here].first(m, n))
            of_row.append(here)
    order: Ints = np.concatenate(of_row)
    together = concatenated(parts)
    n_chains = together.own.present.sum(axis=1) + together.neighbours.present.sum(axis=1)
    readable = n_chains > 0
    return Shrinkage(scale=scale).fit(
        together[readable],
        [labels[i] for i in order[readable].tolist()],
        n_users=len(set(user_ids)),
        n_parts=n_parts,
        progress=progress,
    )


def _most(evidence: Evidence) -> tuple[int, int]:
    own, neighbours = evidence.own.present.sum(axis=1), evidence.neighbours.present.sum(axis=1)
    return int(own.max(initial=0)), int(neighbours.max(initial=0))


def _designs(m: int, n: int) -> list[tuple[int, int]]:
    """Return the numbers of chains that the fit sees: few and many, with and without neighbours."""
    own = sorted({min(size, m) for size in (1, 2, 4, 8, 16, m)} - {0})
    brought = sorted({min(size, n) for size in (4, 8, 16, n)} - {0})
    designs = [(size, 0) for size in own] + [(0, size) for size in brought]
    return designs + [(a, b) for a in own if a > 1 for b in brought]


def _reliability(aggregator: Shrinkage, evidence: Evidence, labels: Ints) -> Reliability:
    probabilities = aggregator.combine(evidence).probabilities
    assert probabilities is not None
    choice = np.nan_to_num(probabilities, nan=-1.0).argmax(axis=1)
    return reliability(probabilities.max(axis=1), choice == labels)


def _by_history(evidence: Evidence, aggregator: Shrinkage) -> tuple[HistoryBand, ...]:
    shares = aggregator.combine(evidence).neighbour_weight
    band_of = np.array([h.bit_length() for h in evidence.n_history.tolist()])
    bands = []
    for band in np.unique(band_of):
        rows = band_of == band
        history = evidence.n_history[rows]
        bands.append(
            HistoryBand(
                low=int(history.min()),
                high=int(history.max()),
                n=int(rows.sum()),
                neighbour_weight=round(float(shares[rows].mean()), 6),
            )
        )
    return tuple(bands)
