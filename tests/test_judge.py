import threading
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.errors import EngineError, InputError
from pgenrm.evaluator import ChainRequest, ChainSet
from pgenrm.judge import PGenRM
from pgenrm.types import Comparison, Failure, FailureKind, Judgment, Outcome, User
from tests.cases import KnownEvaluator, comparison, lost, preference, shorter_is_better


def judged(*args: object, m: int = 8, **kwargs: object) -> Judgment:
    scorer = kwargs.pop("scorer", shorter_is_better)
    return PGenRM(KnownEvaluator(scorer), m).judge_one(comparison(*args, **kwargs))  # type: ignore[arg-type]


def shown(responses: Sequence[str], m: int, id: str = "c0") -> list[ChainRequest]:
    evaluator = KnownEvaluator(shorter_is_better)
    PGenRM(evaluator, m).judge_one(comparison(id, responses))
    return evaluator.requests


@given(st.integers(1, 6), st.integers(1, 40), st.integers())
def test_every_response_stands_equally_often_in_every_position(
    n_responses: int, m: int, seed: int
) -> None:
    responses = [f"response {i}" for i in range(n_responses)]
    requests = shown(responses, m, str(seed))
    assert sum(request.n for request in requests) == m
    assert len({request.responses for request in requests}) == len(requests)
    for position in range(n_responses):
        times = dict.fromkeys(responses, 0)
        for request in requests:
            assert sorted(request.responses) == responses
            times[request.responses[position]] += request.n
        assert max(times.values()) - min(times.values()) <= 1


def test_the_first_order_is_random_but_fixed_by_seed_and_id() -> None:
    firsts = [shown(("a", "b"), 1, str(i))[0].responses for i in range(200)]
    assert 70 < firsts.count(("a", "b")) < 130
    assert firsts == [shown(("a", "b"), 1, str(i))[0].responses for i in range(200)]


def test_scores_belong_to_responses_not_to_positions() -> None:
    judgment = judged(responses=("a" * 50, "b" * 10, "c" * 30), label=1, m=9)
    assert judgment.choice == 1
    assert judgment.outcome is Outcome.CORRECT
    assert judgment.order_consistency == 1
    for chain in judgment.chains:
        by_position = chain.chain.scores()
        assert [chain.scores[i] for i in chain.order] == list(by_position)


def test_a_judge_that_always_prefers_the_first_position_ends_in_a_tie() -> None:
    judgment = judged(scorer=lambda request, i: (8, 3))
    assert judgment.outcome is Outcome.TIE
    assert judgment.choice is None
    assert judgment.scores == (5.5, 5.5)
    assert judgment.confidence == 0.5
    assert judgment.order_consistency == 0


def test_orders_that_disagree_are_reported() -> None:
    judgment = judged(
        responses=("aa", "b"), scorer=lambda r, i: (9, 1) if r.responses[0] == "aa" else (5, 4)
    )
    assert judgment.choice == 0
    assert judgment.order_consistency == 0


def test_of_three_orders_the_pairs_that_agree_count() -> None:
    def scorer(request: ChainRequest, _: int) -> Sequence[float]:
        first = request.responses[0]
        best = "b" if first == "b" else "a"  # two of three orders choose a
        return [9 if text == best else 2 for text in request.responses]

    judgment = judged(responses=("a", "b", "c"), m=9, scorer=scorer)
    assert judgment.choice == 0
    assert judgment.order_consistency == pytest.approx(1 / 3, abs=1e-6)


def test_one_response_has_no_order() -> None:
    assert judged(responses=("a",), label=None).order_consistency is None


def test_without_a_readable_chain_a_comparison_is_unscored_never_a_number() -> None:
    judgment = judged(scorer=lost)
    assert judgment.outcome is Outcome.UNSCORED
    assert judgment.scores == (None, None)
    assert judgment.confidence is None
    assert [f.failure.reason for f in judgment.failures] == ["server down"] * 8


def test_failed_chains_are_kept_beside_the_readable_ones() -> None:
    broken = Failure(kind=FailureKind.FORMAT, reason="no score", text="hm", n_tokens=3)
    judgment = judged(scorer=lambda r, i: broken if i == 0 else shorter_is_better(r, i))
    assert (len(judgment.chains), len(judgment.failures)) == (6, 2)
    assert judgment.n_completion_tokens == 6 * 5 + 2 * 3
    assert judgment.choice == 0


def first_is_better(_: ChainRequest, __: int) -> Sequence[float]:
    return (8, 3)


@pytest.mark.parametrize("m", [2, 3, 7, 9])
def test_a_preference_for_a_position_cancels_whatever_m_is(m: int) -> None:
    assert judged(scorer=first_is_better, m=m).outcome is Outcome.TIE


def test_a_preference_for_a_position_cancels_when_chains_are_lost() -> None:
    def scorer(request: ChainRequest, i: int) -> Sequence[float] | Failure:
        return lost(request, i) if request.responses[0][0] == "S" and i else (8, 3)

    judgment = judged(scorer=scorer)
    assert len(judgment.failures) == 3
    assert judgment.outcome is Outcome.TIE


def test_a_lost_order_leaves_little_confidence() -> None:
    def scorer(request: ChainRequest, i: int) -> Sequence[float] | Failure:
        return lost(request, i) if request.responses[0][0] == "S" else (8, 3)

    lost_order = judged(scorer=scorer)
    assert lost_order.choice == 1
    assert lost_order.order_consistency is None
    assert lost_order.confidence == judged(scorer=first_is_better, m=1).confidence
    whole = judged(scorer=lambda r, i: (8, 3) if r.responses[0][0] == "A" else (3, 8))
    assert (whole.confidence or 0) > (lost_order.confidence or 0) + 0.03


def test_standard_errors_leave_out_what_belongs_to_the_order() -> None:
    assert judged(scorer=first_is_better).standard_errors == (0, 0)


def test_confidence_over_many_responses_counts_every_rival() -> None:
    texts = ["a", "bb", "cc", "dd", "ee"]

    def noisy(request: ChainRequest, i: int) -> Sequence[float]:
        return [(request.seed >> (7 * k + i)) % 11 for k in range(len(request.responses))]

    two = [judged(id=f"x{k}", responses=texts[:2], scorer=noisy).confidence for k in range(50)]
    five = [judged(id=f"x{k}", responses=texts, scorer=noisy).confidence for k in range(50)]
    assert sum(c or 0 for c in five) < sum(c or 0 for c in two)
    assert all(0.2 <= (c or 0) <= 1 for c in five)


def test_what_was_read_before_a_bad_row_is_judged_first() -> None:
    def source() -> Iterator[Comparison]:
        yield from many(10)
        raise InputError("row 11 is bad")

    for workers in (1, 3):
        rm = PGenRM(KnownEvaluator(shorter_is_better), 2, batch_size=4, workers=workers)
        judgments = rm.judge(source())
        assert [next(judgments).id for _ in range(10)] == [c.id for c in many(10)]
        with pytest.raises(InputError, match="row 11"):
            next(judgments)


def test_an_evaluator_that_answers_too_little_is_named() -> None:
    class Short(KnownEvaluator):
        def evaluate(self, requests: Sequence[ChainRequest]) -> list[ChainSet]:
            return super().evaluate(requests)[:-1]

    with pytest.raises(EngineError, match="evaluator known broke its contract"):
        PGenRM(Short(shorter_is_better)).judge_one(comparison())


def test_identical_responses_are_a_tie() -> None:
    judgment = judged(responses=("same", "same"), scorer=lambda r, i: (9, 2 + i))
    assert judgment.outcome is Outcome.TIE
    assert judgment.scores[0] == judgment.scores[1]
    three = judged(responses=("aa", "b", "aa"), label=1)
    assert three.choice == 1
    assert three.scores[0] == three.scores[2]


def test_a_single_response_is_scored_but_not_chosen() -> None:
    judgment = judged(responses=("only",), label=0)
    assert judgment.scores[0] is not None
    assert judgment.choice is None
    assert judgment.outcome is None
    assert not judgment.is_tie
    assert judgment.confidence is None


def test_without_a_label_there_is_no_outcome() -> None:
    assert judged(label=None).outcome is None
    assert judged(label=None).choice == 0


def test_more_agreeing_chains_are_more_confident() -> None:
    confidences = [judged(m=m).confidence or 0 for m in (1, 2, 8, 32)]
    assert confidences == sorted(confidences)
    assert 0.5 < confidences[0] < 0.9 < confidences[-1] <= 1


def test_one_chain_has_no_standard_error() -> None:
    assert judged(m=1).standard_errors == (None, None)
    errors = judged(m=2).standard_errors
    assert all(e is not None and e >= 0 for e in errors)


def many(n: int) -> list[Comparison]:
    return [comparison(f"c{i}", responses=("x" * (i % 13), "y" * (i % 7))) for i in range(n)]


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (7, 3), (32, 4), (1000, 2)])
def test_results_do_not_depend_on_batch_size_or_workers(batch_size: int, workers: int) -> None:
    expected = list(PGenRM(KnownEvaluator(shorter_is_better), 3).judge(many(50)))
    rm = PGenRM(KnownEvaluator(shorter_is_better), 3, batch_size=batch_size, workers=workers)
    assert list(rm.judge(many(50))) == expected


def test_the_label_never_reaches_the_evaluator() -> None:
    seen = []
    for label in (None, 0, 1):
        evaluator = KnownEvaluator(shorter_is_better)
        PGenRM(evaluator).judge_one(comparison(label=label))
        seen.append(evaluator.requests)
    assert seen[0] == seen[1] == seen[2]


def test_the_history_is_drawn_by_seed_and_id_in_nested_sets() -> None:
    user = User(id="u", history=tuple(preference(i) for i in range(6)))
    drawn = []
    for n in (0, 1, 3, None):
        evaluator = KnownEvaluator(shorter_is_better)
        PGenRM(evaluator, n_history=n).judge_one(comparison(user=user))
        drawn.append([p.chosen for p in evaluator.requests[0].user.history])
    assert [len(d) for d in drawn] == [0, 1, 3, 6]
    assert set(drawn[1]) < set(drawn[2]) < set(drawn[3])
    assert drawn[2] == sorted(drawn[2])


def test_the_input_is_read_only_as_far_as_needed() -> None:
    read = []

    def source() -> object:
        for c in many(1000):
            read.append(c.id)
            yield c

    rm = PGenRM(KnownEvaluator(shorter_is_better), 1, batch_size=4, workers=2)
    judgments = rm.judge(source())  # type: ignore[arg-type]
    next(judgments)
    assert len(read) <= 2 * 2 * 4 + 4
    judgments.close()  # type: ignore[attr-defined]
    assert threading.active_count() < 20


def test_an_evaluator_that_cannot_work_stops_the_run_with_its_error() -> None:
    class Broken(KnownEvaluator):
        def evaluate(self, requests: Sequence[ChainRequest]) -> list[ChainSet]:
            raise EngineError("no such model")

    for workers in (1, 3):
        with pytest.raises(EngineError, match="no such model"):
            list(PGenRM(Broken(shorter_is_better), workers=workers).judge(many(10)))


@pytest.mark.parametrize("wrong", [{"m": 0}, {"batch_size": 0}, {"workers": 0}, {"n_history": -1}])
def test_wrong_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        PGenRM(KnownEvaluator(shorter_is_better), **wrong)  # type: ignore[arg-type]


@given(st.permutations(range(4)))
def test_permuting_the_responses_permutes_the_scores(order: list[int]) -> None:
    texts = ["a" * 5, "b" * 20, "c" * 35, "d" * 50]

    def scorer(request: ChainRequest, i: int) -> Sequence[float]:
        return [10 - len(r) / 10 for r in request.responses]

    plain = judged(responses=texts, scorer=scorer)
    moved = judged(responses=[texts[i] for i in order], scorer=scorer)
    assert moved.scores == tuple(plain.scores[i] for i in order)
