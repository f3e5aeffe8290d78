"""Scores and names of responses as models write them: `8/10`, `85%`, `8 x 30% = 2.4`, `Response B`.

Regular expressions are possessive or bounded wherever they could meet long input, so that matching
stays linear.
"""

import math
import re
from collections.abc import Sequence

FLAGS = re.VERBOSE | re.IGNORECASE

NUMBER = r"\d{1,4}+(?:\.\d{1,8}+)?+(?![.,]?\d)"

SCALE = (
    r"\s?\(?(?:/|\b(?:out\ of|of|von|sur|su|de|из)\b)\s?(?P<top>5|10|100)(?:\.0)?(?![\d/.]\d|\d)"
)
"""What may follow a score: `/10`, ` out of 100`, ` (of 5)`."""

LABEL = r"""
    (?=[acorо回答响応답응])                                   # fails fast
    (?:response|answer|reply|candidate|assistant|option|completion|output
      |réponse|respuesta|resposta|risposta|antwort|odpowied[zź]|ответ
      |回答|回复|答案|响应|応答|답변|응답)
    [\s_#-]{0,2} (?P<label>\d{1,2}|(?-i:[A-H])) (?![A-Za-z\d]|\.\d)
"""
"""A response by its number or capital letter."""

MENTION = re.compile(LABEL, FLAGS)
HAS_DIGIT = re.compile(r"\d").search


def position(label: str) -> int:
    """Return the index, from 0, of the response that a label names; -1 for `0`.

    A and B are 1 and 2: models that rename the responses keep their order.

    >>> position("2"), position("B")
    (1, 1)
    """
    return int(label) - 1 if label.isdecimal() else ord(label.upper()) - ord("A")


def on_ten(number: float, top: float) -> float | None:
    """Bring a score out of `top` to 0-10; None when it exceeds its scale."""
    return number * 10 / top if number <= top else None


# ---------------------------------------------------------------- final scores

_TOTAL = re.compile(
    rf"""
    (?:[^=]*+=)*+ (?:[^\d:]{{0,40}}+:)?+ [\s*_~≈]*+     # 8 x 40% + 7 x 60% =; Final score:
    (?P<number>{NUMBER}|\d{{1,2}}+,\d{{1,2}}+) (?!\s?[–-]\s?\d)
    (?:{SCALE} | \s?(?P<percent>%))?
    (?:\s?(?:points?|pts)\b)? [\s*_.]*+ (?:$ | [(\[;,:–—] | -\s)
    """,
    FLAGS,
)


def _total(value: object) -> tuple[float | None, bool]:
    """Read one final score and whether it names its own scale."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value if math.isfinite(value) and value >= 0 else None), False
    match = _TOTAL.match(value) if isinstance(value, str) else None
    if match is None:
        return None, False
    number = float(match["number"].replace(",", "."))
    top = match["top"] or ("100" if match["percent"] else None)
    return (on_ten(number, float(top)), True) if top else (number, False)


def read_totals(values: Sequence[object]) -> list[float | None]:
    """Read the final scores of a chain, each from 0 to 10; None where one is not understood.

    Bare numbers of one chain share a scale. It is 0-100 when all are above 10 (or 0); when only
    some are above 10 it is unclear and none of them counts.

    >>> read_totals([8, "7.5/10"]), read_totals([85, "72"]), read_totals([85, 9])
    ([8.0, 7.5], [8.5, 7.2], [None, None])
    """
    totals = [_total(value) for value in values]
    bare = [number for number, has_scale in totals if number is not None and not has_scale]
    top = 10.0
    if any(number > 10 for number in bare):
        top = 100.0 if all(10 < number <= 100 or number == 0 for number in bare) else math.nan
    return [
        number if number is None or has_scale else on_ten(number, top)
        for number, has_scale in totals
    ]


# ---------------------------------------------------------------- the score on one criterion

_RESTATED_WEIGHT = r"""
    (?: \s? [(\[] [^()\[\]]{0,24} (?:% | \b0?\.\d+) [^()\[\]]{0,24} [)\]]      # (40%), [weight 0.4]
      | \s? [,:|–—-]? \s? \d{1,3}(?:\.\d+)?+ \s? % )?+                         # , 40%
"""
_LEAD = (
    r"(?:[\s:=→⇒>|*_]|[–—-](?=\s)|(?:scores?|scored|rating|rated|is|of|gets|earns|receives)\b)*+"
)
_OTHER_NUMBER = r"\s?(?:[–→~-]|->|to\b|vs)\s?\d"
_OTHER_SCORE = r"\s?(?:(?:→|->)\s?\d|(?:[–~-]|to\b|vs)\s?[\d.]{1,4}\s?/)"

_AHEAD = re.compile(  # Clarity (40%): 8/10 - reason
    rf"""
    {_RESTATED_WEIGHT} {_LEAD} (?P<number>{NUMBER}|\d{{1,2}},\d{{1,2}}(?=\s?/))
    (?! \s? [%x×*·] | {_OTHER_NUMBER} )
    (?: {SCALE} (?! [\w%/] | \s?[x×*·]\s?\d | {_OTHER_SCORE} )
      | (?:\s(?:points?|pts)\b)?
        (?= \s? (?:$ | [.;:!)(\[\]–—=→|,] | -\s) | \s(?:because|since)\b ) )
    """,
    FLAGS,
)
_IN_BRACKETS = re.compile(  # Clarity (8/10): reason; Clarity [8]
    rf"\s?[(\[]\s?(?:score\W{{1,3}})?(?P<number>{NUMBER})\s?(?:{SCALE})?\s?[)\]]", FLAGS
)
_ANYWHERE = re.compile(  # Clarity: reason. Score: 8/10
    rf"(?:\b(?:score|rating)\W{{1,3}}(?P<number>{NUMBER})(?:{SCALE})?(?!\s?[%x×*·\d])"
    rf"|(?<![\w./])(?P<scaled>{NUMBER}){SCALE.replace('<top>', '<scaled_top>')}(?!\s?[x×*·]\s?\d))",
    FLAGS,
)
HAS_PRODUCT = re.compile(r"[x×*·]\s?\d").search
_PRODUCT = re.compile(  # 8 x 30% = 2.4; 0.3 * 8/10
    rf"(?<![\w.])(?P<a>{NUMBER})(?P<a_unit>%|/10)?\s?[x×*·]\s?(?P<b>{NUMBER})(?P<b_unit>%|/10)?"
    rf"[)\s]{{0,3}}(?:=\s?[\d.]{{1,8}})?",
    FLAGS,
)
_REASON_EDGE = " \t-–—:.,;|*_"


def rating_ahead(text: str, weight: float) -> tuple[float, str] | None:
    """Read a score that follows a name at once, 0 to 10, and the reason after it.

    A weighted contribution is not a score: in `8 x 30% = 2.4` the factor that is not the weight
    (in percent) counts, and where that cannot be told, nothing does.

    >>> rating_ahead(" (30%): 8/10 - short and clear", 30)
    (8.0, 'short and clear')
    >>> rating_ahead(": 2.4 (8 x 30%)", 30)
    (8.0, '')
    >>> rating_ahead(": 10 bullet points make it long", 30) is None
    True
    """
    if HAS_PRODUCT(text) and (products := list(_PRODUCT.finditer(text))):  # the first is fast
        return _from_product(text, products, weight)
    match = _AHEAD.match(text) or _IN_BRACKETS.match(text)
    if match is None:
        return None
    return _scored(match["number"], match["top"], reason(text[match.end() :]))


def rating_in(text: str, weight: float) -> tuple[float, str] | None:
    """Read a score that follows a name at once or, marked as one, stands anywhere in the text.

    >>> rating_in(": Short and clear. Score: 8", 30)
    (8.0, 'Short and clear.')
    """
    rating = rating_ahead(text, weight)
    if rating or not HAS_DIGIT(text) or "weighted" in text or _PRODUCT.search(text):
        return rating
    found = list(_ANYWHERE.finditer(text))
    if not found or MENTION.search(text):
        return None
    scores = {_scored(m["number"] or m["scaled"], m["top"] or m["scaled_top"], "") for m in found}
    if len(scores) != 1 or (only := scores.pop()) is None:
        return None
    return only[0], reason(text[: found[0].start()].rstrip(" (["))


def _scored(number: str, top: str | None, why: str) -> tuple[float, str] | None:
    score = on_ten(float(number.replace(",", ".")), float(top or 10))
    return None if score is None else (score, why)


def _from_product(
    text: str, products: list[re.Match[str]], weight: float
) -> tuple[float, str] | None:
    if len(products) != 1:
        return None
    product = products[0]
    a, b = float(product["a"]), float(product["b"])
    why = reason(text[product.end() :])
    for share_a, share_b in (
        (product["a_unit"] == "%", product["b_unit"] == "%"),
        (_is(a * 100, weight), _is(b * 100, weight)),
        (_is(a, weight), _is(b, weight)),
    ):
        if share_a != share_b:
            return _scored(product["b" if share_a else "a"], None, why)
    return None


def _is(share: float, weight: float) -> bool:
    return abs(share - weight) <= 0.5  # percent: models round


def reason(text: str) -> str:
    """Strip what separates a reason from its score, and brackets around the whole."""
    text = text.strip().lstrip(_REASON_EDGE).rstrip(" ;,")
    if text.startswith("(") and text.endswith(")") and text.count("(") == 1:
        text = text[1:-1]
    return text.strip()
