"""Comparisons of anybody's own: a file of JSON Lines, or a directory with one for each split."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pgenrm.data.dataset import (
    LEARNT_FROM,
    SPLITS,
    TEST_SEEN,
    TEST_UNSEEN,
    Dataset,
    in_neutral_order,
    splits_of,
)
from pgenrm.data.hub import files_digest
from pgenrm.errors import InputError, RowError
from pgenrm.history import discloses
from pgenrm.rows import placed_comparisons
from pgenrm.types import Comparison, Context

TEST: Final = "test"
ENDINGS: Final = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")


def load_lines(path: Path) -> Dataset:
    """Load comparisons as `pgenrm judge` reads them, labelled.

    A file is one to test on. A directory has files named after splits (`train.jsonl`, ...);
    `test.jsonl` is sorted into seen and unseen users. Responses are put into an order that says
    nothing of the label. A past choice in the context of its comparison, or of one that the user is
    tested on, or in a later turn of these, is left out; so are such comparisons to learn from.

    Raises:
        InputError: there is no such file.
        RowError: a row is wrong, or has no label or not two responses.
    """
    files = {TEST: path} if path.is_file() else _files(path)
    read = [(name, c) for name, file in files.items() for c in _labelled(file)]
    learnt_from = {c.user.id for name, c in read if name in LEARNT_FROM}
    tested: dict[str, set[Context]] = {}
    for name, comparison in read:
        if name not in LEARNT_FROM:
            tested.setdefault(comparison.user.id, set()).add(comparison.context)
    named: list[tuple[str, Comparison]] = []
    n_rows = n_pairs = 0
    for name, comparison in read:
        of_user = tested.get(comparison.user.id, set())
        if name in LEARNT_FROM and discloses(comparison.context, of_user):
            n_rows += 1
            continue
        split = name
        if name == TEST:
            split = TEST_SEEN if comparison.user.id in learnt_from else TEST_UNSEEN
        asked = of_user | {comparison.context}
        history = tuple(p for p in comparison.user.history if not discloses(p.context, asked))
        n_pairs += len(comparison.user.history) - len(history)
        user = comparison.user.model_copy(update={"history": history})
        named.append((split, in_neutral_order(comparison.model_copy(update={"user": user}))))
    counted = (
        (n_pairs, "past choices in the context of their comparison or of a tested one: left out"),
        (n_rows, "comparisons to learn from in the context of a tested one: left out"),
    )
    return Dataset(
        name=str(path),
        revision=f"{path.name}@files:{files_digest(files.values())}",
        splits=splits_of(named),
        notes=tuple(f"{n} {what}" for n, what in counted if n),
    )


def _files(path: Path) -> dict[str, Path]:
    """Return the files of a directory by the name of their split."""
    found = {
        name: path / f"{name}{ending}"
        for name in (*SPLITS, TEST)
        for ending in ENDINGS
        if (path / f"{name}{ending}").is_file()
    }
    if not found:
        raise InputError(
            f"{path} is no file of comparisons and holds none named after a split; write "
            f"{', '.join(f'{name}.jsonl' for name in (*SPLITS, TEST))}, those that there are"
        )
    return found


def _labelled(path: Path) -> Iterator[Comparison]:
    for place, comparison in placed_comparisons([path]):
        if comparison.label is None or len(comparison.responses) < 2:
            lacking = "no label" if comparison.label is None else "one response"
            raise RowError(
                place,
                f"comparison {comparison.id!r} has {lacking}; a data set needs the label of the "
                "preferred one of several responses",
            )
        yield comparison
