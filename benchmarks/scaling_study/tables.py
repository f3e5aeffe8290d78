"""From the kept chains to the numbers of every table. Accuracies are in [0, 1]."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from benchmarks.scaling_study import jobs, setting
from benchmarks.scaling_study.gather import Job, Judged, load
from numpy.typing import NDArray

from pgenrm.accuracy import clustered_interval
from pgenrm.scaling.aggregate import Aggregator, ChainScale, PaperAggregator
from pgenrm.scaling.calibration import fit_weights
from pgenrm.scaling.evidence import Chains, Evidence, concatenated
from pgenrm.scaling.reliability import Reliability, reliability
from pgenrm.scaling.shrinkage import Shrinkage
from pgenrm.scaling.stopping import StoppingRule, rounds
from pgenrm.verdict import TIE_TOLERANCE

Right = NDArray[np.bool_]

LADDER = (
    *((1, 0), (8, 0), (16, 0), (32, 0), (4, 4), (8, 4), (8, 8)),
    *((16, 8), (16, 16), (16, 32), (0, 8)),
)
FIXED = (16, 8)
ERROR = 0.002


@dataclass(frozen=True)
class Figure:
    """A mean over comparisons with its 95 % interval, clustered by user."""

    mean: float
    low: float
    high: float
    n: int


def figure(values: NDArray[np.generic], users: NDArray[np.str_]) -> Figure:
    numbers = np.asarray(values, dtype=float)
    _, of_user = np.unique(users, return_inverse=True)
    interval = clustered_interval(np.bincount(of_user, numbers), np.bincount(of_user))
    low, high = interval or (np.nan, np.nan)
    return Figure(float(numbers.mean()), low, high, len(numbers))


def unchecked(evidence: Evidence) -> Evidence:
    """Return the evidence as it is without the rubric check."""

    def part(chains: Chains) -> Chains:
        return replace(chains, agreement=np.zeros_like(chains.agreement))

    return replace(evidence, own=part(evidence.own), neighbours=part(evidence.neighbours))


def right(scores: NDArray[np.float64], labels: NDArray[np.intp]) -> Right:
    """Say which verdicts are right; a tie or a missing score is wrong."""
    filled = np.where(np.isnan(scores), -np.inf, scores)
    chosen = filled[np.arange(len(labels)), labels]
    others = filled.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return np.asarray(chosen > others.max(axis=1) + TIE_TOLERANCE)


class Study:
    """Loads passes and fits aggregators on the validation ones, each once."""

    def __init__(self, out: Path, n_test: int) -> None:
        self.out, self.n_test = out, n_test
        self._judged: dict[Job, Judged] = {}
        self._fitted: dict[tuple[str, bool, ChainScale], Shrinkage] = {}

    def judged(self, job: Job) -> Judged:
        if job not in self._judged:
            self._judged[job] = load(job, self.out, self.n_test)
        return self._judged[job]

    def main(self, evaluator: str, h: int, split: str = "test") -> Judged:
        return self.judged(jobs.main_job(evaluator, h, split))

    def validation(self, evaluator: str) -> tuple[Evidence, list[int], list[str]]:
        """All amounts of history together; without any, where there are passes for it."""
        pairs = (0, *jobs.PAIRS) if evaluator in jobs.WITHOUT_HISTORY else jobs.PAIRS
        parts = [self.main(evaluator, h, "validation") for h in pairs]
        return (
            concatenated([part.evidence for part in parts]),
            [int(label) for part in parts for label in part.labels],
            [str(user) for part in parts for user in part.users],
        )

    def shrinkage(
        self, evaluator: str, *, checked: bool, scale: ChainScale = ChainScale.RAW
    ) -> Shrinkage:
        key = (evaluator, checked, scale)
        if key not in self._fitted:
            evidence, labels, users = self.validation(evaluator)
            evidence = evidence if checked else unchecked(evidence)
            self._fitted[key] = fit_weights(evidence, labels, users, scale=scale)
        return self._fitted[key]

    def aggregators(self, evaluator: str) -> dict[str, tuple[Aggregator, bool]]:
        """Name -> (aggregator, whether it sees the rubric check)."""
        return {
            "paper": (PaperAggregator(), False),
            "shrinkage": (self.shrinkage(evaluator, checked=False), False),
            "shrinkage, rubrics checked": (self.shrinkage(evaluator, checked=True), True),
        }

    def right_at(
        self, judged: Judged, aggregator: Aggregator, m: int, n: int, *, checked: bool
    ) -> Right:
        evidence = judged.evidence.first(m, n)
        combined = aggregator.combine(evidence if checked else unchecked(evidence))
        return right(combined.scores, judged.labels)


def ladder(study: Study, evaluator: str) -> dict[tuple[str, int, int, int], Right]:
    """(aggregator, h, m, n) -> which verdicts are right."""
    caps = jobs.CAPS[evaluator]
    return {
        (name, h, m, n): study.right_at(study.main(evaluator, h), aggregator, m, n, checked=checked)
        for h in jobs.PAIRS
        for name, (aggregator, checked) in study.aggregators(evaluator).items()
        for m, n in LADDER
        if m <= caps[0] and n <= caps[1]
    }


@dataclass(frozen=True)
class Adaptive:
    """Sequential stopping against the fixed number of chains at its caps."""

    name: str
    fixed: Figure
    adaptive: Figure
    difference: Figure
    mean_chains: float
    p90_chains: float
    differing: float
    """Share of verdicts that are not those at the caps."""
    threshold: float


def adaptive(
    study: Study, evaluator: str, name: str, h: int | None, error: float = ERROR
) -> Adaptive:
    """Stop early on the test users, with the rule fitted on the validation users."""
    aggregator, checked = study.aggregators(evaluator)[name]
    evidence, _, users = study.validation(evaluator)
    has_history = np.flatnonzero(evidence.n_history)  # the others have fewer chains than the caps
    seen = (evidence if checked else unchecked(evidence))[has_history]
    rule = StoppingRule(stages=rounds(*FIXED), error=error).fit(
        seen, [users[i] for i in has_history.tolist()], aggregator
    )
    parts = [study.main(evaluator, each) for each in ([h] if h else jobs.PAIRS)]
    test = concatenated([part.evidence for part in parts]).first(*FIXED)
    test = test if checked else unchecked(test)
    labels = np.concatenate([part.labels for part in parts])
    of_user = np.concatenate([part.users for part in parts])
    chains = np.zeros(len(labels))
    scores = np.full(test.own.scores.shape[::2], np.nan)
    for number, stage in enumerate(rule.stages):
        now = test.first(stage.m, stage.n)
        combined = aggregator.combine(now)
        stops = (chains == 0) & (rule.expected_loss(number, now, combined) <= rule.stop_below)
        chains[stops] = stage.m + stage.n
        scores[stops] = combined.scores[stops]
    at_caps = aggregator.combine(test).scores
    fixed, early = right(at_caps, labels), right(scores, labels)
    return Adaptive(
        name=name,
        fixed=figure(fixed, of_user),
        adaptive=figure(early, of_user),
        difference=figure(early.astype(float) - fixed, of_user),
        mean_chains=float(chains.mean()),
        p90_chains=float(np.quantile(chains, 0.9)),
        differing=float((at_caps.argmax(axis=1) != scores.argmax(axis=1)).mean()),
        threshold=rule.stop_below,
    )


def own_with(own: Judged, neighbours: Judged) -> Judged:
    """Join own chains of one pass with the neighbours' of another over the same comparisons."""
    if not (own.users == neighbours.users).all():
        raise ValueError("the passes are not over the same comparisons")
    evidence = replace(own.evidence, neighbours=neighbours.evidence.neighbours)
    return replace(own, evidence=evidence, prototype=neighbours.prototype)


def calibration_of(study: Study, evaluator: str, *, checked: bool) -> Reliability:
    """Reliability on the test users, all amounts of history together, at Ind-16, Pro-8."""
    aggregator = study.shrinkage(evaluator, checked=checked)
    confidences, rights = [], []
    for h in jobs.PAIRS:
        judged = study.main(evaluator, h)
        evidence = judged.evidence.first(*FIXED)
        combined = aggregator.combine(evidence if checked else unchecked(evidence))
        if combined.probabilities is None:
            raise ValueError("the aggregator is not fitted")
        confidences.append(combined.probabilities.max(axis=1))
        rights.append(right(combined.scores, judged.labels))
    return reliability(np.concatenate(confidences), np.concatenate(rights))


def rand_index(out: Path, k: int, refinement: str) -> float:
    """Adjusted Rand index of the rows' prototypes with the true prototypes of their users."""
    from sklearn.metrics import adjusted_rand_score

    fitted = setting.prototypes(out, "shipped", k, refinement)
    world = setting.world(setting.TEST_SEED)
    truth = {user: world.person_of(user).prototype for user in set(fitted.row_users_)}
    found = adjusted_rand_score([truth[user] for user in fitted.row_users_], fitted.assignment_)
    return float(found)


def pairs_worth(accuracy: float, by_pairs: Sequence[tuple[int, float]]) -> float:
    """Return how many own pairs reach an accuracy, interpolating between measured numbers."""
    pairs, reached = zip(*sorted(by_pairs), strict=True)
    return float(np.interp(accuracy, np.maximum.accumulate(reached), pairs))
