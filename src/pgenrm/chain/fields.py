"""The fields of a chain's JSON object: final scores per response, and the rationale as text."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pgenrm.chain.scores import FLAGS, LABEL, position, read_totals

SCORE_KEY = r"better[\s_]?responses?|(?:final[\s_]|total[\s_]|response[\s_])?scores?"
RATIONALE_KEY = r"rationale|reasoning|explanation|analysis|justification"
MAX_DEPTH = 8
"""Nesting beyond this is no rationale."""

LONG_KEY = re.compile(
    rf"""
    (?:(?:final|total)[\s_])? (?:scores?[\s_](?:(?:of|for)[\s_])?)?
    {LABEL} (?:[\s_](?:final|total))? (?:[\s_]scores?)? (?!\w)
    """,
    FLAGS,
)
"""`response_1`, `Response B`, `final_score_response_1`, `answer 2 score`."""
_SHORT_KEY = re.compile(r"(?P<label>\d{1,2}|[A-Ha-h])$")
_SCORE_KEY = re.compile(SCORE_KEY, re.IGNORECASE)
_RATIONALE_KEY = re.compile(RATIONALE_KEY, re.IGNORECASE)
_TOTAL_KEYS = ("final_score", "weighted_score", "weighted_total", "total_score", "total", "score")


# ---------------------------------------------------------------- scores


def final_scores(value: Mapping[str, Any], n_responses: int) -> list[float | None]:
    """Read the final score of each response, 0 to 10; None where there is none.

    They stand under `better_response` or a name like it, at top level, or one level down. Names
    of responses may vary (`Response 1`, `answer_B`); short ones (`1`, `A`) count only under a key
    for scores. A name that counts from 0 leaves all of them unclear.

    >>> final_scores({"better_response": {"response_1": "8/10", "response_2": 6.5}}, 2)
    [8.0, 6.5]
    >>> final_scores({"Response A": 8, "Response B": 6}, 2)
    [8.0, 6.0]
    >>> final_scores({"response_0": 8, "response_1": 6}, 2)
    [None, None]
    """
    for place, is_for_scores in _places(value):
        totals = read_totals(_by_response(place, n_responses, is_for_scores))
        if any(total is not None for total in totals):
            return totals
    return [None] * n_responses


def _places(value: Mapping[str, Any]) -> Iterator[tuple[Any, bool]]:
    """Yield where scores may stand, and whether nothing else stands there."""
    for key, item in value.items():
        if _SCORE_KEY.fullmatch(key):
            yield item, True
    yield value, False
    for key, item in value.items():
        if isinstance(item, Mapping) and not _RATIONALE_KEY.fullmatch(key):
            yield item, False


def _by_response(place: Any, n_responses: int, is_for_scores: bool) -> list[Any]:
    none = [None] * n_responses
    if isinstance(place, dict) and len(place) == n_responses:
        usual = [place.get(f"response_{i}") for i in range(1, n_responses + 1)]
        if None not in usual:
            return [_total(value) for value in usual]
    if isinstance(place, list):
        if len(place) == n_responses and not any(isinstance(v, Mapping) for v in place):
            return place
        if not all(isinstance(v, Mapping) for v in place):
            return none
        pairs = [pair for item in place for pair in _pairs(item)]
    elif isinstance(place, Mapping):
        pairs = list(place.items())
    else:
        return [place] if n_responses == 1 else none
    found: dict[int, Any] = {}
    for key, value in pairs:
        m = LONG_KEY.fullmatch(key) or (_SHORT_KEY.match(key) if is_for_scores else None)
        if m is None:
            continue
        index, total = position(m["label"]), _total(value)
        if index < 0 or found.setdefault(index, total) != total:
            return none
    return [found.get(i) for i in range(n_responses)]


def _pairs(item: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Read `{"response_1": 8}` or `{"response": "response_1", "score": 8}`."""
    for name in ("response", "response_id", "id", "name"):
        if name in item:
            label = item[name]
            return [(f"{label:g}" if isinstance(label, float) else str(label), item)]
    return list(item.items())


def _total(value: Any) -> Any:
    if isinstance(value, Mapping):
        return next((value[key] for key in _TOTAL_KEYS if key in value), None)
    return value


# ---------------------------------------------------------------- rationale


def rationale_text(value: Mapping[str, Any]) -> str:
    """Return the rationale; a nested one is written out as lines, and so is what stands for it.

    >>> print(rationale_text({"rationale": {"Response 1": {"Clarity": {"score": 8.0}}}}))
    Response 1:
    - Clarity: 8
    """
    keys = sorted((k for k in value if _RATIONALE_KEY.fullmatch(k)), key=_is_not_rationale)
    if keys:
        rationale = value[keys[0]]
    else:
        rationale = {
            k: v
            for k, v in value.items()
            if not _SCORE_KEY.fullmatch(k) and not (LONG_KEY.fullmatch(k) and _is_scalar(v))
        }
    return rationale if isinstance(rationale, str) else "\n".join(_lines("", rationale, 0))


def has_rationale(value: Mapping[str, Any]) -> bool:
    """Whether the object explains its scores."""
    return any(_RATIONALE_KEY.fullmatch(key) for key in value)


def _is_not_rationale(key: str) -> bool:
    return key.lower() != "rationale"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _lines(label: str, value: Any, depth: int) -> list[str]:
    """Write a nested value in the grammar of a rationale's lines."""
    if _is_scalar(value):
        return [f"- {label}: {_plain(value)}" if label else _plain(value)]
    if depth > MAX_DEPTH or value is None:
        return []
    if isinstance(value, list):
        head = [f"{label}:"] if label else []
        return head + [line for item in value for line in _lines("", item, depth + 1)]
    fields = {k.lower(): k for k, v in value.items() if _is_scalar(v)}
    taken = [fields[k] for k in ("name", "criterion") if k in fields and not label]
    label = label or (str(value[taken[0]]) if taken else "")
    weight = next((fields[k] for k in ("weight", "weight_percent") if k in fields), None)
    score = next((fields[k] for k in ("score", "rating") if k in fields), None)
    why = next((fields[k] for k in _WHY if k in fields), None)
    if not label or (weight is None and score is None):
        lines = [f"{label}:"] if label else []
    else:
        line = f"- {label}"
        if weight is not None:
            line += f" (weight: {_plain(value[weight])})"
        if score is not None:
            line += f": {_plain(value[score])}"
        if why is not None:
            line += (" - " if score is not None else ": ") + str(value[why])
        lines = [line]
        taken += [key for key in (weight, score, why) if key is not None]
    for key, item in value.items():
        if key not in taken:
            lines += _lines(key, item, depth + 1)
    return lines


_WHY = ("reason", "reasoning", "justification", "explanation", "comment", "description")


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
