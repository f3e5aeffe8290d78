"""Rewards of chains, and the coverage judge that knows the simulated users."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.attributes.render import CRITERIA
from pgenrm.chain import format
from pgenrm.errors import InputError
from pgenrm.nano.words import POLE_OF
from pgenrm.sim.card import Card
from pgenrm.sim.tastes import ATTRIBUTES, MEASURED, WANTED
from pgenrm.sim.world import Split, World
from pgenrm.train.coverage import (
    N_COVERED,
    WORDS,
    WorldCoverage,
    attribute_meaning,
    coverage,
    nano_meaning,
    signed_weights,
)
from pgenrm.train.rewards import (
    FORMAT_ERROR,
    CoverageRequest,
    Criteria,
    format_error,
    outcome,
    process_reward,
)
from pgenrm.types import Comparison, Criterion, EvaluationChain, Failure, FailureKind

UNREADABLE = "The first one is better."


def said(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": text}] for text in texts]


def scored(*scores: float) -> str:
    return format(EvaluationChain(preferences="Wants it short.", stated_scores=scores))


class Ratings:
    """A coverage judge that gives what it is told to, and keeps what it was asked."""

    def __init__(self, *ratings: float | Failure) -> None:
        self.ratings = list(ratings)
        self.requests: list[CoverageRequest] = []

    def criteria(self, comparisons: Sequence[Comparison]) -> Criteria:
        return {}

    def rate(self, requests: Sequence[CoverageRequest]) -> list[float | Failure]:
        self.requests.extend(requests)
        return [self.ratings.pop(0) for _ in requests]

    def close(self) -> None:
        pass


def processed(judge: Ratings, *texts: str) -> list[float | None]:
    n = len(texts)
    columns: dict[str, Any] = {
        "id": [f"c{i}" for i in range(n)],
        "user_id": ["u"] * n,
        "query": ["Why?"] * n,
        "responses": [["Because.", "It depends."]] * n,
        "order": [[1, 0]] * n,
        "criteria": [["Short."]] * n,
    }
    reward = process_reward(judge)

    async def ask() -> list[float | None]:
        return await reward(completions=said(*texts), log_metric=None, **columns)

    return asyncio.run(ask())


def test_the_outcome_is_1_only_where_the_chosen_response_scores_strictly_highest() -> None:
    texts = [scored(7, 6), scored(6, 7), scored(7, 7), UNREADABLE, scored(5, 9, 5), scored(9, 5, 9)]
    orders = [[0, 1]] * 4 + [[0, 1, 2]] * 2
    assert outcome(said(*texts), [0, 0, 0, 0, 1, 0], orders) == [1, 0, 0, 0, 1, 0]


@given(st.lists(st.integers(0, 10), min_size=2, max_size=4), st.data())
def test_permuting_the_responses_does_not_change_the_outcome(
    scores: list[int], data: st.DataObject
) -> None:
    label = data.draw(st.integers(0, len(scores) - 1))
    order = data.draw(st.permutations(range(len(scores))))
    plain = outcome(said(scored(*scores)), [label], [list(range(len(scores)))])
    permuted = said(scored(*[scores[i] for i in order]))
    assert outcome(permuted, [order.index(label)], [order]) == plain


def test_only_a_chain_that_cannot_be_read_is_a_format_error() -> None:
    texts = [scored(7, 6), UNREADABLE, "", scored(7)]  # the last one misses a response
    assert format_error(said(*texts), [[0, 1]] * 4) == [0, FORMAT_ERROR, FORMAT_ERROR, FORMAT_ERROR]


def test_the_process_reward_is_the_judges_rating_and_none_where_it_failed() -> None:
    failure = Failure(kind=FailureKind.REQUEST, reason="no answer")
    judge = Ratings(0.25, failure)
    assert processed(judge, scored(7, 6), scored(6, 7)) == [0.25, None]


def test_an_unreadable_chain_earns_no_process_reward_and_is_not_rated() -> None:
    judge = Ratings(0.5)
    assert processed(judge, UNREADABLE, scored(6, 7)) == [0, 0.5]
    (request,) = judge.requests
    assert (request.id, request.criteria) == ("c1", ("Short.",))
    assert request.chain.stated_scores == (6, 7)


# ---------------------------------------------------------------- coverage of the true weights


weights = st.dictionaries(
    st.sampled_from(["list", "warm", "formal", "question"]),
    st.floats(-5, 5).filter(lambda w: abs(w) > 0.01),
    min_size=1,
)


@given(weights, weights, st.floats(0.1, 10))
def test_coverage_is_a_share_and_does_not_depend_on_scale(
    rubric: dict[str, float], truth: dict[str, float], scale: float
) -> None:
    rating = coverage(rubric, truth)
    assert 0 <= rating <= 1
    scaled = coverage({name: scale * weight for name, weight in rubric.items()}, truth)
    assert scaled == pytest.approx(rating, abs=1e-4)


@given(weights)
def test_the_truth_covers_itself_and_its_opposite_nothing(truth: dict[str, float]) -> None:
    assert coverage(truth, truth) == pytest.approx(1)
    assert coverage({name: -weight for name, weight in truth.items()}, truth) == 0


def test_a_wish_of_nobody_and_a_wrong_sign_lower_the_coverage() -> None:
    truth = {"list": 4.0, "warm": -3.0, "formal": 1.0}
    right = coverage({"list": 60, "warm": -40}, truth)
    assert right > coverage({"list": 60, "warm": -40, "Wit": 40}, truth)
    assert right > coverage({"list": 60, "warm": 40}, truth)
    assert coverage({}, truth) == 0


def test_every_attribute_of_the_world_can_be_said_in_the_words_of_both_kinds_of_chain() -> None:
    of_attributes = {attribute_meaning(name) for name in CRITERIA} - {None}
    assert of_attributes == {(name, sign) for name in MEASURED for sign in (1, -1)}
    of_nano = {nano_meaning(word) for word in POLE_OF}
    assert of_nano == {(name, sign) for name in ATTRIBUTES for sign in (1, -1)}
    assert attribute_meaning("Wit") is None
    assert nano_meaning("Wit") is None


def rubric_of(
    request: Comparison, named: dict[str, float], wanted: dict[str, float] | None = None
) -> CoverageRequest:
    """A chain with this rubric, and with these wishes in PART 1; None takes those of the rubric."""
    words = {nano_meaning(word): word for word in POLE_OF}
    wishes = named if wanted is None else wanted
    said = [f"{words[n, 1 if w > 0 else -1]} {round(1000 * abs(w))}" for n, w in wishes.items()]
    return CoverageRequest(
        id=request.id,
        user_id=request.user.id,
        query=request.context[-1].content,
        responses=request.responses,
        criteria=(),
        chain=EvaluationChain(
            preferences=f"Wants here: {' '.join(said) or 'nothing'}",
            criteria=tuple(
                Criterion(name=words[name, 1 if weight > 0 else -1], weight=abs(weight))
                for name, weight in named.items()
            ),
            stated_scores=(5, 5),
        ),
    )


def write_card(world: World, directory: Path) -> None:
    """What `simulate` writes about a world, without the references, which take their time."""
    card = Card(
        seed=world.seed,
        n_users=3,
        source=world.source.version,
        config=world.config,
        versions={},
        counts={},
        hard_counts={},
        groups=(),
    )
    (directory / "card.json").write_text(card.model_dump_json())


def test_in_the_world_a_rubric_of_the_users_true_wishes_is_covered_best() -> None:
    world = World(seed=3)
    judge = WorldCoverage(world, WORDS["nano"])
    comparisons = [
        c
        for c in world.comparisons(Split.TEST_UNSEEN, 60)
        if any(judge.truth(rubric_of(c, {})).values())
    ][:40]
    requests = []
    for mine, other in zip(comparisons, comparisons[20:] + comparisons[:20], strict=True):
        for whose in (mine, other):
            truth = judge.truth(rubric_of(whose, {}))
            top = dict(sorted(truth.items(), key=lambda item: -abs(item[1]))[:N_COVERED])
            requests.append(rubric_of(mine, {**top, "flawed": -50.0}))
    ratings = [rating for rating in judge.rate(requests) if isinstance(rating, float)]
    own, others = ratings[::2], ratings[1::2]
    assert own == pytest.approx([1.0] * 40, abs=1e-3)  # the flaw is everybody's, and ignored
    assert sum(others) / 40 < 0.8
    for request in requests:
        _, features = world.source.read(request.query, request.responses)
        assert {ATTRIBUTES.index(name) for name in judge.truth(request)} <= set(
            np.flatnonzero(features[0] != features[1]).tolist()
        )
    everything = WorldCoverage(world, WORDS["attributes"]).truth(requests[0])
    assert set(everything) == set(WANTED)


def test_a_true_wish_that_is_left_out_and_one_that_tells_nothing_apart_cost_coverage() -> None:
    world = World(seed=3)
    judge = WorldCoverage(world, WORDS["nano"])
    n_tried = 0
    for one in world.comparisons(Split.TEST_UNSEEN, 40):
        truth = judge.truth(rubric_of(one, {}))
        top = dict(sorted(truth.items(), key=lambda item: -abs(item[1]))[:N_COVERED])
        alike = next((name for name in WANTED if name not in truth), None)
        top = {name: weight for name, weight in top.items() if abs(weight) > 0.1}
        if len(top) < 2 or alike is None:
            continue
        n_tried += 1
        fewer = dict(list(top.items())[:-1])
        whole, *others = judge.rate(
            [rubric_of(one, named) for named in (top, fewer, {**top, alike: 2.0})]
        )
        assert isinstance(whole, float)
        assert all(isinstance(rating, float) and rating < whole for rating in others)
    assert n_tried > 30


def test_a_rubric_that_part_one_does_not_lead_to_earns_no_more_than_part_one() -> None:
    world = World(seed=3)
    judge = WorldCoverage(world, WORDS["nano"])
    [one] = world.comparisons(Split.TEST_UNSEEN, 1)
    truth = judge.truth(rubric_of(one, {}))
    name, weight = max(truth.items(), key=lambda item: abs(item[1]))
    right, alone, at_odds, silent = judge.rate(
        [
            rubric_of(one, truth),
            rubric_of(one, truth, wanted={name: weight}),
            rubric_of(one, truth, wanted={name: -weight}),
            rubric_of(one, truth, wanted={}),
        ]
    )
    assert isinstance(right, float)
    assert isinstance(alone, float)
    assert right > alone > 0
    assert (at_odds, silent) == (0, 0)


def test_comparisons_of_another_world_are_refused() -> None:
    judge = WorldCoverage(World(seed=3), WORDS["nano"])
    own, others = (list(World(seed=s).comparisons(Split.TRAIN, 30)) for s in (3, 4))
    assert judge.criteria(own) == {}
    with pytest.raises(InputError, match=r"has other texts in the judge's world \(seed 3\)"):
        judge.criteria(others)


def test_signed_weights_add_up_by_attribute() -> None:
    chain = EvaluationChain(
        preferences="",
        criteria=(
            Criterion(name="lists", weight=50),
            Criterion(name="prose", weight=20),
            Criterion(name="Wit", weight=30),
        ),
        stated_scores=(5, 5),
    )
    assert signed_weights(chain, nano_meaning) == {"list": 30, "Wit": 30}


def test_a_written_world_is_made_again_and_another_one_refused(tmp_path: Path) -> None:
    write_card(World(seed=5), tmp_path)
    judge = WorldCoverage.load(tmp_path, WORDS["nano"])
    assert judge.world.seed == 5
    card = (tmp_path / "card.json").read_text()
    (tmp_path / "card.json").write_text(card.replace(judge.world.source.version, "given@1"))
    with pytest.raises(InputError, match="given@1"):
        WorldCoverage.load(tmp_path, WORDS["nano"])
