"""What the ablation measures beside accuracy."""

import math

import numpy as np
import pytest
from benchmarks.ablation.judging import agreement
from benchmarks.ablation.page import closed, mean

from pgenrm.types import Criterion, EvaluationChain

TRUTH = {"detailed": 2.0, "warm": -1.0, "list": 0.5}


def chain(**weights: float) -> EvaluationChain:
    criteria = tuple(Criterion(name=name, weight=weight) for name, weight in weights.items())
    return EvaluationChain(preferences="", criteria=criteria, stated_scores=(1.0, 2.0))


def test_a_rubric_agrees_by_rank_and_sign_with_what_the_user_wants() -> None:
    assert agreement(chain(**{"detail": 50, "matter-of-fact": 40, "lists": 10}), TRUTH) == 1
    assert agreement(chain(**{"brief": 50, "warm": 40, "prose": 10}), TRUTH) == -1
    assert agreement(chain(**{"detail": 100}), TRUTH) == pytest.approx(math.sqrt(3) / 2)


def test_where_there_is_no_ranking_there_is_no_agreement() -> None:
    assert math.isnan(agreement(chain(flawless=100), TRUTH))
    assert math.isnan(agreement(chain(detail=100), {"detailed": 1.0, "warm": 2.0}))


def test_what_is_not_defined_does_not_count_and_a_gap_closes_by_the_way_gone() -> None:
    users = [f"u{i}" for i in range(20)]
    values = np.array([1.0, np.nan] * 10)
    found = mean(users, values)
    assert found is not None
    assert found.value == 1
    start, goal = np.zeros(20), np.ones(20)
    half = closed(users, start, np.array([1.0, 0.0] * 10), goal)
    assert half is not None
    assert half.value == 50
    assert half.interval is not None
    assert half.interval[0] < 50 < half.interval[1]
