"""The lines of a rationale, as regular expressions: what models write, one kind of line each.

Patterns are tried in the order given, on a line without its bullet. `pgenrm.chain.breakdown` says
what a line means where it stands.
"""

import re
from typing import Literal

from pgenrm.chain.scores import FLAGS, LABEL, NUMBER

Unit = Literal["percent", "word", "bare"]
"""How a weight was written: `40%`, `weight: 0.4`, `(0.4)`."""

_RESPONSE = LABEL.replace("?P<label>", "?:")
_WEIGHT = r"(?:weight(?:ing|age)?|importance|gewicht(?:ung)?|poids|peso|вес|权重|重み|가중치)"
_PERCENT = r"\s?(?:%|percent\b)"

START = re.compile(
    r"""
    \W*+                                                            # `- `, `### `, `> **`
    (?: (?:\d{1,2} | [a-z] | [ivx]{2,4}) [.):] (?!\d) \W*+ )?+      # `3. `, `B) `, `iv. `
    (?: (?:criterion|principle|dimension)\s?\#?\d{1,2} \W++ | c\d{1,2}[.):]\s )?+  # `Criterion 2: `
    (?: (?:score|rating)\s(?:for|on)\s )?+                         # `Score for `
    """,
    FLAGS,
)
"""What comes before the line proper."""

PLAIN_CRITERION = re.compile(
    r"(?:\W*+\d{1,2}[.)])?+\W*+(?P<name>[^\W\d][^:()\[\]%.–—]{1,79}+)\((?P<share>\d{1,3})%\)"
    r"(?::\s(?P<text>\D*+))?$"
)
"""`1. Clarity (40%): easy to follow`: most criteria look like this, and this is fast."""
PLAIN_RATING = re.compile(
    r"\W*+(?P<name>[^:()\[\]]{1,80}+)(?:\(\d{1,3}%\))?:\s"
    r"(?P<score>\d(?:\.\d{1,4})?|10)/10\s?(?:[-–—]\s(?![\d.]{1,4}\s?/)(?P<reason>.*))?$"
)
"""`- Clarity (40%): 8/10 - short`: the same for ratings."""

_TOTAL = r"""
    (?: (?:final|overall|weighted|total|aggregate|combined|calculated) \W{1,3}
        (?:(?:weighted|final|total)\W{1,3})?
        (?:scores?|sum|total|rating|average|calculation|result)\b
      | (?:final|overall|(?:sub)?total|sum|calculation|weighted|weights)\b \s*+ (?:[:=(]|$)
      | (?:gesamt|somme\b|totale?\b|suma\b|итог|总分|加权|合计|合計|총점|최종) )
"""

KINDS = {
    # Response 1: | Evaluation of Response B (the longer one) - ... | Response 2 (8/10)
    "response": rf"""
        (?:[^\W\d_]{{1,16}}+\s(?:of|for)\s)? {LABEL} (?!\W{{0,4}}(?:s\s)?{_TOTAL}) \s?
        (?P<rest>
          \([^()]{{0,100}}\).*
          | (?:(?:scores?|scoring|evaluation|breakdown|analysis|assessment|rating)\b\s?)?
            (?:$|[:=→|>.–—\]-].*) )""",
    # Final score = 7.4 | Response 1 Weighted Total: ... | Weights: 100%
    "total": rf"(?:{_RESPONSE}\W{{0,4}}(?:s\s)?)? {_TOTAL}",
    # Evaluation Criteria & Weights:
    "criteria": r"""
        (?:[^\W\d_]{1,20}+\s){0,2}
        (?:criteria|rubric|kriterien|critères|criterios|critérios|criteri|критерии|标准|基準|기준)
        (?:\s(?:&|and|with)\sweight(?:s|ings?))? \s*+ (?:[(:.] | $)""",
    # Scoring Breakdown | Scores for each response | Scores:
    "breakdown": r"""
        (?: scor(?:ing|es?)\s(?:breakdown|of\sthe|per|for\seach)\b | breakdown\b
          | scor(?:es|ing)\s*+:?\s*+$ )""",
    # Weight: 40%
    "weight": rf"{_WEIGHT}\W{{1,4}}(?P<share>{NUMBER})(?P<share_sign>{_PERCENT})?\W*+$",
    # Score: 8/10 - short
    "score": r"""
        (?:raw\s)?(?:score|rating|punkte|note|nota|puntuación|得分|评分|スコア|点数|점수|оценка)
        (?!\w)(?P<value>.*)""",
    # Reason: short and to the point
    "reason": r"""
        (?:reason(?:ing)?|justification|rationale|comment|explanation|why|description)
        \W{1,4}(?P<why>.*)""",
}
LINE = re.compile("|".join(f"(?P<{kind}>{form})" for kind, form in KINDS.items()), FLAGS)

WEIGHT_FORMS: tuple[tuple[Unit, str], ...] = (
    # Clarity (40%) | Clarity [weight: 40 %, most important]
    ("percent", rf"[(\[][^()\[\]\d%]{{0,24}}(?P<n>{NUMBER}){_PERCENT}[^()\[\]]{{0,40}}[)\]]"),
    # Clarity: 40% | Clarity - 40 percent | 40% Clarity
    (
        "percent",
        rf"(?:[,;:=|]\s?|[–—-]\s|^)(?:{_WEIGHT}\W{{1,3}})?(?P<n>{NUMBER}){_PERCENT}(?:\s{_WEIGHT})?",
    ),
    # Clarity (weight 0.4) | Clarity - weight: 40
    ("word", rf"[(\[]?\b(?:{_WEIGHT}|w)\s?[:=–-]?\s?(?P<n>{NUMBER})(?!\s?/)[)\]]?"),
    # Clarity (0.4) | Clarity: 40; only in a list of criteria
    ("bare", rf"[(\[]\s?(?P<n>{NUMBER})\s?[)\]]"),
    ("bare", rf"(?:[:=]|\s[–—-])\s?(?P<n>{NUMBER})\s*+$"),
)
"""What gives a criterion its weight, in the order of trust."""
WEIGHTS = tuple((unit, re.compile(form, FLAGS)) for unit, form in WEIGHT_FORMS)

NAME_AND_TEXT = re.compile(r"(.{1,80}?)(?:\s[–—-]|:)\s(.*)")
"""`Clarity - easy to follow`."""
LAST_PIECE = re.compile(r"(?P<text>.*)(?:(?<!\d)[.;,)•]\s|\band\s)(?:\d{1,2}[.)]\s)?")
"""Everything before the name in `easy to follow. 2. Warmth`."""

INLINE_BREAK = re.compile(
    rf"""\s(?=
        [AB][.)]\s(?:Evaluation|Scoring|Criteria|Scores?)\b
      | (?:{_RESPONSE})\s?(?:\([^()]{{0,80}}\)\s?)?[:.–—-]
      | (?:Final|Weighted|Total)\s(?:weighted\s)?(?:score|sum|total)\b
    )""",
    FLAGS,
)
"""Where a rationale on one line would have its line breaks."""
