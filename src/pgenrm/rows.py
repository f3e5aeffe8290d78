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
from typing import IO, Any, TypeVar

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
        InputError: the file cannot be opened.
    """
    for place, raw, parsed in _parsed(path):
        try:
            yield place, _validate(raw or parsed, kind, place)
        except RowError as error:
            if on_bad is None:
                raise
            text = raw.decode("utf-8", "replace") if raw else json.dumps(parsed)
            on_bad(RejectedRow(place=place, reason=error.reason, row=text.rstrip("\n")))


def read_comparisons(
    paths: Iterable[str | Path], on_bad: OnBad | None = None
) -> Iterator[Comparison]:
    """Yield the comparisons of several files; ids must be unique across all of them.

    A row without `id` is named after its file and line, e.g. `prism-412`.

    Raises:
        RowError: as `read_values`; also for an id that was already used.
    """
    seen: set[int] = set()
    for path in paths:
        for place, comparison in read_values(path, Comparison, on_bad):
            key = derive_seed(comparison.id)
            if key not in seen:
                seen.add(key)
                yield comparison
                continue
            reason = f"id {comparison.id!r} was already used; ids must be unique in a run"
            if on_bad is None:
                raise RowError(place, reason)
            on_bad(RejectedRow(place=place, reason=reason, row=comparison.model_dump_json()))


def count_rows(paths: Iterable[str | Path]) -> int | None:
    """Count the rows of files by their lines; None where that would need reading them whole."""
    total = 0
    for path in paths:
        if str(path) == STDIN or _suffix(path) not in LINES_SUFFIXES:
            return None
        with _opened(path) as stream:
            total += sum(1 for line in stream if not line.isspace())
    return total


def _suffix(path: str | Path) -> str:
    path = Path(path)
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _opened(path: str | Path) -> IO[bytes]:
    if str(path) == STDIN:
        return sys.stdin.buffer
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a directory; name the files in it")
    try:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _parsed(path: str | Path) -> Iterator[tuple[str, bytes, Any]]:
    """Yield (place, raw line, None) for lines and (place, b"", object) for items of a document."""
    name = "stdin" if str(path) == STDIN else str(path)
    with _opened(path) as stream:
        lines = enumerate(_lines(stream, name), start=1)
        rows = ((n, _without_bom(raw) if n == 1 else raw) for n, raw in lines)
        rows = ((n, raw) for n, raw in rows if not raw.isspace() and raw)
        head = list(islice(rows, 2))
        if _suffix(path) in LINES_SUFFIXES or _are_lines([raw for _, raw in head]):
            for n, raw in chain(head, rows):
                yield f"{name}:{n}", raw, None
            return
        whole = b"".join(raw for _, raw in chain(head, rows))
    if not whole:
        return
    document = _from_json(whole, f"{name}:{head[0][0]}")
    items = document if isinstance(document, list) else [document]
    for i, item in enumerate(items):
        yield (f"{name}[{i}]" if isinstance(document, list) else f"{name}:1"), b"", item


def _lines(stream: IO[bytes], name: str) -> Iterator[bytes]:
    try:
        yield from stream
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name} cannot be read to its end: {error}") from error


def _without_bom(raw: bytes) -> bytes:
    return raw.removeprefix(b"\xef\xbb\xbf")


def _are_lines(head: list[bytes]) -> bool:
    """Whether a file of unknown layout holds one object per line."""
    if not head or head[0].lstrip().startswith(b"["):
        return False
    for raw in head:
        try:
            if isinstance(from_json(raw), dict):
                return True
        except ValueError:
            continue
    return False


def _from_json(raw: bytes, place: str) -> Any:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(
            place, f"not valid UTF-8 at byte {error.start + 1}; save the file as UTF-8"
        ) from error
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise RowError(
            place, f"not valid JSON ({error}); write one JSON object a line, or a JSON array"
        ) from error


def _validate(data: bytes | Any, kind: type[T], place: str) -> T:
    if isinstance(data, bytes):
        data = _from_json(data, place)
    if not isinstance(data, dict):
        raise RowError(place, f"a row must be a JSON object, found {_shown(data)}")
    if kind is Comparison and data.get("id") is None:
        file, _, line = place.replace("[", ":").rstrip("]").rpartition(":")
        data = {**data, "id": f"{Path(file).name.split('.')[0]}-{line}"}
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise RowError(place, explain(error, kind)) from error


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """Say in one sentence what is wrong with a value and what to do."""
    details = error.errors()
    reason = _explain_one(details[0], kind)
    others = len(details) - 1
    return reason + (f" (and {others} more)" if others else "")


def _explain_one(detail: ErrorDetails, kind: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    found = detail["input"]
    match detail["type"]:
        case "missing":
            missing_in = next((k for k in (Preference,) if "history" in detail["loc"]), kind)
            return f"'{where}' is missing; {NEEDS.get(missing_in, 'add it')}"
        case "string_type":
            return f"'{where}' must be a text, found {_shown(found)}"
        case "string_unicode":
            return f"'{where}' holds a lone surrogate; save the file as valid UTF-8"
        case "literal_error":
            return f"'{where}' is {_shown(found)}; use {detail['ctx']['expected']}"
        case "too_short":
            return f"'{where}' is empty; give at least {detail['ctx']['min_length']}"
        case "extra_forbidden":
            return f"'{where}' is not a known field; remove or rename it"
        case "value_error":
            what = str(detail["ctx"]["error"])
            return f"'{where}' {what}" if where else what
        case _:
            message = detail["msg"]
            return f"'{where}': {message[:1].lower()}{message[1:]}, found {_shown(found)}"


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object"
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."
