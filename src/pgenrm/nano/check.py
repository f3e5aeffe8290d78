"""Whether a chain of the bundled judge follows from itself, step by step.

Only what the texts and statements say is compared with the truth; every other step is held against
what the chain itself wrote before, right or wrong.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pgenrm.nano import steps
from pgenrm.nano.words import POLE_OF, POLES, TASTE_NAMES, pole
from pgenrm.sim.tastes import SCENARIOS, Array
from pgenrm.types import EvaluationChain

STEPS: Final = (
    "reading",
    "likes and dislikes",
    "evidence",
    "statements",
    "tastes",
    "leanings",
    "scenario",
    "apart",
    "wants",
    "most",
    "rubric",
    "ratings",
    "totals",
)
_OF_A_CHOICE: Final = ("Scenario", "Chosen", "Rejected", "Likes", "Dislikes", "Says", "So far")
_TASTES: Final = re.compile(", ".join(rf"{name} ([+-]\d+)" for name in TASTE_NAMES))


@dataclass(frozen=True)
class Truth:
    """What the texts and statements of a task say."""

    choices: tuple[steps.PastReading, ...]
    stated: str
    scenario: int
    responses: Array

    @classmethod
    def of(cls, known: steps.Steps) -> "Truth":
        """Take it from what a chain rests on."""
        line = next(x for x in steps.part_one(known) if x.startswith("States: "))
        return cls(known.choices, line.removeprefix("States: "), known.scenario, known.responses)


def right_steps(chain: EvaluationChain, truth: Truth) -> dict[str, bool]:
    """Say for each of `STEPS` whether the chain has it right; a step that is missing is wrong."""
    lines = chain.preferences.splitlines()
    choices = _by_number(lines, "Past choice ")
    said = dict(line.split(": ", 1) for line in lines if ": " in line)
    n = len(truth.responses)
    read = [_features(said.get(f"Response {i}")) for i in range(1, n + 1)]
    chosen = [_features(c.get("Chosen")) for c in choices]
    rejected = [_features(c.get("Rejected")) for c in choices]
    liked = [_poles(c.get("Likes")) for c in choices]
    disliked = [_poles(c.get("Dislikes")) for c in choices]
    says = [_levels(c.get("Says")) for c in choices]
    sums = [_levels(c.get("So far")) for c in choices]
    leanings = _levels(said.get("Leans to"))
    scenario = said.get("Scenario")
    differing = [_poles(said.get(f"Sets response {i} apart")) for i in range(1, n + 1)]
    wanted = wishes(chain)
    right = dict.fromkeys(STEPS, False)
    right["reading"] = (
        _equal(read, truth.responses)
        and _equal(chosen, [c.chosen for c in truth.choices])
        and _equal(rejected, [c.rejected for c in truth.choices])
    )
    pairs = [
        (c, r) for c, r in zip(chosen, rejected, strict=True) if c is not None and r is not None
    ]
    if len(pairs) == len(choices):
        expected = [steps.likes(c, r) for c, r in pairs]
        right["likes and dislikes"] = liked == expected and disliked == [
            [(a, -s) for a, s in signs] for signs in expected
        ]
    n_choices_right = len(choices) == len(truth.choices)
    right["evidence"] = n_choices_right and says == [steps.said(signs or []) for signs in liked]
    right["tastes"] = n_choices_right and all(
        now is not None
        and more is not None
        and now == [x + y for x, y in zip(before or [0] * len(now), more, strict=True)]
        for before, more, now in zip([None, *sums], says, sums, strict=False)
    )
    right["statements"] = said.get("States") == truth.stated
    right["leanings"] = leanings is not None and all(x % 2 for x in leanings)
    right["scenario"] = scenario == SCENARIOS[truth.scenario] and (
        [c.get("Scenario") for c in choices] == [SCENARIOS[c.scenario] for c in truth.choices]
    )
    known = [row for row in read if row is not None]
    if len(known) == n:
        right["apart"] = differing == steps.apart(np.array(known))
    if leanings is not None and scenario in SCENARIOS and differing[0] is not None:
        at = [a for a, _ in differing[0]]
        right["wants"] = wanted == steps.wants(leanings, SCENARIOS.index(scenario), at)
    most, _, total = (said.get("Most") or "").rpartition(" of ")
    shown = _wishes(most)
    if wanted is not None and shown is not None:
        right["most"] = shown == steps.strongest(wanted) and total == str(sum(w[2] for w in shown))
        expected_rubric = [(pole(a, s), p) for a, s, p in steps.rubric(shown)]
        right["rubric"] = [(c.name, c.weight) for c in chain.criteria] == expected_rubric
    right["ratings"] = len(known) == n and _ratings_follow(chain, differing, known)
    right["totals"] = _totals_follow(chain)
    return right


def guess(chain: EvaluationChain) -> tuple[list[int], list[int]] | None:
    """Return by taste the chain's last sums and what it leans to; None where one is missing.

    The leanings are a guess, so `right_steps` sees to their form alone; over many chains they
    should go with the sums.
    """
    lines = chain.preferences.splitlines()
    sums = [line for line in lines if line.startswith("So far: ")]
    leanings = [line for line in lines if line.startswith("Leans to: ")]
    if not sums or not leanings:
        return None
    found = tuple(_levels(line.partition(": ")[2]) for line in (sums[-1], leanings[-1]))
    return None if None in found else (found[0] or [], found[1] or [])


def wishes(chain: EvaluationChain) -> list[tuple[int, int, int]] | None:
    """Return (attribute, sign, strength) of what PART 1 wants here; None where it does not say."""
    lines = [x for x in chain.preferences.splitlines() if x.startswith("Wants here: ")]
    return _wishes(lines[-1].partition(": ")[2]) if lines else None


def _by_number(lines: Sequence[str], head: str) -> list[dict[str, str]]:
    """Split off the lines under each `head` i, as label -> text."""
    found: list[dict[str, str]] = []
    for line in lines:
        if line == f"{head}{len(found) + 1}":
            found.append({})
        elif found and ": " in line and line.split(":")[0] in _OF_A_CHOICE:
            label, text = line.split(": ", 1)
            found[-1].setdefault(label, text)
    return found


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [] if text == steps.NOTHING else text.split()


def _features(text: str | None) -> Array | None:
    words = _words(text)
    if words is None or any(POLE_OF.get(w, (0, -1))[1] < 0 for w in words):
        return None
    features = np.zeros(len(POLES))
    features[[POLE_OF[w][0] for w in words]] = 1
    return features


def _poles(text: str | None) -> list[tuple[int, int]] | None:
    words = _words(text)
    if words is None or any(w not in POLE_OF for w in words):
        return None
    return [POLE_OF[w] for w in words]


def _wishes(text: str | None) -> list[tuple[int, int, int]] | None:
    """Read `word strength` pairs as (attribute, sign, strength)."""
    words = _words(text)
    if words is None or len(words) % 2:
        return None
    pairs = list(zip(words[::2], words[1::2], strict=True))
    if any(w not in POLE_OF or not n.isdecimal() for w, n in pairs):
        return None
    return [(*POLE_OF[w], int(n)) for w, n in pairs]


def _levels(text: str | None) -> list[int] | None:
    match = _TASTES.fullmatch(text or "")
    return [int(x) for x in match.groups()] if match else None


def _equal(found: Sequence[Array | None], expected: Iterable[Array]) -> bool:
    expected = list(expected)
    return len(found) == len(expected) and all(
        f is not None and np.array_equal(f, e) for f, e in zip(found, expected, strict=True)
    )


def _ratings_follow(
    chain: EvaluationChain,
    differing: Sequence[list[tuple[int, int]] | None],
    read: Sequence[Array],
) -> bool:
    """Whether each rating is what the response's own lines say of the criterion."""
    if len(chain.ratings) != len(differing) or None in differing:
        return False
    for row, signs, features in zip(chain.ratings, differing, read, strict=True):
        has: Mapping[int, int] = dict(signs or [])
        for criterion, rating in zip(chain.criteria, row, strict=True):
            if rating is None or criterion.name not in POLE_OF:
                return False
            a, sign = POLE_OF[criterion.name]
            if rating.score != (
                steps.MET if has.get(a, 1 if features[a] else -1) == sign else steps.UNMET
            ):
                return False
    return True


def _totals_follow(chain: EvaluationChain) -> bool:
    """Whether the running shares and the totals follow from ratings and weights."""
    if len(chain.ratings) != len(chain.stated_scores):
        return False
    for row, stated in zip(chain.ratings, chain.stated_scores, strict=True):
        met = 0
        for criterion, rating in zip(chain.criteria, row, strict=True):
            if rating is None:
                return False
            met += int(criterion.weight) * (rating.score == steps.MET)
            if rating.reason != f"{'yes' if rating.score == steps.MET else 'no'}, {met}% met":
                return False
        if stated != steps.total_of(met):
            return False
    return True
