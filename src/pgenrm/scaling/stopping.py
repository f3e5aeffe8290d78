"""Sequential stopping: chains in rounds until more of them are not worth it.

After every round the verdict at the caps (Ind-m, Pro-n, all of it) is predicted: the lead of the
present choice, in calibrated logits, is taken as normal around `slope` times the present one, with
a variance that falls with the spread of the own chains and the number still to come. From that
follows the expected loss: how much likelier the verdict at the caps is to be right than the present
one. Sampling stops when it is below a threshold, for all chains together and with the own chains of
every presentation order alone in their place. A difference that is close at the caps too is not
worth chains, one that may turn clearly is.

Guarantee. `fit` takes, among thresholds from strict to loose, the last one for which the mean loss
over validation users is at most `error` with 95 % confidence, and the mean predicted loss too; the
thresholds are tested in this order and the first failure ends it, so that no correction for several
tests is needed (fixed-sequence testing, as in "learn then test", Angelopoulos et al. 2021). It then
holds for new users, on average over their comparisons, if they are exchangeable with the validation
users and judged by the same evaluator with as much history; as far as the probabilities at the caps
are calibrated; and if there are enough validation users for a t-interval: most losses are 0, so
with few users it is too narrow, and only the predicted loss holds the threshold down. It says
nothing about whether the verdict at the caps is right. Without validation users the threshold is
`error` itself and all rests on the normal model with its default numbers.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator
from scipy.special import stdtrit

from pgenrm.scaling.aggregate import Aggregator, Combined, on_scale
from pgenrm.scaling.evidence import Evidence, Floats, Ints, pooled, squares_within_orders
from pgenrm.types import Value

Share = Annotated[float, Field(gt=0, lt=1)]

CONFIDENCE: Final = 0.95
PRIOR_SPREAD: Final = 0.75
"""Points: spread of a chain's scores around their mean that single chains are assumed to have."""
PRIOR_CHAINS: Final = 2.0
"""Chains' worth of evidence that the assumed spread counts as."""
NODES, _MASS = np.polynomial.hermite_e.hermegauss(32)
WEIGHTS: Final = _MASS / _MASS.sum()
THRESHOLDS: Final = tuple(float(x) for x in np.geomspace(1e-5, 0.5, 80))


class Stage(Value):
    """How many chains there are after a round."""

    m: Annotated[int, Field(ge=0)]
    n: Annotated[int, Field(ge=0)]


def _rising(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    steps = pairwise(stages)
    if not stages or any(b.m < a.m or b.n < a.n or a == b for a, b in steps):
        raise ValueError("there must be a stage, and none with fewer chains than the one before")
    return stages


class Outlook(Value):
    """How the lead at the caps is predicted after one stage; variances in squared logits."""

    slope: float = 1.0
    own: float = 1.0
    """Share of the own chains' sampling variance that is still open."""
    constant: float = 0.25
    """Variance whatever the own chains say: neighbours not consulted yet, changing weights."""


class StoppingRule(Value):
    """When to stop; a value that is stored with what it was fitted on."""

    stages: Annotated[tuple[Stage, ...], AfterValidator(_rising)]
    """Increasing; the last one is the caps."""
    error: Share = 0.002
    """Expected share of right verdicts that stopping early may cost, against the caps."""
    outlooks: tuple[Outlook, ...] = ()
    """One per stage before the last; empty: the defaults."""
    threshold: Annotated[float, Field(ge=0)] | None = None
    """Expected loss of a single comparison below which sampling stops; None: `error`."""
    n_users: int = 0
    """Validation users that it was fitted on; 0: none."""

    @model_validator(mode="after")
    def _one_outlook_per_look(self) -> Self:
        if self.outlooks and len(self.outlooks) != len(self.stages) - 1:
            raise ValueError(
                f"{len(self.stages)} stages need {len(self.stages) - 1} outlooks, "
                f"found {len(self.outlooks)}"
            )
        return self

    @property
    def stop_below(self) -> float:
        """The expected loss at or below which sampling stops."""
        return self.error if self.threshold is None else self.threshold

    def expected_loss(self, stage: int, evidence: Evidence, combined: Combined) -> Floats:
        """Return [b]: by how much the verdict at the caps is likelier to be right.

        The largest over the presentation orders, each with its own chains alone in place of all
        own chains, and 1 where an order or a choice is missing.

        Args:
            stage: index of the stage that the evidence has reached.
            evidence: all chains so far.
            combined: what the aggregator makes of them.
        """
        if stage == len(self.stages) - 1:
            return np.zeros(len(evidence))
        evidence = on_scale(evidence, combined.scale)
        outlook = self.outlooks[stage] if self.outlooks else Outlook()
        choice = _choice(combined.scores)
        variance = outlook.constant + outlook.own * self._open_variance(stage, evidence, combined)
        losses = [
            _loss(outlook.slope * combined.strength * gap, variance)
            for gap in _gaps_by_order(evidence, combined, choice)
        ]
        n_others = np.maximum(evidence.n_responses - 1, 1)
        # Never quite 0 before the caps, so that a threshold of 0 goes on to them.
        worst = np.clip(np.max(losses, axis=0) * n_others, np.finfo(float).tiny, 1.0)
        loss: Floats = np.where((choice >= 0) & np.isfinite(worst), worst, 1.0)
        return loss

    def _open_variance(self, stage: int, evidence: Evidence, combined: Combined) -> Floats:
        """Return [b]: variance in squared logits that own chains until the cap still bring."""
        squares, freedom = squares_within_orders(evidence)
        spread = (PRIOR_CHAINS * PRIOR_SPREAD**2 + squares) / (PRIOR_CHAINS + freedom)
        m = np.maximum(evidence.own.present.sum(axis=1), 1)
        still_open = np.maximum(1 / m - 1 / max(self.stages[-1].m, 1), 0)
        variance: Floats = 2 * spread * still_open * combined.strength**2
        return variance

    def fit(
        self, evidence: Evidence, user_ids: Sequence[str], aggregator: Aggregator
    ) -> "StoppingRule":
        """Return the rule with outlooks and threshold fitted on validation users.

        Args:
            evidence: at the caps, all chains.
            user_ids: [b].
            aggregator: the one that will be used.
        """
        users, of_user = np.unique(np.asarray(user_ids), return_inverse=True)
        if len(self.stages) == 1:  # nothing can stop early
            return self.model_copy(update={"threshold": 0.0, "n_users": len(users)})
        at_caps = aggregator.combine(evidence.first(self.stages[-1].m, self.stages[-1].n))
        parts = [evidence.first(stage.m, stage.n) for stage in self.stages[:-1]]
        combined = [aggregator.combine(part) for part in parts]
        looks = list(zip(parts, combined, strict=True))
        outlooks = tuple(self._outlook(i, *look, at_caps) for i, look in enumerate(looks))
        rule = self.model_copy(update={"outlooks": outlooks})
        expected = np.array([rule.expected_loss(i, *look) for i, look in enumerate(looks)])
        lost = np.array([_lost(now, at_caps) for now in combined])
        threshold = 0.0
        for candidate in THRESHOLDS:
            loss = _loss_when_stopped(expected, lost, candidate)
            predicted = _loss_when_stopped(expected, expected, candidate)
            by_user = np.bincount(of_user, loss) / np.bincount(of_user)
            if max(_upper_bound(by_user), float(predicted.mean())) > self.error:
                break
            threshold = candidate
        return rule.model_copy(update={"threshold": threshold, "n_users": len(users)})

    def _outlook(self, stage: int, evidence: Evidence, now: Combined, at_caps: Combined) -> Outlook:
        from scipy.optimize import nnls  # loads for a quarter of a second; judging never needs it

        best = _choice(now.scores)
        evidence = on_scale(evidence, now.scale)
        present = _against_others(now.scores, best) * now.strength
        later = _against_others(at_caps.scores, best) * at_caps.strength
        known = (best >= 0) & np.isfinite(present) & np.isfinite(later)
        if not known.any():
            return Outlook()
        present, later = present[known], later[known]
        slope = float((present * later).sum() / max(float((present**2).sum()), 1e-12))
        open_variance = self._open_variance(stage, evidence, now)[known]
        terms = np.stack([open_variance, np.ones_like(open_variance)], axis=1)
        (own, constant), _ = nnls(terms, (later - slope * present) ** 2)
        return Outlook(slope=max(slope, 0.0), own=float(own), constant=float(constant))


def rounds(m: int, n: int) -> tuple[Stage, ...]:
    """Return the stages 2, 4, 8, ... up to the caps; neighbours join in the second.

    >>> [(stage.m, stage.n) for stage in rounds(16, 8)]
    [(2, 0), (4, 4), (8, 8), (16, 8)]
    """
    stages = []
    size = 2
    while size < m:
        stages.append(Stage(m=size, n=0 if size == 2 else min(size, n)))
        size *= 2
    return (*stages, Stage(m=m, n=n))


def _gap(scores: Floats) -> Floats:
    """Return [b]: best score minus second best; 0 where there is no second, or a NaN."""
    if scores.shape[1] < 2:
        return np.zeros(len(scores))
    ranked = np.sort(np.where(np.isnan(scores), -np.inf, scores), axis=1)
    with np.errstate(invalid="ignore"):
        gap = ranked[:, -1] - ranked[:, -2]
    return np.where(np.isfinite(gap), gap, 0.0)


def _choice(scores: Floats) -> Ints:
    """Return [b]: index of the best response; -1 for a tie or without scores."""
    filled = np.where(np.isnan(scores), -np.inf, scores)
    best: Ints = np.where(_gap(scores) > 0, filled.argmax(axis=1), -1)
    return best


def _against_others(scores: Floats, choice: Ints) -> Floats:
    """Return [b]: score of the choice minus the best of the others; NaN where there is none."""
    rows = np.arange(len(scores))
    filled = np.where(np.isnan(scores), -np.inf, scores)
    others = filled.copy()
    others[rows, choice] = -np.inf
    with np.errstate(invalid="ignore"):
        difference: Floats = filled[rows, choice] - others.max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(difference), difference, np.nan)


def _gaps_by_order(evidence: Evidence, combined: Combined, choice: Ints) -> list[Floats]:
    """Return the choice's lead [b] for all chains, and for own chains of each order alone.

    NaN where an order has none.
    """
    gaps = [_against_others(combined.scores, choice)]
    overall = pooled(evidence.own, combined.own_weights)
    part = (1 - combined.neighbour_weight)[:, None]
    for r in range(int(evidence.n_responses.max(initial=0))):
        weights = combined.own_weights * (evidence.own.order == r)
        with np.errstate(invalid="ignore"):
            moved = combined.scores + part * (pooled(evidence.own, weights) - overall)
        lead = _against_others(moved, choice)
        gaps.append(np.where(r < evidence.n_responses, lead, gaps[0]))
    return gaps


def _loss(lead: Floats, variance: Floats) -> Floats:
    """Return [b]: expected loss where the lead at the caps, in logits, is normal around `lead`.

    A choice that trails by x logits is right with probability sigmoid(-x), the other one with
    sigmoid(x): following it loses tanh(x / 2).
    """
    at_caps = lead[:, None] + np.sqrt(np.maximum(variance, 0.0))[:, None] * NODES
    loss: Floats = np.tanh(np.maximum(-at_caps, 0.0) / 2) @ WEIGHTS
    return loss


def _lost(now: Combined, at_caps: Combined) -> Floats:
    """Return [b]: how much likelier the choice at the caps is to be right than the present one."""
    choice, best = _choice(now.scores), _choice(at_caps.scores)
    lead = _against_others(at_caps.scores, choice) * at_caps.strength
    lost = np.tanh(np.maximum(-lead, 0.0) / 2)
    return np.where((choice >= 0) & (best >= 0), np.nan_to_num(lost), 0.0)


def _loss_when_stopped(expected: Floats, lost: Floats, threshold: float) -> Floats:
    """Return [b]: what stopping at the first look below the threshold loses."""
    stops = expected <= threshold
    first = stops.argmax(axis=0)
    loss: Floats = stops.any(axis=0) * lost[first, np.arange(expected.shape[1])]
    return loss


def _upper_bound(by_user: Floats) -> float:
    """Return the upper end of the one-sided 95 % interval of the mean over users (Student's t)."""
    n = len(by_user)
    if n < 2:
        return np.inf
    error = float(by_user.std(ddof=1)) / np.sqrt(n)
    return float(by_user.mean() + stdtrit(n - 1, CONFIDENCE) * error)
