"""Which steps of the bundled judge's chains are right, and what those that are not cost."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pgenrm import Comparison, Judgment
from pgenrm.evaluator import ChainRequest
from pgenrm.history import draw_history
from pgenrm.nano.check import STEPS, Truth, guess, right_steps
from pgenrm.nano.steps import chain
from pgenrm.nano.teacher import PosteriorTeacher
from pgenrm.seeding import rng
from pgenrm.sim.world import World

TIE: Final = 1e-9
"""Means of scores that differ by less are equal but for rounding."""


def steps_right(
    given: Sequence[Comparison], judgments: Sequence[Judgment], world: World
) -> dict[str, float]:
    """Return the share of chains that have each step right, in percent."""
    teacher = PosteriorTeacher(world, n_particles=2)
    found: Counter[str] = Counter()
    n = 0
    for comparison, judgment in zip(given, judgments, strict=True):
        shown = draw_history(comparison, judgment.n_history, judgment.seed)
        for written in judgment.chains:
            truth = Truth.of(teacher.steps(_request(shown, written.order), rng(0)))
            found.update(k for k, is_right in right_steps(written.chain, truth).items() if is_right)
            n += 1
    return {step: 100 * found[step] / n for step in STEPS} if n else {}


def _request(shown: Comparison, order: Sequence[int]) -> ChainRequest:
    return ChainRequest(
        id=shown.id,
        user=shown.user,
        context=shown.context,
        responses=tuple(shown.responses[i] for i in order),
    )


def with_steps_right(
    given: Sequence[Comparison], judgments: Sequence[Judgment], world: World, seed: int
) -> dict[str, list[NDArray[np.float64]]]:
    """Return the scores of chains whose steps are right, by where their leanings come from.

    Each holds one array [n_chains, 2] a comparison: with the leanings of the judge's own chains all
    that is lost is lost by them, with the teacher's nothing is.
    """
    teacher = PosteriorTeacher(world)
    found: dict[str, list[NDArray[np.float64]]] = {"own": [], "teacher": []}
    for comparison, judgment in zip(given, judgments, strict=True):
        known = draw_history(comparison, judgment.n_history, judgment.seed)
        request = _request(known, range(len(known.responses)))
        generator = rng(seed, "teacher", comparison.id)
        drawn = [teacher.steps(request, generator) for _ in judgment.chains]
        guesses = [guess(written.chain) for written in judgment.chains]
        own = [
            replace(steps, leanings=tuple(pair[1]))
            for steps, pair in zip(drawn, guesses, strict=True)
            if pair is not None
        ]
        for name, these in (("own", own), ("teacher", drawn)):
            scores = [chain(steps).stated_scores for steps in these]
            found[name].append(np.array(scores, float).reshape(-1, 2))
    return found


def right_by_scores(
    scores: Sequence[NDArray[np.float64]], labels: Sequence[int | None], *, is_single: bool
) -> NDArray[np.float64]:
    """Return per comparison the share of its chains that are right, or whether their mean is."""
    right = []
    for rows, label in zip(scores, labels, strict=True):
        assert label is not None
        margins = rows[:, label] - rows[:, 1 - label]
        if is_single:
            right.append(float((margins > 0).mean()) if len(margins) else 0.0)
        else:
            right.append(float(len(margins) > 0 and margins.mean() > TIE))
    return np.array(right)


def guesses_follow(judgments: Iterable[Judgment]) -> float:
    """Return Spearman's correlation of what chains lean to with their own sums, over all tastes."""
    found = [guess(written.chain) for judgment in judgments for written in judgment.chains]
    sums, leanings = zip(*(pair for pair in found if pair is not None), strict=True)
    return float(spearmanr(np.concatenate(sums), np.concatenate(leanings)).statistic)
