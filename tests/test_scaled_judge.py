import re
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path

import pytest

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.chain import format
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.errors import EngineError
from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet, RubricRequest
from pgenrm.judge import PGenRM, RubricCheck
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.neighbours import Neighbour, Neighbourhood, NeighbourQuery
from pgenrm.runs import Run, read_judgments
from pgenrm.scaling.aggregate import ChainScale, PaperAggregator
from pgenrm.scaling.evidence import evidence_of, record_of
from pgenrm.scaling.rubric_check import agreement
from pgenrm.scaling.shrinkage import Shrinkage
from pgenrm.scaling.stopping import StoppingRule, rounds
from pgenrm.types import Comparison, Failure, FailureKind, Judgment, Outcome, Preference, User
from tests.cases import KnownEvaluator, Scorer, chain, lost
from tests.scaling_cases import TEXTS, FixedNeighbours, asked_by, person

PEOPLE = [person(i) for i in range(1, 10)]
ME = person(0)
GOING_ON = StoppingRule(stages=rounds(8, 4), threshold=0.0)


class Recorded(AttributeEvaluator):
    """The attribute evaluator, with what it was asked at once."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[ChainRequest]] = []
        self.rubrics: list[RubricRequest] = []

    def evaluate(self, requests: Sequence[ChainRequest]) -> list[ChainSet]:
        self.calls.append(list(requests))
        return super().evaluate(requests)

    def score_rubrics(self, requests: Sequence[RubricRequest]) -> list[tuple[float, ...] | Failure]:
        self.rubrics.extend(requests)
        return super().score_rubrics(requests)


def knowing(*users: User, people: Sequence[User] = PEOPLE) -> FixedNeighbours:
    return FixedNeighbours(people, frozenset(user.id for user in users))


def owner(request: ChainRequest) -> int | None:
    """Number of the person whose history a request shows."""
    return (
        int(request.user.history[0].chosen.split()[1][:-1]) // 100 if request.user.history else None
    )


def is_own(request: ChainRequest) -> bool:
    return owner(request) in (None, int(request.user.id.removeprefix("person-")))


def by_owner(own: Scorer, neighbours: Scorer) -> Scorer:
    """Score own and neighbours' chains differently."""
    return lambda request, i: (own if is_own(request) else neighbours)(request, i)


def length(request: ChainRequest, i: int) -> Sequence[float]:
    return [min(10.0, len(text) / 10) for text in request.responses]


def of_others(judgment: Judgment) -> list[str | None]:
    return [chain.neighbour for chain in judgment.chains if chain.neighbour is not None]


def rows(n: int) -> list[Comparison]:
    """Comparisons of several users, two and three responses mixed."""
    return [
        asked_by(person(i % 5, n_pairs=i % 4 + 1), f"c{i}", TEXTS[: 2 + i % 2], label=i % 2)
        for i in range(n)
    ]


# ---------------------------------------------------------------- who is consulted


def test_every_neighbour_writes_one_chain_and_the_user_is_never_his_own() -> None:
    source = knowing(*PEOPLE)
    rm = PGenRM(AttributeEvaluator(), 2, 5, neighbours=source)
    for user in PEOPLE:
        found = of_others(rm.judge_one(asked_by(user)))
        assert len(found) == len(set(found)) == 5
        assert user.id not in found


def test_fewer_neighbours_than_wanted_are_as_many_as_there_are() -> None:
    judgment = PGenRM(AttributeEvaluator(), 2, 50, neighbours=knowing(ME)).judge_one(asked_by(ME))
    assert len(of_others(judgment)) == len(PEOPLE)
    assert judgment.failures == ()


def test_a_neighbours_chain_sees_his_history_in_place_of_the_users_and_all_else_alike() -> None:
    me = ME.model_copy(update={"criteria": ("short answers",), "self_description": "a cook"})
    evaluator = Recorded()
    PGenRM(evaluator, 2, 4, neighbours=knowing(me)).judge_one(asked_by(me))
    histories = [user.history for user in PEOPLE]
    own: list[ChainRequest] = []
    theirs: list[ChainRequest] = []
    for request in evaluator.calls[0]:
        (own if request.user.history == me.history else theirs).append(request)
    assert [sum(r.n for r in kind) for kind in (own, theirs)] == [2, 4]
    for request in theirs:
        assert request.user.history in histories
        assert request.user.model_copy(update={"history": me.history}) == me
        assert set(request.responses) == set(TEXTS[:2])
    positions = [request.responses for request in theirs]
    assert positions.count(TEXTS[:2]) == 2


def test_the_neighbour_and_how_similar_he_is_stand_beside_his_chain() -> None:
    judgment = PGenRM(AttributeEvaluator(), 2, 3, neighbours=knowing(ME)).judge_one(asked_by(ME))
    assert [chain.similarity for chain in judgment.chains] == [None, None, 0.95, 0.93, 0.91]
    assert judgment.prototype == 3
    assert judgment.n_outside == 1
    assert judgment.neighbour_source == "fixed"
    assert 0 < judgment.neighbour_weight < 0.5


def test_who_finds_neighbours_is_recorded_only_where_some_were_sought() -> None:
    rm = PGenRM(AttributeEvaluator(), 2, 0, neighbours=knowing(ME))
    assert rm.judge_one(asked_by(ME)).neighbour_source is None


def test_a_source_that_names_the_user_himself_is_refused() -> None:
    class Mirror(FixedNeighbours):
        def find(self, queries: Sequence[NeighbourQuery]) -> list[Neighbourhood]:
            return [Neighbourhood(0, (Neighbour(ME, 1.0),)) for _ in queries]

    with pytest.raises(EngineError, match="fixed broke their contract: user 'person-0'"):
        PGenRM(AttributeEvaluator(), 2, 1, neighbours=Mirror([])).judge_one(asked_by(ME))


def test_no_other_users_text_stands_in_a_prompt_unless_he_is_a_named_neighbour() -> None:
    engine = ScriptedEngine(lambda request, i: format(chain((7, 4))))
    rm = PGenRM(LanguageModelEvaluator(engine), 2, 3, neighbours=knowing(ME))
    judgment = rm.judge_one(asked_by(ME))
    named = [int((name or "").removeprefix("person-")) for name in of_others(judgment)]
    shown: list[set[int]] = []
    for prompt in engine.requests:
        text = "\n".join(message.content for message in prompt.messages)
        shown.append({int(number) // 100 for number in re.findall(r"chosen (\d+)", text)})
    assert sorted(map(sorted, shown)) == sorted([[0], [0], *[[number] for number in named]])


def test_neighbours_are_looked_for_by_what_the_users_own_chains_say() -> None:
    source = FixedNeighbours(PEOPLE)
    judgment = PGenRM(AttributeEvaluator(), 4, 2, neighbours=source).judge_one(asked_by(ME))
    [query] = source.queries
    assert (query.user_id, query.n) == (ME.id, 2)
    assert query.analyses == (judgment.chains[0].chain.preferences,)
    known = knowing(ME)
    PGenRM(AttributeEvaluator(), 4, 2, neighbours=known).judge_one(asked_by(ME))
    assert known.queries[0].analyses == ()


@pytest.mark.parametrize("user", [ME, person(0, n_pairs=8)], ids=["whole", "folds"])
@pytest.mark.parametrize("is_known", [True, False])
def test_rounds_look_for_neighbours_with_what_all_chains_at_once_look_with(
    user: User, is_known: bool
) -> None:
    asked = []
    for design in ({"m": 8, "n": 4}, {"stopping": GOING_ON}):
        source = knowing(user) if is_known else FixedNeighbours(PEOPLE)
        evaluator = AttributeEvaluator()
        check = RubricCheck(evaluator, 2)
        rm = PGenRM(evaluator, neighbours=source, rubric_check=check, **design)
        rm.judge_one(asked_by(user))
        asked.append(source.queries)
    assert asked[0] == asked[1]
    assert len(asked[0][0].analyses) == (0 if is_known else 1)


class Silent(KnownEvaluator):
    """The first samples say nothing about the user."""

    def __init__(self, n_silent: int) -> None:
        super().__init__(length)
        self.n_silent = n_silent

    def _sample(self, request: ChainRequest, i: int) -> ChainSample | Failure:
        sample = super()._sample(request, i)
        if isinstance(sample, Failure) or request.first + i >= self.n_silent:
            return sample
        return sample.model_copy(
            update={"chain": sample.chain.model_copy(update={"preferences": " \n"})}
        )


def test_a_chain_without_an_analysis_counts_but_places_nobody() -> None:
    source = FixedNeighbours(PEOPLE)
    judgment = PGenRM(Silent(1), 4, 3, neighbours=source).judge_one(asked_by(ME))
    assert [query.analyses for query in source.queries] == [("Likes it short.",)]
    assert len(judgment.chains) == 4 + 3
    nowhere = FixedNeighbours(PEOPLE)
    judgment = PGenRM(Silent(9), 4, 3, neighbours=nowhere).judge_one(asked_by(ME))
    assert nowhere.queries == []
    assert len(judgment.chains) == 4


# ---------------------------------------------------------------- what is waited for


def test_requests_for_a_known_user_go_out_together() -> None:
    evaluator = Recorded()
    PGenRM(evaluator, 8, 4, neighbours=knowing(ME)).judge_one(asked_by(ME))
    [call] = evaluator.calls
    assert sum(request.n for request in call) == 12


def test_for_an_unknown_user_only_one_own_chain_is_waited_for() -> None:
    evaluator = Recorded()
    PGenRM(evaluator, 8, 4, neighbours=FixedNeighbours(PEOPLE)).judge_one(asked_by(ME))
    first, rest = evaluator.calls
    assert [(request.n, is_own(request)) for request in first] == [(1, True)]
    assert sum(request.n for request in rest) == 11
    assert sum(request.n for request in rest if is_own(request)) == 7


def test_a_batch_with_known_and_unknown_users_waits_once() -> None:
    evaluator = Recorded()
    rm = PGenRM(evaluator, 4, 2, neighbours=knowing(*PEOPLE), batch_size=10)
    comparisons = [asked_by(person(i), f"c{i}") for i in (0, 1, 2, 30)]
    list(rm.judge(comparisons))
    first, rest = evaluator.calls
    assert [request.id for request in first] == ["c0", "c30"]
    assert sum(request.n for request in rest) == 4 * 6 - 2


def test_the_chain_that_was_waited_for_is_the_first_of_the_own_chains() -> None:
    unknown, known = (
        PGenRM(AttributeEvaluator(), 5, 3, neighbours=source).judge_one(asked_by(ME))
        for source in (FixedNeighbours(PEOPLE), knowing(ME))
    )
    assert unknown == known


def test_requests_with_the_same_history_stand_next_to_each_other() -> None:
    evaluator = Recorded()
    comparisons = [asked_by(person(i), f"c{i}") for i in range(20, 28)]
    source = knowing(*[c.user for c in comparisons])
    list(PGenRM(evaluator, 2, 4, neighbours=source).judge(comparisons))
    [call] = evaluator.calls
    owners = [owner(request) for request in call if not is_own(request)]
    changes = sum(a != b for a, b in pairwise(owners))
    assert len(owners) == 32
    assert changes == len(set(owners)) - 1


# ---------------------------------------------------------------- what goes wrong


def test_a_lost_chain_of_a_neighbour_is_counted_and_named() -> None:
    evaluator = KnownEvaluator(by_owner(length, lost))
    judgment = PGenRM(evaluator, 4, 3, neighbours=knowing(ME)).judge_one(asked_by(ME))
    assert len(judgment.failures) == 3
    assert {failure.neighbour for failure in judgment.failures} <= {user.id for user in PEOPLE}
    assert judgment.neighbour_weight == 0
    alone = PGenRM(KnownEvaluator(length), 4).judge_one(asked_by(ME))
    assert judgment.scores == alone.scores


def test_without_readable_own_chains_the_neighbours_of_a_known_user_decide() -> None:
    evaluator = KnownEvaluator(by_owner(lost, length))
    judgment = PGenRM(evaluator, 4, 3, neighbours=knowing(ME)).judge_one(asked_by(ME, label=1))
    assert judgment.neighbour_weight == 1
    assert judgment.outcome is Outcome.CORRECT
    assert [failure.neighbour for failure in judgment.failures] == [None] * 4
    assert judgment.order_consistency is not None


def first_is_lost(request: ChainRequest, i: int) -> Sequence[float] | Failure:
    return lost(request, i) if request.first + i == 0 else length(request, i)


def test_neighbours_wait_for_the_other_chains_when_the_first_cannot_be_read() -> None:
    source = FixedNeighbours(PEOPLE)
    evaluator = KnownEvaluator(by_owner(first_is_lost, length))
    judgment = PGenRM(evaluator, 4, 3, neighbours=source).judge_one(asked_by(ME))
    assert len(of_others(judgment)) == 3
    assert len(judgment.chains) == 2 + 3
    assert len(judgment.failures) == 2


def test_a_user_of_whom_nothing_can_be_read_has_no_neighbours_and_no_verdict() -> None:
    source = FixedNeighbours(PEOPLE)
    evaluator = KnownEvaluator(by_owner(lost, length))
    judgment = PGenRM(evaluator, 4, 3, neighbours=source).judge_one(asked_by(ME))
    assert judgment.outcome is Outcome.UNSCORED
    assert source.queries == []
    assert len(judgment.failures) == 4


@pytest.mark.parametrize("m", [0, 2])
def test_what_the_search_for_neighbours_lost_is_not_hidden(m: int) -> None:
    evaluator = KnownEvaluator(by_owner(lost, length))
    rm = PGenRM(evaluator, m, 3, neighbours=FixedNeighbours(PEOPLE))
    judgment = rm.judge_one(asked_by(ME))
    assert judgment.outcome is Outcome.UNSCORED
    assert len(judgment.failures) == max(m, 1)


def test_the_nearest_neighbours_are_not_skipped_when_they_are_found_late() -> None:
    """All own chains of the first two rounds are lost; the third brings an analysis."""

    def late(request: ChainRequest, i: int) -> Sequence[float] | Failure:
        return lost(request, i) if request.first + i < 2 else length(request, i)

    evaluator = KnownEvaluator(by_owner(late, length))
    source = FixedNeighbours(PEOPLE)
    rule = StoppingRule(stages=rounds(8, 4), threshold=0.0)
    judgment = PGenRM(evaluator, neighbours=source, stopping=rule).judge_one(asked_by(ME))
    similarities = [c.similarity for c in judgment.chains if c.neighbour is not None]
    assert similarities == [0.95, 0.93, 0.91, 0.89]


# ---------------------------------------------------------------- Ind-0


@pytest.mark.parametrize("source", [knowing(ME), FixedNeighbours(PEOPLE)], ids=["known", "not"])
def test_without_own_chains_the_neighbours_decide_alone(source: FixedNeighbours) -> None:
    evaluator = Recorded()
    judgment = PGenRM(evaluator, 0, 4, neighbours=source).judge_one(asked_by(ME))
    assert len(of_others(judgment)) == len(judgment.chains) == 4
    assert judgment.neighbour_weight == 1
    n_analyses = sum(r.n for call in evaluator.calls for r in call if is_own(r))
    assert n_analyses == (0 if source.known else 1)


def test_neighbours_can_be_asked_for_only_where_someone_knows_them() -> None:
    with pytest.raises(ValueError, match="pgenrm prototypes fit"):
        PGenRM(AttributeEvaluator(), 4, 2)
    with pytest.raises(ValueError, match="pgenrm prototypes fit"):
        PGenRM(AttributeEvaluator(), stopping=GOING_ON)
    for m, n in ((0, 0), (-1, 4), (4, -1)):
        with pytest.raises(ValueError, match=f"m = {m}, n = {n}"):
            PGenRM(AttributeEvaluator(), m, n, neighbours=FixedNeighbours(PEOPLE))


# ---------------------------------------------------------------- rounds


def same_verdict(a: Judgment, b: Judgment) -> None:
    left, right = (j.model_dump(exclude={"is_settled", "n_prompt_tokens"}) for j in (a, b))
    assert left == right


def test_rounds_that_go_on_to_the_caps_are_the_fixed_design() -> None:
    for comparison in rows(12):
        adaptive = PGenRM(
            AttributeEvaluator(), neighbours=FixedNeighbours(PEOPLE), stopping=GOING_ON
        ).judge_one(comparison)
        fixed = PGenRM(AttributeEvaluator(), 8, 4, neighbours=FixedNeighbours(PEOPLE)).judge_one(
            comparison
        )
        assert adaptive.is_settled is False
        assert fixed.is_settled is None
        same_verdict(adaptive, fixed)


def test_a_settled_verdict_is_that_of_the_fixed_design_of_its_stage() -> None:
    eager = StoppingRule(stages=rounds(8, 4), threshold=0.999)
    judgment = PGenRM(
        AttributeEvaluator(), neighbours=FixedNeighbours(PEOPLE), stopping=eager
    ).judge_one(asked_by(ME))
    assert judgment.is_settled is True
    fixed = PGenRM(AttributeEvaluator(), 2).judge_one(asked_by(ME))
    assert judgment.scores == fixed.scores
    assert len(judgment.chains) == 2


def test_rounds_draw_only_what_is_still_missing() -> None:
    evaluator = Recorded()
    rule = StoppingRule(stages=rounds(16, 8), threshold=0.0)
    PGenRM(evaluator, neighbours=knowing(ME), stopping=rule).judge_one(asked_by(ME))
    own = [sum(r.n for r in call if is_own(r)) for call in evaluator.calls]
    theirs = [sum(r.n for r in call if not is_own(r)) for call in evaluator.calls]
    assert own == [2, 2, 4, 8]
    assert theirs == [0, 4, 4, 0]


def test_comparisons_that_are_settled_are_not_asked_about_again() -> None:
    """One half is clear at once, the other a tie that no number of chains settles."""

    def half(request: ChainRequest, i: int) -> Sequence[float]:
        return length(request, i) if int(request.id[1:]) % 2 else (5, 5)

    evaluator = KnownEvaluator(half)
    rule = StoppingRule(stages=rounds(16, 0), threshold=0.2)
    comparisons = [asked_by(ME, f"c{i}", ("x" * 5, "y" * 95)) for i in range(6)]
    judgments = list(PGenRM(evaluator, stopping=rule).judge(comparisons))
    assert [len(j.chains) for j in judgments] == [16, 2] * 3
    assert [j.is_settled for j in judgments] == [False, True] * 3


# ---------------------------------------------------------------- batches and runs


def adaptive(batch_size: int = 32, workers: int = 1) -> PGenRM:
    return PGenRM(
        AttributeEvaluator(),
        neighbours=knowing(*PEOPLE),
        stopping=StoppingRule(stages=rounds(8, 4), threshold=0.05),
        batch_size=batch_size,
        workers=workers,
    )


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (5, 3), (30, 2)])
def test_judgments_do_not_depend_on_batch_size_or_workers(batch_size: int, workers: int) -> None:
    expected = list(adaptive().judge(rows(30)))
    assert list(adaptive(batch_size, workers).judge(rows(30))) == expected
    assert {j.is_settled for j in expected} == {True, False}


def test_a_run_that_was_killed_in_between_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    expected = list(adaptive().judge(rows(20)))
    for stop in (7, 20):
        with Run(tmp_path / "run.jsonl", {}) as run:
            for judgment in islice(adaptive().judge(run.remaining(rows(20))), stop):
                run.add(judgment)
    assert list(read_judgments(tmp_path / "run.jsonl")) == expected


def test_the_label_reaches_neither_evaluator_nor_source() -> None:
    seen = []
    for label in (None, 0, 1):
        evaluator, source = Recorded(), FixedNeighbours(PEOPLE)
        PGenRM(evaluator, 4, 2, neighbours=source).judge_one(asked_by(ME, label=label))
        seen.append((evaluator.calls, source.queries))
    assert seen[0] == seen[1] == seen[2]


# ---------------------------------------------------------------- rubrics checked by own choices

MANY = person(0, n_pairs=8)


def checked(n_folds: int, user: User = MANY, m: int = 8, n: int = 3) -> tuple[Recorded, Judgment]:
    evaluator = Recorded()
    check = RubricCheck(evaluator, n_folds)
    rm = PGenRM(evaluator, m, n, neighbours=knowing(user), rubric_check=check)
    return evaluator, rm.judge_one(asked_by(user))


def choices(requests: Sequence[RubricRequest]) -> set[frozenset[str]]:
    return {frozenset(request.responses) for request in requests}


def pairs(history: Sequence[Preference]) -> set[frozenset[str]]:
    return {frozenset((pair.chosen, pair.rejected)) for pair in history}


def test_neighbours_are_checked_by_every_choice_of_the_user_and_own_chains_by_none() -> None:
    evaluator, judgment = checked(n_folds=1)
    assert choices(evaluator.rubrics) == pairs(MANY.history)
    assert len(evaluator.rubrics) == 3 * len(MANY.history)
    for one in judgment.chains:
        assert (one.agreement is None) == (one.neighbour is None)
        assert one.agreement is None or one.agreement < 0


@pytest.mark.parametrize("n_folds", [2, 3, 8, 20])
def test_an_own_chain_is_checked_by_exactly_the_choices_that_its_prompt_did_not_show(
    n_folds: int,
) -> None:
    evaluator, judgment = checked(n_folds, n=0)
    [call] = evaluator.calls
    assert sum(request.n for request in call) == len(judgment.chains) == 8
    hidden = [pairs(MANY.history) - pairs(request.user.history) for request in call]
    assert all(hidden)
    assert all(one.agreement is not None for one in judgment.chains)
    assert sum(len(h) * r.n for h, r in zip(hidden, call, strict=True)) == len(evaluator.rubrics)
    assert set().union(*hidden) <= pairs(MANY.history)
    if n_folds <= 4:  # every order has a chain of every fold
        assert set().union(*hidden) == pairs(MANY.history)


def test_no_two_own_chains_are_the_same_however_many_folds_there_are() -> None:
    _, judgment = checked(n_folds=20, user=person(0, n_pairs=4), m=12, n=0)
    assert len({one.model_dump_json() for one in judgment.chains}) == 12


def test_a_user_with_few_choices_keeps_them_all_in_his_prompts() -> None:
    user = person(0, n_pairs=3)
    evaluator, judgment = checked(n_folds=2, user=user)
    own = [request for request in evaluator.calls[0] if is_own(request)]
    assert all(request.user.history == user.history for request in own)
    assert all(c.agreement is None for c in judgment.chains if c.neighbour is None)


def test_folds_must_be_at_least_one() -> None:
    with pytest.raises(ValueError, match="n_folds must be at least 1, not 0"):
        RubricCheck(AttributeEvaluator(), 0)


def test_a_rubric_that_cannot_be_applied_leaves_its_chain_unchecked_but_counted() -> None:
    class Speechless(AttributeEvaluator):
        def score_rubrics(
            self, requests: Sequence[RubricRequest]
        ) -> list[tuple[float, ...] | Failure]:
            return [Failure(kind=FailureKind.REQUEST, reason="down") for _ in requests]

    evaluator = AttributeEvaluator()
    plain = PGenRM(evaluator, 4, 3, neighbours=knowing(MANY)).judge_one(asked_by(MANY))
    check = RubricCheck(Speechless())
    rm = PGenRM(evaluator, 4, 3, neighbours=knowing(MANY), rubric_check=check)
    assert rm.judge_one(asked_by(MANY)) == plain


def test_a_check_in_rounds_is_the_check_of_the_fixed_design() -> None:
    evaluator = Recorded()
    check = RubricCheck(evaluator, 2)
    fixed = PGenRM(evaluator, 8, 4, neighbours=knowing(MANY), rubric_check=check)
    n_before = len(evaluator.rubrics)
    expected = fixed.judge_one(asked_by(MANY))
    n_fixed = len(evaluator.rubrics) - n_before
    in_rounds = PGenRM(
        evaluator, neighbours=knowing(MANY), rubric_check=check, stopping=GOING_ON
    ).judge_one(asked_by(MANY))
    same_verdict(in_rounds, expected)
    assert len(evaluator.rubrics) == n_before + 2 * n_fixed


class Half(AttributeEvaluator):
    """Cannot rate by the rubrics of one chain, or only every other choice."""

    def __init__(self, *, whole_chains: bool) -> None:
        super().__init__()
        self.whole_chains = whole_chains

    def score_rubrics(self, requests: Sequence[RubricRequest]) -> list[tuple[float, ...] | Failure]:
        down = Failure(kind=FailureKind.REQUEST, reason="down")
        return [
            down
            if (request.criteria == requests[0].criteria if self.whole_chains else i % 2)
            else scores
            for i, (request, scores) in enumerate(
                zip(requests, super().score_rubrics(requests), strict=True)
            )
        ]


def test_a_rubric_that_could_not_be_tried_is_taken_to_be_like_the_others() -> None:
    evaluator = Half(whole_chains=True)
    rm = PGenRM(evaluator, 4, 3, neighbours=knowing(MANY), rubric_check=RubricCheck(evaluator))
    judgment = rm.judge_one(asked_by(MANY))
    agreements = [c.agreement for c in judgment.chains if c.neighbour]
    assert agreements[0] is None
    [weights] = Shrinkage().combine(evidence_of([record_of(judgment)])).neighbour_weights
    assert min(weights[1:]) < weights[0] < max(weights[1:])


def test_choices_that_could_not_be_rated_are_no_merit() -> None:
    """They count like the rated ones; a sum over fewer would look like better agreement."""
    evaluator = Half(whole_chains=False)
    rm = PGenRM(evaluator, 4, 3, neighbours=knowing(MANY), rubric_check=RubricCheck(evaluator))
    for one in rm.judge_one(asked_by(MANY)).chains:
        if one.neighbour:
            [rated] = agreement(evaluator, [(one.chain, MANY.history)])
            assert rated is not None
            assert (rated.n_pairs, rated.n_failed) == (4, 4)
            assert one.agreement == pytest.approx(2 * rated.log_likelihood, abs=1e-6)


def test_a_choice_is_held_out_only_if_no_other_praises_the_same_answer() -> None:
    twice = MANY.model_copy(update={"history": (*MANY.history[:4], *MANY.history[:4])})
    evaluator, _ = checked(n_folds=2, user=twice, n=0)
    own = evaluator.calls[0]
    assert all(len(request.user.history) == 4 for request in own)
    shown = [pairs(request.user.history) for request in own]
    assert all(s == pairs(MANY.history[0:4:2]) or s == pairs(MANY.history[1:4:2]) for s in shown)
    assert len(evaluator.rubrics) == 2 * 2 * sum(request.n for request in own)
    mixed = MANY.model_copy(update={"history": (MANY.history[0], *MANY.history[:4])})
    evaluator, _ = checked(n_folds=2, user=mixed, n=0)
    for request in evaluator.calls[0]:
        assert mixed.history[0] in request.user.history
    assert pairs(mixed.history[:1]).isdisjoint(choices(evaluator.rubrics))


def test_a_part_of_a_run_in_folds_is_the_run_with_fewer_chains() -> None:
    _, large = checked(n_folds=2, m=16, n=0)
    _, small = checked(n_folds=2, m=4, n=0)
    part = evidence_of([record_of(large)]).first(4, 0).own
    alone = evidence_of([record_of(small)]).own
    assert (part.scores[part.present] == alone.scores[alone.present]).all()


def test_errors_of_scores_are_on_the_scale_of_the_scores() -> None:
    """Chains lead by 2 or 4 points; on the common scale by 1.33 or 1.6."""

    def loud(request: ChainRequest, i: int) -> Sequence[float]:
        size = 1 + (request.first + i) % 2
        return [5 + size * (1 if text == TEXTS[0] else -1) for text in request.responses]

    raw, common = (
        PGenRM(KnownEvaluator(loud), 8, aggregator=PaperAggregator(scale)).judge_one(asked_by(ME))
        for scale in ChainScale
    )
    assert raw.scores == (6.5, 3.5)
    assert common.scores == pytest.approx((5.5 + 1.1 / 1.5, 5.5 - 1.1 / 1.5))
    errors = [judgment.standard_errors[0] or 0.0 for judgment in (raw, common)]
    assert errors[0] > 0
    assert errors[1] / errors[0] == pytest.approx((1.6 - 4 / 3) / 2, rel=1e-3)
