"""Comparisons from JSON and JSON Lines, streamed; a bad row says where, what and what to do.

`.gz` files and standard input (`-`) are read too. Deliberately left out: other table formats;
`datasets` reads those.
"""

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from pgenrm.errors import InputError, RowError
from pgenrm.seeding import derive_seed
from pgenrm.types import Comparison, Preference, User, Value

T = TypeVar("T", bound=BaseModel)

STDIN = "-"
LINES_SUFFIXES = {".jsonl", ".ndjson"}
NEEDS: dict[type[BaseModel], str] = {
    Comparison: "a comparison needs user (or user_id), context and responses "
    "(or chosen and rejected)",
    Preference: "a preference needs context, chosen and rejected",
    User: "a user needs an id",
}


class RejectedRow(Value):
    """A row that was left out, as `--skip-bad` writes it."""

    place: str
    reason: str
    row: str
    """The row as it stood; bytes that are not UTF-8 are replaced."""


OnBad = Callable[[RejectedRow], None]


class _Row(NamedTuple):
    """A row as it stands in a file."""

    place: str
    number: int
    """Of the line or of the item, from 1."""
    raw: str
    content: object
    """Parsed JSON, or the error that parsing gave."""


def read_values(
    path: str | Path, kind: type[T], on_bad: OnBad | None = None
) -> Iterator[tuple[str, T]]:
    """Yield (place, value) for every row of a file, in order.

    Args:
        path: a `.jsonl`, `.json` (one object, an array, or lines) or `.gz` file, or `-`.
        kind: the type that rows are validated as.
        on_bad: called with each bad row; without it the first one raises.

    Raises:
        RowError: a row is not UTF-8, not JSON or not a `kind`, and `on_bad` is None.
        InputError: the file cannot be opened or read to its end.
    """
    for row in _rows(path):
        value = _validated(row, kind)
        if isinstance(value, RowError):
            _reject(row, value, on_bad)
        else:
            yield row.place, value


def load_value(path: str | Path, kind: type[T]) -> T:
    """Read the one value that a JSON file holds.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        return kind.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error, kind)}") from error


def read_comparisons(
    paths: Iterable[str | Path], on_bad: OnBad | None = None
) -> Iterator[Comparison]:
    """Yield the comparisons of several files, see `placed_comparisons`."""
    return (comparison for _, comparison in placed_comparisons(paths, on_bad))


def placed_comparisons(
    paths: Iterable[str | Path], on_bad: OnBad | None = None
) -> Iterator[tuple[str, Comparison]]:
    """Yield (place, comparison) for several files; ids must be unique across all of them.

    A row without `id` is named after its file and line, e.g. `prism-412`; among several files
    after its path, so that two files of one name do not collide.

    Raises:
        RowError: as `read_values`; also for an id that was already used.
    """
    paths = list(paths)
    seen: set[int] = set()
    for path in paths:
        for row in _rows(path):
            value = _validated(row, Comparison, stem=_stem(path, is_alone=len(paths) == 1))
            if isinstance(value, RowError):
                _reject(row, value, on_bad)
            elif (key := derive_seed(value.id)) in seen:
                reason = f"id {value.id!r} was already used; give every row an id of its own"
                _reject(row, RowError(row.place, reason), on_bad)
            else:
                seen.add(key)
                yield row.place, value


def _reject(row: _Row, error: RowError, on_bad: OnBad | None) -> None:
    if on_bad is None:
        raise error
    on_bad(RejectedRow(place=row.place, reason=error.reason, row=row.raw))


def count_rows(paths: Iterable[str | Path]) -> int | None:
    """Count the rows of files by their lines; None where that would need reading them whole."""
    total = 0
    for path in paths:
        if not Path(path).is_file() or _suffix(path) not in LINES_SUFFIXES:
            return None
        total += sum(1 for line in _lines(path) if not line.isspace())
    return total


def _suffix(path: str | Path) -> str:
    path = Path(path)
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _stem(path: str | Path, *, is_alone: bool) -> str:
    if str(path) == STDIN:
        return "stdin"
    stem = str(path)
    for suffix in (".gz", *LINES_SUFFIXES, ".json"):
        stem = stem.removesuffix(suffix)
    return Path(stem).name if is_alone else stem


def _lines(path: str | Path) -> Iterator[bytes]:
    if str(path) == STDIN:
        yield from sys.stdin.buffer
        return
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a directory; name the files in it")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            yield from stream
    except (OSError, EOFError, zlib.error) as error:
        what = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {what}") from error


def _rows(path: str | Path) -> Iterator[_Row]:
    """Yield the rows of a file: lines, or the items of a document."""
    name = "stdin" if str(path) == STDIN else str(path)
    lines = ((n, _without_bom(raw) if n == 1 else raw) for n, raw in enumerate(_lines(path), 1))
    head = list(islice(lines, 2))
    if _suffix(path) in LINES_SUFFIXES or _are_lines(head):
        yield from _by_line(chain(head, lines), name)
        return
    everything = [*head, *lines]
    whole = b"".join(raw for _, raw in everything)
    if not whole.strip():
        return
    document = _parsed(whole, name)
    if isinstance(document, list):
        for n, item in enumerate(document, 1):
            yield _Row(f"{name}[{n - 1}]", n, json.dumps(item, ensure_ascii=False), item)
    elif isinstance(document, RowError) and _are_lines(everything):
        yield from _by_line(everything, name)
    else:
        yield _Row(f"{name}:1", 1, whole.decode("utf-8", "replace"), document)


def _by_line(lines: Iterable[tuple[int, bytes]], name: str) -> Iterator[_Row]:
    for n, raw in lines:
        if raw and not raw.isspace():
            place = f"{name}:{n}"
            yield _Row(place, n, raw.decode("utf-8", "replace").rstrip("\r\n"), _parsed(raw, place))


def _without_bom(raw: bytes) -> bytes:
    return raw.removeprefix(b"\xef\xbb\xbf")


def _are_lines(lines: Iterable[tuple[int, bytes]]) -> bool:
    """Whether a file of unknown layout holds one object per line."""
    for _, raw in lines:
        if raw.lstrip().startswith(b"["):
            return False
        try:
            if isinstance(from_json(raw), dict):
                return True
        except ValueError:
            continue
    return False


def _parsed(raw: bytes, place: str) -> object:
    """Parse JSON; what cannot be parsed is an error as a value."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return RowError(place, f"not valid UTF-8 at byte {error.start + 1}; save the file as UTF-8")
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        return RowError(
            place, f"not valid JSON ({error}); write one JSON object a line, or a JSON array"
        )


def _validated(row: _Row, kind: type[T], stem: str = "") -> T | RowError:
    data = row.content
    if isinstance(data, RowError):
        return data
    if not isinstance(data, dict):
        return RowError(row.place, f"a row must be a JSON object, found {_shown(data)}")
    if stem and data.get("id") is None:
        data = {**data, "id": f"{stem}-{row.number}"}
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        return RowError(row.place, explain(error, kind))


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """Say in one sentence what is wrong with a value and what to do."""
    details = error.errors()
    if len(details) > 1:  # a wrong item makes pydantic call the whole tuple too short as well
        details = [d for d in details if d["type"] != "too_short"] or details
    reason = _explain_one(details[0], kind)
    others = len(details) - 1
    return reason + (f" (and {others} more)" if others else "")


def _explain_one(detail: ErrorDetails, kind: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    found = detail["input"]
    match detail["type"]:
        case "missing":
            return f"'{where}' is missing; {_needs(detail['loc'], kind)}"
        case "tuple_type":
            return f"'{where}' must be a list, found {_shown(found)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"'{where}' must be an object, found {_shown(found)}"
        case "string_type":
            return f"'{where}' must be a text, found {_shown(found)}"
        case "string_unicode":
            return f"'{where}' holds a lone surrogate; save the file as valid UTF-8"
        case "literal_error":
            return f"'{where}' is {_shown(found)}; use {detail['ctx']['expected']}"
        case "too_short":
            found_n, least = detail["ctx"]["actual_length"], detail["ctx"]["min_length"]
            return f"'{where}' has {found_n} items; give at least {least}"
        case "extra_forbidden":
            return f"'{where}' is not a known field; remove or rename it"
        case "value_error":
            what = str(detail["ctx"]["error"])
            return f"'{where}' {what}" if where else what
        case _:
            message = detail["msg"]
            return f"'{where}': {message[:1].lower()}{message[1:]}, found {_shown(found)}"


def _needs(loc: tuple[int | str, ...], kind: type[BaseModel]) -> str:
    """Say what the object needs in which something is missing."""
    if len(loc) == 1:
        return NEEDS.get(kind, "add it")
    if "context" in loc:
        return "a message needs role and content"
    if "history" in loc:
        return NEEDS[Preference]
    return NEEDS[User] if "user" in loc else "add it"


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object"
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."
