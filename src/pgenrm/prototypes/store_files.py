"""Prototypes in a directory: arrays as safetensors, users and rows as JSON Lines, a manifest.

Data files are named after their content and written first; then the manifest that names them is
replaced in one step, and data files it does not name are deleted. Whenever a process is killed, the
directory holds either the old state or the new one. Deliberately left out: the index, which is
rebuilt from the rows.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import from_json

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.prototypes.refine import Epoch, RefinementConfig
from pgenrm.prototypes.scorer import PreferenceScorer
from pgenrm.prototypes.state import Rows, State
from pgenrm.rows import explain
from pgenrm.types import User, Value

try:
    from safetensors.numpy import load_file, save_file
except ImportError as error:
    raise MissingExtraError("prototypes", "saved prototypes") from error

FORMAT: Final = 1
MANIFEST: Final = "prototypes.json"
KINDS: Final = {"arrays": ".safetensors", "users": ".jsonl", "rows": ".jsonl"}
PARTIAL: Final = "{}-new.partial"
SCORER: Final = "scorer."
"""Before the names of its arrays."""


class Settings(Value):
    """Arguments of `Prototypes` but for the embedder."""

    k: int | None
    refinement: RefinementConfig | None
    n_history: int | None
    n_probe: int
    seed: int


class Manifest(Value):
    """What a directory of prototypes holds."""

    format: int
    embedder: str
    n_prototypes: int
    n_users: int
    n_rows: int
    settings: Settings
    fingerprint: str = ""
    owners: tuple[tuple[str, ...], ...] = ()
    """By prototype; empty where nothing is recorded."""
    epochs: tuple[Epoch, ...] | None
    arrays: str
    """Name of a data file, as are the next two."""
    users: str
    rows: str


class RowText(Value):
    """A row as it stands in the file; its vector stands in the arrays."""

    user_id: str
    scenario: str
    texts: tuple[str, ...]


def save(directory: Path, state: State, settings: Settings) -> None:
    """Write a state and its settings; replaces what the directory held.

    Raises:
        InputError: the path is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; name a directory")
    directory.mkdir(parents=True, exist_ok=True)
    rows = state.rows
    texts = map(_row_text, rows.users, rows.scenarios, rows.texts)
    manifest = Manifest(
        format=FORMAT,
        embedder=state.embedder,
        n_prototypes=len(state.prototypes),
        n_users=len(state.users),
        n_rows=len(rows.users),
        settings=settings,
        fingerprint=state.fingerprint,
        owners=state.owners,
        epochs=state.epochs,
        arrays=_write(directory, "arrays", lambda path: save_file(_arrays(state), path)),
        users=_write(directory, "users", lambda path: _write_lines(path, state.users.values())),
        rows=_write(directory, "rows", lambda path: _write_lines(path, texts)),
    )
    partial = directory / (MANIFEST + ".partial")
    partial.write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    _sync(partial)
    partial.replace(directory / MANIFEST)
    for path in _data_files(directory):
        if path.name not in (manifest.arrays, manifest.users, manifest.rows):
            path.unlink()


def load(directory: Path) -> tuple[State, Settings]:
    """Read a state and the settings that were saved with it.

    Raises:
        InputError: there is no manifest, it is of another format, or a file is missing or damaged.
    """
    manifest = read_manifest(directory)
    arrays_path, users_path, rows_path = (
        _intact(directory / name) for name in (manifest.arrays, manifest.users, manifest.rows)
    )
    arrays = load_file(arrays_path)
    users = [User.model_validate_json(line) for line in _lines(users_path)]
    rows = [RowText.model_validate_json(line) for line in _lines(rows_path)]
    scorer = {
        name.removeprefix(SCORER): array
        for name, array in arrays.items()
        if name.startswith(SCORER)
    }
    state = State(
        embedder=manifest.embedder,
        prototypes=arrays["prototypes"],
        centroids=arrays["centroids"],
        means=arrays["means"],
        spectrum=arrays["spectrum"],
        users={user.id: user for user in users},
        rows=Rows(
            tuple(row.user_id for row in rows),
            tuple(row.scenario for row in rows),
            tuple(row.texts for row in rows),
            arrays["rows"],
            arrays["lengths"],
        ),
        assignment=arrays["assignment"],
        owners=manifest.owners or ((),) * manifest.n_prototypes,
        epochs=manifest.epochs,
        fingerprint=manifest.fingerprint,
        scorer=PreferenceScorer.from_arrays(scorer) if scorer else None,
    )
    return state, manifest.settings


def _arrays(state: State) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "prototypes": state.prototypes,
        "centroids": state.centroids,
        "means": state.means,
        "spectrum": state.spectrum,
        "rows": state.rows.vectors,
        "lengths": state.rows.lengths,
        "assignment": state.assignment,
    }
    if state.scorer is not None:
        arrays |= {SCORER + name: array for name, array in state.scorer.arrays().items()}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _row_text(user_id: str, scenario: str, texts: tuple[str, ...]) -> RowText:
    return RowText(user_id=user_id, scenario=scenario, texts=texts)


def _write(directory: Path, kind: str, write: Callable[[Path], None]) -> str:
    """Write a data file and return its name, which holds the digest of its content."""
    partial = directory / PARTIAL.format(kind)
    write(partial)
    _sync(partial)
    path = directory / f"{kind}-{_digest(partial)}{KINDS[kind]}"
    partial.replace(path)
    return path.name


def _write_lines(path: Path, values: Iterable[Value]) -> None:
    with path.open("wb") as file:
        file.writelines(value.model_dump_json().encode() + b"\n" for value in values)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=8)).hexdigest()


def _data_files(directory: Path) -> list[Path]:
    """List what `save` has written here, now or before; the user's own files stay."""
    names = [f"{kind}-{'[0-9a-f]' * 16}{suffix}" for kind, suffix in KINDS.items()]
    return [path for name in [*names, *map(PARTIAL.format, KINDS)] for path in directory.glob(name)]


def _intact(path: Path) -> Path:
    """Return the path of a data file whose content is as its name says."""
    if not path.exists() or f"-{_digest(path)}." not in path.name:
        raise InputError(f"{path} is damaged or missing; restore it, or fit and save again")
    return path


def read_manifest(directory: Path) -> Manifest:
    """Read what a directory holds, without its data files.

    Raises:
        InputError: there is no manifest, or it is damaged or of another format.
    """
    path = directory / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{directory} holds no saved prototypes ({MANIFEST}: {error.strerror}); "
            "fit and save them first"
        ) from error
    try:
        content = from_json(raw)
        if isinstance(content, dict) and content.get("format") != FORMAT:
            raise InputError(
                f"{path} has format {content.get('format')}, this version of pgenrm reads "
                f"{FORMAT}; fit and save again"
            )
        return Manifest.model_validate(content)
    except ValidationError as error:
        reason = explain(error, Manifest)
    except ValueError as error:
        reason = str(error)
    raise InputError(f"{path} is damaged: {reason}; restore it, or fit and save again")
