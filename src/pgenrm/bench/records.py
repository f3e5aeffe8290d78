"""The records of a bench, read for counting: of every judgment what statistics need, no more."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from pgenrm.bench.run import RECORDS, Task
from pgenrm.errors import RowError
from pgenrm.rows import load_value
from pgenrm.runs import whole_lines
from pgenrm.types import Judgment, Outcome, Value

FILE: Final = re.compile(r"(?P<method>.+)\.seed(?P<seed>\d+)\.jsonl")


class RecordSettings(Value):
    """What stands beside the records of a task."""

    method: str
    version: str
    is_trained: bool
    seed: int
    dataset: str
    revision: str


class Record(NamedTuple):
    """A judgment, as far as it is counted."""

    id: str
    outcome: Outcome | None
    scores: tuple[float | None, ...]
    confidence: float | None
    is_calibrated: bool
    order_consistency: float | None
    n_chains: int
    """Asked for, readable or not."""
    n_prompt_tokens: int
    n_completion_tokens: int
    prototype: int | None
    evaluator: str
    prompt_version: str
    line: int
    """Where it stands in its file, from 1."""


def find_tasks(out: Path) -> dict[Task, Path]:
    """Return the record files of a bench by task, those of one method next to each other."""
    found = {}
    for path in sorted((out / RECORDS).glob("*.jsonl")):
        if name := FILE.fullmatch(path.name):
            found[Task(name["method"], int(name["seed"]))] = path
    return found


def read_settings(path: Path) -> RecordSettings:
    """Read what the records of a task depend on.

    Raises:
        InputError: it does not stand beside them.
    """
    return load_value(path.with_name(path.name + ".run.json"), RecordSettings)


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a task; a half-written last line is left out.

    Raises:
        RowError: a line is not a judgment.
    """
    for n, raw in whole_lines(path):
        try:
            yield _record(from_json(raw), n)
        except (ValueError, KeyError, TypeError) as error:
            raise RowError(f"{path}:{n}", f"not a judgment ({error!r}); move it away") from error


def _record(row: Mapping[str, Any], n: int) -> Record:
    return Record(
        id=row["id"],
        outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
        scores=tuple(row["scores"]),
        confidence=row["confidence"],
        is_calibrated=row["is_calibrated"],
        order_consistency=row["order_consistency"],
        n_chains=len(row["chains"]) + len(row["failures"]),
        n_prompt_tokens=row["n_prompt_tokens"],
        n_completion_tokens=row["n_completion_tokens"],
        prototype=row["prototype"],
        evaluator=row["evaluator"],
        prompt_version=row["prompt_version"],
        line=n,
    )


def read_judgments_at(path: Path, lines: set[int]) -> dict[int, Judgment]:
    """Read the judgments that stand at these lines of a file, counted from 1."""
    return {n: Judgment.model_validate_json(raw) for n, raw in whole_lines(path) if n in lines}
