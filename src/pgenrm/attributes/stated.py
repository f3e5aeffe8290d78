"""What a user states in words, mapped to attributes where it names them.

"Short answers please, no emojis" becomes length -1, playfulness -1. Sentences are read word by
word: a cue names an attribute and a direction, a negation turns the cues that follow it. It ends
with the sentence, at a word that asks for something ("but", "prefer", ...), or after a few words;
over "and", "or" and commas it carries on for things ("no emojis, lists and headings") but not for
qualities ("no emojis and short answers"). English only; what names no attribute is left alone.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from pgenrm.attributes.measure import ATTRIBUTES, N_ATTRIBUTES, Vector
from pgenrm.types import User

QUALITIES: Final = {
    "length": (
        """short shorter shortest brief briefly briefer concise concisely succinct terse compact
        crisp snappy brevity tldr quick hurry busy skim gist | to the point | few words | bite sized
        | cut to the chase | little time | no time""",
        """long longer lengthy detailed detail details thorough thoroughly comprehensive elaborate
        exhaustive verbose wordy extensive complete | in depth | in detail""",
    ),
    "hedging": (
        """confident confidently certain certainty decisive decided direct directly blunt definite
        assertive straightforward | straight answers | straight answer""",
        "hedged cautious careful nuanced nuance tentative balanced",
    ),
    "warmth": (
        "neutral clinical detached businesslike factual | matter of fact",
        """warm warmer warmth warmly friendly friendlier kind kindness caring empathetic empathic
        empathy supportive support encouraging encouragement gentle compassionate comforting
        reassuring reassurance sympathetic understanding""",
    ),
    "formality": (
        """casual informal relaxed conversational colloquial chatty everyday | laid back
        | down to earth""",
        "formal formally professional professionally polished proper academic",
    ),
    "word_length": (
        """plain plainly simple simply simpler accessible understandable | easy to read
        | easy to understand | plain english | plain language | layman's terms""",
        "technical sophisticated scholarly advanced",
    ),
    "playfulness": (
        "serious sober",
        "funny humorous playful witty lighthearted fun whimsical | light hearted",
    ),
    "second_person": (
        "impersonal",
        "personal | talk to me | speak to me | address me | addresses me | addressed to me",
    ),
}
"""Attribute -> cues of its low and of its high direction."""
THINGS: Final = {
    "length": ("", "fluff padding filler rambling waffle verbosity"),
    "lists": (
        "prose | plain prose | flowing text | full sentences",
        """list lists bullet bullets bulleted numbered checklist checklists steps itemised itemized
        | bullet points | bullet point | step by step""",
    ),
    "headings": ("", "heading headings header headers sections subheadings headlines"),
    "code": ("", "code snippet snippets"),
    "paragraphs": (
        "| wall of text | walls of text | one paragraph | single paragraph",
        "| short paragraphs | paragraph breaks | line breaks | white space",
    ),
    "questions": (
        "",
        "question questions clarifying | ask me | asks me | ask back | asking back",
    ),
    "hedging": ("", "hedging hedges maybes doubt doubts uncertainty | beating around the bush"),
    "warmth": ("", "pleasantries flattery sympathy | small talk"),
    "formality": ("slang", "formality formalities"),
    "word_length": ("", "jargon terminology | big words | long words"),
    "examples": ("", "example examples illustrations analogy analogies concrete | case studies"),
    "numbers": (
        "",
        "number numbers figures statistics stats data quantitative percentages quantities",
    ),
    "sources": (
        "",
        """source sources citation citations reference references links evidence cite cites cited
        studies study""",
    ),
    "playfulness": (
        "",
        """humour humor joke jokes emoji emojis emoticons smileys pun puns wit
        | exclamation marks | exclamation points""",
    ),
    "disclaimers": (
        "",
        """disclaimer disclaimers warning warnings caveat caveats caution refusal refusals
        moralising moralizing lecturing preaching lectures""",
    ),
    "second_person": ("", "| second person"),
}
"""As `QUALITIES`, for things that a text has or has not."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEGATIONS: Final = _words(
    """no not without avoid avoids avoiding don't dont doesn't isn't aren't shouldn't won't never
    can't cannot hate hates dislike dislikes less fewer skip skips skipping stop nor neither too
    excessive unnecessary omit overly minimal reduce over than zero nothing hold leave
    drop ditch"""
)
AFTERTHOUGHTS: Final = _words(
    "annoy annoys annoying irritate irritates bore bores boring tired useless pointless"
)
"""Turn the cue before them: "long texts make me tired"."""
REQUESTS: Final = _words(
    """but however prefer prefers preferred like likes love loves want wants need needs please more
    enjoy enjoys appreciate appreciates value values give use keep just always yes be make include
    instead rather favour favor"""
)
"""End a negation, unless they stand right behind one ("don't like", "rather than")."""
ADDITIONS: Final = _words("only just merely")
"""Right behind a negation they undo it: "not only short"."""
INDIFFERENCE: Final = _words("mind matter")
"""Right behind a negation they void what follows, up to a comma or a request: "I don't mind"."""
JOINING: Final = _words("and or ,")
MAX_NEGATED_WORDS: Final = 6
SELF_DESCRIPTION_SHARE: Final = 0.5
"""A self-description tells of a person, and only by implication of the answers he wants."""
_SENTENCE: Final = re.compile(r"[.;!?\n]+")
_WITHOUT: Final = re.compile("instead of|tired of|sick of")
_TOKEN: Final = re.compile(r"[a-z]+(?:'[a-z]+)*|,")


class _Cue(NamedTuple):
    attribute: int
    sign: int
    is_thing: bool


def _read_cues() -> dict[tuple[str, ...], _Cue]:
    index = {attribute.name: i for i, attribute in enumerate(ATTRIBUTES)}
    cues = {}
    for table, is_thing in ((QUALITIES, False), (THINGS, True)):
        for name, directions in table.items():
            for sign, text in zip((-1, 1), directions, strict=True):
                words, *phrases = text.split("|")
                for cue in [*map(str.split, phrases), *([word] for word in words.split())]:
                    cues[tuple(cue)] = _Cue(index[name], sign, is_thing)
    return cues


_CUES: Final = _read_cues()
_MAX_CUE_WORDS: Final = max(map(len, _CUES))


def stated_directions(user: User) -> Vector:
    """Map a user's stated criteria and self-description to attributes.

    Returns:
        [n_attributes] in [-1, 1]: positive where the high direction is asked for, negative for the
        low one; 0 where nothing is said or statements contradict each other.
    """
    described = (user.self_description,) if user.self_description else ()
    wishes = np.sign(_read_all(user.criteria))
    return np.clip(wishes + SELF_DESCRIPTION_SHARE * np.sign(_read_all(described)), -1, 1)


def _read_all(texts: Iterable[str]) -> Vector:
    total = np.zeros(N_ATTRIBUTES)
    for text in texts:
        plain = text.lower().replace("\u2019", "'").replace("-", " ")
        for sentence in _SENTENCE.split(_WITHOUT.sub("without", plain)):
            for attribute, sign in _read(tuple(_TOKEN.findall(sentence))):
                total[attribute] += sign
    return total


def _read(tokens: tuple[str, ...]) -> list[tuple[int, int]]:
    """List (attribute, sign) of every cue in a sentence."""
    found: list[tuple[int, int]] = []
    n_negated = 0  # words that a negation still reaches
    plain_sign = 0  # of the last cue, before any negation
    is_joined = is_void = False
    i = 0
    while i < len(tokens):
        token = tokens[i]
        is_negated_here = i > 0 and tokens[i - 1] in NEGATIONS
        cue, n_tokens = _cue_at(tokens, i)
        i += n_tokens
        n_negated = max(0, n_negated - 1)
        if cue is not None:
            if is_joined and not cue.is_thing:
                n_negated = 0
            if n_negated:
                n_negated = MAX_NEGATED_WORDS
            if not is_void:
                found.append((cue.attribute, -cue.sign if n_negated else cue.sign))
            plain_sign = cue.sign
            is_joined = False
        elif token in JOINING:
            is_joined = True
            is_void = is_void and token != ","
        elif token in NEGATIONS:
            n_negated = MAX_NEGATED_WORDS
        elif token in AFTERTHOUGHTS and found:
            found[-1] = (found[-1][0], -plain_sign)
        elif is_negated_here and (token in ADDITIONS or token in INDIFFERENCE):
            n_negated = 0
            is_void = token in INDIFFERENCE
        elif token in REQUESTS and not is_negated_here:
            n_negated = 0
            is_void = False
    return found


def _cue_at(tokens: tuple[str, ...], i: int) -> tuple[_Cue | None, int]:
    """Return the longest cue that starts at token i, and its number of tokens (at least 1)."""
    for n in range(min(_MAX_CUE_WORDS, len(tokens) - i), 0, -1):
        cue = _CUES.get(tokens[i : i + n])
        if cue is not None:
            return cue, n
    return None, 1
