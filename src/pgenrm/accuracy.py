"""From outcomes to an accuracy that hides nothing: coverage, ties, an interval over users."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pgenrm.seeding import rng
from pgenrm.types import Outcome, Value

N_RESAMPLES = 9999
MIN_CLUSTERS = 20
"""With fewer clusters the bootstrap interval is too narrow (10 cover 87 %), so none is given."""
OUTCOMES = (Outcome.CORRECT, Outcome.WRONG, Outcome.TIE, Outcome.UNSCORED)
MAX_CELLS = 4_000_000
"""Resampled values held at once, which bounds the bootstrap's memory to about 100 MB."""


class Accuracy(Value):
    """Counts of the four outcomes and what follows from them. Shares are in [0, 1]."""

    n: int
    n_users: int
    correct: int
    wrong: int
    tie: int
    unscored: int
    accuracy: float
    """Headline: correct / n. Ties and unscored comparisons count as wrong."""
    interval: tuple[float, float] | None
    """95 % bootstrap interval, resampling users; None with fewer than `MIN_CLUSTERS` users."""
    coverage: float
    """Share of comparisons that were scored at all."""
    decided_accuracy: float | None
    """correct / (correct + wrong), the convention of the released P-GenRM script."""


class Tally:
    """Counts judgments as they come; of a single one at most a confidence is kept.

    Attributes:
        n_judged: all judgments.
        n_unscored: those without any readable chain.
        n_chains: how many judgments were asked for so many chains.
        confidences: calibrated confidences of verdicts that turned out right or wrong.
        are_right: for each of them, 1 or 0.
    """

    def __init__(self) -> None:
        self.n_judged = 0
        self.n_unscored = 0
        self.n_chains: Counter[int] = Counter()
        self.confidences = array("d")
        self.are_right = array("b")
        self._by_user: dict[str, list[int]] = {}

    def add(
        self,
        user_id: str,
        outcome: Outcome | None,
        *,
        is_scored: bool = True,
        n_chains: int = 0,
        confidence: float | None = None,
    ) -> None:
        """Count one judgment.

        Args:
            user_id: whom it was for.
            outcome: None where there is no label.
            is_scored: whether it has a readable chain.
            n_chains: asked for, readable or not.
            confidence: None where it is not calibrated.
        """
        self.n_judged += 1
        self.n_unscored += not is_scored
        self.n_chains[n_chains] += 1
        if outcome is not None:
            self._by_user.setdefault(user_id, [0] * len(OUTCOMES))[OUTCOMES.index(outcome)] += 1
        if confidence is not None and outcome in {Outcome.CORRECT, Outcome.WRONG}:
            self.confidences.append(confidence)
            self.are_right.append(outcome is Outcome.CORRECT)

    def accuracy(self, seed: int = 0) -> Accuracy | None:
        """Sum up the labelled judgments; None when there are none."""
        return _accuracy(self._by_user, seed) if self._by_user else None


def accuracy(outcomes: Iterable[tuple[str, Outcome]], seed: int = 0) -> Accuracy:
    """Sum up (user id, outcome) pairs.

    Raises:
        ValueError: there is none.

    >>> accuracy([("a", Outcome.CORRECT), ("a", Outcome.TIE)]).accuracy
    0.5
    """
    tally = Tally()
    for user_id, outcome in outcomes:
        tally.add(user_id, outcome)
    result = tally.accuracy(seed)
    if result is None:
        raise ValueError("no labelled comparison to sum up")
    return result


def _accuracy(by_user: Mapping[str, list[int]], seed: int) -> Accuracy:
    counts = np.array(list(by_user.values()))  # [n_users, n_outcomes]
    correct, wrong, tie, unscored = (int(total) for total in counts.sum(axis=0))
    n = int(counts.sum())
    return Accuracy(
        n=n,
        n_users=len(by_user),
        correct=correct,
        wrong=wrong,
        tie=tie,
        unscored=unscored,
        accuracy=correct / n,
        interval=clustered_interval(counts[:, 0], counts.sum(axis=1), seed),
        coverage=1 - unscored / n,
        decided_accuracy=correct / (correct + wrong) if correct + wrong else None,
    )


def clustered_interval(
    sums: Sequence[float] | ArrayLike, counts: Sequence[float] | ArrayLike, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of a mean whose observations come in clusters.

    Args:
        sums: [n_clusters] sum of the observations of each cluster.
        counts: [n_clusters] how many observations each cluster has.
        seed: of the resampling.

    Returns:
        (low, high), or None with fewer than `MIN_CLUSTERS` clusters.
    """
    from scipy.stats import bootstrap  # loads for half a second; most commands never need it

    sums, counts = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    if len(sums) < MIN_CLUSTERS:
        return None

    def ratio(
        s: NDArray[np.float64], c: NDArray[np.float64], axis: int = -1
    ) -> NDArray[np.float64]:
        return np.asarray(s.sum(axis=axis) / c.sum(axis=axis))

    result = bootstrap(
        (sums, counts),
        ratio,
        paired=True,
        vectorized=True,
        n_resamples=N_RESAMPLES,
        batch=max(1, MAX_CELLS // len(sums)),
        method="percentile",
        rng=rng("bootstrap", seed),
    )
    low, high = result.confidence_interval
    return float(low), float(high)
