import numpy as np
import pytest

from pgenrm.accuracy import Tally, accuracy, clustered_interval
from pgenrm.types import Outcome

C, W, T, U = Outcome.CORRECT, Outcome.WRONG, Outcome.TIE, Outcome.UNSCORED


def test_ties_and_unscored_count_as_wrong_and_nothing_leaves_the_count() -> None:
    result = accuracy([("a", C), ("a", C), ("a", W), ("b", T), ("b", U)])
    assert (result.correct, result.wrong, result.tie, result.unscored) == (2, 1, 1, 1)
    assert result.n == 5
    assert result.n_users == 2
    assert result.accuracy == pytest.approx(0.4)
    assert result.coverage == pytest.approx(0.8)
    assert result.decided_accuracy == pytest.approx(2 / 3)


def test_too_few_users_have_no_interval() -> None:
    assert accuracy([(str(i), C) for i in range(19)]).interval is None
    assert accuracy([(str(i), C) for i in range(20)]).interval == (1, 1)
    assert accuracy([("a", C), ("a", W)]).interval is None
    assert accuracy([("a", T)]).decided_accuracy is None


def test_without_labels_there_is_no_accuracy() -> None:
    tally = Tally()
    tally.add("a", None, is_scored=False)
    assert tally.accuracy() is None
    assert (tally.n_judged, tally.n_unscored) == (1, 1)
    with pytest.raises(ValueError, match="no labelled"):
        accuracy([])


def test_the_interval_grows_with_the_clusters_not_only_with_the_count() -> None:
    """Ten identical answers of a user carry the information of one."""
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.7
    single = clustered_interval(right, np.ones(200))
    copied = clustered_interval(right * 10, np.full(200, 10))
    spread = clustered_interval(np.repeat(right, 10), np.ones(2000))
    assert single is not None
    assert copied is not None
    assert spread is not None
    assert copied == pytest.approx(single, abs=0.01)
    assert spread[1] - spread[0] < 0.5 * (copied[1] - copied[0])


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        taste = rng.beta(4, 2, size=80)
        sums = rng.binomial(5, taste)
        low, high = clustered_interval(sums, np.full(80, 5), seed=trial) or (0, 0)
        hits += low <= 4 / 6 <= high
    assert 51 <= hits <= 60
