"""The chain that the bundled judge writes: every step in words, each following from those before.

A step is a line (or one per past choice or response). Only `Leans to` is a guess, which the teacher
samples; all others are functions of earlier lines, so that `check` can recompute them from what a
chain itself says. Weights are multiples of four percent and ratings are 9 or 2, so that two
responses never tie.

    Past choice 1
    Scenario: opinion                        what was asked for there
    Chosen: detail sources headings          what the texts have
    Rejected: lists humorous
    Likes: detail sources prose serious      where the two differ, the chosen one's side
    Dislikes: brief no-sources lists humorous
    Says: depth +3, closeness +0, care +1    likes for less dislikes of each taste's side
    So far: depth +5, closeness -2, care +1  the sum over choices up to this one
    States: prose care +                     stated criteria and self-description
    Scenario: technical                      what is asked for now
    Leans to: depth +7, closeness -1, care +1
    Response 1: detail lists
    Response 2: humorous
    Sets response 1 apart: detail lists serious
    Sets response 2 apart: brief prose humorous
    Wants here: brief 1 prose 3 serious 2    strength of each wish that tells them apart
    Most: prose 3 serious 2 brief 1 of 6     the strongest, in order, and their sum
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pgenrm.nano.words import POLES, SIDE, TASTE_NAMES, TASTE_OF, pole
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.tastes import FLAWED, LOADINGS, PULL, SCENARIOS, Array
from pgenrm.types import Criterion, EvaluationChain, Rating

HEADING: Final = "PART 1: PREFERENCE SYNTHESIS"
NOTHING: Final = "nothing"
POINTS_PER_WEIGHT: Final = 4
"""Leanings are in quarters of a unit of weight, rounded to odd numbers: none is undecided."""
MAX_LEANING: Final = 11
POINTS_PER_STRENGTH: Final = 2
MAX_STRENGTH: Final = 6
MAX_CRITERIA: Final = 5
UNIT_PERCENT: Final = 4
"""Of weights: 25 units share out odd, so that no part of them is half."""
MET, UNMET = 9, 2
"""Ratings of a response that has what a criterion asks for, and of one that has not."""

_PULL_POINTS: Final = POINTS_PER_WEIGHT * PULL
_FLAW_POINTS: Final = POINTS_PER_WEIGHT * WorldConfig().flaw_weight


@dataclass(frozen=True)
class PastReading:
    """What a past choice shows."""

    scenario: int
    chosen: Array
    """[n_attributes] of 0 and 1: what the text has."""
    rejected: Array


@dataclass(frozen=True)
class Steps:
    """What a chain rests on; everything else follows."""

    choices: tuple[PastReading, ...]
    stated: tuple[tuple[int, int], ...]
    """(attribute, sign) of each stated criterion."""
    described: tuple[tuple[int, int], ...]
    """(taste, sign) of the self-description, if there is one."""
    leanings: tuple[int, ...]
    """[n_tastes]; odd."""
    scenario: int
    responses: Array
    """[n_responses, n_attributes] of 0 and 1."""


def leanings_of(levels: Array) -> tuple[int, ...]:
    """Round the levels of the tastes [n_tastes], in units of weight, to odd quarters."""
    odd = 2 * np.floor(POINTS_PER_WEIGHT * levels / 2).astype(int) + 1
    return tuple(np.clip(odd, -MAX_LEANING, MAX_LEANING).tolist())


# ---------------------------------------------------------------- the steps


def has(features: Array) -> list[str]:
    """Name what a text has."""
    return [POLES[a][0] for a in np.flatnonzero(features).tolist()]


def likes(chosen: Array, rejected: Array) -> list[tuple[int, int]]:
    """Return (attribute, sign) of the chosen text wherever the two differ."""
    difference = chosen - rejected
    return [(a, int(difference[a])) for a in np.flatnonzero(difference).tolist()]


def said(liked: Sequence[tuple[int, int]]) -> list[int]:
    """Count what a choice says by taste: likes of its side, less likes of the other."""
    counts = [0] * len(TASTE_NAMES)
    for a, sign in liked:
        t = int(TASTE_OF[a])
        if t >= 0:
            counts[t] += int(SIDE[t, a]) * sign
    return counts


def apart(responses: Array) -> list[list[tuple[int, int]]]:
    """Return, per response, (attribute, sign) wherever the responses are not all alike."""
    differing = np.flatnonzero(responses.min(axis=0) != responses.max(axis=0)).tolist()
    return [[(a, 1 if row[a] else -1) for a in differing] for row in responses]


def wants(
    leanings: Sequence[int], scenario: int, differing: Sequence[int]
) -> list[tuple[int, int, int]]:
    """Return (attribute, sign wanted, strength) for the attributes in which responses differ."""
    found = []
    for a in differing:
        if a == FLAWED:
            points, side = _FLAW_POINTS, -1
        else:
            t = int(TASTE_OF[a])
            points = LOADINGS[t, a] * leanings[t] + _PULL_POINTS[scenario, a]
            side = int(SIDE[t, a]) * (1 if leanings[t] > 0 else -1)
        sign = side if abs(points) < 1e-9 else 1 if points > 0 else -1
        strength = int(np.clip(np.floor(abs(points) / POINTS_PER_STRENGTH + 0.5), 1, MAX_STRENGTH))
        found.append((a, sign, strength))
    return found


def strongest(wanted: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return the strongest wishes, the strongest first, as many as a rubric has room for."""
    return sorted(wanted, key=lambda wish: -wish[2])[:MAX_CRITERIA]


def rubric(shown: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return (attribute, sign, percent) of the strongest wishes.

    Percentages are multiples of `UNIT_PERCENT` in proportion to the strengths, by largest
    remainder; a wish that would get none keeps one unit. Where nothing tells the responses apart, a
    flawless one is all that is wanted.
    """
    if not shown:
        return [(FLAWED, -1, 100)]
    total = sum(strength for _, _, strength in shown)
    n_units = 100 // UNIT_PERCENT
    exact = [n_units * strength / total for _, _, strength in shown]
    units = [max(1, int(x)) for x in exact]
    by_remainder = sorted(range(len(shown)), key=lambda i: units[i] - exact[i])
    for i in (by_remainder * n_units)[: max(0, n_units - sum(units))]:
        units[i] += 1
    while sum(units) > n_units:
        units[int(np.argmax(units))] -= 1
    return [(a, sign, UNIT_PERCENT * u) for (a, sign, _), u in zip(shown, units, strict=True)]


# ---------------------------------------------------------------- the chain


def listed(words: Sequence[str]) -> str:
    """Join words as a line holds them."""
    return " ".join(words) if words else NOTHING


def part_one(steps: Steps) -> Iterator[str]:
    """Yield the lines of PART 1, from the heading on."""
    yield HEADING
    so_far = [0] * len(TASTE_NAMES)
    for number, choice in enumerate(steps.choices, 1):
        signs = likes(choice.chosen, choice.rejected)
        now = said(signs)
        so_far = [before + more for before, more in zip(so_far, now, strict=True)]
        yield f"Past choice {number}"
        yield f"Scenario: {SCENARIOS[choice.scenario]}"
        yield f"Chosen: {listed(has(choice.chosen))}"
        yield f"Rejected: {listed(has(choice.rejected))}"
        yield f"Likes: {listed([pole(a, s) for a, s in signs])}"
        yield f"Dislikes: {listed([pole(a, -s) for a, s in signs])}"
        yield f"Says: {signed(now)}"
        yield f"So far: {signed(so_far)}"
    stated = [pole(a, s) for a, s in steps.stated]
    stated += [f"{TASTE_NAMES[t]} {'+' if s > 0 else '-'}" for t, s in steps.described]
    yield f"States: {listed(stated)}"
    yield f"Scenario: {SCENARIOS[steps.scenario]}"
    yield f"Leans to: {signed(steps.leanings)}"
    for number, row in enumerate(steps.responses, 1):
        yield f"Response {number}: {listed(has(row))}"
    differing = apart(steps.responses)
    for number, signs in enumerate(differing, 1):
        yield f"Sets response {number} apart: {listed([pole(a, s) for a, s in signs])}"
    wanted = wants(steps.leanings, steps.scenario, [a for a, _ in differing[0]])
    yield f"Wants here: {counted(wanted)}"
    shown = strongest(wanted)
    yield f"Most: {counted(shown)} of {sum(strength for _, _, strength in shown)}"


def counted(wishes: Sequence[tuple[int, int, int]]) -> str:
    """Write wishes with their strengths."""
    return listed([f"{pole(a, s)} {n}" for a, s, n in wishes])


def signed(levels: Sequence[int]) -> str:
    """Write one number per taste."""
    return ", ".join(f"{name} {n:+d}" for name, n in zip(TASTE_NAMES, levels, strict=True))


def chain(steps: Steps) -> EvaluationChain:
    """Write out the chain."""
    differing = apart(steps.responses)
    wanted = wants(steps.leanings, steps.scenario, [a for a, _ in differing[0]])
    criteria = rubric(strongest(wanted))
    ratings, totals = [], []
    for row in steps.responses:
        met, row_ratings = 0, []
        for a, sign, percent in criteria:
            is_met = bool(row[a]) is (sign > 0)
            met += percent * is_met
            row_ratings.append(
                Rating(
                    score=MET if is_met else UNMET,
                    reason=f"{'yes' if is_met else 'no'}, {met}% met",
                )
            )
        ratings.append(tuple(row_ratings))
        totals.append(total_of(met))
    return EvaluationChain(
        preferences="\n".join(part_one(steps)),
        criteria=tuple(Criterion(name=pole(a, s), weight=p) for a, s, p in criteria),
        ratings=tuple(ratings),
        stated_scores=tuple(totals),
    )


def total_of(met_percent: int) -> float:
    """Return the weighted total of a response that meets this share of the rubric."""
    return round((MET * met_percent + UNMET * (100 - met_percent)) / 100, 2)
