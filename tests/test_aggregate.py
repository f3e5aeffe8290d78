from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.scaling.aggregate import Aggregator, ChainScale, PaperAggregator
from pgenrm.scaling.evidence import ChainRecord, Record, evidence_of
from pgenrm.scaling.shrinkage import Shrinkage
from tests.scaling_cases import records, some_weights

FITTED = some_weights(seed=4, n_comparisons=500)
AGGREGATORS: tuple[Aggregator, ...] = (
    PaperAggregator(),
    PaperAggregator(ChainScale.COMMON),
    Shrinkage(),
    Shrinkage(FITTED),
    Shrinkage(FITTED.model_copy(update={"scale": ChainScale.COMMON})),
)
each_aggregator = pytest.mark.parametrize("aggregator", AGGREGATORS, ids=lambda a: a.name)


def said(*scores: Sequence[float], n_orders: int = 2) -> list[ChainRecord]:
    """Chains with these scores, in turn over the orders."""
    return [ChainRecord(tuple(s), order=i % n_orders) for i, s in enumerate(scores)]


def paper(own: Sequence[ChainRecord], neighbours: Sequence[ChainRecord]) -> list[float]:
    combined = PaperAggregator().combine(evidence_of([Record(own, neighbours, 3, 2)]))
    scores: list[float] = combined.scores[0].tolist()
    return scores


# ---------------------------------------------------------------- the paper's way


@given(st.integers(0), st.integers(1, 5), st.integers(1, 5), st.integers(2, 4))
def test_the_paper_takes_the_mean_of_own_plus_the_mean_of_neighbours(
    seed: int, m: int, n: int, n_responses: int
) -> None:
    random = np.random.default_rng(seed % 2**32)
    own = random.uniform(0, 10, (m * n_responses, n_responses))
    theirs = random.uniform(0, 10, (n * n_responses, n_responses))
    given_records = Record(
        said(*own.tolist(), n_orders=n_responses),
        said(*theirs.tolist(), n_orders=n_responses),
        3,
        n_responses,
    )
    combined = PaperAggregator().combine(evidence_of([given_records]))
    equation_9 = own.mean(axis=0) + theirs.mean(axis=0)
    np.testing.assert_allclose(2 * combined.scores[0], equation_9)
    assert combined.scores[0].argmax() == equation_9.argmax()


def test_chains_of_one_kind_alone_are_averaged() -> None:
    assert paper(said((8, 2), (6, 4)), []) == [7, 3]
    assert paper([], said((8, 2), (6, 4))) == [7, 3]


def test_neighbours_count_half_however_many_they_are() -> None:
    few = paper(said((8, 2), (8, 2)), said((4, 6), (4, 6)))
    many = paper(said((8, 2), (8, 2)), said(*[(4, 6)] * 16))
    assert few == many == [6, 4]


def test_a_taste_for_a_position_cancels_when_an_order_lost_chains() -> None:
    first_is_better = [ChainRecord((8, 3), order=0)] * 3 + [ChainRecord((3, 8), order=1)]
    assert paper(first_is_better, []) == [5.5, 5.5]


# ---------------------------------------------------------------- every aggregator


@each_aggregator
@given(some=st.lists(records(), min_size=1, max_size=4))
def test_whatever_was_read_gives_a_score_for_every_response_and_nothing_else(
    aggregator: Aggregator, some: list[Record]
) -> None:
    combined = aggregator.combine(evidence_of(some))
    assert ((combined.neighbour_weight >= 0) & (combined.neighbour_weight <= 1)).all()
    for i, one in enumerate(some):
        scores = combined.scores[i]
        is_read = bool(one.own or one.neighbours)
        assert np.isfinite(scores[: one.n_responses]).all() == is_read
        assert np.isnan(scores[one.n_responses :]).all()
        if not one.neighbours:
            assert combined.neighbour_weight[i] == 0
        elif not one.own:
            assert combined.neighbour_weight[i] == 1
        if combined.probabilities is not None and is_read:
            assert combined.probabilities[i].sum() == pytest.approx(1)
            assert (combined.probabilities[i] >= 0).all()


@each_aggregator
@given(some=st.lists(records(), min_size=2, max_size=5))
def test_a_comparison_is_combined_as_if_it_were_alone(
    aggregator: Aggregator, some: list[Record]
) -> None:
    together = aggregator.combine(evidence_of(some))
    for i, one in enumerate(some):
        alone = aggregator.combine(evidence_of([one]))
        n = one.n_responses
        np.testing.assert_allclose(together.scores[i, :n], alone.scores[0], rtol=1e-9)
        assert together.neighbour_weight[i] == pytest.approx(alone.neighbour_weight[0])
        if together.probabilities is not None and alone.probabilities is not None:
            np.testing.assert_allclose(together.probabilities[i, :n], alone.probabilities[0])


@each_aggregator
@given(one=records(min_responses=2), data=st.data())
def test_permuting_the_responses_permutes_scores_and_probabilities(
    aggregator: Aggregator, one: Record, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(one.n_responses)))

    def permuted(chains: Sequence[ChainRecord]) -> list[ChainRecord]:
        return [replace(c, scores=tuple(c.scores[i] for i in order)) for c in chains]

    moved = replace(one, own=permuted(one.own), neighbours=permuted(one.neighbours))
    plain = aggregator.combine(evidence_of([one]))
    other = aggregator.combine(evidence_of([moved]))
    np.testing.assert_allclose(other.scores[0], plain.scores[0, order], rtol=1e-9)
    if plain.probabilities is not None and other.probabilities is not None:
        np.testing.assert_allclose(other.probabilities[0], plain.probabilities[0, order])


@each_aggregator
@given(one=records(min_responses=2), data=st.data())
def test_scores_do_not_depend_on_the_order_in_which_chains_came(
    aggregator: Aggregator, one: Record, data: st.DataObject
) -> None:
    own, neighbours = (data.draw(st.permutations(list(c))) for c in (one.own, one.neighbours))
    shuffled = aggregator.combine(evidence_of([replace(one, own=own, neighbours=neighbours)]))
    plain = aggregator.combine(evidence_of([one]))
    np.testing.assert_allclose(shuffled.scores, plain.scores, rtol=1e-9)


def test_every_way_to_another_result_has_another_name() -> None:
    assert len({aggregator.name for aggregator in AGGREGATORS}) == len(AGGREGATORS)


# ---------------------------------------------------------------- the common scale


def common(*chains: Sequence[float]) -> list[float]:
    record = Record(said(*chains), [], 3, len(chains[0]))
    scores = PaperAggregator(ChainScale.COMMON).combine(evidence_of([record])).scores[0]
    return [round(score, 9) for score in scores.tolist()]


def test_on_the_common_scale_a_loud_chain_does_not_outvote_two_others() -> None:
    loud, quiet, quiet_too = (9, 1), (5.5, 6.5), (5, 6.5)
    raw = paper(said(loud, quiet, quiet_too, (5.0, 6.0)), [])
    scaled = common(loud, quiet, quiet_too, (5.0, 6.0))
    assert raw[0] > raw[1]
    assert scaled[0] < scaled[1]


def test_on_the_common_scale_only_differences_count() -> None:
    assert common((8, 2)) == common((7, 1))
    assert sum(common((8, 2))) == 11


def test_a_chain_that_sees_no_difference_stands_in_the_middle() -> None:
    assert common((8, 8)) == [5.5, 5.5]
    assert common((3, 3, 3)) == [5.5, 5.5, 5.5]
