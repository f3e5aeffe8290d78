"""Queries and responses in plain English, written from attributes and read back without doubt.

`write_response` and `read_attributes` are inverse: every attribute has sentences, openings, marks
or headings that belong to it alone (`phrases.toml`), and what is none of these is the topic's own
content (`scenes.toml`). Whoever reads a text sees exactly what the Bayes observer sees.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pgenrm.seeding import derive_seed
from pgenrm.sim.tastes import ATTRIBUTES, SCENARIOS, Array, read_data

PHRASES: Final = read_data("phrases.toml")
SCENES: Final = read_data("scenes.toml")
DATA_VERSION: Final = f"{derive_seed(PHRASES, SCENES, read_data('tastes.toml')) % 16**8:08x}"
"""Changes with any phrase or taste, so that two sets of texts can be told apart."""


@dataclass(frozen=True)
class Query:
    """A query with what there is to say about it."""

    text: str
    scenario: int
    mood: str
    """Whether the points are things to do or facts; decides how they are joined."""
    points: tuple[str, ...]
    example: str


def _queries() -> dict[str, Query]:
    queries = {}
    for s, scenario in enumerate(SCENARIOS):
        scene: dict[str, Any] = SCENES[scenario]
        for topic, content in scene["topics"].items():
            for template in scene["templates"]:
                for context in scene["contexts"]:
                    text = template.format(topic=topic, context=context)
                    queries[text] = Query(
                        text, s, scene["mood"], tuple(content["points"]), content["example"]
                    )
    return queries


QUERIES: Final = _queries()
"""Text of the query -> the query; the text tells the scenario."""

N_POINTS = 2
"""Points of the topic in a response; a detailed one has twice as many."""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _pick(generator: np.random.Generator, phrases: list[str]) -> str:
    return phrases[int(generator.integers(len(phrases)))]


def write_response(query: Query, attributes: Array, generator: np.random.Generator) -> str:
    """Write a response that has exactly these attributes.

    Args:
        query: what it answers.
        attributes: [n_attributes] of 0 and 1, in the order of `ATTRIBUTES`.
        generator: chooses among points, paraphrases and positions.
    """
    has = {name for name, value in zip(ATTRIBUTES, attributes, strict=True) if value}
    said = {
        name: _with_digits(_pick(generator, sentences), generator)
        for name, sentences in PHRASES["sentences"].items()
        if name in has
    }
    if "example" in has:
        opening = _pick(generator, PHRASES["openings"]["example"])
        said["example"] = opening.format(query.example)
    body = [
        said[name]
        for name in ("example", "evidence", "hedged", "caution", "personal", "flawed")
        if name in said
    ]
    generator.shuffle(body)
    lines = [
        _pick(generator, PHRASES["headings"]["heading"]) if "heading" in has else "",
        " ".join(said[name] for name in ("formal", "warm") if name in said),
    ]
    core = _core(query, has, generator)
    end = " ".join([*body, *(said[name] for name in ("humour", "question") if name in said)])
    if "list" in has:
        lines += [core, end]
    else:
        lines = [lines[0], " ".join(filter(None, [lines[1], core, end]))]
    return "\n".join(filter(None, lines))


def _core(query: Query, has: set[str], generator: np.random.Generator) -> str:
    """Write the content: points of the topic, as a list or in prose."""
    n = 2 * N_POINTS if "detailed" in has else N_POINTS
    chosen = generator.permutation(len(query.points))[:n]
    points = [query.points[i] for i in sorted(chosen.tolist())]
    if "list" in has:
        mark = _pick(generator, PHRASES["marks"]["list"])
        return "\n".join(
            f"{mark.format(i)}{_capital(point)}." for i, point in enumerate(points, start=1)
        )
    sentences = [_pick(generator, PHRASES["prose"][query.mood]).format(*points[:N_POINTS])]
    if "detailed" in has:
        openings = generator.permutation(PHRASES["openings"]["detailed"])
        sentences += [o.format(p) for o, p in zip(openings, points[N_POINTS:], strict=False)]
    return " ".join(sentences)


def _with_digits(sentence: str, generator: np.random.Generator) -> str:
    """Replace a run of zeros by a number of as many digits; a year in "2000" stays near it."""

    def number(zeros: re.Match[str]) -> str:
        n = len(zeros[0])
        if n == len("2000"):
            return str(generator.integers(2000, 2026))
        return str(generator.integers(10 ** (n - 1), 10**n))

    return re.sub(r"\d0+", number, sentence)


# ---------------------------------------------------------------- reading back


def _patterns() -> dict[str, int]:
    """Map every sentence, heading and opening to its attribute."""
    index = {name: i for i, name in enumerate(ATTRIBUTES)}
    patterns: dict[str, int] = {}
    for kind in ("sentences", "headings"):
        for name, sentences in PHRASES[kind].items():
            patterns |= {_without_digits(sentence): index[name] for sentence in sentences}
    for name, openings in PHRASES["openings"].items():
        patterns |= {opening.partition(" {}")[0]: index[name] for opening in openings}
    return patterns


def _without_digits(text: str) -> str:
    return re.sub(r"\d+", "0", text)


_PATTERNS: Final = _patterns()
_LIST, _DETAILED = ATTRIBUTES.index("list"), ATTRIBUTES.index("detailed")
_ITEM: Final = re.compile(r"(?:\d+[.)]|[-*•]|Step \d+:) ")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?]) ")
_OPENING_END: Final = re.compile("[,:]")


def read_attributes(text: str) -> Array:
    """Read the attributes of a response that `write_response` wrote: [n_attributes] of 0 and 1."""
    has = np.zeros(len(ATTRIBUTES))
    n_items = 0
    for line in text.split("\n"):
        if _ITEM.match(line):
            n_items += 1
            continue
        for sentence in _SENTENCE_END.split(line):
            found = _PATTERNS.get(_without_digits(sentence))
            if found is None:
                end = _OPENING_END.search(sentence)
                found = _PATTERNS.get(sentence[: end.end()]) if end else None
            if found is not None:
                has[found] = 1
    if n_items:
        has[_LIST] = 1
        has[_DETAILED] = n_items > N_POINTS
    return has
