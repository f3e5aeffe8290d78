"""A run written to a file: killed at any point, it goes on without repeating or losing anything.

`OUT` holds one judgment a line, appended in order. `OUT.run.json` beside it holds the settings that
the judgments depend on; a run continues only under the same ones.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError
from pydantic_core import from_json

from pgenrm.accuracy import Tally
from pgenrm.errors import InputError, RowError
from pgenrm.rows import explain
from pgenrm.seeding import derive_seed
from pgenrm.types import Comparison, Judgment, Outcome
from pgenrm.verdict import digest

Settings = Mapping[str, Any]


class Run:
    """Judgments on disk. Use as a context manager; a second process is refused."""

    def __init__(
        self, path: str | Path, settings: Settings, *, retry_unscored: bool = False
    ) -> None:
        """Open a new run, or the one that stands at `path`.

        Args:
            path: the JSON Lines file of judgments.
            settings: JSON values that the judgments depend on (model, m, seed, ...).
            retry_unscored: take out stored judgments without any readable chain, so that their
                comparisons remain.

        Raises:
            InputError: a run with other settings stands there, something that is not a run, or
                another process writes to it. A half-written last line is no error: it is cut off
                and judged again.
            RowError: a stored line is not a judgment, or an id is stored twice.
        """
        self.path = Path(path)
        self.tally = Tally()
        self._digests: dict[int, str] = {}
        if self.path.exists() and not self.path.is_file():
            raise InputError(f"{self.path} is not a file; name another --out")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        settings_path = self.path.with_name(self.path.name + ".run.json")
        has_rows = self.path.exists() and self.path.stat().st_size > 0
        check_settings(settings_path, json.loads(json.dumps(dict(settings))), has_rows=has_rows)
        self._file = self.path.open("ab")
        try:
            lock(self._file, self.path)
            self.n_retried = self._drop_unscored() if retry_unscored else 0
            """Stored judgments that were taken out to be judged again."""
            end = 0
            for n, raw in whole_lines(self.path):
                self._note_stored(n, raw)
                end += len(raw)
            self._file.truncate(end)
        except BaseException:
            self._file.close()
            raise

    def _drop_unscored(self) -> int:
        """Replace the file by one without the unscored judgments; the lock moves with it."""
        n_dropped = 0
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("wb") as kept:
            for judgment in read_judgments(self.path):
                if judgment.chains:
                    kept.write(judgment.model_dump_json().encode() + b"\n")
                else:
                    n_dropped += 1
        partial.replace(self.path)
        self._file.close()
        self._file = self.path.open("ab")
        lock(self._file, self.path)
        return n_dropped

    def _note_stored(self, n: int, raw: bytes) -> None:
        try:
            row = from_json(raw)
            outcome = None if row["outcome"] is None else Outcome(row["outcome"])
            key, digest = derive_seed(row["id"]), row["comparison_digest"]
            self.tally.add(
                row["user_id"],
                outcome,
                is_scored=bool(row["chains"]),
                n_chains=len(row["chains"]) + len(row["failures"]),
                confidence=row["confidence"] if row["is_calibrated"] else None,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RowError(
                f"{self.path}:{n}", f"not a judgment ({error!r}); name another --out"
            ) from error
        if key in self._digests:
            raise RowError(
                f"{self.path}:{n}", f"{row['id']!r} is stored twice; remove one of the lines"
            )
        self._digests[key] = digest

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def remaining(self, comparisons: Iterable[Comparison]) -> Iterator[Comparison]:
        """Yield the comparisons that have no judgment yet.

        Raises:
            InputError: a comparison has changed since it was judged.
        """
        for comparison in comparisons:
            stored = self._digests.get(derive_seed(comparison.id))
            if stored is None:
                yield comparison
            elif stored != digest(comparison):
                raise InputError(
                    f"{comparison.id!r} has changed since {self.path} was written; "
                    "name another --out"
                )

    def add(self, judgment: Judgment) -> None:
        """Append a judgment; it survives a kill of this process from here on."""
        self._file.write(judgment.model_dump_json().encode() + b"\n")
        self._file.flush()
        count(self.tally, judgment)


def count(tally: Tally, judgment: Judgment) -> None:
    """Add a judgment to a tally."""
    tally.add(
        judgment.user_id,
        judgment.outcome,
        is_scored=bool(judgment.chains),
        n_chains=len(judgment.chains) + len(judgment.failures),
        confidence=judgment.confidence if judgment.is_calibrated else None,
    )


def read_judgments(path: str | Path) -> Iterator[Judgment]:
    """Yield the judgments of a run; a half-written last line is left out.

    Raises:
        RowError: another line is not a judgment.
    """
    for n, raw in whole_lines(Path(path)):
        try:
            yield Judgment.model_validate_json(raw)
        except ValidationError as error:
            raise RowError(f"{path}:{n}", explain(error, Judgment)) from error


def check_settings(path: Path, settings: dict[str, Any], *, has_rows: bool) -> None:
    """Compare with the settings that stand beside the run, or write them for a new one.

    Raises:
        InputError: they differ, or cannot be read.
    """
    if not has_rows:
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
        partial.replace(path)
        return
    run = path.name.removesuffix(".run.json")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{run} exists but {path.name} cannot be read, so it cannot be continued; "
            "name another --out or move the file away"
        ) from error
    changed = [key for key in settings if found.get(key) != settings[key]]
    if changed:
        then_and_now = "; ".join(f"{k}: {found.get(k)!r} -> {settings[k]!r}" for k in changed)
        raise InputError(
            f"{run} was written with other settings ({then_and_now}); "
            "name another --out or use the same settings"
        )


def lock(file: IO[bytes], path: Path) -> None:
    """Keep other processes out until the file is closed; without effect on Windows.

    Raises:
        InputError: another process holds it.
    """
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(f"another process is writing to {path}; wait for it") from error


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line) and stop at a half-written last line."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for n, raw in enumerate(file, start=1):
            if raw.endswith(b"\n"):
                yield n, raw
