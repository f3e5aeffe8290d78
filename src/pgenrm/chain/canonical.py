"""The rationale as `format` writes it, and as training texts show it."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from pgenrm.types import Criterion, Rating

_HEAD = "A. Evaluation Criteria & Weights"
_TOTAL = "Final score = "


def render(criteria: Sequence[Criterion], ratings: Sequence[Sequence[Rating | None]]) -> str:
    """Write the canonical rationale (paper, section 3.1: S); empty without criteria.

    >>> criteria = (Criterion(name="Brevity", weight=60), Criterion(name="Warmth", weight=40))
    >>> print(render(criteria, [(Rating(score=9, reason="Two lines."), Rating(score=4))]))
    A. Evaluation Criteria & Weights
    1. Brevity (60%)
    2. Warmth (40%)
    <BLANKLINE>
    B. Scoring Breakdown
    Response 1
    - Brevity: 9/10 - Two lines.
    - Warmth: 4/10
    Final score = 9 x 60% + 4 x 40% = 7
    """
    return "\n".join(_canonical_lines(criteria, ratings))


def is_canonical(
    text: str, criteria: Sequence[Criterion], ratings: Sequence[Sequence[Rating | None]]
) -> bool:
    """Whether a text is what `render` writes."""
    is_complete = len(ratings) > 0 and not any(None in row for row in ratings)
    if not text.startswith(_HEAD) or (is_complete and _TOTAL not in text):
        return False  # most texts end here; the rest is slower
    lines = text.split("\n")
    return all(a == b for a, b in zip_longest(lines, _canonical_lines(criteria, ratings)))


def _canonical_lines(
    criteria: Sequence[Criterion], ratings: Sequence[Sequence[Rating | None]]
) -> Iterator[str]:
    if not criteria:
        return
    yield _HEAD
    for number, c in enumerate(criteria, 1):
        yield f"{number}. {c.name} ({c.weight:g}%)" + _after(": ", c.description)
    if ratings:
        yield from ("", "B. Scoring Breakdown")
    for number, row in enumerate(ratings, 1):
        yield f"Response {number}"
        rated = [(c, r) for c, r in zip(criteria, row, strict=True) if r is not None]
        for c, r in rated:
            yield f"- {c.name}: {r.score:g}/10" + _after(" - ", r.reason)
        if len(rated) == len(criteria):
            yield _TOTAL + _weighted_sum(rated)


def _weighted_sum(rated: Sequence[tuple[Criterion, Rating]]) -> str:
    total = sum(c.weight for c, _ in rated)
    terms = " + ".join(f"{r.score:g} x {c.weight:g}%" for c, r in rated)
    if total <= 0:
        return terms
    if abs(total - 100) > 1e-6:
        terms = f"({terms}) / {total:g}%"
    return f"{terms} = {round(sum(c.weight * r.score for c, r in rated) / total, 2):g}"


def _after(separator: str, text: str) -> str:
    return separator + text if text else ""
