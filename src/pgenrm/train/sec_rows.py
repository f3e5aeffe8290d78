"""The rows of the SEC data set: which are left out for balance, and their columns as parquet."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from pgenrm.batches import batched
from pgenrm.seeding import derive_seed
from pgenrm.train.sec import Found, Sampled, SecSet

Row = dict[str, Any]

N_ROWS_AT_ONCE: Final = 1000


class Place(NamedTuple):
    """Where a kept chain stands."""

    set: SecSet
    id: str
    """Of the comparison."""
    label: int
    order: tuple[int, ...]
    number: int
    """Among those kept for this set, comparison and order."""

    @property
    def position(self) -> int:
        """Where the chosen response was shown."""
        return self.order.index(self.label)


def places(sampled: Sampled) -> Iterator[Place]:
    """Yield the places of all chains that were kept for a comparison."""
    for found in sampled.found:
        for number in range(len(found.kept)):
            yield _place(sampled, found, number)


def _place(sampled: Sampled, found: Found, number: int) -> Place:
    return Place(found.set, sampled.id, sampled.label, found.order, number)


def surplus(kept: Iterable[Place], seed: int) -> set[Place]:
    """Choose as few rows as must go for balance, at random by (seed, place).

    In each set and number of responses, the chosen response then stands equally often at every
    position. With two responses that holds for either label apart, so that both presentation orders
    are equally frequent as well. Where nothing was kept at a position, nothing stays.
    """
    strata: dict[tuple[object, ...], list[list[Place]]] = {}
    for place in kept:
        n_responses = len(place.order)
        key = (place.set, n_responses, place.label if n_responses == 2 else None)
        strata.setdefault(key, [[] for _ in place.order])[place.position].append(place)
    leaving: set[Place] = set()
    for by_position in strata.values():
        n_staying = min(map(len, by_position))
        for group in by_position:
            leaving.update(sorted(group, key=partial(derive_seed, "balance", seed))[n_staying:])
    return leaving


def rows(
    sampled: Sampled, kind: SecSet, *, without: set[Place], teacher: str, seed: int
) -> Iterator[Row]:
    """Yield the rows of a comparison in one set, as they stand in the file."""
    for found in sampled.found:
        for number, chain in enumerate(found.kept):
            place = _place(sampled, found, number)
            if found.set is not kind or place in without:
                continue
            yield {
                "prompt": [message.model_dump() for message in found.prompt],
                "completion": [{"role": "assistant", "content": chain.text}],
                "id": sampled.id,
                "user_id": sampled.user_id,
                "scenario": sampled.scenario,
                "order": list(found.order),
                "label": place.position,
                "number": number,
                "n_history": found.n_history,
                "criteria": list(sampled.criteria if kind is SecSet.WITH_CRITERIA else ()),
                "attempt": chain.attempt,
                "temperature": chain.temperature,
                "teacher": teacher,
                "teacher_version": found.teacher_version,
                "prompt_version": found.prompt_version,
                "seed": seed,
            }


def write_parquet(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, a thousand at a time; the file comes to its name when it is complete.

    Without rows no file is left: a parquet file of none cannot be loaded by `datasets`.

    Columns: `prompt` and `completion` are lists of messages, `order` says which response was shown
    at each position, `label` is the position of the chosen one, `number` counts the chains that
    were kept for one comparison and order, `criteria` are those in the prompt, `attempt` is the try
    (from 1) and `temperature` the teacher's in it, `seed` that of the run.
    """
    from datasets import Dataset, Features, List, Value
    from pyarrow.parquet import ParquetWriter

    text, number = Value("string"), Value("int64")
    messages = List({"role": text, "content": text})
    features = Features(
        {
            "prompt": messages,
            "completion": messages,
            "id": text,
            "user_id": text,
            "scenario": text,
            "order": List(number),
            "label": number,
            "number": number,
            "n_history": number,
            "criteria": List(text),
            "attempt": number,
            "temperature": Value("float64"),
            "teacher": text,
            "teacher_version": text,
            "prompt_version": text,
            "seed": number,
        }
    )
    partial_path = path.with_name(path.name + ".partial")
    n_rows = 0
    with ParquetWriter(partial_path, features.arrow_schema) as writer:
        for some in batched(rows, N_ROWS_AT_ONCE):
            writer.write_table(Dataset.from_list(some, features=features).data.table)
            n_rows += len(some)
    partial_path.replace(path)
    if not n_rows:
        path.unlink()
