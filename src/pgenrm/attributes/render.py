"""A sample of a user's weights written out as an evaluation chain.

The rubric takes the attributes that matter most between these responses: those with the largest
|weight| x spread. Percentages are the |weights|, ratings are linear in the attribute with one slope
for all criteria, so that the weighted total is the sampled utility of the shown criteria on another
scale, up to rounding. Ratings are relative to the middle of the responses shown, whatever their
order; a single response is rated against an ordinary answer. The preference modelling says first
what the user wants and then where and why: embeddings of the first clause tell users apart by
taste, those of the whole text by scenario.
"""

from collections.abc import Sequence
from functools import lru_cache
from operator import mul
from typing import Final

import numpy as np

from pgenrm.attributes.measure import ATTRIBUTES, Count, Measured, Vector, in_words
from pgenrm.attributes.model import Evidence, PastChoice
from pgenrm.attributes.scenario import Scenario
from pgenrm.types import Criterion, EvaluationChain, Rating

MIN_CRITERIA, MAX_CRITERIA = 3, 6
ENOUGH_SHARE = 0.95
"""Criteria are added until they hold this share of |weight| x spread."""
NO_SPREAD = 1e-6
"""Stands for the spread of an attribute in which all responses agree: shown only to fill up."""
MIDDLE: Final = 5.5
REACH: Final = 4.5
"""Points from the middle of the scale to either end."""
POINTS_PER_UNIT = 2.5
"""Points that a unit of an attribute is worth; fewer where the responses lie too far apart."""
POINTS_PER_UNIT_ALONE = 1.5
"""The same for a single response, which may lie five units from an ordinary answer."""
MAX_CHOICES_TOLD = 3
MAX_DIFFERENCES_TOLD = 2
MIN_DIFFERENCE_TOLD = 0.3
N_WISHES_TOLD = 5
STRONG, CLEAR = 0.8, 0.4
"""Least |weight|, in logits per unit, that is called so; below both it is slight."""

FORM_ONLY: Final = (
    "Judged by form and style only, as measured in the texts; "
    "whether the content is right plays no part."
)
_SITUATIONS: Final = {
    Scenario.EMOTIONAL: "an emotional query",
    Scenario.TECHNICAL: "a technical query",
    Scenario.CREATIVE: "a creative query",
    Scenario.OPINION: "a query for an opinion",
    Scenario.CASUAL: "casual talk",
    Scenario.FACTUAL: "a factual query",
}
_NAMES: Final = tuple(attribute.name.replace("_", " ") for attribute in ATTRIBUTES)
_DIRECTIONS: Final = tuple((a.low, a.high) for a in ATTRIBUTES)
CRITERIA: Final = {
    wanted[:1].upper() + wanted[1:]: (k, direction)
    for k, directions in enumerate(_DIRECTIONS)
    for direction, wanted in enumerate(directions)
}
"""Name of a criterion -> its attribute and the direction wanted, 1 for a high value."""
_CRITERION_NAMES: Final = {meant: name for name, meant in CRITERIA.items()}


def grounds(known: Evidence, scenario: Scenario) -> str:
    """Write what a profile rests on: the same for all samples."""
    return "\n".join((*_stated(known.stated), _past(known, scenario), FORM_ONLY))


def rate(responses: Sequence[Measured]) -> tuple[list[list[list[float]]], list[float]]:
    """Rate responses on every attribute, for either direction that may be wanted.

    Returns:
        The ratings [direction wanted][n_responses][n_attributes], where direction 1 wants a high
        value, and the spread of each attribute [n_attributes], above 0.
    """
    values = np.array([response.vector for response in responses])
    if len(responses) == 1:
        middle, spread = 0.0, np.ones(values.shape[1])
        slope = POINTS_PER_UNIT_ALONE
    else:
        low, high = values.min(axis=0), values.max(axis=0)
        middle, spread = (low + high) / 2, (high - low) / 2
        slope = min(POINTS_PER_UNIT, REACH / max(float(spread.max()), NO_SPREAD))
    points = np.clip(slope * (values - middle), -REACH, REACH)
    scores = [np.round(MIDDLE + sign * points, 1).tolist() for sign in (-1, 1)]
    return scores, (spread + NO_SPREAD).tolist()


class Renderer:
    """Writes the chains of one request: what does not depend on the sample is done once."""

    def __init__(self, grounds: str, scenario: Scenario, responses: Sequence[Measured]) -> None:
        """Prepare the chains of one request.

        Args:
            grounds: what the profile rests on.
            scenario: of the query.
            responses: measured, in the order shown.
        """
        self._scores, self._spread = rate(responses)
        self._counts = [response.counts for response in responses]
        self._grounds = grounds
        self._scenario = scenario

    def chain(self, weights: Vector) -> EvaluationChain:
        """Write the chain of one sample of the weights."""
        size = np.abs(weights).tolist()
        wanted = (weights > 0).tolist()
        by_size = _descending(size)
        telling = _telling(list(map(mul, size, self._spread)))
        shown = [k for k in by_size if k in telling]
        shares = percentages([size[k] for k in shown])
        low, high = self._scores
        ratings = []
        totals = []
        for i, counts in enumerate(self._counts):
            scores = [(high if wanted[k] else low)[i][k] for k in shown]
            ratings.append(list(map(_rating, scores, shown, [counts[k] for k in shown])))
            totals.append(round(sum(map(mul, scores, shares)) / 100, 2))
        wishes = ", ".join(
            f"{_DIRECTIONS[k][wanted[k]]} ({_strength(size[k])})" for k in by_size[:N_WISHES_TOLD]
        )
        return EvaluationChain.model_validate(
            {
                "preferences": (
                    f"Wants answers {wishes}.\n"
                    f"This is for {_SITUATIONS[self._scenario]}; "
                    "between these responses it comes down to "
                    f"{', '.join([_NAMES[k] for k in shown])}.\n"
                    f"{self._grounds}"
                ),
                "criteria": [
                    _criterion(k, wanted[k], n) for k, n in zip(shown, shares, strict=True)
                ],
                "ratings": ratings,
                "stated_scores": totals,
            }
        )


def percentages(sizes: Sequence[float]) -> list[int]:
    """Turn sizes into whole percentages that sum to 100, by largest remainder.

    >>> percentages([2.0, 1.0, 1.0, 1.0])
    [40, 20, 20, 20]
    """
    per_size = 100 / sum(sizes)
    exact = [per_size * size for size in sizes]
    shares = list(map(int, exact))
    by_remainder = sorted(range(len(sizes)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: 100 - sum(shares)]:
        shares[i] += 1
    return shares


def _descending(values: list[float]) -> list[int]:
    return sorted(range(len(values)), key=values.__getitem__, reverse=True)


def _telling(importance: list[float]) -> list[int]:
    """Return the attributes to show: enough of the importance, within the limits on number."""
    order = _descending(importance)[:MAX_CRITERIA]
    missing = ENOUGH_SHARE * sum(importance)
    for n, k in enumerate(order, start=1):
        missing -= importance[k]
        if n >= MIN_CRITERIA and missing <= 0:
            return order[:n]
    return order


@lru_cache(maxsize=4096)
def _criterion(attribute: int, wants_high: bool, share: int) -> Criterion:
    other, wanted = _DIRECTIONS[attribute][:: 1 if wants_high else -1]
    return Criterion(
        name=_CRITERION_NAMES[attribute, wants_high],
        weight=share,
        description=f"{_NAMES[attribute]}: {wanted} rather than {other}",
    )


@lru_cache(maxsize=65_536)
def _rating(score: float, attribute: int, count: Count) -> Rating:
    return Rating(score=score, reason=in_words(attribute, count))


def _strength(size: float) -> str:
    return "strongly" if size >= STRONG else "clearly" if size >= CLEAR else "slightly"


def _past(known: Evidence, scenario: Scenario) -> str:
    """Say in words what the past choices show, those of the same scenario first."""
    choices = sorted(known.choices, key=lambda choice: choice.scenario is not scenario)
    if not choices:
        return "No past choices are known; the profile starts from what users in general prefer."
    n_same = sum(choice.scenario is scenario for choice in choices)
    lines = [f"Past choices ({len(choices)}, {n_same} of them on {_SITUATIONS[scenario]}):"]
    lines += [f"- {_told(choice)}" for choice in choices[:MAX_CHOICES_TOLD]]
    if len(choices) > MAX_CHOICES_TOLD:
        lines.append(f"- and {len(choices) - MAX_CHOICES_TOLD} more.")
    return "\n".join(lines)


def _told(choice: PastChoice) -> str:
    size = np.abs(choice.chosen.vector - choice.rejected.vector).tolist()
    facts = [
        f"{in_words(k, choice.chosen.counts[k])} over {in_words(k, choice.rejected.counts[k])}"
        for k in _descending(size)[:MAX_DIFFERENCES_TOLD]
        if size[k] >= MIN_DIFFERENCE_TOLD
    ]
    return f"{choice.scenario.value}: {'; '.join(facts) or 'both texts measure alike'}."


def _stated(directions: Vector) -> list[str]:
    named = [_DIRECTIONS[k][bool(directions[k] > 0)] for k in np.flatnonzero(directions).tolist()]
    return [f"Stated wishes about form: answers {', '.join(named)}."] if named else []
