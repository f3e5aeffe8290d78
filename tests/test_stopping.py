from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.integrate import quad
from scipy.stats import norm

from pgenrm.scaling.aggregate import Aggregator, ChainScale, PaperAggregator, on_scale
from pgenrm.scaling.evidence import ChainRecord, Evidence, Record, concatenated, evidence_of
from pgenrm.scaling.shrinkage import Shrinkage
from pgenrm.scaling.stopping import Outlook, Stage, StoppingRule, rounds
from tests.scaling_cases import Array, Blend, generated, records

PAPER = PaperAggregator()


def rule(threshold: float | None = None, error: float = 0.01) -> StoppingRule:
    return StoppingRule(stages=rounds(16, 8), error=error, threshold=threshold)


def losses(some: StoppingRule, evidence: Evidence, stage: int = 0) -> Array:
    return some.expected_loss(stage, evidence, PAPER.combine(evidence))


def leading_by(points: float, spread: float = 0.0, m: int = 4) -> Record:
    """Own chains in both orders whose mean lead is `points`."""
    chains = [
        ChainRecord((5 + (points + spread * sign) / 2, 5 - (points + spread * sign) / 2), order=r)
        for sign in (1, -1) * (m // 4)
        for r in (0, 1)
    ]
    return Record(chains, [], 3, 2)


def stopped(
    some: StoppingRule, evidence: Evidence, aggregator: Aggregator
) -> tuple[list[int], Array]:
    """Return the stage at which each comparison stops, and what its verdict there loses.

    A verdict that trails by x logits at the caps is tanh(x / 2) less likely to be right.
    """
    caps = aggregator.combine(evidence.first(some.stages[-1].m, some.stages[-1].n))
    stages = [len(some.stages) - 1] * len(evidence)
    lost = np.zeros(len(evidence))
    still_open = np.ones(len(evidence), dtype=bool)
    for number, stage in enumerate(some.stages[:-1]):
        part = evidence.first(stage.m, stage.n)
        now = aggregator.combine(part)
        stops = still_open & (some.expected_loss(number, part, now) <= some.stop_below)
        for i in np.flatnonzero(stops).tolist():
            choice = int(now.scores[i].argmax())
            behind = (caps.scores[i].max() - caps.scores[i, choice]) * caps.strength[i]
            stages[i], lost[i] = number, np.tanh(behind / 2)
        still_open &= ~stops
    return stages, lost


# ---------------------------------------------------------------- rounds and caps


@given(st.integers(0, 100), st.integers(0, 50))
def test_rounds_double_up_to_the_caps_and_neighbours_join_in_the_second(m: int, n: int) -> None:
    stages = rounds(m, n)
    assert stages[-1] == Stage(m=m, n=n)
    assert all(a.m < b.m and a.n <= b.n for a, b in pairwise(stages))
    assert all(2 * stage.m >= after.m for stage, after in pairwise(stages))
    if m > 2:
        assert stages[0] == Stage(m=2, n=0)
    StoppingRule(stages=stages)


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [{"m": 4, "n": 0}, {"m": 2, "n": 0}],
        [{"m": 2, "n": 4}, {"m": 4, "n": 2}],
        [{"m": 2, "n": 0}, {"m": 2, "n": 0}],
        [{"m": -1, "n": 0}],
    ],
)
def test_stages_that_do_not_rise_are_refused(stages: list[dict[str, int]]) -> None:
    with pytest.raises(ValidationError, match="stages"):
        StoppingRule.model_validate({"stages": stages})


def test_outlooks_for_another_number_of_stages_are_refused() -> None:
    with pytest.raises(ValidationError, match="4 stages need 3 outlooks, found 1"):
        StoppingRule(stages=rounds(16, 8), outlooks=(Outlook(),))


@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_a_threshold_is_no_less_than_nothing(threshold: float) -> None:
    with pytest.raises(ValidationError):
        rule(threshold=threshold)


@pytest.mark.parametrize("error", [0, 1, -0.1, float("nan")])
def test_an_error_level_lies_between_nothing_and_everything(error: float) -> None:
    with pytest.raises(ValidationError):
        StoppingRule(stages=rounds(4, 0), error=error)


def test_a_rule_survives_its_json_form() -> None:
    data, _, _ = generated(60, Blend(1, 0.3), m=16, noise=1)
    fitted = rule().fit(evidence_of(data), [str(i) for i in range(60)], PAPER)
    assert StoppingRule.model_validate_json(fitted.model_dump_json()) == fitted
    assert fitted.n_users == 60
    assert len(fitted.outlooks) == 3


# ---------------------------------------------------------------- the expected loss


@pytest.mark.parametrize("variance", [0.04, 0.25, 2.0])
@pytest.mark.parametrize("points", [0.1, 1.0, 3.0])
def test_the_expected_loss_is_what_the_normal_model_says(points: float, variance: float) -> None:
    outlook = Outlook(slope=0.9, own=0.0, constant=variance)
    some = StoppingRule(stages=rounds(16, 8), outlooks=(outlook,) * 3)
    evidence = evidence_of([leading_by(points)])
    lead = 0.9 * points * PAPER.combine(evidence).strength[0]
    deviation = variance**0.5

    def lost(trailing: float) -> float:
        density: float = norm.pdf(-trailing, lead, deviation)
        return float(np.tanh(trailing / 2)) * density

    expected, _ = quad(lost, 0, 10 * deviation)
    assert losses(some, evidence)[0] == pytest.approx(expected, rel=0.1, abs=1e-4)


def test_a_wider_lead_loses_less_and_a_wider_spread_more() -> None:
    by_lead = losses(rule(), evidence_of([leading_by(p) for p in (0.1, 0.5, 1.0, 2.0, 4.0)]))
    assert by_lead.tolist() == sorted(by_lead, reverse=True)
    assert by_lead[0] > 10 * by_lead[-1]
    by_spread = losses(rule(), evidence_of([leading_by(1.0, spread=s) for s in (0, 1, 3, 6)]))
    assert by_spread.tolist() == sorted(by_spread)
    assert by_spread[-1] > 1.5 * by_spread[0]


def test_the_loss_falls_the_fewer_chains_are_still_to_come() -> None:
    by_m = [losses(rule(), evidence_of([leading_by(1.0, 1.0, m)]))[0] for m in (4, 8, 16)]
    assert by_m == sorted(by_m, reverse=True)
    assert by_m[0] > by_m[-1]


def test_orders_that_choose_differently_are_not_settled() -> None:
    """Both records lead by 2 points; in the second one order alone is of another opinion."""
    agree = [ChainRecord((6, 4), 0), ChainRecord((6, 4), 1)]
    differ = [ChainRecord((9, 1), 0), ChainRecord((3, 7), 1)]
    found = losses(rule(), evidence_of([Record(c, [], 3, 2) for c in (agree, differ)]))
    assert found[1] > 0.5 > found[0]


@pytest.mark.parametrize(
    "unknown",
    [
        Record([], [], 3, 2),
        Record([ChainRecord((5, 5), 0), ChainRecord((5, 5), 1)], [], 3, 2),
        Record([ChainRecord((8, 3), 0), ChainRecord((3, 8), 1)], [], 3, 2),
        Record([ChainRecord((9, 1), 0)] * 3, [], 3, 2),
        Record([ChainRecord((9, 1, 1), 0), ChainRecord((9, 1, 1), 1)], [], 3, 3),
        Record([], [ChainRecord((9, 1), 0), ChainRecord((9, 1), 1)], 3, 2),
        Record([ChainRecord((9,), 0)] * 2, [], 3, 1),
    ],
    ids=["nothing", "tie", "positions", "lost order", "order to come", "no own", "one response"],
)
def test_what_cannot_be_settled_yet_is_not(unknown: Record) -> None:
    together = evidence_of([leading_by(4), unknown])
    found = losses(rule(), together)
    assert found[1] == 1
    assert found[0] < 0.5


@given(st.lists(records(min_responses=2), min_size=1, max_size=4), st.integers(0, 2))
def test_the_expected_loss_is_a_share_that_does_not_depend_on_the_batch(
    some: list[Record], stage: int
) -> None:
    together = losses(rule(), evidence_of(some), stage)
    assert ((together > 0) & (together <= 1)).all()
    for i, one in enumerate(some):
        assert losses(rule(), evidence_of([one]), stage)[0] == pytest.approx(together[i])


@given(st.lists(records(min_responses=2), min_size=1, max_size=4), st.integers(0, 2))
def test_the_expected_loss_is_on_the_scale_of_the_scores(some: list[Record], stage: int) -> None:
    common = PaperAggregator(ChainScale.COMMON)
    evidence = evidence_of(some)
    scaled = on_scale(evidence, ChainScale.COMMON)
    np.testing.assert_allclose(
        rule().expected_loss(stage, evidence, common.combine(evidence)),
        rule().expected_loss(stage, scaled, PAPER.combine(scaled)),
    )


def test_ties_alone_teach_nothing_about_what_is_to_come() -> None:
    ties = [Record([ChainRecord((5, 5), r) for r in (0, 1) * 8], [], 3, 2)] * 60
    fitted = rule().fit(evidence_of(ties), [str(i) for i in range(60)], PAPER)
    assert fitted.outlooks == (Outlook(),) * 3


@given(one=records(min_responses=2), data=st.data())
def test_permuting_the_responses_does_not_move_the_expected_loss(
    one: Record, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(one.n_responses)))

    def permuted(chains: Sequence[ChainRecord]) -> list[ChainRecord]:
        return [replace(c, scores=tuple(c.scores[i] for i in order)) for c in chains]

    moved = replace(one, own=permuted(one.own), neighbours=permuted(one.neighbours))
    plain, other = (losses(rule(), evidence_of([r])) for r in (one, moved))
    np.testing.assert_allclose(plain, other)


@given(st.lists(records(), min_size=1, max_size=4))
def test_at_the_caps_everything_stops_and_before_them_nothing_at_a_threshold_of_zero(
    some: list[Record],
) -> None:
    evidence = evidence_of(some)
    strictest = rule(threshold=0.0)
    assert (losses(strictest, evidence, stage=3) <= strictest.stop_below).all()
    for stage in range(3):
        assert (losses(strictest, evidence, stage) > strictest.stop_below).all()


def test_a_lead_beyond_all_doubt_still_goes_on_at_a_threshold_of_zero() -> None:
    sure = StoppingRule(
        stages=rounds(16, 8), outlooks=(Outlook(own=0, constant=0),) * 3, threshold=0.0
    )
    assert losses(sure, evidence_of([leading_by(9)]))[0] > sure.stop_below


# ---------------------------------------------------------------- fitting

N_USERS, PER_USER = 400, 3
USER_IDS = [f"user {i // PER_USER}" for i in range(N_USERS * PER_USER)]


def of_users(seed: int, noise: float = 1.5) -> tuple[Evidence, list[int]]:
    n = N_USERS * PER_USER
    data, labels, _ = generated(n, Blend(0.8, 0.4), m=16, noise=noise, seed=seed)
    return evidence_of(data), labels


@pytest.mark.parametrize("error", [0.005, 0.02])
def test_stopping_loses_no_more_than_the_error_level_on_new_users_and_saves_chains(
    error: float,
) -> None:
    """With 95 % confidence for each fit: at most a few of twelve may fail."""
    means, n_chains = [], []
    for seed in range(12):
        evidence, _ = of_users(2 * seed)
        fitted = rule(error=error).fit(evidence, USER_IDS, PAPER)
        fresh, _ = of_users(2 * seed + 1)
        stages, lost = stopped(fitted, fresh, PAPER)
        means.append(lost.mean())
        n_chains += [fitted.stages[s].m + fitted.stages[s].n for s in stages]
    assert sum(mean > error for mean in means) <= 2
    assert np.mean(means) > error / 20
    assert np.mean(n_chains) < 0.6 * 24


def test_the_level_holds_with_a_fitted_aggregator_too() -> None:
    evidence, labels = of_users(100)
    shrinkage = Shrinkage().fit(evidence, labels, n_users=N_USERS)
    fitted = rule(error=0.01).fit(evidence, USER_IDS, shrinkage)
    fresh, _ = of_users(101)
    stages, lost = stopped(fitted, fresh, shrinkage)
    assert lost.mean() < 0.01
    assert 0 < sum(stage < 3 for stage in stages) < len(stages)


def test_a_higher_error_level_stops_no_later() -> None:
    evidence, _ = of_users(0)
    thresholds, n_settled = [], []
    for error in (0.001, 0.004, 0.016, 0.064):
        fitted = rule(error=error).fit(evidence, USER_IDS, PAPER)
        thresholds.append(fitted.stop_below)
        n_settled.append(sum(stage < 3 for stage in stopped(fitted, evidence, PAPER)[0]))
    assert thresholds == sorted(thresholds)
    assert n_settled == sorted(n_settled)
    assert n_settled[0] < n_settled[-1]


def test_a_higher_threshold_stops_no_comparison_later() -> None:
    evidence, _ = of_users(0)
    by_threshold = [
        stopped(rule(threshold), evidence, PAPER)[0] for threshold in (0.0, 0.001, 0.03, 0.2, 1.0)
    ]
    for strict, loose in pairwise(by_threshold):
        assert all(a >= b for a, b in zip(strict, loose, strict=True))
    assert set(by_threshold[0]) == {3}
    assert set(by_threshold[-1]) == {0}


def test_copies_of_a_users_comparisons_make_the_level_no_surer() -> None:
    evidence, _ = of_users(3)
    once = rule().fit(evidence, USER_IDS, PAPER)
    copied = rule().fit(concatenated([evidence] * 3), USER_IDS * 3, PAPER)
    assert copied.threshold == once.threshold
    assert copied.n_users == once.n_users == N_USERS


def test_one_user_settles_no_level_so_that_nothing_stops_early() -> None:
    evidence, _ = of_users(4)
    fitted = rule().fit(evidence, ["the only one"] * len(evidence), PAPER)
    assert fitted.stop_below == 0
    assert set(stopped(fitted, evidence, PAPER)[0]) == {3}


def test_chains_that_all_say_the_same_stop_after_the_first_round() -> None:
    data, _, _ = generated(200, Blend(1, 0), m=16, n_neighbours=0)
    evidence = evidence_of(data)
    fitted = StoppingRule(stages=rounds(16, 0)).fit(evidence, list(map(str, range(200))), PAPER)
    stages, lost = stopped(fitted, evidence, PAPER)
    assert np.mean([stage == 0 for stage in stages]) > 0.95
    assert lost.max() == 0


def test_lost_chains_and_other_numbers_of_responses_can_be_fitted_on() -> None:
    some = [Record([], [], 0, 2), leading_by(1), leading_by(0), Record([], [], 0, 3)]
    three, _, _ = generated(50, Blend(1, 0.2), m=16, n_responses=3, noise=1)
    everyone = [*some, *three]
    fitted = rule().fit(evidence_of(everyone), list(map(str, range(len(everyone)))), PAPER)
    assert np.isfinite([fitted.stop_below, *fitted.outlooks[0].model_dump().values()]).all()


def test_a_rule_of_one_stage_has_nothing_to_fit() -> None:
    evidence, _ = of_users(5)
    fitted = StoppingRule(stages=rounds(2, 0)).fit(evidence, USER_IDS, PAPER)
    assert fitted.outlooks == ()
    assert set(stopped(fitted, evidence, PAPER)[0]) == {0}
