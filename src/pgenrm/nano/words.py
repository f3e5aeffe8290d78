"""The words of the bundled judge's chains: one for either pole of every attribute.

No word holds a blank, so that lists need no commas and a word is the same token wherever it stands.
"""

from typing import Final

import numpy as np

from pgenrm.sim.tastes import ATTRIBUTES, LOADINGS, TASTES

_POLES: Final = {
    "detailed": ("detail", "brief"),
    "example": ("examples", "no-examples"),
    "evidence": ("sources", "no-sources"),
    "list": ("lists", "prose"),
    "warm": ("warm", "matter-of-fact"),
    "personal": ("personal", "impersonal"),
    "question": ("questions", "no-questions"),
    "heading": ("headings", "no-headings"),
    "hedged": ("hedged", "certain"),
    "caution": ("warnings", "no-warnings"),
    "formal": ("formal", "informal"),
    "humour": ("humorous", "serious"),
    "flawed": ("flawed", "flawless"),
}
POLES: Final = tuple(_POLES[name] for name in ATTRIBUTES)
"""[n_attributes]; (where a response has the attribute, where it has not)."""
POLE_OF: Final = {
    word: (a, sign)
    for a, poles in enumerate(POLES)
    for word, sign in zip(poles, (1, -1), strict=True)
}
"""Word -> its attribute and 1 for having it, -1 for not having it."""
TASTE_WORDS: Final = {"depth": "depth", "warmth": "closeness", "care": "care"}
TASTE_NAMES: Final = tuple(TASTE_WORDS[name] for name in TASTES)
"""[n_tastes]."""
SIDE: Final = np.sign(LOADINGS).astype(int)
"""[n_tastes, n_attributes]; 1 where having the attribute goes the taste's way."""
TASTE_OF: Final = np.where(SIDE.any(axis=0), np.abs(SIDE).argmax(axis=0), -1)
"""[n_attributes]; -1 for the flaw, which is no matter of taste."""


def pole(attribute: int, sign: int) -> str:
    """Return the word for having (sign > 0) or not having an attribute."""
    return POLES[attribute][0 if sign > 0 else 1]
