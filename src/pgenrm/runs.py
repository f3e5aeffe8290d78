"""A run written to a file: killed at any point, it goes on without repeating or losing anything.

`OUT` holds one judgment a line, appended in order. `OUT.run.json` beside it holds the settings that
the judgments depend on; a run continues only under the same ones.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from pgenrm.accuracy import Tally
from pgenrm.errors import InputError, RowError
from pgenrm.rows import explain
from pgenrm.seeding import derive_seed
from pgenrm.types import Comparison, Judgment, Outcome

Settings = Mapping[str, Any]


class Run:
    """Judgments on disk. Use as a context manager; one process writes at a time."""

    def __init__(self, path: str | Path, settings: Settings) -> None:
        """Open a new run, or the one that stands at `path`.

        Args:
            path: the JSON Lines file of judgments.
            settings: JSON values that the judgments depend on (model, m, seed, ...).

        Raises:
            InputError: a run with other settings stands there, or something that is not a run.
                A half-written last line is no error: it is cut off and judged again.
        """
        self.path = Path(path)
        self._settings_path = self.path.with_name(self.path.name + ".run.json")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._check_settings(json.loads(json.dumps(dict(settings))))
        self.tally = Tally()
        self._done: set[int] = set()
        end = 0
        for n, raw in _lines(self.path):
            self._note_stored(n, raw)
            end += len(raw)
        self._file = self.path.open("ab")
        self._file.truncate(end)

    def _check_settings(self, settings: dict[str, Any]) -> None:
        has_rows = self.path.exists() and self.path.stat().st_size > 0
        if not self._settings_path.exists():
            if has_rows:
                raise InputError(
                    f"{self.path} exists but {self._settings_path.name} does not, so it cannot be "
                    "continued; name another --out or move the file away"
                )
            _write_atomically(self._settings_path, json.dumps(settings, indent=2) + "\n")
            return
        found = json.loads(self._settings_path.read_text("utf-8"))
        changed = [k for k in settings if found.get(k) != settings[k]] if has_rows else []
        if changed:
            then_and_now = "; ".join(f"{k}: {found.get(k)!r} -> {settings[k]!r}" for k in changed)
            raise InputError(
                f"{self.path} was written with other settings ({then_and_now}); "
                "name another --out or use the same settings"
            )
        _write_atomically(self._settings_path, json.dumps(settings, indent=2) + "\n")

    def _note_stored(self, n: int, raw: bytes) -> None:
        try:
            row = from_json(raw)
            outcome = None if row["outcome"] is None else Outcome(row["outcome"])
            self.tally.add(row["user_id"], outcome, is_scored=bool(row["chains"]))
            self._done.add(derive_seed(row["id"]))
        except (ValueError, KeyError, TypeError) as error:
            raise RowError(
                f"{self.path}:{n}", f"not a judgment ({error!r}); name another --out"
            ) from error

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def remaining(self, comparisons: Iterable[Comparison]) -> Iterator[Comparison]:
        """Yield the comparisons that have no judgment yet."""
        return (c for c in comparisons if derive_seed(c.id) not in self._done)

    def add(self, judgment: Judgment) -> None:
        """Append a judgment; it survives a kill of this process from here on."""
        self._file.write(_line(judgment))
        self._file.flush()
        self.tally.add(judgment.user_id, judgment.outcome, is_scored=bool(judgment.chains))


def read_judgments(path: str | Path) -> Iterator[Judgment]:
    """Yield the judgments of a run; a half-written last line is left out.

    Raises:
        RowError: another line is not a judgment.
    """
    for n, raw in _lines(Path(path)):
        try:
            yield Judgment.model_validate_json(raw)
        except ValidationError as error:
            raise RowError(f"{path}:{n}", explain(error, Judgment)) from error


def drop_unscored(path: str | Path) -> int:
    """Take the judgments without any readable chain out of a run, so that they are judged again.

    Returns:
        How many were taken out.
    """
    path = Path(path)
    n_dropped = 0
    kept = _partial(path)
    with kept.open("wb") as file:
        for judgment in read_judgments(path):
            if judgment.chains:
                file.write(_line(judgment))
            else:
                n_dropped += 1
    kept.replace(path)
    return n_dropped


def _line(judgment: Judgment) -> bytes:
    return judgment.model_dump_json().encode() + b"\n"


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line) and stop at a half-written last line."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for n, raw in enumerate(file, start=1):
            if raw.endswith(b"\n"):
                yield n, raw


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _write_atomically(path: Path, text: str) -> None:
    partial = _partial(path)
    partial.write_text(text, "utf-8")
    partial.replace(path)
