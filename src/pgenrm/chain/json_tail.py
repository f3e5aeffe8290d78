"""PART 2 of a chain: find its JSON object in what a model wrote, and mend it where it is broken.

Three readers, strictest first: Python's own; ours, which knows the keys of a chain and takes them
out of almost anything in linear time; and the `json_repair` library for other broken shapes, which
is slow and super-linear on some inputs and so only sees short texts.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import json_repair

from pgenrm.chain.fields import LONG_KEY, RATIONALE_KEY, SCORE_KEY, final_scores, has_rationale
from pgenrm.chain.scores import FLAGS, LABEL, position

MAX_OPENINGS = 64
"""How many beginnings of an object are tried: the first and the last ones."""
MAX_REPAIR_CHARS = 8_000
MAX_REPAIR_BRACKETS = 60
"""Within both limits the library takes less than 0.1 s."""

EXACT_KEY = "exact"
"""Holds a whole chain as JSON, where the rest of the object could be misread."""

_QUOTE = "[\"'“”‘’]"
_MARKER = re.compile(r"(?:JSON|json)_(?:(?P<start>START|start)|END|end)")
_BEFORE_MARKER = re.compile(r"[<\[*`]{1,4}\s?\Z")
_AFTER_MARKER = re.compile(r"\s?[>\]*`]{1,4}")
_OPENING = re.compile(rf"\{{\s*+{_QUOTE}?+(?P<key>\w++(?:[ ]\w++){{0,3}}+){_QUOTE}?+\s*+:")
_KNOWN_KEY = re.compile(rf"{RATIONALE_KEY}|{SCORE_KEY}", re.IGNORECASE)
_DECODER = json.JSONDecoder(strict=False, parse_int=float)  # parse_int: no limit on digits


class Tail(NamedTuple):
    """The JSON object of a chain."""

    start: int
    """Where PART 2 begins in the text."""
    value: dict[str, Any]
    scores: list[float | None]
    """The final score of each response, 0 to 10; None where it is not understood."""


class _Objects(NamedTuple):
    """The JSON objects of a stretch of text."""

    scored: Tail | None
    """The last complete one that holds scores."""
    other: Tail | None
    """The last complete one of the rest, rather one with a rationale."""
    broken: list[re.Match[str]]
    """Where one begins that is not complete."""


def find_tail(text: str, n_responses: int) -> Tail | None:
    """Find the last complete object that holds scores, else mend the last one that was begun.

    Behind the last opening marker first, then before it. Returns None where no object is begun.
    """
    start, begin, end = _last_marked(text)
    objects = _objects(text, begin, end, n_responses)
    tail = objects.scored
    if tail is None and start > 0:
        earlier = _objects(text, 0, start, n_responses)
        if earlier.scored or not (objects.broken or objects.other):
            objects, start, end = earlier, 0, start
            tail = objects.scored
    if tail is None or not (has_rationale(tail.value) or EXACT_KEY in tail.value):
        tail = _mended(text, objects, end, n_responses) or tail or objects.other
    return tail._replace(start=start or tail.start) if tail else None


def _last_marked(text: str) -> tuple[int, int, int]:
    """Return where PART 2 begins, and the stretch behind its marker; without one, all of it."""
    markers = _markers(text)
    n_marked = max((i for i, m in enumerate(markers, 1) if m["start"]), default=0)
    end = _span(text, markers[n_marked])[0] if n_marked < len(markers) else len(text)
    return (*_span(text, markers[n_marked - 1]), end) if n_marked else (0, 0, end)


def _markers(text: str) -> list[re.Match[str]]:
    found = []
    for tag in ("JSON_", "json_"):
        at = text.find(tag)
        while at >= 0:
            if marker := _MARKER.match(text, at):
                found.append(marker)
            at = text.find(tag, at + len(tag))
    return sorted(found, key=re.Match.start)


def _span(text: str, marker: re.Match[str]) -> tuple[int, int]:
    """Return where a marker starts and ends, with the brackets or emphasis around it."""
    start, end = marker.span()
    if before := _BEFORE_MARKER.search(text, max(0, start - 5), start):
        start = before.start()
    if after := _AFTER_MARKER.match(text, end):
        end = after.end()
    return start, end


def without_markers(text: str) -> str:
    """Remove `<JSON_START>` and `<JSON_END>` in all the ways they are written."""
    kept, end = [], 0
    for marker in _markers(text):
        start, stop = _span(text, marker)
        kept.append(text[end:start])
        end = stop
    return "".join([*kept, text[end:]])


def _objects(text: str, start: int, end: int, n_responses: int) -> _Objects:
    scored = other = None
    broken = []
    scored_until = other_until = start
    openings = list(_OPENING.finditer(text, start, end))
    for opening in openings[:1] + openings[1:][-MAX_OPENINGS:]:
        if opening.start() < scored_until:
            continue
        try:
            value, stop = _DECODER.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            broken.append(opening)
            continue
        tail = Tail(opening.start(), value, final_scores(value, n_responses))
        if _has_any(tail.scores) or EXACT_KEY in value:
            scored, scored_until = tail, stop
        elif opening.start() >= other_until and (other is None or has_rationale(value)):
            other, other_until = tail, stop
    return _Objects(scored, other, broken)


def _mended(text: str, objects: _Objects, end: int, n_responses: int) -> Tail | None:
    """Mend the last broken object, or the one that holds the last complete scores."""
    limit = objects.scored.start if objects.scored else end
    broken = [opening for opening in objects.broken if opening.start() < limit]
    if not broken:
        return None
    known = [opening for opening in broken if _KNOWN_KEY.fullmatch(opening["key"])]
    begun = (known[-1] if known else broken[0]).start()
    value = _mend(text[begun:end], end == len(text), n_responses)
    return Tail(begun, value, final_scores(value, n_responses)) if value else None


# ---------------------------------------------------------------- broken JSON

_QUOTED = rf"{_QUOTE}(?<!\\.)"  # not escaped; the quote comes first for a fast search
_TEXT_KEY = re.compile(rf"\b(?:{RATIONALE_KEY}){_QUOTE}?+\s*+:\s*+{_QUOTE}{{1,3}}+", re.IGNORECASE)
_SCORES_KEY = re.compile(rf"{_QUOTED}(?:{SCORE_KEY}){_QUOTE}\s*+:", re.IGNORECASE)
_BARE_SCORES_KEY = re.compile(r"better_response\s*+:")
_NEXT_KEY = re.compile(
    rf"{_QUOTED}\s*+,?+\s*+(?://[^\n]*+\s*+)?+{_QUOTE}[\w ]{{1,40}}{_QUOTE}\s*+:"
)
_PAIR = re.compile(
    rf"""
    (?<!\\) {_QUOTE}?+ \b{LABEL} (?:[\s_](?:final[\s_])?score)? {_QUOTE}?+ \s*+ [:=] \s*+
    (?: {_QUOTE}(?P<quoted>[^"'“”‘’\n]{{1,80}}){_QUOTE}
      | (?P<plain>(?:[^,}}\]{{\["'“”\n]|,(?=\d)){{1,160}}+) (?=[,}}\]\n]) )
    """,
    FLAGS,
)
_COMMENT = re.compile(r"\s*+(?://|/\*|\#)")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([nrt\"'\\/]))")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def _mend(text: str, is_cut: bool, n_responses: int) -> dict[str, Any]:
    """Read what can be read of a broken object.

    In a text that was cut off, a number at its very end is not trusted.
    """
    if not is_cut:
        text += "\n"
    elif (ended := text.rstrip(" "))[-1] in "0123456789.":
        text = ended.rstrip("0123456789./")
    known = _known_keys(text)
    if "rationale" in known and (is_cut or "better_response" in known):
        return known
    if len(text) > MAX_REPAIR_CHARS or text.count("{") + text.count("[") > MAX_REPAIR_BRACKETS:
        return known
    try:
        repaired = json_repair.loads(text, skip_json_loads=True)
    except (ValueError, RecursionError):
        return known
    if isinstance(repaired, list):
        repaired = next((item for item in repaired if isinstance(item, dict)), {})
    if not isinstance(repaired, dict):
        return known
    is_chain = has_rationale(repaired) or _has_any(final_scores(repaired, n_responses))
    return repaired | known if is_chain else known


def _has_any(scores: Sequence[float | None]) -> bool:
    return any(score is not None for score in scores)


def _known_keys(text: str) -> dict[str, Any]:
    """Read the rationale, where it is a text, and the scores by response."""
    found: dict[str, Any] = {}
    keys = list(_SCORES_KEY.finditer(text)) or list(_BARE_SCORES_KEY.finditer(text))
    key = keys[-1] if keys else None
    start = None
    if opened := _TEXT_KEY.search(text):
        if closed := _NEXT_KEY.search(text, opened.end()):
            content, start = text[opened.end() : closed.start()], closed.start()
        else:
            stop = key.start() if key and key.start() > opened.end() else len(text)
            content = _without_closing(text[opened.end() : stop])
        found["rationale"] = _ESCAPE.sub(_unescape, content)
    elif LONG_KEY.match(text.lstrip("{ \n\t\"'")):
        start = 0
    if key is not None and (opened or "better" in key[0].lower()):
        start = key.end()
    if start is None:
        return found
    stop = text.find("}", start) + 1 or len(text)
    scores = {}
    for pair in _PAIR.finditer(text, start, stop):
        without_comment = _COMMENT.split(pair["quoted"] or pair["plain"])[0]
        scores[f"response_{position(pair['label']) + 1}"] = without_comment
    return found | {"better_response": scores} if scores else found


def _without_closing(content: str) -> str:
    content = content.rstrip(" \t\r\n,}`")
    return content[:-1] if content[-1:] in _QUOTE[1:-1] else content


def _unescape(match: re.Match[str]) -> str:
    if match[1]:
        return chr(int(match[1], 16))
    return _ESCAPED.get(match[2], match[2])
