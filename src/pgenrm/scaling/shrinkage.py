"""Shrinkage: a calibrated blend of own and neighbours' chains (ours; the paper takes equal halves).

The score of response i is (1 - w) own_i + w neighbours_i, and the user prefers it with probability
softmax_i(t score_i). `own` and `neighbours` are pooled scores. The neighbours' share w and the
strength t depend on what is known: how much history the user has, how many chains there are, how
far his own chains disagree, how similar the neighbours are, how well their rubrics rank the user's
own choices. Within the neighbours, and within the own chains, similarity and agreement decide how
much a chain counts. All of it is fitted on validation users by the log score, with a normal prior
around the defaults.

What follows: with no neighbours the scores are those of the own chains; neighbours that do not help
get no weight, however many they are; and probabilities are calibrated as far as new users are like
the validation users.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Self

import numpy as np
from scipy.special import expit, logsumexp

from pgenrm.rows import load_value
from pgenrm.scaling.aggregate import ChainScale, Combined, blend, on_scale
from pgenrm.scaling.evidence import Chains, Evidence, Floats, pooled, squares_within_orders
from pgenrm.types import Value

PRIOR_SD = 2.0
"""Of every weight around its default, in its own units: wide, it only keeps weights finite that the
data say nothing about."""
SIMILARITY_UNIT = 0.1
"""Cosines of analyses lie close together: similarity counts in tenths below 1."""
TYPICAL_NUMBER = 8
"""Chains at which `level` is the strength."""
TYPICAL_SPREAD = 0.5
"""Points; the spread of own chains before any fit, and where a single chain shows none."""


class ShareWeights(Value):
    """Of the neighbours' share w: the terms of its logit."""

    level: float = -1.5
    history: float = -0.5
    """Times log(1 + h), h being the user's past choices."""
    own_number: float = -0.25
    """Times log(m / 8)."""
    number: float = 0.5
    """Times log(n / 8)."""
    spread: float = 0.0
    """Times the spread of the own chains, beyond the typical one."""
    similarity: float = 0.0
    """Times that of the weighted neighbours, in tenths below 1."""
    agreement: float = 0.0
    """Times that of the weighted neighbours, per past choice of the user."""


class StrengthWeights(Value):
    """Of the strength t: the terms of log t for one kind of chains alone, mixed by the shares."""

    level: float = -0.5
    history: float = 0.0
    number: float = 0.1
    spread: float = 0.0
    agreement: float = 0.0


class ChainWeights(Value):
    """How much a chain counts among its like: exp of these times its own values."""

    neighbour_similarity: float = 0.0
    neighbour_agreement: float = 1.0
    own_agreement: float = 0.0


class ShrinkageWeights(Value):
    """Everything that is fitted."""

    share: ShareWeights = ShareWeights()
    own: StrengthWeights = StrengthWeights()
    neighbours: StrengthWeights = StrengthWeights()
    chains: ChainWeights = ChainWeights()
    typical_spread: float = TYPICAL_SPREAD
    scale: ChainScale = ChainScale.RAW
    n_comparisons: int = 0
    """Labelled comparisons of validation users that it was fitted on; 0: the defaults."""
    n_users: int = 0


class Shrinkage:
    """The default aggregator.

    Attributes:
        weights_: in use; the defaults, which trust neighbours little, until `fit` replaces them.
    """

    def __init__(
        self, weights: ShrinkageWeights | None = None, scale: ChainScale = ChainScale.RAW
    ) -> None:
        self.weights_ = weights or ShrinkageWeights(scale=scale)

    @property
    def name(self) -> str:
        """`shrinkage` with a fingerprint of what was fitted."""
        if self.weights_ == ShrinkageWeights():
            return "shrinkage"
        text = self.weights_.model_dump_json().encode()
        return f"shrinkage:{blake2b(text, digest_size=4).hexdigest()}"

    @property
    def is_calibrated(self) -> bool:
        """Whether `fit` has seen validation users."""
        return self.weights_.n_comparisons > 0

    def combine(self, evidence: Evidence) -> Combined:
        """See `pgenrm.scaling.aggregate.Aggregator`."""
        pools = _pools(evidence, self.weights_.chains, self.weights_.scale)
        weight, strength = _shares(evidence, pools, self.weights_)
        scores = blend(evidence, pools.own, pools.neighbours, weight)
        return Combined(
            scores=scores,
            neighbour_weight=weight,
            own_weights=pools.own_weights,
            neighbour_weights=pools.neighbour_weights,
            strength=strength,
            probabilities=np.exp(_log_softmax(strength[:, None] * scores, evidence))
            if self.is_calibrated
            else None,
            scale=self.weights_.scale,
        )

    def fit(
        self,
        evidence: Evidence,
        labels: Sequence[int],
        n_users: int,
        n_parts: int = 1,
        progress: Callable[[float], None] | None = None,
    ) -> Self:
        """Fit all weights by the log score of the preferred responses.

        Args:
            evidence: of validation users, with at least one chain each; the same comparison may
                stand in it several times, with fewer chains or less history.
            labels: [b], the preferred response.
            n_users: whose they are; recorded.
            n_parts: how often a comparison stands in the evidence on average: the prior counts
                against comparisons, not against copies.
            progress: called with the mean log score (nats, lower is better) of every step.

        Raises:
            ValueError: there is nothing to fit on.
        """
        from scipy.optimize import minimize  # loads for 1/4 s; judging never needs it

        chosen = np.asarray(labels, dtype=np.intp)
        if len(evidence) == 0 or len(chosen) != len(evidence):
            raise ValueError(f"{len(evidence)} comparisons with {len(chosen)} labels to fit on")
        spread = _spread(evidence)
        typical = float(np.nanmedian(spread)) if np.isfinite(spread).any() else TYPICAL_SPREAD
        start = ShrinkageWeights(scale=self.weights_.scale, typical_spread=typical)
        centre = _flat(start)

        @lru_cache(maxsize=2)  # most steps of a numerical gradient leave the chains' weights alone
        def pools(among: ChainWeights) -> _Pools:
            return _pools(evidence, among, start.scale)

        def loss(values: Floats) -> float:
            weights = _unflat(values, start)
            part = pools(weights.chains)
            share, strength = _shares(evidence, part, weights)
            scores = blend(evidence, part.own, part.neighbours, share)
            log_p = _log_softmax(strength[:, None] * scores, evidence)
            miss = -float(log_p[np.arange(len(chosen)), chosen].sum())
            distance = float((((values - centre) / PRIOR_SD) ** 2).sum())
            return (miss / n_parts + 0.5 * distance) / len(chosen)

        found = minimize(
            loss,
            centre,
            method="L-BFGS-B",
            bounds=_bounds(),
            callback=(lambda values: progress(loss(values))) if progress else None,
            options={"maxiter": 60, "ftol": 1e-6},
        )
        self.weights_ = _unflat(found.x, start).model_copy(
            update={"n_comparisons": max(1, len(chosen) // n_parts), "n_users": n_users}
        )
        return self

    def save(self, path: str | Path) -> None:
        """Write the weights as JSON."""
        Path(path).write_text(self.weights_.model_dump_json(indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read weights that `save` wrote.

        Raises:
            InputError: the file cannot be read, or holds something else.
        """
        return cls(load_value(path, ShrinkageWeights))


@dataclass(frozen=True)
class _Pools:
    """Both kinds of chains pooled: what depends on the weights among chains only."""

    own: Floats
    neighbours: Floats
    """[b, N]; NaN where there is no chain."""
    own_weights: Floats
    neighbour_weights: Floats
    """[b, c]."""
    similarity: Floats
    """[b]: of the weighted neighbours, in units below 1."""
    agreement: Floats
    """[b]: of the weighted neighbours, per past choice."""
    spread: Floats
    """[b]: of the own chains, see `_spread`; whatever the weights."""


def _pools(evidence: Evidence, among: ChainWeights, scale: ChainScale) -> _Pools:
    spread = _spread(evidence)  # in raw points on any scale
    evidence = on_scale(evidence, scale)
    own, neighbours = evidence.own, evidence.neighbours
    own_weights = _relative(own, among.own_agreement * own.agreement)
    likeness = (neighbours.similarity - 1) / SIMILARITY_UNIT
    neighbour_weights = _relative(
        neighbours,
        among.neighbour_similarity * likeness + among.neighbour_agreement * neighbours.agreement,
    )
    return _Pools(
        own=pooled(own, own_weights),
        neighbours=pooled(neighbours, neighbour_weights),
        own_weights=own_weights,
        neighbour_weights=neighbour_weights,
        similarity=_mean(likeness, neighbour_weights),
        agreement=_mean(neighbours.agreement, neighbour_weights)
        / np.maximum(evidence.n_history, 1),
        spread=spread,
    )


def _shares(evidence: Evidence, pools: _Pools, weights: ShrinkageWeights) -> tuple[Floats, Floats]:
    """Return the neighbours' share w and the strength t, [b] each."""
    m, n = evidence.own.present.sum(axis=1), evidence.neighbours.present.sum(axis=1)
    log_m, log_n = (np.log(np.maximum(number, 1) / TYPICAL_NUMBER) for number in (m, n))
    disagreement = np.where(np.isfinite(pools.spread), pools.spread - weights.typical_spread, 0.0)
    history = np.log1p(evidence.n_history)
    of = weights.share
    logit = (
        of.level
        + of.history * history
        + of.own_number * log_m
        + of.number * log_n
        + of.spread * disagreement
        + of.similarity * pools.similarity
        + of.agreement * pools.agreement
    )
    share = np.where(n == 0, 0.0, np.where(m == 0, 1.0, expit(logit)))

    def log_strength(kind: StrengthWeights, log_number: Floats) -> Floats:
        return (
            kind.level
            + kind.history * history
            + kind.number * log_number
            + kind.spread * disagreement
            + kind.agreement * pools.agreement
        )

    mixed = (1 - share) * log_strength(weights.own, log_m)
    return share, np.exp(mixed + share * log_strength(weights.neighbours, log_n))


def _relative(chains: Chains, log_weight: Floats) -> Floats:
    """Return weights [b, c] up to 1; exp of the log weights, the largest of a row being 1."""
    log_weight = np.where(chains.present, log_weight, -np.inf)
    top = log_weight.max(axis=1, initial=-np.inf, keepdims=True)
    weights: Floats = np.exp(log_weight - np.where(np.isfinite(top), top, 0.0))
    return weights


def _mean(values: Floats, weights: Floats) -> Floats:
    mean: Floats = (values * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-300)
    return mean


def _spread(evidence: Evidence) -> Floats:
    """Return [b]: standard deviation of own chains within orders; NaN where no order has two."""
    squares, freedom = squares_within_orders(evidence)
    spread: Floats = np.sqrt(squares / np.where(freedom > 0, freedom, np.nan))
    return spread


def _log_softmax(utility: Floats, evidence: Evidence) -> Floats:
    masked = np.where(evidence.is_response, utility, -np.inf)
    log_p: Floats = masked - logsumexp(masked, axis=1, keepdims=True)
    return log_p


def _flat(weights: ShrinkageWeights) -> Floats:
    groups = (weights.share, weights.own, weights.neighbours, weights.chains)
    return np.array([value for group in groups for value in group.model_dump().values()])


def _unflat(values: Floats, like: ShrinkageWeights) -> ShrinkageWeights:
    rest = iter(values.tolist())
    groups = {
        name: group.model_copy(update={field: next(rest) for field in type(group).model_fields})
        for name, group in (
            ("share", like.share),
            ("own", like.own),
            ("neighbours", like.neighbours),
            ("chains", like.chains),
        )
    }
    return like.model_copy(update=groups)


def _bounds() -> list[tuple[float | None, float | None]]:
    """Chains that agree better or come from more similar users never count less."""
    n_free = len(ShareWeights.model_fields) + 2 * len(StrengthWeights.model_fields)
    free: list[tuple[float | None, float | None]] = [(-8.0, 4.0)]
    return free * n_free + [(0.0, 8.0)] * len(ChainWeights.model_fields)
