"""Intervals over users: one set of resamples for all that is compared, so differences are paired.

A statistic is a function of sums over users. The sums are computed for the users as they are and
for `N_RESAMPLES` draws of users with replacement in one matrix product, so that a table of 25
methods takes seconds. Every interval is the 95 % percentile interval of `scipy.stats.bootstrap`
with users as observations; tests hold it against scipy.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pgenrm.accuracy import MIN_CLUSTERS, N_RESAMPLES
from pgenrm.seeding import rng
from pgenrm.types import Value

Floats = NDArray[np.float64]
N_AT_ONCE: Final = 1000
"""Resamples drawn at once: bounds the memory to about 8 kB per user."""


class Estimate(Value):
    """A statistic with its 95 % interval."""

    value: float
    interval: tuple[float, float] | None
    """None with fewer than `MIN_CLUSTERS` users: the bootstrap would be too narrow."""


def resample(by_user: ArrayLike, seed: int = 0) -> Floats:
    """Sum columns over the users as they are, and over draws of users with replacement.

    Args:
        by_user: [n_users, n_columns], what each user contributes.
        seed: of the draws, which depend on nothing else but the number of users.

    Returns:
        [1 + N_RESAMPLES, n_columns]; the first row holds the sums as observed.
    """
    columns = np.asarray(by_user, dtype=float)
    n_users = len(columns)
    generator = rng("bootstrap over users", seed, n_users)
    rows = [columns.sum(axis=0, keepdims=True)]
    for start in range(0, N_RESAMPLES, N_AT_ONCE):
        n = min(N_AT_ONCE, N_RESAMPLES - start)
        drawn = generator.integers(n_users, size=(n, n_users))
        drawn += n_users * np.arange(n)[:, None]
        times = np.bincount(drawn.ravel(), minlength=n * n_users).reshape(n, n_users)
        rows.append(times @ columns)
    return np.concatenate(rows)


def estimate(values: Floats, n_users: int) -> Estimate | None:
    """Read a statistic and its interval off its values [1 + N_RESAMPLES], the observed one first.

    Resamples in which it is undefined are left out; None where it is undefined as observed.
    """
    if np.isnan(values[0]):
        return None
    interval = None
    if n_users >= MIN_CLUSTERS:
        low, high = np.nanpercentile(values[1:], [2.5, 97.5])
        interval = (round(float(low), 6), round(float(high), 6))
    return Estimate(value=round(float(values[0]), 6), interval=interval)


def mean_over_users(values: ArrayLike, users: Sequence[str], seed: int = 0) -> Estimate:
    """Estimate the mean of a value per comparison, users resampled.

    Of differences of two methods it is their paired difference.

    Args:
        values: [n_items], at least one.
        users: [n_items], whose comparison it is.
        seed: of the resampling.

    Raises:
        ValueError: a value is nan.
    """
    names, user = np.unique(users, return_inverse=True)
    columns = [np.bincount(user, part) for part in (np.asarray(values), np.ones(len(user)))]
    sums = resample(np.stack(columns, axis=1), seed)
    found = estimate(share(sums[:, 0], sums[:, 1]), len(names))
    if found is None:
        raise ValueError("a value is nan")
    return found


def share(numerator: Floats, denominator: Floats) -> Floats:
    """Divide sums; undefined (nan) where nothing was drawn."""
    result: Floats = np.divide(
        numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0
    )
    return result


def mean_of_defined(values: Floats) -> Floats:
    """Return the mean over the last axis of the values that are defined, nan where none is."""
    is_defined = ~np.isnan(values)
    return share(np.where(is_defined, values, 0.0).sum(axis=-1), is_defined.sum(axis=-1) * 1.0)


def mean_and_error(values: ArrayLike) -> tuple[float, float | None]:
    """Return the mean over runs and its standard error, None for a single run.

    >>> mean_and_error([0.5, 0.7])
    (0.6, 0.1)
    """
    runs = np.asarray(values, dtype=float)
    error = float(runs.std(ddof=1) / np.sqrt(len(runs))) if len(runs) > 1 else None
    return round(float(runs.mean()), 6), None if error is None else round(error, 6)


def rank_correlations(given: ArrayLike, true: ArrayLike, seed: int = 0) -> Floats:
    """Return Spearman's correlation of two rankings of policies, by their mean scores, resampled.

    The questions (askers) are drawn anew, since the policies are few and fixed (paper, table 5;
    method.md: rankings of six policy models).

    Args:
        given: [n_questions, n_policies], scores of a reward model.
        true: [n_questions, n_policies], scores by the hidden rubrics.
        seed: of the resampling.

    Returns:
        [1 + N_RESAMPLES], the observed value first, for `estimate`; nan where all policies have the
        same mean, so that there is no ranking.
    """
    from scipy.stats import rankdata  # loads for half a second; most commands never need it

    given, true = np.asarray(given, dtype=float), np.asarray(true, dtype=float)
    n_policies = given.shape[1]
    sums = resample(np.concatenate([given, true], axis=1), seed)
    ranks = [rankdata(part.round(9), axis=1) for part in np.split(sums, [n_policies], axis=1)]
    centred = [part - part.mean(axis=1, keepdims=True) for part in ranks]
    spread = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    return share((centred[0] * centred[1]).sum(axis=1), spread)
