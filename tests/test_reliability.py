import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.scaling.reliability import N_BINS, Reliability, reliability

outcomes = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=200)


def of(pairs: list[tuple[float, bool]]) -> Reliability:
    return reliability([c for c, _ in pairs], [r for _, r in pairs])


def test_a_coin_that_knows_its_odds_is_calibrated_and_a_boaster_is_not() -> None:
    random = np.random.default_rng(0)
    odds = random.uniform(0.5, 1, 20_000)
    is_right = random.random(20_000) < odds
    assert reliability(odds, is_right).expected_calibration_error < 0.02
    boasting = reliability(np.full(20_000, 0.95), is_right)
    assert boasting.expected_calibration_error == pytest.approx(0.2, abs=0.02)
    assert boasting.log_score > reliability(odds, is_right).log_score + 0.1


def test_known_values() -> None:
    found = reliability([0.6, 0.6, 0.9, 0.9], [True, False, True, True])
    assert [(b.n, b.confidence, b.accuracy) for b in found.bins] == [
        (1, 0.6, 1),
        (1, 0.6, 0),
        (1, 0.9, 1),
        (1, 0.9, 1),
    ]
    assert found.expected_calibration_error == 0.3
    assert found.log_score == pytest.approx(-np.log([0.6, 0.4, 0.9, 0.9]).mean(), abs=1e-6)


@given(outcomes)
def test_bins_hold_every_comparison_once_by_rising_confidence(
    pairs: list[tuple[float, bool]],
) -> None:
    found = of(pairs)
    sizes = [b.n for b in found.bins]
    assert sum(sizes) == len(pairs)
    assert len(sizes) == min(N_BINS, len(pairs))
    assert max(sizes) - min(sizes) <= 1
    confidences = [b.confidence for b in found.bins]
    assert confidences == sorted(confidences)
    n_right = sum(b.n * b.accuracy for b in found.bins)
    assert n_right == pytest.approx(sum(right for _, right in pairs), abs=1e-3)


@given(outcomes)
def test_the_error_is_a_share_and_at_least_the_overall_gap(pairs: list[tuple[float, bool]]) -> None:
    found = of(pairs)
    gap = abs(np.mean([c for c, _ in pairs]) - np.mean([r for _, r in pairs]))
    assert gap - 1e-5 <= found.expected_calibration_error <= 1
    assert np.isfinite(found.log_score)


def test_a_certainty_that_is_wrong_costs_much_but_not_infinitely_much() -> None:
    assert 20 < reliability([1.0], [False]).log_score < 100


def test_without_a_confidence_there_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="no confidence"):
        reliability([], [])
