"""Sequential stopping: chains in rounds until the verdict at the caps is foreseen.

After every round the scores at the caps (Ind-m, Pro-n, all of it) are predicted from the present
ones: their difference between two responses is taken as normal around `slope` times the present
one, with a variance that falls with the spread of the own chains and the number still to come. What
is left, v, is the chance that the verdict at the caps is another. Sampling stops when v is below a
threshold and the chains of every presentation order, by themselves, make the same choice.

Guarantee. Without validation users the threshold is `error` divided by the number of looks, and the
error level holds as far as the normal model does. `fit` replaces it: among thresholds from strict
to loose the last one is taken for which the share of validation comparisons whose verdict differs
from the one at the caps is at most `error` with 95 % confidence, tested in this order, so that no
correction for several tests is needed (fixed-sequence "learn then test", Angelopoulos et al. 2021).
The test takes users, not comparisons, as independent: the bound is Hoeffding and Bentkus's for the
mean of user-wise shares. It holds for new users that are exchangeable with the validation users,
judged by the same evaluator with the same history; it says nothing about whether the verdict at the
caps is right.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator
from scipy.optimize import nnls
from scipy.stats import binom, norm

from pgenrm.scaling.aggregate import Aggregator, Combined
from pgenrm.scaling.evidence import Evidence, Floats, pooled, squares_within_orders
from pgenrm.types import Value

Share = Annotated[float, Field(gt=0, lt=1)]

CONFIDENCE: Final = 0.95
PRIOR_SPREAD: Final = 0.75
"""Points: spread of a chain's scores around their mean that single chains are assumed to have."""
PRIOR_CHAINS: Final = 2.0
"""Chains' worth of evidence that the assumed spread counts as."""
THRESHOLDS: Final = tuple(float(t) for t in np.geomspace(1e-4, 0.45, 60))


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
    """How the difference at the caps is predicted after one stage; variances in squared points."""

    slope: float = 1.0
    own: float = 1.0
    """Share of the own chains' sampling variance that is still open."""
    constant: float = 0.25
    """Variance whatever the own chains say: neighbours not consulted yet, changing weights."""


class StoppingRule(Value):
    """When to stop; a value that is stored with what it was fitted on."""

    stages: Annotated[tuple[Stage, ...], AfterValidator(_rising)]
    """Increasing; the last one is the caps."""
    error: Share = 0.02
    """Largest share of verdicts that may differ from those at the caps."""
    outlooks: tuple[Outlook, ...] = ()
    """One per stage before the last; empty: the defaults."""
    threshold: float | None = None
    """Largest chance of another verdict at which sampling stops; None: `error` / looks."""
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
        """The chance of another verdict below which sampling stops."""
        looks = max(len(self.stages) - 1, 1)
        return self.error / looks if self.threshold is None else self.threshold

    def chance_of_another(self, stage: int, evidence: Evidence, combined: Combined) -> Floats:
        """Return [b]: the chance that the verdict at the caps is another; 1 where it is open.

        Args:
            stage: index of the stage that the evidence has reached.
            evidence: all chains so far.
            combined: what the aggregator makes of them.
        """
        if stage == len(self.stages) - 1:
            return np.zeros(len(evidence))
        outlook = self.outlooks[stage] if self.outlooks else Outlook()
        gap = _gap(combined.scores)
        variance = outlook.constant + outlook.own * self._open_variance(stage, evidence)
        chance = norm.cdf(-outlook.slope * gap / np.sqrt(np.maximum(variance, 1e-9)))
        others = np.maximum(evidence.n_responses - 1, 1)
        settled = _orders_agree(evidence, combined) & (gap > 0)
        # Never quite 0 before the caps, so that a threshold of 0 goes on to them.
        chance = np.clip(others * chance, np.finfo(float).tiny, 1.0)
        result: Floats = np.where(settled, chance, 1.0)
        return result

    def _open_variance(self, stage: int, evidence: Evidence) -> Floats:
        """Return [b]: variance of a difference of own pooled scores until the cap is reached."""
        squares, freedom = squares_within_orders(evidence)
        spread = (PRIOR_CHAINS * PRIOR_SPREAD**2 + squares) / (PRIOR_CHAINS + freedom)
        m = np.maximum(evidence.own.present.sum(axis=1), 1)
        still_open = np.maximum(1 / m - 1 / max(self.stages[-1].m, 1), 0)
        variance: Floats = 2 * spread * still_open
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
        at_caps = aggregator.combine(evidence.first(self.stages[-1].m, self.stages[-1].n)).scores
        parts = [evidence.first(stage.m, stage.n) for stage in self.stages[:-1]]
        combined = [aggregator.combine(part) for part in parts]
        outlooks = tuple(
            self._outlook(i, part, now, at_caps)
            for i, (part, now) in enumerate(zip(parts, combined, strict=True))
        )
        rule = self.model_copy(update={"outlooks": outlooks})
        chances = np.array(
            [
                rule.chance_of_another(i, part, now)
                for i, (part, now) in enumerate(zip(parts, combined, strict=True))
            ]
        )
        differs = np.array([_choice(now.scores) != _choice(at_caps) for now in combined])
        users, of_user = np.unique(np.asarray(user_ids), return_inverse=True)
        threshold = 0.0
        for candidate in THRESHOLDS:
            wrong = _differs_when_stopped(chances, differs, candidate)
            by_user = np.bincount(of_user, wrong) / np.bincount(of_user)
            if _p_value(float(by_user.mean()), len(users), self.error) > 1 - CONFIDENCE:
                break
            threshold = candidate
        return rule.model_copy(update={"threshold": threshold, "n_users": len(users)})

    def _outlook(self, stage: int, evidence: Evidence, now: Combined, at_caps: Floats) -> Outlook:
        best = np.nanargmax(np.where(np.isnan(now.scores), -np.inf, now.scores), axis=1)
        present, later = _against_best(now.scores, best), _against_best(at_caps, best)
        known = np.isfinite(present) & np.isfinite(later)
        slope = float((present * later)[known].sum() / max((present**2)[known].sum(), 1e-12))
        open_variance = self._open_variance(stage, evidence)[known]
        left = (later - slope * present)[known] ** 2
        terms = np.stack([open_variance, np.ones_like(open_variance)], axis=1)
        (own, constant), _ = nnls(terms, left)
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


def _choice(scores: Floats) -> Floats:
    """Return [b]: index of the best response; -1 for a tie or without scores."""
    filled = np.where(np.isnan(scores), -np.inf, scores)
    best: Floats = np.where(_gap(scores) > 0, filled.argmax(axis=1), -1)
    return best


def _against_best(scores: Floats, best: Floats) -> Floats:
    """Return [b]: score of `best` minus the best of the others."""
    rows = np.arange(len(scores))
    filled = np.where(np.isnan(scores), -np.inf, scores)
    top = filled[rows, best]
    others = filled.copy()
    others[rows, best] = -np.inf
    with np.errstate(invalid="ignore"):
        difference: Floats = top - others.max(axis=1)
    return difference


def _orders_agree(
    evidence: Evidence, combined: Combined
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return [b]: whether own chains of every order, with the neighbours, choose alike."""
    agree = np.ones(len(evidence), dtype=np.bool_)
    choice = _choice(combined.scores)
    overall = pooled(evidence.own, combined.own_weights)
    part = (1 - combined.neighbour_weight)[:, None]
    for r in range(int(evidence.own.order.max(initial=-1)) + 1):
        weights = combined.own_weights * (evidence.own.order == r)
        seen = weights.any(axis=1)
        with np.errstate(invalid="ignore"):
            moved = combined.scores + part * (pooled(evidence.own, weights) - overall)
        agree &= ~seen | (_choice(moved) == choice)
    return agree


def _differs_when_stopped(chances: Floats, differs: Floats, threshold: float) -> Floats:
    """Return [b]: whether stopping below the threshold gives another verdict than the caps."""
    stops = chances <= threshold
    first = stops.argmax(axis=0)
    wrong: Floats = stops.any(axis=0) & differs[first, np.arange(chances.shape[1])]
    return wrong


def _p_value(mean: float, n: int, bound: float) -> float:
    """Return how likely a mean of n shares is so low, were the true mean above the bound.

    The smaller of Hoeffding's and Bentkus's bounds, for independent values in [0, 1].
    """
    if mean >= bound:
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = (mean * np.log(mean / bound) if mean > 0 else 0.0) + (1 - mean) * np.log(
            (1 - mean) / (1 - bound)
        )
    bentkus = float(np.e * binom.cdf(np.ceil(n * mean), n, bound))
    return min(float(np.exp(-n * divergence)), bentkus, 1.0)
