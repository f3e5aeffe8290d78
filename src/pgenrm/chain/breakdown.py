"""Reading the rationale of a chain: criteria with weights, a score per response and criterion.

Models group scores by response or by criterion, in lists, in tables or all on one line. Reading is
conservative: a score that would have to be guessed is left out, because a chain with a gap falls
back to its stated totals, while a wrong rating would move them unseen.
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

from pgenrm.chain.draft import Draft
from pgenrm.chain.grammar import (
    INLINE_BREAK,
    LAST_PIECE,
    LINE,
    NAME_AND_TEXT,
    PLAIN_CRITERION,
    PLAIN_RATING,
    START,
    WEIGHTS,
    Unit,
)
from pgenrm.chain.scores import (
    HAS_DIGIT,
    HAS_PRODUCT,
    MENTION,
    position,
    rating_ahead,
    rating_in,
    reason,
)
from pgenrm.chain.table import read_table

MAX_LINE = 4000
"""Characters; a longer line is prose."""


_RESTATED = re.compile(r"\s?(?:\([^()]{0,24}\)\s?)?:?$")
_LEADS_ON = re.compile(r"\s?(?:$|[:(\[–—=,.-])")
_NAME_EDGE = " \t:–—-,;*=|(["
_FULL_WIDTH = str.maketrans("：（）％／＝｜", ":()%/=|")


def read(text: str, n_responses: int) -> Draft:
    """Read criteria, weights and scores from a rationale.

    Where there are criteria but no score, the text is read again with line breaks put in, for
    models that write it all on one line; that reading counts only when it is complete.
    """
    if any(sign in text for sign in "：（％"):
        text = text.translate(_FULL_WIDTH)
    text = text.replace("**", "").replace("__", "").replace("`", "")
    draft = _Reader(n_responses).read(text.split("\n"))
    if draft.names and not draft.has_ratings:
        inline = _Reader(n_responses).read(INLINE_BREAK.sub("\n", text).split("\n"))
        if inline.is_complete:
            return inline
    return draft


class _Reader:
    """Where in a rationale we are, and so what a score would belong to."""

    def __init__(self, n_responses: int) -> None:
        self.draft = Draft(n_responses)
        self.in_criteria = False
        self.in_breakdown = False
        self.grouped_by: Literal["response", "criterion"] | None = None
        """The kind of heading that came first in the breakdown: the outer one."""
        self.response: int | None = None
        self.criterion: int | None = None
        self.rated: tuple[int, int] | None = None
        """The cell that was filled last."""
        self.n_in_list = 0
        """Criteria defined one after the other."""
        self.is_listed = False
        """Whether all criteria were defined before the breakdown."""
        self.name: str | None = None
        """A line that may name a criterion whose weight comes on the next."""

    def read(self, lines: Iterable[str]) -> Draft:
        rows: list[str] = []
        for line in lines:
            if not line or len(line) > MAX_LINE:
                continue
            if line.count("|") > 1:
                rows.append(line)
                continue
            if rows:
                self._table(rows)
                rows = []
            self._line(line)
        if rows:
            self._table(rows)
        return self.draft

    def _table(self, rows: list[str]) -> None:
        read_table(rows, self.draft, self.response)
        self.criterion = None

    def _line(self, raw: str) -> None:
        if self._plain(raw):
            return
        start = START.match(raw)
        line = raw[start.end() :].rstrip() if start else raw
        if not line:
            return
        if found := self.draft.find(line):
            rest = line[found[1] :]
            if not self.in_breakdown and _RESTATED.match(rest):
                self._begin_breakdown(is_listed=True)
            self._on_criterion(found[0], rest)
            return
        m = LINE.match(line)
        if m is None:
            self._on_other(raw, line)
            return
        match m.lastgroup:
            case "response":
                self._on_response(position(m["label"]), m["rest"])
            case "total":
                self.criterion = None
            case "criteria":
                self.in_criteria = True
                self._define(line[m.end() :])
            case "breakdown":
                self._begin_breakdown(is_listed=bool(self.draft.names))
                self.criterion = None
            case "weight":
                self._on_weight(float(m["share"]), "percent" if m["share_sign"] else "word")
            case "score":
                self._on_score(m["value"])
            case "reason" if self.rated:
                self.draft.explain(*self.rated, reason(m["why"]))

    def _plain(self, raw: str) -> bool:
        """Read the two most frequent kinds of line as the rest of the grammar would, but fast."""
        if not self.in_breakdown:
            m = PLAIN_CRITERION.match(raw)
            if m is None or " - " in m["name"] or self.draft.index(m["name"]) is not None:
                return False
            why = reason(m["text"] or "")
            self.criterion = self.draft.define(m["name"], float(m["share"]), "percent", why)
            self.n_in_list += self.criterion is not None
            return self.criterion is not None
        if self.response is None or self.grouped_by != "response":
            return False
        m = PLAIN_RATING.match(raw)
        index = self.draft.index(m["name"]) if m else None
        if m is None or index is None:
            return False
        why = m["reason"] or ""
        if HAS_PRODUCT(why):
            return False
        self._rate(self.response, index, (float(m["score"]), reason(why)))
        return True

    def _begin_breakdown(self, is_listed: bool) -> None:
        self.in_breakdown, self.in_criteria = True, False
        self.is_listed = is_listed
        self.response = 0 if self.draft.n_responses == 1 else None

    def _on_response(self, index: int, rest: str) -> None:
        if not self.in_breakdown:
            self._begin_breakdown(is_listed=self.n_in_list > 1)
            if self.n_in_list > 1:
                self.criterion = None
        self.n_in_list = 0
        self.response = index if 0 <= index < self.draft.n_responses else None
        if self.criterion is not None and self.grouped_by != "response":
            self.grouped_by = "criterion"
            self._on_score(rest)
            return
        self.criterion = None
        self.grouped_by = self.grouped_by or "response"
        if self.response is not None:
            self._named_scores(self.response, rest)

    def _on_criterion(self, index: int, rest: str) -> None:
        if self.response is not None:
            rating = rating_in(rest, self.draft.weight(index))
            if self.grouped_by == "criterion" and self.draft.n_responses > 1:
                if rating is not None and self.rated is None:
                    self.grouped_by = "response"  # the first score has its criterion beside it
                else:
                    self.response = rating = None
            if self.response is not None and rating is not None:
                self._rate(self.response, index, rating)
                self.criterion = None
                return
        self.criterion = None
        if not self._scores_by_response(index, rest) and _LEADS_ON.match(rest):
            self.criterion = index
            if self.in_breakdown and self.response is None:
                self.grouped_by = self.grouped_by or "criterion"

    def _on_score(self, text: str) -> None:
        if self.response is None or self.criterion is None:
            return
        rating = rating_in(text, self.draft.weight(self.criterion))
        if rating is not None:
            self._rate(self.response, self.criterion, rating)

    def _rate(self, response: int, criterion: int, rating: tuple[float, str]) -> None:
        self.draft.rate(response, criterion, rating)
        self.rated = (response, criterion)

    def _on_weight(self, share: float, unit: Unit) -> None:
        if self.name is not None:
            name, text = _name_and_text(self.name)
            self.criterion = self.draft.define(name, share, unit, text)
            self.n_in_list += self.criterion is not None
            self.name = None

    def _on_other(self, raw: str, line: str) -> None:
        if self.in_breakdown and self.is_listed:
            if line.count(" ") < 4 and not line[-1].isdigit():
                self.criterion = None  # the heading of something else
        elif not self._define(line) and raw.lstrip()[:1] not in "-•*+–":
            self.name = line

    # -------- several on one line

    def _named_scores(self, response: int, text: str) -> None:
        """Read `Response 1: Clarity 8/10 (short), Warmth 7/10`: all criteria or none."""
        text = re.split("->|=>|→", text, maxsplit=1)[0]  # the total follows
        found = self.draft.find_all(text) if HAS_DIGIT(text) else []
        if not found:
            return
        ends = [start for _, start, _ in found[1:]] + [len(text)]
        ratings = [
            (index, rating)
            for (index, _, start), end in zip(found, ends, strict=True)
            if (rating := rating_ahead(text[start:end], self.draft.weight(index)))
        ]
        if len({index for index, _ in ratings}) == len(self.draft.names):
            for index, rating in ratings:
                self._rate(response, index, rating)

    def _scores_by_response(self, criterion: int, text: str) -> bool:
        """Read `Clarity: Response 1: 8/10, Response 2: 6/10`: all responses or none."""
        n = self.draft.n_responses
        if str(n) not in text and chr(ord("@") + n) not in text:
            return False
        found = list(MENTION.finditer(text))
        if len(found) != n:
            return False
        ends = [m.start() for m in found[1:]] + [len(text)]
        weight = self.draft.weight(criterion)
        ratings = {
            position(m["label"]): rating
            for m, end in zip(found, ends, strict=True)
            if (rating := rating_ahead(text[m.end() : end], weight))
        }
        if sorted(ratings) != list(range(n)):
            return False
        for response, rating in ratings.items():
            self._rate(response, criterion, rating)
        return True

    # -------- criteria

    def _define(self, line: str) -> bool:
        """Read `Clarity (40%): easy to follow` or `Clarity (40%), Warmth (60%)`."""
        if not HAS_DIGIT(line):
            return False
        for unit, pattern in WEIGHTS:
            weights = list(pattern.finditer(line))
            if not weights or (unit == "bare" and not self.in_criteria):
                continue
            if len(weights) > 1 and self._define_all(line, weights, unit):
                return True
            return self._define_one(line, weights[0], unit)
        return False

    def _define_one(self, line: str, weight: re.Match[str], unit: Unit) -> bool:
        name, text = _name_and_text(line[: weight.start()])
        after = line[weight.end() :]
        if not name:
            name, after = _name_and_text(after)
        index = self._new(name, weight, unit, f"{text} {after}")
        if index is None:
            return False
        self._on_criterion(index, line[weight.end() :])
        return True

    def _define_all(self, line: str, weights: list[re.Match[str]], unit: Unit) -> bool:
        """Define the criteria of a list on one line, unless a name among them cannot be told."""
        between = [line[a.end() : b.start()] for a, b in pairwise(weights)]
        cuts = [cut for text in between if (cut := LAST_PIECE.match(text))]
        if not cuts or len(cuts) < len(between):
            return False
        names = [line[: weights[0].start()]]
        names += [text[cut.end() :] for text, cut in zip(between, cuts, strict=True)]
        texts = [cut["text"] for cut in cuts] + [line[weights[-1].end() :]]
        for name, weight, text in zip(names, weights, texts, strict=True):
            self._new(_name_and_text(name)[0], weight, unit, text)
        return True

    def _new(self, name: str, weight: re.Match[str], unit: Unit, text: str) -> int | None:
        index = self.draft.define(name, float(weight["n"]), unit, reason(text))
        self.n_in_list += index is not None
        return index


def _name_and_text(text: str) -> tuple[str, str]:
    """Split `Clarity - easy to follow`."""
    if start := START.match(text):
        text = text[start.end() :]
    text = text.strip(_NAME_EDGE)
    match = NAME_AND_TEXT.match(text)
    return (match[1], match[2]) if match else (text, "")
