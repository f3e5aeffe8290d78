"""Rows of a dataset repository, from the hub or from a local folder in the hub's layout.

Both go the same way: a snapshot of one commit is a folder like any other, and `datasets` reads
folders. Only the columns that a row type names get any further.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any, Final, TypeVar

from pydantic import ConfigDict, ValidationError

from pgenrm.errors import InputError, MissingExtraError, RowError
from pgenrm.rows import explain
from pgenrm.types import Value

READ_FILES: Final = ("README.md", "*.parquet", "*.jsonl", "*.json", "*.csv")
DIGEST_CHARS: Final = 12
COLUMNS_CHARS: Final = 300
"""Of the names of columns, in a message."""


class HubRow(Value):
    """The columns that are read of a row, by name; no other becomes part of a value.

    A field without a default is a column that must exist.
    """

    model_config = ConfigDict(extra="ignore")


RowT = TypeVar("RowT", bound=HubRow)


@dataclass(frozen=True)
class Repository:
    """A dataset repository on disk, at one state.

    Attributes:
        name: without its owner, e.g. `prism-alignment`.
        path: its folder.
        revision: `name@commit`, or `name@files:digest` for a local folder.
    """

    name: str
    path: Path
    revision: str


def open_repository(
    repo_id: str, *, folder: Path | None = None, revision: str | None = None
) -> Repository:
    """Get a repository: from `folder/name` where a folder is given, else from the hub.

    Args:
        repo_id: `owner/name` on the hub.
        folder: holds repositories as folders of their names.
        revision: a commit, tag or branch of the hub; several repositories of a data set are pinned
            as `name@commit,name@commit`, the form that `Repository.revision` has. Without one the
            newest commit is taken; which one it was is recorded.

    Raises:
        InputError: it is not there, or cannot be reached.
        MissingExtraError: the `datasets` library is not installed.
    """
    name = repo_id.partition("/")[2]
    if folder is None:
        return _from_hub(repo_id, name, _pinned(revision, name))
    if revision is not None:
        raise InputError(
            f"revision {revision!r} names a commit of the hub, but {folder} is a local folder; "
            "give one of the two"
        )
    path = folder / name
    if not path.is_dir():
        raise InputError(
            f"{path} is no directory; get it with `hf download --repo-type dataset {repo_id} "
            f"--local-dir {path}`"
        )
    files = sorted({file for pattern in READ_FILES for file in path.rglob(pattern)})
    return Repository(name, path, f"{name}@files:{files_digest(files)}")


def _pinned(revision: str | None, name: str) -> str | None:
    if revision is None or "@" not in revision:
        return revision
    pins = dict(pin.strip().split("@", 1) for pin in revision.split(",") if "@" in pin)
    if name not in pins:
        raise InputError(f"revision {revision!r} does not pin {name}; add {name}@COMMIT")
    return pins[name]


def _from_hub(repo_id: str, name: str, revision: str | None) -> Repository:
    _datasets()
    from huggingface_hub import snapshot_download

    try:
        path = Path(
            snapshot_download(
                repo_id, repo_type="dataset", revision=revision, allow_patterns=list(READ_FILES)
            )
        )
    except (OSError, ValueError) as error:
        at = f" at {revision}" if revision else ""
        raise InputError(
            f"{repo_id}{at} cannot be had from the hub: {_first_line(error)}; check the network, "
            "or give a folder that holds it"
        ) from error
    return Repository(name, path, f"{name}@{path.name}")


def files_digest(files: Iterable[Path]) -> str:
    """Fingerprint files by name and content."""
    digest = blake2b()
    for file in files:
        digest.update(file.name.encode())
        digest.update(blake2b(file.read_bytes()).digest())
    return digest.hexdigest()[:DIGEST_CHARS]


def read_rows(
    repository: Repository, kind: type[RowT], config: str | None = None
) -> dict[str, list[RowT]]:
    """Read a configuration of a repository: hub split -> rows, in the order of the files.

    Args:
        repository: as `open_repository` gives it.
        kind: its fields are the columns.
        config: where there are several, e.g. `survey`.

    Raises:
        RowError: a column is missing or a value is not of its kind; names split, row and column.
        InputError: there is no such configuration, or the files do not agree with each other.
    """
    rows: dict[str, list[RowT]] = {}
    # Streamed and with a cache of its own, because the library keeps what it has read by the card
    # of a folder: it does not notice that other files lie beside the same card.
    with _reading(repository, config), TemporaryDirectory() as cache:
        tables = _datasets().load_dataset(
            str(repository.path), name=config, streaming=True, cache_dir=cache
        )
        for split, table in tables.items():
            place = "/".join(filter(None, (repository.name, config, str(split))))
            columns = list(next(iter(table), {}))
            wanted = [name for name in kind.model_fields if name in columns]
            rows[str(split)] = [
                _validated(row, kind, f"{place}[{i}]", columns)
                for i, row in enumerate(table.select_columns(wanted) if wanted else table)
            ]
    return rows


@contextmanager
def _reading(repository: Repository, config: str | None) -> Iterator[None]:
    """Say which folder cannot be read; errors of ours pass."""
    exceptions = (_datasets().exceptions.DatasetsError, OSError, ValueError, TypeError)
    try:
        yield
    except InputError:
        raise
    except exceptions as error:
        of = f" (configuration {config})" if config else ""
        raise InputError(
            f"{repository.path}{of} cannot be read: {_first_line(error.__cause__ or error)}; it "
            "must have the layout of the hub, README.md included"
        ) from error


def _validated(row: object, kind: type[RowT], place: str, columns: Sequence[str]) -> RowT:
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        reason = explain(error, kind)
        if error.errors()[0]["type"] == "missing":
            reason += f"; the columns are {shorten(', '.join(columns), COLUMNS_CHARS)}"
        raise RowError(place, reason) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("bench", "reading datasets of the hub") from error
    return datasets
