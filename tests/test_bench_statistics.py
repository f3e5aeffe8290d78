import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pgenrm.accuracy import MIN_CLUSTERS, clustered_interval
from pgenrm.bench.statistics import (
    estimate,
    mean_and_error,
    mean_of_defined,
    mean_over_users,
    rank_correlations,
    resample,
    share,
)
from pgenrm.seeding import rng

N_USERS = 60


def users() -> tuple[np.ndarray, np.ndarray]:
    """Right verdicts and comparisons of each user."""
    generator = rng("users of this test")
    n = generator.integers(1, 9, N_USERS)
    return generator.binomial(n, generator.beta(3, 2, N_USERS)), n


def test_the_interval_of_an_accuracy_is_that_of_scipy() -> None:
    right, n = users()
    sums = resample(np.stack([right, n], axis=1))
    found = estimate(share(sums[:, 0], sums[:, 1]), N_USERS)
    expected = clustered_interval(right, n)
    assert found is not None
    assert found.interval is not None
    assert expected is not None
    assert found.value == pytest.approx(right.sum() / n.sum(), abs=1e-6)
    assert found.interval == pytest.approx(expected, abs=0.004)


def test_the_interval_of_a_mean_over_users_is_that_of_scipy() -> None:
    right, n = users()
    of_users = right / n
    sums = resample(np.stack([of_users, np.ones(N_USERS)], axis=1))
    found = estimate(share(sums[:, 0], sums[:, 1]), N_USERS)
    expected = stats.bootstrap(
        (of_users,), np.mean, n_resamples=9999, method="percentile", rng=rng("scipy")
    ).confidence_interval
    assert found is not None
    assert found.interval == pytest.approx(tuple(expected), abs=0.004)


def test_a_difference_is_paired_by_user() -> None:
    right, n = users()
    other = np.clip(right - rng("other").binomial(1, 0.2, N_USERS), 0, None)
    sums = resample(np.stack([right - other, n, right, other], axis=1))
    paired = estimate(share(sums[:, 0], sums[:, 1]), N_USERS)
    expected = clustered_interval(right - other, n)
    assert paired is not None
    assert paired.interval == pytest.approx(expected, abs=0.004)
    single = share(sums[:, 2], sums[:, 1])[1:].std()
    assert share(sums[:, 0], sums[:, 1])[1:].std() < single / 2


def test_few_users_get_no_interval() -> None:
    sums = resample(np.ones((MIN_CLUSTERS - 1, 2)))
    few = estimate(share(sums[:, 0], sums[:, 1]), MIN_CLUSTERS - 1)
    assert few is not None
    assert few.interval is None


def test_a_statistic_of_nothing_is_none() -> None:
    assert estimate(share(np.zeros(5), np.zeros(5)), 30) is None


@settings(max_examples=30)
@given(
    values=st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=1, max_size=30),
    seed=st.integers(0, 3),
)
def test_the_first_row_is_what_was_observed_and_resamples_keep_the_number_of_users(
    values: list[list[int]], seed: int
) -> None:
    columns = np.array([[1, *row] for row in values], dtype=float)
    sums = resample(columns, seed)
    assert (sums[0] == columns.sum(axis=0)).all()
    assert (sums[:, 0] == len(values)).all()
    assert (sums == resample(columns, seed)).all()


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), min_size=4, max_size=4),
            st.lists(st.integers(0, 9), min_size=4, max_size=4),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_the_rank_correlation_is_that_of_scipy(rows: list[tuple[list[int], list[int]]]) -> None:
    given_scores, true = (np.array(side) for side in zip(*rows, strict=True))
    means = given_scores.mean(axis=0), true.mean(axis=0)
    found = estimate(rank_correlations(given_scores, true), len(true))
    if any(len(set(m.round(9))) == 1 for m in means):
        assert found is None
    else:
        assert found is not None
        ranked = [m.round(9) for m in means]
        assert found.value == pytest.approx(stats.spearmanr(*ranked).statistic, abs=1e-5)


def test_the_rank_correlation_of_six_policies_moves_in_thirty_fifths() -> None:
    true = np.tile(np.arange(6.0), (40, 1))
    swapped = true[:, [1, 0, 2, 3, 4, 5]]
    found = estimate(rank_correlations(swapped, true), len(true))
    assert found is not None
    assert found.value == pytest.approx(1 - 2 / 35, abs=1e-6)
    assert found.interval == (found.value, found.value)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_the_standard_error_over_runs_is_that_of_scipy(values: list[float]) -> None:
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-6)
    assert error == pytest.approx(stats.sem(values), abs=1e-6)


def test_a_single_run_has_no_standard_error() -> None:
    assert mean_and_error([0.5]) == (0.5, None)


def test_a_mean_over_groups_leaves_out_those_that_were_not_drawn() -> None:
    assert mean_of_defined(np.array([[1.0, np.nan], [1.0, 0.0]])).tolist() == [1.0, 0.5]


def test_a_paired_difference_is_a_mean_over_users() -> None:
    owners = [f"u{i // 3}" for i in range(90)]
    values = rng("differences", 0).normal(0.2, 1, 90)
    found = mean_over_users(values, owners)
    assert found.value == pytest.approx(values.mean(), abs=1e-6)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
    with pytest.raises(ValueError, match="nan"):
        mean_over_users([float("nan")] * 90, owners)
