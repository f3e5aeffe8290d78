"""PersonalRewardBench (Chatbot Arena and PRISM): rows of the hub -> comparisons with history.

Two splits cross: the hub's (train, validation, test) is one of users, the column `split` one of
each user's rows. So a test user has training rows too; they are only ever his history.

Withheld: the filters' and judges' columns (`prediction_*`, `reasoning_*`, `agreement`,
`personalizable_*`, ...) and `flip`, which are not fields of `PairRow`; the scores of the comparison
itself, which are the answer; those of Arena's history, whose meaning is not known.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator

from pgenrm.data.dataset import (
    TEST_SEEN,
    TEST_UNSEEN,
    TRAIN,
    VALIDATION,
    Dataset,
    in_neutral_order,
    splits_of,
)
from pgenrm.data.hub import HubRow, Repository, read_rows
from pgenrm.history import discloses
from pgenrm.types import Comparison, Context, Id, Preference, ResponseText, User

NO_TEXT: Final = "EMPTY STRING"
"""What PRISM writes where a text is missing."""

Part = Literal["train", "val", "test"]


def _present(value: object) -> object:
    """Read PRISM's mark for a missing text as no text."""
    if isinstance(value, Mapping):
        return {name: "" if item == NO_TEXT else item for name, item in value.items()}
    if isinstance(value, list):
        return [_present(item) for item in value]
    return "" if value == NO_TEXT else value


class PairRow(HubRow):
    """The columns that are read of a PersonalRewardBench row."""

    conversation_id: Id
    user_id: Id
    context: Annotated[Context, BeforeValidator(_present)]
    chosen: Annotated[ResponseText, BeforeValidator(_present)]
    rejected: Annotated[ResponseText, BeforeValidator(_present)]
    chosen_score: float | None
    rejected_score: float | None
    split: Part


@dataclass(frozen=True)
class Placed:
    """A row with where it stands."""

    hub_split: str
    index: int
    """From 0, in its hub split."""
    row: PairRow

    @property
    def place(self) -> str:
        """`train[12]`."""
        return f"{self.hub_split}[{self.index}]"


def read_pairs(repository: Repository) -> list[Placed]:
    """Read all rows of all hub splits, with their places."""
    return [
        Placed(split, i, row)
        for split, rows in read_rows(repository, PairRow).items()
        for i, row in enumerate(rows)
    ]


def pairs_dataset(
    name: str,
    revision: str,
    rows: Sequence[Placed],
    *,
    user_of: Callable[[str], User],
    past_choice: Callable[[PairRow], Preference],
    notes: Sequence[str] = (),
) -> Dataset:
    """Put comparisons and histories together.

    A user of the hub's train split gives his `train` rows to `train`, `val` to `validation`, `test`
    to `test_seen`; another of the hub's validation split gives `val` and `test` to `validation`;
    everybody else gives `test` to `test_unseen`.

    History are the user's `train` rows. A `train` row that shares its conversation with one of his
    other rows outside `train`, or repeats one, is neither history nor trained on; a row's history
    has nothing of its own conversation and not itself again.

    Args:
        name: of the data set.
        revision: of what was read.
        rows: of all hub splits.
        user_of: user id -> the user without history.
        past_choice: what is shown of a row as history.
        notes: what there is to say about the parts that it was joined from.
    """
    kinds = _kinds(rows)
    comparisons = [_comparison(name, p, user_of(p.row.user_id)) for p in rows]
    history, leaking = _past(rows, comparisons, past_choice)
    named: list[tuple[str, Comparison]] = []
    n_unused = n_same = 0
    for i, (item, comparison) in enumerate(zip(rows, comparisons, strict=True)):
        row = item.row
        split = _SPLIT_OF[kinds[row.user_id]].get(row.split)
        if split is None:
            n_unused += row.split != TRAIN
            continue
        is_same = row.chosen == row.rejected
        if split == TRAIN and (is_same or i in leaking):
            continue
        n_same += is_same
        shown = tuple(
            pair
            for conversation_id, pair in history.get(row.user_id, ())
            if conversation_id != row.conversation_id
            and not discloses(pair.context, {comparison.context})
        )
        user = comparison.user.model_copy(update={"history": shown})
        named.append((split, comparison.model_copy(update={"user": user})))
    counted = (
        (len(leaking), "train rows share a conversation or a choice with later rows: left out"),
        (n_unused, "val rows of test users: neither learnt from nor shown nor tested"),
        (n_same, "validation and test rows whose two responses are the same text: kept"),
    )
    return Dataset(
        name, revision, splits_of(named), (*notes, *(f"{n} {what}" for n, what in counted if n))
    )


_SPLIT_OF: Final[dict[str, dict[Part, str]]] = {
    "train": {"train": TRAIN, "val": VALIDATION, "test": TEST_SEEN},
    "validation": {"val": VALIDATION, "test": VALIDATION},
    "test": {"test": TEST_UNSEEN},
}
"""Kind of user -> column `split` -> split of the data set."""


def _kinds(rows: Iterable[Placed]) -> dict[str, str]:
    """Sort users by the first of train, validation and test in which the hub has rows of theirs."""
    hub_splits: dict[str, set[str]] = {}
    for item in rows:
        hub_splits.setdefault(item.row.user_id, set()).add(item.hub_split)
    return {
        user_id: next((kind for kind in ("train", "validation") if kind in found), "test")
        for user_id, found in hub_splits.items()
    }


def _comparison(name: str, item: Placed, user: User) -> Comparison:
    return in_neutral_order(
        Comparison(
            id=f"{name}-{item.hub_split}-{item.index}",
            user=user,
            context=item.row.context,
            responses=(item.row.chosen, item.row.rejected),
            label=0,
        )
    )


def _past(
    rows: Sequence[Placed],
    comparisons: Sequence[Comparison],
    past_choice: Callable[[PairRow], Preference],
) -> tuple[dict[str, list[tuple[str, Preference]]], set[int]]:
    """Return each user's (conversation, past choice) pairs, and which train rows leak."""
    later: dict[str, list[tuple[str, Comparison]]] = {}
    for item, comparison in zip(rows, comparisons, strict=True):
        if item.row.split != TRAIN:
            conversation = (item.row.conversation_id, comparison)
            later.setdefault(item.row.user_id, []).append(conversation)
    history: dict[str, list[tuple[str, Preference]]] = {}
    leaking: set[int] = set()
    for i, item in enumerate(rows):
        row = item.row
        if row.split != TRAIN:
            continue
        pair = past_choice(row)
        if any(
            conversation_id == row.conversation_id or discloses(pair.context, {comparison.context})
            for conversation_id, comparison in later.get(row.user_id, ())
        ):
            leaking.add(i)
        elif pair.is_informative:
            history.setdefault(row.user_id, []).append((row.conversation_id, pair))
    return history, leaking
