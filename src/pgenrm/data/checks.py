"""Questions to the rows of a data set: leaks, duplicates, ties, gaps."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pgenrm.data.dataset import TEST_UNSEEN
from pgenrm.data.pairs import Placed
from pgenrm.history import discloses
from pgenrm.types import Comparison, Context, Value

N_EXAMPLES: Final = 3

Choice = tuple[str, Context, frozenset[str]]
"""User, context and responses."""


class Check(Value):
    """One question to a data set, answered in counts."""

    name: str
    found: int
    """How many there are."""
    of: int
    """Among how many."""
    examples: tuple[str, ...] = ()
    """The first few: places, or ids of users and conversations."""
    matters: str
    """What it means where there are any."""


@dataclass(frozen=True)
class Entry:
    """A row of any data set as the checks look at it."""

    place: str
    split: str
    part: str
    """Of its user's rows; the split again where rows are not divided twice."""
    population: str
    """The users that it belongs to: those of a hub split, or seen and unseen ones."""
    user_id: str
    conversation_id: str | None
    context: Context
    responses: tuple[str, ...]
    scores: tuple[float | None, float | None] | None
    """Of chosen and rejected; None where a data set has none."""

    @property
    def choice(self) -> Choice:
        """Equal for two rows that put the same question to the same user."""
        return (self.user_id, self.context, frozenset(self.responses))


def entry_of_row(item: Placed) -> Entry:
    """Look at a row of PersonalRewardBench."""
    row = item.row
    return Entry(
        place=f"{item.hub_split}[{item.index}]",
        split=item.hub_split,
        part=row.split,
        population=item.hub_split,
        user_id=row.user_id,
        conversation_id=row.conversation_id,
        context=row.context,
        responses=(row.chosen, row.rejected),
        scores=(row.chosen_score, row.rejected_score),
    )


def entry_of(split: str, comparison: Comparison) -> Entry:
    """Look at a comparison as it was loaded."""
    return Entry(
        place=comparison.id,
        split=split,
        part=split,
        population="unseen" if split == TEST_UNSEEN else "seen",
        user_id=comparison.user.id,
        conversation_id=None,
        context=comparison.context,
        responses=comparison.responses,
        scores=None,
    )


def overlaps(entries: Sequence[Entry]) -> list[Check]:
    """Look for what stands in two splits, or in two parts of one user's rows."""
    checks = [
        _shared(
            "users in several splits",
            ((e.user_id, e.population) for e in entries),
            "such a user is not unseen",
        ),
        _shared(
            "choices in several splits or parts",
            ((e.choice, _place(e)) for e in entries),
            "what is tested was trained on; such train rows are left out",
        ),
    ]
    conversations = [
        (f"{e.conversation_id} of {e.user_id}", e.part) for e in entries if e.conversation_id
    ]
    if conversations:
        matters = "a later turn shows what was chosen before; such train rows are left out"
        checks.append(_shared("conversations in several parts", conversations, matters))
    return checks


def row_checks(entries: Sequence[Entry]) -> list[Check]:
    """Look at each row."""
    first: dict[Hashable, str] = {}
    for entry in entries:
        first.setdefault(entry.choice, entry.place)
    checks = [
        _those(
            "repeated rows",
            entries,
            lambda e: first[e.choice] != e.place,
            "one choice counts several times",
        ),
        _those(
            "two responses of the same text",
            entries,
            lambda e: len(set(e.responses)) < len(e.responses),
            "nobody can be right; neither trained on nor shown as history",
        ),
        _those(
            "empty texts",
            entries,
            lambda e: not all(text.strip() for text in (e.context[-1].content, *e.responses)),
            "the query or a response is missing",
        ),
    ]
    if any(entry.scores is not None for entry in entries):
        checks += [
            _those(
                "scores missing",
                entries,
                lambda e: e.scores is not None and None in e.scores,
                "whether the user saw a difference is not known",
            ),
            _those(
                "equal scores",
                entries,
                lambda e: _difference(e) == 0,
                "the user saw no difference, and yet one is called chosen",
            ),
            _those(
                "chosen scored below rejected",
                entries,
                lambda e: (_difference(e) or 0) < 0,
                "label and scores contradict each other",
            ),
        ]
    return checks


def history_check(comparisons: Sequence[Comparison]) -> Check:
    """Look for past choices that give the answer away."""
    leaks = [
        c.id
        for c in comparisons
        if any(discloses(pair.context, {c.context}) for pair in c.user.history)
    ]
    return Check(
        name="past choices in the comparison's context",
        found=len(leaks),
        of=len(comparisons),
        examples=tuple(leaks[:N_EXAMPLES]),
        matters="the answer stands in the prompt",
    )


def _place(entry: Entry) -> str:
    return f"{entry.split}/{entry.part}" if entry.conversation_id else entry.split


def _shared(name: str, pairs: Iterable[tuple[str | Choice, str]], matters: str) -> Check:
    """Count the keys that occur in more than one place."""
    places: dict[str | Choice, dict[str, None]] = {}
    for key, place in pairs:
        places.setdefault(key, {})[place] = None
    several = [(key, found) for key, found in places.items() if len(found) > 1]
    return Check(
        name=name,
        found=len(several),
        of=len(places),
        examples=tuple(
            f"{key if isinstance(key, str) else key[0]}: {', '.join(found)}"
            for key, found in several[:N_EXAMPLES]
        ),
        matters=matters,
    )


def _those(
    name: str, entries: Sequence[Entry], holds: Callable[[Entry], bool], matters: str
) -> Check:
    """Count the rows of which something holds."""
    found = [entry.place for entry in entries if holds(entry)]
    return Check(
        name=name,
        found=len(found),
        of=len(entries),
        examples=tuple(found[:N_EXAMPLES]),
        matters=matters,
    )


def _difference(entry: Entry) -> float | None:
    if entry.scores is None:
        return None
    chosen, rejected = entry.scores
    return None if chosen is None or rejected is None else chosen - rejected
