"""Measured text attributes: what can be counted in a response, each on a common scale.

One pass splits the UTF-8 bytes into words (letters, digits, apostrophes and everything beyond
ASCII), one walks the lines for Markdown structure; both are linear in the length of the text and
accept any Unicode. Words are looked up in the English lists of `lexicon.py`, so a text in another
language is measured by its structure only.

A count c in a text of n words becomes a rate, sqrt(100 c / (n + 50)): hits per hundred words, with
fifty words of padding so that one hit in a short text does not explode, and a square root because
the first hit is noticed more than the tenth. Length is log(1 + n). Then z = (raw - centre) / scale,
with fixed round constants under which a unit is about one standard deviation over answers of
current chat models, and z / sqrt(1 + (z/5)^2) bounds it to [-5, 5] while keeping the order.

Left out on purpose: whether the content is right, useful or true.
"""

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from math import log, sqrt
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pgenrm.attributes.lexicon import PHRASES, WORDS

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Attribute:
    """One thing that is measured, with words for both directions."""

    name: str
    low: str
    """What a low value means, as in "an answer that is ..."."""
    high: str
    centre: float
    """Raw value of an ordinary answer."""
    scale: float
    """Raw difference that makes one unit."""


ATTRIBUTES: Final = (
    Attribute("length", "short and to the point", "long and thorough", 4.9, 1.1),
    Attribute("lists", "in prose, without lists", "laid out in lists", 0.8, 1.0),
    Attribute("headings", "without headings", "divided by headings", 0.15, 0.4),
    Attribute("code", "without code", "with code shown", 0.15, 0.6),
    Attribute("paragraphs", "in one block", "broken into short paragraphs", 1.0, 0.7),
    Attribute("questions", "not asking back", "asking follow-up questions", 0.15, 0.4),
    Attribute("hedging", "certain and decided", "hedged and careful", 0.3, 0.6),
    Attribute("warmth", "matter-of-fact", "warm and encouraging", 0.4, 0.5),
    Attribute("formality", "in relaxed, everyday words", "formally worded", 0.0, 0.8),
    Attribute("word_length", "in short, plain words", "in long, technical words", 4.8, 0.5),
    Attribute("examples", "without examples", "with concrete examples", 0.3, 0.4),
    Attribute("numbers", "without figures", "with numbers and figures", 0.7, 0.9),
    Attribute("sources", "without sources", "naming sources", 0.2, 0.4),
    Attribute("playfulness", "sober, without jokes or emoji", "playful or with emoji", 0.2, 0.5),
    Attribute("disclaimers", "without disclaimers", "with disclaimers and warnings", 0.1, 0.3),
    Attribute("second_person", "impersonal", "speaking to the reader as you", 0.7, 0.8),
)
"""The attributes, in the order of every vector in this package."""
N_ATTRIBUTES: Final = len(ATTRIBUTES)
BOUND: Final = 5.0
"""No standardised value lies beyond this."""
PADDING_WORDS: Final = 50
TYPICAL_LETTERS: Final = 4.8
"""Letters per word of ordinary English; ten such words pad the average of a short text."""

Count = int | float | tuple[int, int]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured in one text."""

    vector: Vector
    """[n_attributes], standardised; read-only."""
    counts: tuple[Count, ...]
    """[n_attributes], what the values stand for; `in_words` says it."""


UNITS: Final = (
    "word",
    "list item",
    "heading",
    "code fragment",
    "paragraph",
    "follow-up",
    "{} hedging, {} certain words",
    "warm word",
    "{} formal, {} informal words",
    "{} letters per word",
    "example marker",
    "number",
    "source marker",
    "playful mark",
    "disclaimer marker",
    "you-word",
)
"""[n_attributes], what is counted: a noun, or a template where one noun does not do."""


@lru_cache(maxsize=8192)
def in_words(attribute: int, count: Count) -> str:
    """Write a count: "no words", "1 word", "38 words", "2 formal, 0 informal words"."""
    unit = UNITS[attribute]
    if isinstance(count, tuple):
        return unit.format(*count)
    if isinstance(count, float):
        return unit.format(count)
    return f"{count or 'no'} {unit}{'' if count == 1 else 's'}"


def measure(text: str) -> Vector:
    """Measure a text: one standardised value per attribute, in [-5, 5], read-only.

    >>> bool(measure("Yes.")[0] < measure("Yes, and here is why: " * 20)[0])
    True
    """
    return measured(text).vector


def measured(text: str) -> Measured:
    """Measure a text, keeping the counts; recently seen texts are remembered."""
    key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    with _lock:
        if key in _recent:
            _recent.move_to_end(key)
            return _recent[key]
    result = _measure(text)
    with _lock:
        _recent[key] = result
        while len(_recent) > N_REMEMBERED:
            _recent.popitem(last=False)
    return result


N_REMEMBERED: Final = 16_384
"""Texts whose measurements are kept: about 1 kB each, however long the text."""
_recent: Final[OrderedDict[bytes, Measured]] = OrderedDict()
_lock: Final = Lock()


# ---------------------------------------------------------------- lines

_BULLETS: Final = frozenset("-*•+–·◦▪")
_DIGITS: Final = "0123456789"
_FENCES: Final = ("```", "~~~")
_MAX_LABEL_CHARS: Final = 40
"""A line that ends in a colon, at most this long and of at most five words, is a heading."""


@dataclass(slots=True)
class _Lines:
    """Counts over the lines of a text."""

    n_items: int = 0
    n_numbered: int = 0
    """Those of the items that start with a figure."""
    n_headings: int = 0
    n_code: int = 0
    n_paragraphs: int = 0


def _read_lines(text: str) -> _Lines:
    n = _Lines()
    in_code = False
    after_blank = True
    for raw_line in text.splitlines():
        line = raw_line.strip()
        if not line:
            after_blank = True
        elif line.startswith(_FENCES):
            in_code = not in_code
        elif in_code:
            n.n_code += 1
        else:
            n.n_paragraphs += after_blank
            after_blank = False
            _read_line(line, n)
    return n


def _read_line(line: str, n: _Lines) -> None:
    first = line[0]
    if first in _BULLETS and line[1:2] in (" ", "\t"):
        n.n_items += 1
    elif first in _DIGITS:
        mark = line[:5].lstrip(_DIGITS)[:2]
        if mark in (". ", ") ", ".\t", ")\t"):
            n.n_items += 1
            n.n_numbered += 1
    elif first == "#":
        n.n_headings += line[:7].lstrip("#")[:1] == " "
    elif line.endswith((":", "**")):
        is_bold = first == "*" and line.rstrip(":").endswith("**")
        is_label = len(line) <= _MAX_LABEL_CHARS and line.count(" ") < 5
        n.n_headings += is_bold or is_label
    elif line[-1] in ";{}":
        n.n_code += 1
    elif first in "Ss" and line[:5].lower() == "step ":
        n.n_items += 1


# ---------------------------------------------------------------- words

_KINDS: Final = tuple(WORDS)
_PHRASES_AT: Final[dict[bytes, list[tuple[str, bytes]]]] = {}
"""Longest word of a phrase -> kind and phrase: searched for only in texts with that word."""
for _kind, _phrases in PHRASES.items():
    for _phrase in _phrases:
        _rarest = max(reversed(_phrase.encode().split()), key=len)
        _PHRASES_AT.setdefault(_rarest, []).append((_kind, f" {_phrase} ".encode()))
_MARKS: Final[tuple[str | bytes, ...]] = (*_KINDS, *_PHRASES_AT)
"""What a word may be a mark of: a kind, or a place to search for phrases."""
_MARKS_OF: Final[dict[bytes, bytes]] = {word: bytes([_MARKS.index(word)]) for word in _PHRASES_AT}
"""Word -> the indices of its marks, as bytes: joined over a text, `bytes.count` counts each."""
for _i, _kind in enumerate(_KINDS):
    for _word in WORDS[_kind].encode().split():
        _MARKS_OF[_word] = _MARKS_OF.get(_word, b"") + bytes([_i])

_WORD_BYTES: Final = bytes(
    ord(chr(b).lower()) if chr(b).isalnum() or chr(b) == "'" else ord(" ") for b in range(128)
) + bytes(range(128, 256))
"""Lower case for ASCII letters, a space for ASCII punctuation, all else as it is."""
_DIGITS_TO_ZERO: Final = bytes(ord("0") if chr(b) in _DIGITS else b for b in range(256))
_PUNCTUATION: Final = re.compile(
    "[\u00a0\u2010-\u2015\u2026\u201c\u201d\u3000-\u3002\uff01\uff0c\uff1f]"
)
_UNSPACED: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Kana and Chinese characters: written without spaces, so each counts as a word."""
_EMOJI: Final = re.compile("[\u2600-\u27bf\U0001f300-\U0001faff]")
_SMILEYS: Final = (":)", ";)", ":-)")
_QUESTIONS: Final = ("? ", "?\n", '?"', "\uff1f")


def _count_words(words: list[bytes], joined: bytes) -> dict[str, int]:
    """Count the words and phrases of every kind; `joined` has the words between single spaces."""
    hits = b"".join([_MARKS_OF[word] for word in words if word in _MARKS_OF])
    counts = dict.fromkeys(_KINDS, 0)
    for i in set(hits):
        mark = _MARKS[i]
        if isinstance(mark, str):
            counts[mark] += hits.count(i)
        else:
            for kind, phrase in _PHRASES_AT[mark]:
                counts[kind] += joined.count(phrase)
    return counts


# ---------------------------------------------------------------- a text


def _measure(text: str) -> Measured:
    plain = text
    n_emoji = n_unspaced = 0
    is_ascii = text.isascii()
    if not is_ascii:
        plain = _PUNCTUATION.sub(" ", text.replace("\u2019", "'"))
        n_emoji = len(_EMOJI.findall(text))
        n_unspaced = len(_UNSPACED.findall(text))
    words = plain.encode("utf-8", "surrogatepass").translate(_WORD_BYTES).split()
    joined = b" ".join([b"", *words, b""])
    n_words = len(words) + n_unspaced
    n_spaces = len(words) + 1
    n_letters = len(joined if is_ascii else joined.decode("utf-8", "surrogatepass")) - n_spaces
    letters_per_word = (n_letters + 10 * TYPICAL_LETTERS) / (n_words + 10)

    lines = _read_lines(text)
    n_code = lines.n_code + _count_code_spans(text)
    n_paragraphs = max(1, lines.n_paragraphs)
    n = _count_words(words, joined)
    n_numbers = n["number"] + joined.translate(_DIGITS_TO_ZERO).count(b" 0") - lines.n_numbered
    n_questions = n["ask"] + _count_questions(text)
    n_playful = n["humour"] + n_emoji + sum(map(text.count, _SMILEYS)) + text.count("!")

    per_hundred = 100 / (n_words + PADDING_WORDS)

    def rate(count: int) -> float:
        return sqrt(count * per_hundred)

    raw = (
        log(1 + n_words),
        rate(lines.n_items),
        rate(lines.n_headings),
        rate(n_code),
        rate(n_paragraphs - 1),
        rate(n_questions),
        rate(n["hedge"]) - rate(n["certain"]),
        rate(n["warm"]),
        rate(n["formal"]) - rate(n["informal"]),
        letters_per_word,
        rate(n["example"]),
        rate(n_numbers),
        rate(n["source"]),
        rate(n_playful),
        rate(n["disclaimer"]),
        rate(n["you"]),
    )
    counts = (
        n_words,
        lines.n_items,
        lines.n_headings,
        n_code,
        n_paragraphs,
        n_questions,
        (n["hedge"], n["certain"]),
        n["warm"],
        (n["formal"], n["informal"]),
        round(letters_per_word, 1),
        n["example"],
        n_numbers,
        n["source"],
        n_playful,
        n["disclaimer"],
        n["you"],
    )
    z = [(value - a.centre) / a.scale for value, a in zip(raw, ATTRIBUTES, strict=True)]
    vector = np.array([value / sqrt(1 + (value / BOUND) ** 2) for value in z])
    vector.flags.writeable = False
    return Measured(vector, counts)


def _count_code_spans(text: str) -> int:
    """Count pairs of single backticks."""
    n_ticks = text.count("`")
    return (n_ticks - 3 * text.count("```")) // 2 if n_ticks else 0


def _count_questions(text: str) -> int:
    """Count question marks that end something, not those inside an address."""
    if "?" not in text and "\uff1f" not in text:
        return 0
    return sum(map(text.count, _QUESTIONS)) + text.endswith("?")
