"""A rubric being collected from a text: criteria with weights, and scores per response."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pgenrm.chain.grammar import Unit
from pgenrm.chain.scores import MENTION
from pgenrm.types import ARITHMETIC_TOLERANCE

MAX_CRITERIA = 40
"""A text with more weighted lines than this is no rubric."""

_HEAD = re.compile(r"[^:(\[|=–—]{1,80}")
_NOT_IN_NAMES = frozenset(
    ("weights", "sum", "sums", "add", "adds", "total", "score", "weighted", "contribution", "=")
)
_NO_NAMES = frozenset(("final", "overall"))


class Draft:
    """What has been read of a rubric so far."""

    def __init__(self, n_responses: int) -> None:
        self.n_responses = n_responses
        self.names: list[str] = []
        self._keys: dict[str, int] = {}
        self._lowered: list[str] = []
        self._initials: set[str] = set()
        self._descriptions: list[str] = []
        self._weights: list[tuple[float, Unit]] = []
        self._cells: dict[tuple[int, int], dict[str, Any] | None] = {}

    def define(self, name: str, weight: float, unit: Unit, description: str = "") -> int | None:
        """Add a criterion and return its index; None where this cannot be the name of one."""
        name = " ".join(name.split())
        key = _key(name)
        if not 1 < len(name) <= 80 or name.count(" ") > 9 or not _may_be_name(key):
            return None
        if not any(map(str.isalpha, name)) or MENTION.match(name):
            return None
        if key in self._keys or len(self.names) > MAX_CRITERIA:
            return None
        self._keys[key] = len(self.names)
        self.names.append(name)
        self._lowered.append(name.lower())
        self._initials.add(key[0])
        self._weights.append((weight, unit))
        self._descriptions.append(description)
        return len(self.names) - 1

    def index(self, name: str) -> int | None:
        """Return the criterion of exactly this name, in any case."""
        return self._keys.get(_key(name))

    def find(self, line: str) -> tuple[int, int] | None:
        """Return the criterion that a line starts with and where its name ends.

        A name may be cut or lengthened by whole words (`Clarity` for `Clarity and structure`) as
        long as only one criterion fits.
        """
        if line[:1].lower() not in self._initials:
            return None
        best, end = None, 0
        for index, lowered in enumerate(self._lowered):
            n = len(lowered)
            if n > end and line[:n].lower() == lowered and not line[n : n + 1].isalnum():
                best, end = index, n
        if best is not None and not line[end:].lstrip()[:1].isalpha():
            return best, end
        match = _HEAD.match(line)
        head = match[0].split(" - ")[0] if match else ""
        key = _key(head.removesuffix(" score").removesuffix(" rating"))
        similar = [i for i, other in enumerate(self._keys) if _extends(key, other)]
        if len(similar) != 1 or len(key) < 4 or not _may_be_name(key) or MENTION.search(head):
            return None
        return similar[0], len(head)

    def find_all(self, text: str) -> list[tuple[int, int, int]]:
        """Return the criteria that a text names: index, start and end of each mention."""
        if not self.names:
            return []
        names = sorted(self.names, key=len, reverse=True)
        pattern = r"(?<!\w)(?:" + "|".join(map(re.escape, names)) + r")(?!\w)"
        return [
            (self._keys[key], m.start(), m.end())
            for m in re.finditer(pattern, text, re.IGNORECASE)
            if (key := _key(m[0])) in self._keys
        ]

    def weight(self, criterion: int) -> float:
        """Return a weight in percent, as far as it is known before all of them are."""
        value, unit = self._weights[criterion]
        return value * 100 if unit != "percent" and value <= 1 else value

    def rate(self, response: int, criterion: int, rating: tuple[float, str]) -> None:
        """Note a score; two different ones for the same cell cancel each other."""
        score, reason = rating
        cell = (response, criterion)
        if cell in self._cells:
            known = self._cells[cell]
            if known is not None and known["score"] != score:
                self._cells[cell] = None
        else:
            self._cells[cell] = {"score": score, "reason": reason}

    def explain(self, response: int, criterion: int, reason: str) -> None:
        """Add the reason of a score that was given without one."""
        rating = self._cells.get((response, criterion))
        if rating is not None and not rating["reason"]:
            rating["reason"] = reason

    @property
    def has_ratings(self) -> bool:
        """Whether there is any score."""
        return any(self._cells.values())

    @property
    def is_complete(self) -> bool:
        """Whether every response has a score on every criterion."""
        n_cells = sum(rating is not None for rating in self._cells.values())
        return bool(self.names) and n_cells == self.n_responses * len(self.names)

    def criteria(self) -> list[dict[str, Any]]:
        """Return name, weight in percent and description of each criterion."""
        shares = self._shares()
        if shares is None:
            return []
        return [
            {"name": name, "weight": share, "description": description}
            for name, share, description in zip(self.names, shares, self._descriptions, strict=True)
        ]

    def ratings(self) -> list[list[dict[str, Any] | None]]:
        """Return score and reason, [n_responses][n_criteria]; empty when there is none at all."""
        if not self.has_ratings:
            return []
        n_criteria = range(len(self.names))
        return [[self._cells.get((r, c)) for c in n_criteria] for r in range(self.n_responses)]

    def _shares(self) -> list[float] | None:
        """Bring the weights to percent; None where their scale is unclear."""
        if not 0 < len(self.names) <= MAX_CRITERIA:
            return None
        values = [value for value, _ in self._weights]
        units = {unit for _, unit in self._weights}
        total = sum(values)
        if units == {"percent"} or (units == {"word"} and max(values) > 20):
            factor = 1.0
        elif "percent" in units:
            return None
        elif max(values) <= 1 and (units == {"word"} or 0.9 <= total <= 1.1):
            factor = 100.0
        elif 90 <= total <= 110:
            factor = 1.0
        elif total > 0 and (units == {"word"} or 9.5 <= total <= 10.5):
            factor = 100 / total
        else:
            return None
        shares = [value * factor for value in values]
        return shares if max(shares) <= 100 else None


def _key(name: str) -> str:
    return name.strip(" *_").lower().replace(" & ", " and ")


def _may_be_name(key: str) -> bool:
    return key not in _NO_NAMES and _NOT_IN_NAMES.isdisjoint(key.split())


def _extends(a: str, b: str) -> bool:
    """Whether one is the other plus whole words."""
    short, long = (a, b) if len(a) < len(b) else (b, a)
    return long.startswith(short) and not long[len(short) : len(short) + 1].isalnum()


def are_contributions(
    criteria: Sequence[Mapping[str, Any]],
    ratings: Sequence[Sequence[Mapping[str, Any] | None]],
    totals: Sequence[float | None],
) -> bool:
    """Whether the scores are weighted already.

    Then none exceeds its criterion's share of 10, and they add up to the stated totals.

    >>> criteria = [{"weight": 60}, {"weight": 40}]
    >>> are_contributions(criteria, [[{"score": 4.0}, {"score": 2.4}]], [6.4])
    True
    """
    if len(criteria) < 2:
        return False
    shares = [criterion["weight"] / 10 for criterion in criteria]
    for row, total in zip(ratings, totals, strict=True):
        scores = [rating["score"] if rating else 0.0 for rating in row]
        if any(score > share for score, share in zip(scores, shares, strict=True)):
            return False
        if total is not None and abs(sum(scores) - total) > ARITHMETIC_TOLERANCE:
            return False
    return True
