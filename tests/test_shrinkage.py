from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.errors import InputError
from pgenrm.scaling.aggregate import ChainScale, PaperAggregator
from pgenrm.scaling.evidence import Evidence, Record, concatenated, evidence_of, pooled
from pgenrm.scaling.reliability import reliability
from pgenrm.scaling.shrinkage import Shrinkage, ShrinkageWeights
from tests.scaling_cases import Array, Blend, generated, record, records, some_weights

N_TRAIN, N_TEST = 1500, 4000


any_weights = st.builds(some_weights, st.integers(0), st.sampled_from([0, 100]))


@cache
def fitted(blend: Blend, noise: float = 0.0, n_responses: int = 2) -> Shrinkage:
    data, labels, _ = generated(N_TRAIN, blend, noise=noise, n_responses=n_responses)
    return Shrinkage().fit(evidence_of(data), labels, n_users=N_TRAIN)


def fresh(
    blend: Blend, noise: float = 0.0, n_responses: int = 2
) -> tuple[Evidence, list[int], Array]:
    data, labels, true = generated(N_TEST, blend, noise=noise, n_responses=n_responses, seed=1)
    return evidence_of(data), labels, true


def accuracy(scores: Array, labels: list[int]) -> float:
    return float((scores.argmax(axis=1) == np.array(labels)).mean())


# ---------------------------------------------------------------- what it falls back to


@given(one=records(), weights=any_weights)
def test_without_neighbours_the_scores_are_those_of_the_own_chains(
    one: Record, weights: ShrinkageWeights
) -> None:
    evidence = evidence_of([replace(one, neighbours=[])])
    combined = Shrinkage(weights).combine(evidence)
    own = pooled(evidence.own, combined.own_weights)
    np.testing.assert_allclose(combined.scores, own, rtol=1e-9)


@given(one=records(), weights=any_weights)
def test_own_chains_that_were_not_checked_count_alike_under_any_weights(
    one: Record, weights: ShrinkageWeights
) -> None:
    own = [replace(chain, agreement=0.0) for chain in one.own]
    evidence = evidence_of([replace(one, own=own, neighbours=[])])
    scores = Shrinkage(weights).combine(evidence).scores
    np.testing.assert_allclose(scores, PaperAggregator().combine(evidence).scores, rtol=1e-9)


@given(one=records(), weights=any_weights)
def test_without_own_chains_the_neighbours_decide_alone(
    one: Record, weights: ShrinkageWeights
) -> None:
    evidence = evidence_of([replace(one, own=[])])
    combined = Shrinkage(weights).combine(evidence)
    theirs = pooled(evidence.neighbours, combined.neighbour_weights)
    np.testing.assert_allclose(combined.scores, theirs, rtol=1e-9)


@given(one=records(), weights=any_weights)
def test_a_score_lies_between_own_and_neighbours(one: Record, weights: ShrinkageWeights) -> None:
    evidence = evidence_of([one])
    combined = Shrinkage(weights).combine(evidence)
    if one.own and one.neighbours:
        own = pooled(evidence.own, combined.own_weights)
        theirs = pooled(evidence.neighbours, combined.neighbour_weights)
        assert (combined.scores >= np.minimum(own, theirs) - 1e-9).all()
        assert (combined.scores <= np.maximum(own, theirs) + 1e-9).all()


def test_it_says_nothing_about_probabilities_before_it_is_fitted() -> None:
    assert not Shrinkage().is_calibrated
    assert Shrinkage().combine(evidence_of([record(0, 2, 4, 4)])).probabilities is None


# ---------------------------------------------------------------- how much neighbours count


def test_more_neighbours_of_the_same_kind_never_count_less() -> None:
    [one], _, _ = generated(1, Blend(1, 1), n_neighbours=32)
    evidence = evidence_of([one])
    weights = [Shrinkage().combine(evidence.first(8, n)).neighbour_weight[0] for n in range(1, 33)]
    assert weights == sorted(weights)
    assert weights[0] < weights[-1] < 0.5


@given(one=records(min_responses=2), weights=any_weights, gain=st.floats(0, 5))
def test_a_neighbour_who_agrees_better_or_is_more_similar_never_counts_less(
    one: Record, weights: ShrinkageWeights, gain: float
) -> None:
    if not one.neighbours:
        return
    first, *others = one.neighbours
    for better in (
        replace(first, agreement=min(first.agreement + gain, 0.0)),
        replace(first, similarity=min(first.similarity + gain / 10, 1.0)),
    ):
        shares = []
        for chain in (first, better):
            evidence = evidence_of([replace(one, neighbours=[chain, *others])])
            among = Shrinkage(weights).combine(evidence).neighbour_weights[0]
            shares.append(among[0] / among.sum())
        assert shares[1] >= shares[0] - 1e-12


def test_the_less_a_user_told_the_more_his_neighbours_count() -> None:
    """Own chains are noise for users without history, neighbours for users with much."""
    cold, cold_labels, _ = generated(N_TRAIN // 2, Blend(own=0, neighbours=1))
    warm, warm_labels, _ = generated(N_TRAIN // 2, Blend(own=1, neighbours=0), seed=5)
    data = [replace(r, n_history=0) for r in cold] + [replace(r, n_history=8) for r in warm]
    shrinkage = Shrinkage().fit(evidence_of(data), cold_labels + warm_labels, n_users=N_TRAIN)
    weight = shrinkage.combine(evidence_of([data[0], data[-1]])).neighbour_weight
    assert weight[0] > 0.7
    assert weight[1] < 0.3


# ---------------------------------------------------------------- fitting


@pytest.mark.parametrize(
    ("blend", "n_responses"),
    [(Blend(1.0, 0.5), 2), (Blend(0.5, 1.0), 2), (Blend(1.2, 0.3), 4)],
    ids=str,
)
def test_a_fit_recovers_a_known_blend(blend: Blend, n_responses: int) -> None:
    shrinkage = fitted(blend, n_responses=n_responses)
    evidence, _, true = fresh(blend, n_responses=n_responses)
    combined = shrinkage.combine(evidence)
    share = blend.neighbours / (blend.own + blend.neighbours)
    assert combined.neighbour_weight.mean() == pytest.approx(share, abs=0.05)
    assert combined.probabilities is not None
    assert np.abs(combined.probabilities - true).mean() < 0.02


def test_neighbours_that_are_noise_get_next_to_no_weight_however_many_they_are() -> None:
    blend = Blend(own=1.0, neighbours=0.0)
    evidence, labels, _ = fresh(blend)
    alone, together = evidence.first(8, 0), evidence
    shrinkage, paper = fitted(blend), PaperAggregator()
    assert shrinkage.combine(together).neighbour_weight.max() < 0.1
    without = accuracy(shrinkage.combine(alone).scores, labels)
    assert accuracy(shrinkage.combine(together).scores, labels) > without - 0.01
    assert accuracy(paper.combine(together).scores, labels) < without - 0.05


@pytest.mark.parametrize("n_responses", [2, 3])
def test_probabilities_of_new_comparisons_are_calibrated(n_responses: int) -> None:
    blend = Blend(0.8, 0.6)
    evidence, labels, _ = fresh(blend, noise=1.5, n_responses=n_responses)
    probabilities = fitted(blend, 1.5, n_responses).combine(evidence).probabilities
    assert probabilities is not None
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    is_right = probabilities.argmax(axis=1) == np.array(labels)
    found = reliability(probabilities.max(axis=1), is_right)
    assert found.expected_calibration_error < 0.03
    assert found.bins[-1].confidence > found.bins[0].confidence + 0.2


def test_the_fit_lowers_the_log_score_at_every_step() -> None:
    data, labels, _ = generated(300, Blend(1, 1), noise=1)
    steps: list[float] = []
    Shrinkage().fit(evidence_of(data), labels, n_users=300, progress=steps.append)
    assert len(steps) > 1
    assert steps == sorted(steps, reverse=True)


def test_copies_of_the_data_that_are_counted_as_copies_move_nothing() -> None:
    data, labels, _ = generated(300, Blend(1, 0.5), noise=1)
    evidence = evidence_of(data)
    once = Shrinkage().fit(evidence, labels, n_users=10)
    thrice = Shrinkage().fit(concatenated([evidence] * 3), labels * 3, n_users=10, n_parts=3)
    a, b = once.combine(evidence), thrice.combine(evidence)
    np.testing.assert_allclose(a.neighbour_weight, b.neighbour_weight, atol=1e-3)
    assert once.weights_.n_comparisons == thrice.weights_.n_comparisons == 300


def test_labels_that_have_nothing_to_do_with_the_chains_leave_no_confidence() -> None:
    blend = Blend(0, 0)
    probabilities = fitted(blend).combine(fresh(blend)[0]).probabilities
    assert probabilities is not None
    assert probabilities.max(axis=1).mean() < 0.55


def test_comparisons_with_lost_chains_and_other_numbers_of_responses_are_fitted_together() -> None:
    some = [record(i, 2 + i % 3, i % 5, (i + 1) % 4) for i in range(120)]
    readable = [one for one in some if one.own or one.neighbours]
    labels = [i % one.n_responses for i, one in enumerate(readable)]
    evidence = evidence_of(readable)
    combined = Shrinkage().fit(evidence, labels, n_users=50).combine(evidence)
    assert combined.probabilities is not None
    assert np.isfinite(combined.probabilities).all()
    np.testing.assert_allclose(combined.probabilities.sum(axis=1), 1)


def test_chains_that_agree_better_or_are_more_similar_are_never_fitted_to_count_less() -> None:
    """The neighbours who seem to agree are the ones that are noise here: the bound holds."""
    data, labels, _ = generated(600, Blend(0, 1.0), noise=2)
    misled = [
        replace(
            one,
            neighbours=[
                replace(
                    chain,
                    agreement=-0.1 if i % 2 else -5.0,
                    scores=chain.scores if i % 2 == 0 else (chain.scores[1], chain.scores[0]),
                )
                for i, chain in enumerate(one.neighbours)
            ],
        )
        for one in data
    ]
    among = Shrinkage().fit(evidence_of(misled), labels, n_users=600).weights_.chains
    assert min(among.model_dump().values()) >= 0


@pytest.mark.parametrize("labels", [[], [0]])
def test_there_must_be_one_label_per_comparison(labels: list[int]) -> None:
    with pytest.raises(ValueError, match=f"2 comparisons with {len(labels)} labels"):
        Shrinkage().fit(evidence_of([record(0, 2, 1, 1)] * 2), labels, n_users=1)
    with pytest.raises(ValueError, match="0 comparisons"):
        Shrinkage().fit(evidence_of([]), [], n_users=0)


# ---------------------------------------------------------------- kept in a file


def test_weights_survive_a_file_and_name_what_was_fitted(tmp_path: Path) -> None:
    shrinkage = fitted(Blend(1.0, 0.5))
    shrinkage.save(tmp_path / "weights.json")
    loaded = Shrinkage.load(tmp_path / "weights.json")
    assert loaded.weights_ == shrinkage.weights_
    assert loaded.is_calibrated
    assert loaded.name == shrinkage.name != Shrinkage().name
    assert Shrinkage(scale=ChainScale.COMMON).name != Shrinkage().name


def test_a_file_that_is_missing_or_holds_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    with pytest.raises(InputError, match=r"weights\.json cannot be read"):
        Shrinkage.load(path)
    for text in ("{", '{"own": {"level": "high"}}', '{"surprise": 1}'):
        path.write_text(text, "utf-8")
        with pytest.raises(InputError, match=r"weights\.json: "):
            Shrinkage.load(path)
