"""Markdown tables in a rationale: criteria by responses, responses by criteria, or a list.

| Criterion | Weight | Response 1 | Response 2 |      | Response | Clarity (40%) | Warmth (60%) |
"""

import re
from collections.abc import Sequence

from pgenrm.chain.draft import Draft
from pgenrm.chain.scores import FLAGS, LABEL, NUMBER, position, rating_ahead, reason

_RESPONSE = re.compile(
    rf"(?:{LABEL}|R(?P<short>\d)) (?:\s(?:score|rating))? (?:\s?\([^()]*\)|\s?/\s?10)? $", FLAGS
)
_ROLES = {
    "score": r"(?:raw )?(?:score|rating|points|punkte|note|得分|评分|スコア)",
    "weight": r"(?:weight(?:ing)?|gewicht(?:ung)?|poids|peso|权重|重み)",
    "reason": r"(?:reason(?:ing)?|justification|comments?|notes?|why|rationale|description)",
}
_ROLE = re.compile(
    "(?:" + "|".join(f"(?P<{k}>{v})" for k, v in _ROLES.items()) + r")(?: ?\([^()]*\)| ?/ ?10)?$",
    re.IGNORECASE,
)
_WEIGHT = re.compile(rf"(?P<number>{NUMBER})\s?(?P<sign>%)?$")
_NAME_WITH_WEIGHT = re.compile(
    rf"(?P<name>.*?)\s?[(\[,-]\s?(?:weight:?\s)?(?P<number>{NUMBER})\s?(?P<sign>%)\s?[)\]]?$",
    re.IGNORECASE,
)


def read_table(lines: Sequence[str], draft: Draft, response: int | None) -> None:
    """Add what a table says to the draft; `response` is the one whose section it stands in."""
    rows = [[cell.strip(" *_") for cell in line.strip().strip("|").split("|")] for line in lines]
    rows = [row for row in rows if not all(set(cell) <= set("-: ") for cell in row)]
    if len(rows) < 2 or len(rows[0]) < 2:
        return
    head, *rows = rows
    rows = [row + [""] * (len(head) - len(row)) for row in rows]
    roles = {m.lastgroup: i for i, cell in enumerate(head) if (m := _ROLE.match(cell))}
    responses = {i: where for i, cell in enumerate(head) if (where := _response(cell)) is not None}
    if any(_response(row[0]) is not None for row in rows):
        if "score" in roles:
            _one_score_a_row(rows, roles, draft)
        else:
            _responses_down(head, rows, draft)
    elif len(set(responses.values())) == len(responses):
        for row in rows:
            name = next((cell for cell in row if any(map(str.isalpha, cell))), "")
            criterion = _criterion(name, row, roles, draft)
            if criterion is None:
                continue
            for i, where in responses.items():
                _rate(draft, where, criterion, row[i])
            if response is not None and "score" in roles:
                _rate(draft, response, criterion, row[roles["score"]], _reason(row, roles))


def _responses_down(head: list[str], rows: list[list[str]], draft: Draft) -> None:
    """Read one response a row, one criterion a column."""
    criteria = {
        i: c for i, cell in enumerate(head) if (c := _criterion(cell, [], {}, draft)) is not None
    }
    for row in rows:
        where = _response(row[0])
        if where is not None and where < draft.n_responses:
            for i, criterion in criteria.items():
                _rate(draft, where, criterion, row[i])


def _one_score_a_row(rows: list[list[str]], roles: dict[str | None, int], draft: Draft) -> None:
    """Read response, criterion and score in each row; an empty first cell repeats the response."""
    where = None
    for row in rows:
        where = where if not row[0] else _response(row[0])
        criterion = _criterion(row[1], row, roles, draft)
        if where is not None and criterion is not None:
            _rate(draft, where, criterion, row[roles["score"]], _reason(row, roles))


def _response(cell: str) -> int | None:
    match = _RESPONSE.match(cell)
    return position(match["label"] or match["short"]) if match else None


def _criterion(name: str, row: list[str], roles: dict[str | None, int], draft: Draft) -> int | None:
    """Return the criterion of a row or column, defined here if its weight stands beside it."""
    if found := draft.find(name):
        return found[0]
    match = _NAME_WITH_WEIGHT.match(name)
    if match is None and "weight" in roles:
        match = _WEIGHT.match(row[roles["weight"]])
    if match is None:
        return None
    groups = match.groupdict()
    return draft.define(
        groups.get("name", name),
        float(match["number"]),
        "percent" if match["sign"] else "word",
        _reason(row, roles) if "score" not in roles else "",
    )


def _reason(row: list[str], roles: dict[str | None, int]) -> str:
    return reason(row[roles["reason"]]) if "reason" in roles else ""


def _rate(draft: Draft, response: int, criterion: int, cell: str, why: str = "") -> None:
    rating = rating_ahead(cell, draft.weight(criterion))
    if rating is not None and 0 <= response < draft.n_responses:
        draft.rate(response, criterion, (rating[0], why or rating[1]))
