"""The two parts of a chain's text joined: `parse` and `format`."""

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from pgenrm.chain import breakdown, canonical
from pgenrm.chain.draft import are_contributions
from pgenrm.chain.fields import rationale_text
from pgenrm.chain.json_tail import EXACT_KEY, Tail, find_tail, without_markers
from pgenrm.errors import FormatError, InputError
from pgenrm.types import EvaluationChain
from pgenrm.untrusted import THINKING_TAGS

JSON_START, JSON_END = "<JSON_START>", "<JSON_END>"

_THINKING = re.compile(rf"<(/?)(?:{'|'.join(THINKING_TAGS)})>", re.IGNORECASE)
_TAG = re.compile(r"<(?=/?(?:JSON_|think|thought|reasoning))", re.IGNORECASE)
MAX_LEAD_OVER = 120
"""Characters of a heading between PART 1 and the JSON object."""
_LEAD_OVER = re.compile(
    r"(?:`{3}\w{0,12}|^[#*\s]*PART\s(?:2|II|TWO)\b.*)\s*\Z", re.IGNORECASE | re.MULTILINE
)


def parse(text: str, n_responses: int) -> EvaluationChain:
    """Read what a model wrote as a chain that scores `n_responses` responses.

    Thinking blocks are dropped. The last complete JSON object with scores counts; a broken one is
    mended, but a number at which the text was cut off is not trusted. Scores are brought to 0-10.
    Criteria, weights and ratings come from the rationale, or from PART 1 where the rationale has
    none; where reading one would be a guess, it is left out. `rationale` is None where it says
    what `format` would write.

    >>> text = 'Likes it short. <JSON_START>{"better_response": {"response_1": "8/10"}}<JSON_END>'
    >>> parse(text, n_responses=1).stated_scores
    (8.0,)

    Raises:
        FormatError: no score can be read for some response; `missing` says for which.
        InputError: `n_responses` is less than 1.
    """
    if n_responses < 1:
        raise InputError(f"n_responses is {n_responses}; a chain scores at least one response")
    answer = _after_thinking(_well_formed(text))
    tail = find_tail(answer, n_responses)
    if tail is None:
        raise FormatError(f"no JSON object in {_shown(answer)}", ("JSON object",))
    exact = _exact(tail, n_responses)
    if exact is not None:
        return exact
    preferences = _part_one(answer[: tail.start])
    rationale = _well_formed(rationale_text(tail.value))
    draft = breakdown.read(rationale, n_responses)
    criteria = draft.criteria()
    if not criteria and "%" in preferences:
        draft = breakdown.read(f"{preferences}\n{rationale}", n_responses)
        criteria = draft.criteria()
    ratings = draft.ratings() if criteria else []
    if ratings and are_contributions(criteria, ratings, tail.scores):
        ratings = []
    chain = EvaluationChain.model_validate(
        {
            "preferences": preferences,
            "criteria": criteria,
            "ratings": ratings,
            "stated_scores": tail.scores,
            "rationale": rationale if rationale.strip() else None,
        }
    )
    if None in tail.scores and None in chain.scores():
        missing = [f"score of response_{i}" for i, s in enumerate(tail.scores, 1) if s is None]
        raise FormatError(f"no {', no '.join(missing)} in {_shown(answer)}", tuple(missing))
    if canonical.is_canonical(rationale, chain.criteria, chain.ratings):
        return chain.model_copy(update={"rationale": None})
    return chain


def format(chain: EvaluationChain) -> str:
    """Write a chain as a model should: `parse(format(chain), chain.n_responses) == chain`.

    Where the plain form would be read differently (a criterion named `Final score`, a rationale
    that does not say what the ratings are), the JSON object also holds the chain under `exact`.

    >>> chain = EvaluationChain(preferences="Likes it short.", stated_scores=(8, 6.5))
    >>> print(format(chain))
    Likes it short.
    <BLANKLINE>
    <JSON_START>
    {"rationale": "", "better_response": {"response_1": 8, "response_2": 6.5}}
    <JSON_END>
    """
    rationale = chain.rationale
    if rationale is None:
        rationale = canonical.render(chain.criteria, chain.ratings)
    value: dict[str, Any] = {"rationale": rationale, "better_response": _stated(chain)}
    text = _joined(chain.preferences, value)
    if _reads_back(text, chain):
        return text
    value[EXACT_KEY] = chain.model_dump(exclude={"arithmetic"})
    return _joined(_TAG.sub("&lt;", chain.preferences), value)


def _stated(chain: EvaluationChain) -> dict[str, float]:
    return {
        f"response_{i}": int(score) if score.is_integer() else score
        for i, score in enumerate(chain.stated_scores, 1)
        if score is not None
    }


def _joined(part_one: str, value: Mapping[str, Any]) -> str:
    tail = _TAG.sub(r"\\u003c", json.dumps(value, ensure_ascii=False))
    return f"{part_one}\n\n{JSON_START}\n{tail}\n{JSON_END}".lstrip("\n")


def _reads_back(text: str, chain: EvaluationChain) -> bool:
    try:
        return parse(text, chain.n_responses) == chain
    except FormatError:
        return False


def _exact(tail: Tail, n_responses: int) -> EvaluationChain | None:
    """Read the chain that `format` wrote out in full, if the scores beside it are the same."""
    if not isinstance(tail.value.get(EXACT_KEY), dict):
        return None
    try:
        chain = EvaluationChain.model_validate(tail.value[EXACT_KEY])
        chain.model_dump_json()  # half a surrogate pair cannot be stored
    except (ValidationError, PydanticSerializationError):
        return None
    is_stated = tail.value.get("better_response") == _stated(chain)
    return chain if is_stated and chain.n_responses == n_responses else None


def _after_thinking(text: str) -> str:
    end = 0
    for tag in _THINKING.finditer(text):
        if tag[1]:
            end = tag.end()
        elif text[max(0, tag.start() - 8) : tag.start()].rstrip(" \t")[-1:] in {"", "\n", ">"}:
            end = -1  # elsewhere in a line a tag is only spoken of
    if end < 0:
        raise FormatError(
            f"a thinking block is not closed in {_shown(text)}", ("end of the thinking block",)
        )
    return text[end:]


def _part_one(text: str) -> str:
    """Drop what leads over to the JSON object: markers, a fence, the heading of PART 2."""
    text = without_markers(text).strip()
    for _ in range(3):
        last = text[-MAX_LEAD_OVER:]
        end = _LEAD_OVER.search(last) if "```" in last or "PART" in last.upper() else None
        if end is None:
            break
        text = text[: len(text) - len(last) + end.start()].rstrip()
    return text


def _well_formed(text: str) -> str:
    """Join surrogate pairs and replace lone ones, which JSON in UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _shown(text: str) -> str:
    return f"a text of {len(text):,} characters that ends {text[-60:]!r}"
