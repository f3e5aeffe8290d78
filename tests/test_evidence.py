from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.judge import PGenRM, RubricCheck
from pgenrm.scaling.aggregate import Aggregator, PaperAggregator
from pgenrm.scaling.evidence import (
    Chains,
    Evidence,
    Record,
    concatenated,
    evidence_of,
    pooled,
    record_of,
    records_of,
    squares_within_orders,
)
from pgenrm.scaling.shrinkage import Shrinkage
from pgenrm.types import Judgment
from tests.scaling_cases import TEXTS, FixedNeighbours, asked_by, person, records

PEOPLE = [person(i) for i in range(1, 13)]


def judged(
    m: int,
    n: int,
    responses: Sequence[str] = TEXTS[:2],
    aggregator: Aggregator | None = None,
    check: bool = False,
) -> Judgment:
    evaluator = AttributeEvaluator()
    rm = PGenRM(
        evaluator,
        m,
        n,
        neighbours=FixedNeighbours(PEOPLE),
        aggregator=aggregator,
        rubric_check=RubricCheck(evaluator) if check else None,
    )
    return rm.judge_one(asked_by(person(0, n_pairs=5), responses=responses))


def of(judgment: Judgment) -> Evidence:
    return evidence_of([record_of(judgment)])


def assert_same_chains(a: Chains, b: Chains) -> None:
    """Compare what is there; padding may differ."""
    width = min(a.scores.shape[2], b.scores.shape[2])
    np.testing.assert_array_equal(a.scores[a.present][:, :width], b.scores[b.present][:, :width])
    for name in ("order", "similarity", "agreement"):
        left, right = getattr(a, name)[a.present], getattr(b, name)[b.present]
        np.testing.assert_array_equal(left, right, err_msg=name)


# ---------------------------------------------------------------- from a judgment and back


@pytest.mark.parametrize("aggregator", [PaperAggregator(), Shrinkage()])
@pytest.mark.parametrize(
    "responses", [TEXTS[:2], TEXTS, ("one", "two", "one"), ("same", "same")], ids=len
)
def test_a_stored_judgment_gives_its_scores_again(
    aggregator: Aggregator, responses: Sequence[str]
) -> None:
    judgment = judged(6, 5, responses, aggregator, check=True)
    stored = Judgment.model_validate_json(judgment.model_dump_json())
    again = aggregator.combine(of(stored))
    assert again.scores[0] == pytest.approx(judgment.scores, abs=2e-6)
    assert again.neighbour_weight[0] == pytest.approx(judgment.neighbour_weight, abs=2e-6)


def test_a_chain_that_was_not_checked_agrees_like_the_mean_of_its_kind() -> None:
    chains = judged(4, 3, check=True).chains
    some = [
        one.model_copy(update={"agreement": value})
        for one, value in zip(chains, (None, -1, None, None, -2, None, -6), strict=True)
    ]
    own, neighbours = records_of(some, {one.order: i for i, one in enumerate(chains)})
    assert [c.agreement for c in own] == [-1, -1, -1, -1]
    assert [c.agreement for c in neighbours] == [-2, -4, -6]


def test_a_record_holds_who_wrote_what() -> None:
    judgment = judged(5, 4, check=True)
    record = record_of(judgment)
    assert (len(record.own), len(record.neighbours)) == (5, 4)
    assert (record.n_history, record.n_responses) == (5, 2)
    assert [c.order for c in record.own] == [0, 0, 0, 1, 1]
    assert [c.order for c in record.neighbours] == [0, 1, 0, 1]
    assert [c.similarity for c in record.neighbours] == [0.95, 0.93, 0.91, 0.89]
    assert all(c.similarity == 0 and c.agreement == 0 for c in record.own)
    assert all(c.agreement < 0 for c in record.neighbours)


@pytest.mark.parametrize("responses", [TEXTS[:2], TEXTS[:3]], ids=len)
@pytest.mark.parametrize(("m", "n"), [(1, 0), (2, 1), (3, 4), (7, 0), (8, 5), (16, 8)])
def test_a_part_of_a_large_run_is_the_run_with_fewer_chains(
    m: int, n: int, responses: Sequence[str]
) -> None:
    part = of(judged(16, 8, responses)).first(m, n)
    small = of(judged(m, n, responses))
    assert_same_chains(part.own, small.own)
    assert_same_chains(part.neighbours, small.neighbours)


@given(st.lists(records(), min_size=1, max_size=4), st.integers(0, 8), st.integers(0, 8))
def test_a_part_of_the_chains_is_a_part_of_each_comparisons(
    some: list[Record], m: int, n: int
) -> None:
    whole = evidence_of(some)
    part = whole.first(m, n)
    assert (part.own.present <= whole.own.present).all()
    assert (part.own.present.sum(axis=1) <= m).all()
    assert (part.neighbours.present.sum(axis=1) <= n).all()
    for i, record in enumerate(some):
        alone = evidence_of([record]).first(m, n)
        assert_same_chains(part[np.array([i])].own, alone.own)
        assert_same_chains(part[np.array([i])].neighbours, alone.neighbours)


# ---------------------------------------------------------------- arrays


@given(st.lists(records(), min_size=1, max_size=5))
def test_padding_keeps_every_number_and_adds_no_chain(some: list[Record]) -> None:
    evidence = evidence_of(some)
    assert len(evidence) == len(some)
    for i, record in enumerate(some):
        for chains, kind in (
            (evidence.own, record.own),
            (evidence.neighbours, record.neighbours),
        ):
            assert chains.present[i].sum() == len(kind)
            for j, chain in enumerate(kind):
                assert tuple(chains.scores[i, j, : record.n_responses]) == chain.scores
                assert chains.order[i, j] == chain.order
                assert chains.similarity[i, j] == chain.similarity
                assert chains.agreement[i, j] == chain.agreement
        assert evidence.is_response[i].sum() == record.n_responses


def test_no_comparison_at_all_is_evidence_too() -> None:
    evidence = evidence_of([])
    assert len(evidence) == 0
    for aggregator in (PaperAggregator(), Shrinkage()):
        assert aggregator.combine(evidence).scores.shape == (0, 0)


@given(st.lists(records(), min_size=2, max_size=5))
def test_parts_that_are_joined_are_the_whole(some: list[Record]) -> None:
    whole = evidence_of(some)
    joined = concatenated([whole[:1], whole[1:]])
    for a, b in ((joined.own, whole.own), (joined.neighbours, whole.neighbours)):
        assert_same_chains(a, b)
    np.testing.assert_array_equal(joined.n_history, whole.n_history)
    np.testing.assert_array_equal(joined.n_responses, whole.n_responses)


def by_order(record: Record) -> list[np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    orders = sorted({chain.order for chain in record.own})
    return [np.array([c.scores for c in record.own if c.order == r]) for r in orders]


@given(st.lists(records(), min_size=1, max_size=4))
def test_orders_count_alike_however_many_of_their_chains_were_lost(some: list[Record]) -> None:
    found = pooled(evidence_of(some).own)
    for i, record in enumerate(some):
        scores = found[i, : record.n_responses]
        if record.own:
            expected = np.mean([chains.mean(axis=0) for chains in by_order(record)], axis=0)
            np.testing.assert_allclose(scores, expected, atol=1e-9)
        else:
            assert np.isnan(scores).all()


@given(st.lists(records(), min_size=1, max_size=4))
def test_the_spread_within_orders_is_that_of_each_comparison_alone(some: list[Record]) -> None:
    squares, freedom = squares_within_orders(evidence_of(some))
    for i, record in enumerate(some):
        expected = 0.0
        for chains in by_order(record):
            centred = chains - chains.mean(axis=1, keepdims=True)
            expected += float(((centred - centred.mean(axis=0)) ** 2).mean(axis=1).sum())
        assert squares[i] == pytest.approx(expected, abs=1e-9)
        assert freedom[i] == sum(len(chains) - 1 for chains in by_order(record))


def test_a_point_that_is_added_to_all_responses_is_no_disagreement() -> None:
    record = of(judged(6, 0))
    lifted = Chains(
        record.own.scores + np.arange(6)[None, :, None],
        record.own.order,
        record.own.similarity,
        record.own.agreement,
    )
    moved = Evidence(lifted, record.neighbours, record.n_history, record.n_responses)
    np.testing.assert_allclose(squares_within_orders(moved)[0], squares_within_orders(record)[0])
