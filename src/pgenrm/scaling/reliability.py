"""How far a confidence can be believed: reliability curve and expected calibration error."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pgenrm.types import Value

N_BINS = 10


class Bin(Value):
    """Comparisons of about the same confidence."""

    n: int
    confidence: float
    """Mean."""
    accuracy: float
    """Share of them that were right."""


class Reliability(Value):
    """Confidence against accuracy."""

    bins: tuple[Bin, ...]
    """By rising confidence, about equally full."""
    expected_calibration_error: float
    """Mean over comparisons of |accuracy - confidence| of their bin (Guo et al. 2017)."""
    log_score: float
    """Mean -log of the probability given to what happened, in nats."""


def reliability(
    confidences: Sequence[float] | ArrayLike, is_right: Sequence[bool] | ArrayLike
) -> Reliability:
    """Compare confidences, each in [0, 1], with what became of the verdicts.

    Raises:
        ValueError: there is none.

    >>> reliability([0.9, 0.9], [True, True]).expected_calibration_error
    0.1
    """
    confidence = np.asarray(confidences, dtype=float)
    right = np.asarray(is_right, dtype=float)
    if not len(confidence):
        raise ValueError("no confidence to compare")
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(N_BINS, len(confidence)))
    bins = tuple(
        Bin(
            n=len(rows),
            confidence=round(float(confidence[rows].mean()), 6),
            accuracy=round(float(right[rows].mean()), 6),
        )
        for rows in parts
    )
    error = sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / len(confidence)
    given = np.clip(np.where(right > 0, confidence, 1 - confidence), 1e-12, 1)
    return Reliability(
        bins=bins,
        expected_calibration_error=round(error, 6),
        log_score=round(float(-np.log(given).mean()), 6),
    )
