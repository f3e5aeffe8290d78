"""How far the confidences of a method can be believed: confidence against what became of verdicts.

A run of another seed judges the same comparisons again, so that its verdicts are no new ones:
errors are counted for every run by itself and averaged, lest a run that is too sure make up for one
that is not sure enough, and users are resampled with what all runs said of them.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from pgenrm.bench.counting import Runs
from pgenrm.bench.records import Record
from pgenrm.bench.results import CalibrationResult, CurvePoint
from pgenrm.bench.statistics import Floats, estimate, resample, share
from pgenrm.scaling.reliability import N_BINS, reliability
from pgenrm.types import Outcome

MIN_VERDICTS: Final = 100
"""Of every run; fewer say nothing about calibration: ten to each bin."""
VERDICTS: Final = (Outcome.CORRECT, Outcome.WRONG)


def calibration(run: Runs, seed: int = 0) -> CalibrationResult | None:
    """Compare the confidences of a method with what became of its verdicts.

    Args:
        run: the records of the method.
        seed: of the resampling of users.

    Returns:
        None where a run has too few verdicts with a confidence.
    """
    runs = [
        [r for r in records if r.confidence is not None and r.outcome in VERDICTS]
        for records in run.by_task.values()
    ]
    if min(map(len, runs)) < MIN_VERDICTS:
        return None
    found = [reliability(*_arrays(rows)) for rows in runs]
    verdicts = [r for rows in runs for r in rows]
    confidence, right = _arrays(verdicts)
    names, user = np.unique([run.user_of[r.id] for r in verdicts], return_inverse=True)
    bins = np.array_split(np.argsort(confidence, kind="stable"), N_BINS)
    of_users = [
        np.bincount(user[rows], values[rows], len(names))
        for rows in bins
        for values in (right, np.ones(len(right)))
    ]
    sums = resample(np.stack(of_users, axis=1), seed)
    points = []
    for i, rows in enumerate(bins):
        shares = share(sums[:, 2 * i], sums[:, 2 * i + 1])
        accuracy = estimate(shares, len(np.unique(user[rows])))
        assert accuracy is not None  # no bin is empty
        points.append(
            CurvePoint(confidence=round(float(confidence[rows].mean()), 6), accuracy=accuracy)
        )
    return CalibrationResult(
        is_calibrated=all(r.is_calibrated for r in verdicts),
        error=round(float(np.mean([each.expected_calibration_error for each in found])), 6),
        log_score=round(float(np.mean([each.log_score for each in found])), 6),
        curve=tuple(points),
    )


def _arrays(records: Sequence[Record]) -> tuple[Floats, Floats]:
    """Return how sure they are, and whether they are right: [n_records] each."""
    confidence = np.array([r.confidence for r in records], dtype=float)
    return confidence, np.array([r.outcome is Outcome.CORRECT for r in records], dtype=float)
