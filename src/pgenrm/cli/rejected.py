"""Rows that a command leaves out, kept beside its output with their reasons."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

from rich.console import Console

from pgenrm.errors import InputError
from pgenrm.rows import RejectedRow


class RejectedRows:
    """The rows that were left out, written beside the output with their reasons."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_rows = 0
        self._file: IO[str] | None = None

    def __enter__(self) -> "RejectedRows":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def add(self, row: RejectedRow) -> None:
        """Write one row; the file is made with the first."""
        self._file = self._file or self.path.open("w", encoding="utf-8")
        self._file.write(row.model_dump_json() + "\n")
        self.n_rows += 1

    def report(self) -> None:
        """Say on stderr how many rows were left out and where they are."""
        if self.n_rows:
            Console(stderr=True).print(
                f"{self.n_rows} bad rows left out, see {self.path}", style="yellow", markup=False
            )


def rejected_path(out: Path | None, files: Sequence[str]) -> Path:
    """Name the file for rejected rows: beside the output, else beside the first input.

    Raises:
        InputError: it is one of the inputs.
    """
    first = Path(files[0])
    beside = out or (first if first.is_file() else Path("stdin"))
    path = beside.with_name(beside.name + ".rejected.jsonl")
    if path in map(Path, files):
        raise InputError(f"rejected rows would overwrite the input {path}; rename it")
    return path
