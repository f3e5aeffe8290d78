"""`check`: what to know of a data set before believing a number on it (`pgenrm data check`).

For Chatbot Arena and PRISM the rows of the hub are looked at as they stand, with the columns that
say how they were selected; for all others the comparisons as they were loaded.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from pydantic import Field

from pgenrm.data.arena import REPO_ID as ARENA
from pgenrm.data.arena import arena_dataset
from pgenrm.data.checks import (
    Check,
    Entry,
    entry_of,
    entry_of_row,
    history_check,
    overlaps,
    row_checks,
)
from pgenrm.data.dataset import Dataset
from pgenrm.data.hub import HubRow, Repository, open_repository, read_rows
from pgenrm.data.load import load
from pgenrm.data.pairs import Placed, read_pairs
from pgenrm.data.prism import REPO_ID as PRISM
from pgenrm.data.prism import open_survey, prism_dataset
from pgenrm.types import Value

N_VALUES: Final = 12
"""The commonest values of a column that are listed."""


class Spread(Value):
    """Of a count over users or comparisons."""

    smallest: int
    median: float
    largest: int


class CheckReport(Value):
    """What a data set holds, and what is wrong with it."""

    name: str
    revision: str
    rows: dict[str, dict[str, int]]
    """Split -> part -> rows. For PersonalRewardBench these are the hub's split and the column
    `split`."""
    users: dict[str, int]
    """The same splits -> users."""
    rows_per_user: Spread
    comparisons: dict[str, int]
    """Split of `Dataset.splits` -> comparisons."""
    history: dict[str, Spread]
    """... -> past choices that a comparison may show."""
    values: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Column that says how rows were selected -> value -> rows."""
    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    """What the loader left out."""


class SelectionRow(HubRow):
    """Columns that say how rows were selected; only counted here, no model ever sees them."""

    type: str | None
    agreement: Any


def check(
    name_or_path: str,
    *,
    folder: Path | None = None,
    candidates: Path | None = None,
    revision: str | None = None,
) -> CheckReport:
    """Load a data set and look at it.

    Args:
        name_or_path: as for `load`.
        folder: as for `load`.
        candidates: as for `load`.
        revision: as for `load`.

    Raises:
        InputError: as `load`.
    """
    if name_or_path == "arena":
        repository = open_repository(ARENA, folder=folder, revision=revision)
        rows = read_pairs(repository)
        return _of_pairs(repository, rows, arena_dataset(repository, rows))
    if name_or_path == "prism":
        repository = open_repository(PRISM, folder=folder, revision=revision)
        rows = read_pairs(repository)
        survey = open_survey(folder, revision)
        return _of_pairs(repository, rows, prism_dataset(repository, rows, survey))
    dataset = load(name_or_path, folder=folder, candidates=candidates, revision=revision)
    return _report(
        dataset, [entry_of(split, c) for split, found in dataset.splits.items() for c in found]
    )


def _of_pairs(repository: Repository, rows: Sequence[Placed], dataset: Dataset) -> CheckReport:
    selection = [row for found in read_rows(repository, SelectionRow).values() for row in found]
    return _report(
        dataset,
        [entry_of_row(item) for item in rows],
        {
            "type": Counter(str(row.type) for row in selection),
            "agreement": Counter(str(row.agreement) for row in selection),
        },
    )


def _report(
    dataset: Dataset, entries: Sequence[Entry], values: Mapping[str, Counter[str]] | None = None
) -> CheckReport:
    rows: dict[str, Counter[str]] = {}
    users: dict[str, set[str]] = {}
    for entry in entries:
        rows.setdefault(entry.split, Counter())[entry.part] += 1
        users.setdefault(entry.split, set()).add(entry.user_id)
    splits = dataset.splits.items()
    return CheckReport(
        name=dataset.name,
        revision=dataset.revision,
        rows={split: dict(counts) for split, counts in rows.items()},
        users={split: len(ids) for split, ids in users.items()},
        rows_per_user=_spread(Counter(entry.user_id for entry in entries).values()),
        comparisons={name: len(split) for name, split in splits},
        history={name: _spread(len(c.user.history) for c in split) for name, split in splits},
        values={n: dict(counts.most_common(N_VALUES)) for n, counts in (values or {}).items()},
        checks=(
            *overlaps(entries),
            history_check([c for _, split in splits for c in split]),
            *row_checks(entries),
        ),
        notes=dataset.notes,
    )


def _spread(counts: Iterable[int]) -> Spread:
    counts = list(counts)
    if not counts:
        return Spread(smallest=0, median=0, largest=0)
    return Spread(smallest=min(counts), median=median(counts), largest=max(counts))
