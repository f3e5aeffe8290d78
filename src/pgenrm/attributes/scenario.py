"""Which kind of situation a query is: the preferences of one person differ between them.

Every scenario has cues, words or phrases that count 1 (weak) or 2 (strong), each once; a code block
counts 4. The scenario with the most points wins; among equals the one named first. Without any cue
a query is factual, and casual if it is very short. Of a conversation the last user turn counts
most, each earlier one a quarter of the next. English cues only; nothing is learnt.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final

from pgenrm.types import Message


class Scenario(StrEnum):
    """A kind of situation, in the order in which ties are broken."""

    EMOTIONAL = "emotional"
    """The user tells of a feeling or a hard time."""
    TECHNICAL = "technical"
    """Code, calculation, devices, how-to."""
    CREATIVE = "creative"
    """Something is to be written or invented."""
    OPINION = "opinion"
    """Judgment, recommendation or advice is wanted."""
    CASUAL = "casual"
    """Small talk."""
    FACTUAL = "factual"
    """Knowledge is wanted."""


SCENARIOS: Final = tuple(Scenario)

STRONG: Final = {
    Scenario.EMOTIONAL: """
        sad upset anxious anxiety depressed depression lonely loneliness scared worried overwhelmed
        crying cried heartbroken grief grieving ashamed hopeless miserable panic devastated betrayed
        | broke up | passed away | break up | i feel | feeling down | burned out | burnt out
        | i miss | feel like a failure | can't stop thinking | i'm struggling | hard time""",
    Scenario.TECHNICAL: """
        code python java javascript sql html css bug debug compile algorithm database linux excel
        spreadsheet regex docker json csv api terminal router wifi printer implement equation
        calculate compute programming software server javafx c++ shell bash
        | how do i | how can i | how to | how would i | how should i set | set up | step by step
        | steps to | error message""",
    Scenario.CREATIVE: """
        poem haiku story lyrics limerick slogan tagline fiction screenplay sonnet brainstorm
        fairytale poetry rhyme blog caption headline
        | write a | write an | write me | write the | come up with | make up | a song | an essay
        | a speech | a toast | an email | a letter | creative""",
    Scenario.OPINION: """
        opinion opinions overrated underrated debate controversial recommend recommendation
        recommendations
        | do you think | your view | your take | should i | should we | what should | is it worth
        | worth it | pros and cons | which is better | would you rather | what would you
        | do you agree | do you prefer | is it better | better to | is it fair""",
    Scenario.CASUAL: """
        hiya sup lol haha bored
        | how are you | what's up | how's it going | good morning | good evening | tell me a joke
        | guess what | just chatting | how was your | let's chat | let's talk | any plans
        | chat about""",
    Scenario.FACTUAL: """
        define definition capital population inventor century
        | what is | what are | what was | what were | who is | who was | who were | when did
        | when was | where is | where did | how many | how much | how long | how far | how old
        | difference between | what does | what causes | why is | why are | why do | why does
        | why did | how does | how do | how did | meaning of""",
}
WEAK: Final = {
    Scenario.EMOTIONAL: """
        feel feels feeling feelings afraid stress stressed stressful angry hurt hurts guilty nervous
        exhausted died lost alone jealous cry comfort cope embarrassed rejected fight tired
        frustrated worry fear hate""",
    Scenario.TECHNICAL: """
        function error install configure network password file folder program command script loop
        variable class git windows laptop phone computer app fix repair formula solve update data
        matrix steps setup build convert sort browser website screen connect recipe bake cook
        ingredients change replace clean remove""",
    Scenario.CREATIVE: """
        write draft compose create invent imagine rewrite song essay joke title tweet
        speech script paragraph plot design generate email letter""",
    Scenario.OPINION: """
        think better best prefer suggest suggestion suggestions versus vs agree disagree
        argue argument worth favourite favorite fair ethical moral advice advise choose convince
        persuade good bad ideal""",
    Scenario.CASUAL: """
        hi hello hey thanks thank fun weekend dinner today tonight morning yesterday chat chatting
        coffee holiday""",
    Scenario.FACTUAL: """
        what when where who which why explain describe history country year fact facts cause causes
        list summarize summarise name origin meaning science called explanation""",
}

_READ_CHARS: Final = (1000, 300)
"""Instructions stand at the start or the end; between them there may be pages of pasted text."""
_EARLIER_TURN: Final = 0.25
_CODE_BLOCK: Final = 4
_MAX_CASUAL_WORDS: Final = 4
_WORD: Final = re.compile(r"[a-z0-9+]+(?:['-][a-z]+)*")


def _points_of(cues: dict[Scenario, str], points: int) -> list[tuple[str, Scenario, int]]:
    """List (" cue ", scenario, points)."""
    rows = []
    for scenario, text in cues.items():
        words, *phrases = text.split("|")
        rows += [(cue, scenario, points) for cue in words.split()]
        rows += [(" ".join(phrase.split()), scenario, points) for phrase in phrases]
    return rows


_CUES: Final = _points_of(STRONG, 2) + _points_of(WEAK, 1)
_WORD_POINTS: Final[dict[str, list[tuple[Scenario, int]]]] = {}
for _cue, _scenario, _n in _CUES:
    if " " not in _cue:
        _WORD_POINTS.setdefault(_cue, []).append((_scenario, _n))
_PHRASE_POINTS: Final = tuple((f" {cue} ", s, n) for cue, s, n in _CUES if " " in cue)


def classify(context: Sequence[Message]) -> Scenario:
    """Return the scenario of a conversation's last query.

    >>> classify([Message(role="user", content="I feel so lonely since we broke up.")]).value
    'emotional'
    """
    totals = dict.fromkeys(SCENARIOS, 0.0)
    weight = 1.0
    for message in reversed(context):
        if message.role == "user":
            for scenario, points in _turn_points(_ends_of(message.content)):
                totals[scenario] += weight * points
            weight *= _EARLIER_TURN
    return max(SCENARIOS, key=totals.__getitem__)


def _ends_of(text: str) -> str:
    n_first, n_last = _READ_CHARS
    return text if len(text) <= n_first + n_last else f"{text[:n_first]}\n{text[-n_last:]}"


@lru_cache(maxsize=16_384)
def _turn_points(text: str) -> tuple[tuple[Scenario, int], ...]:
    """Count the points of one turn per scenario."""
    words = _WORD.findall(text.lower().replace("\u2019", "'"))
    found = [row for word in set(words) for row in _WORD_POINTS.get(word, ())]
    joined = f" {' '.join(words)} "
    found += [(scenario, points) for cue, scenario, points in _PHRASE_POINTS if cue in joined]
    if "```" in text:
        found.append((Scenario.TECHNICAL, _CODE_BLOCK))
    if not found:
        is_short = len(words) <= _MAX_CASUAL_WORDS and "?" not in text
        found.append((Scenario.CASUAL if is_short else Scenario.FACTUAL, 1))
    return tuple(found)
