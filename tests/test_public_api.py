"""The public names and their signatures; `python -m tests.test_public_api` rewrites the record."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

import pgenrm
import pgenrm.prototypes
from pgenrm.types import Value

RECORD = Path(__file__).parent / "golden" / "public_api.txt"


def signature(thing: Callable[..., object]) -> str:
    return str(inspect.signature(getattr(thing, "__func__", thing)))


def is_protocol(thing: type) -> bool:
    return Protocol in thing.__bases__


def described() -> str:
    lines = []
    for name in pgenrm.__all__:
        thing = getattr(pgenrm, name)
        if isinstance(thing, type) and issubclass(thing, Value):
            lines.append(f"{name}: {', '.join(thing.model_fields)}")
        elif isinstance(thing, type):
            lines.append(f"{name}({', '.join(base.__name__ for base in thing.__bases__)})")
            lines += [
                f"  .{member}{signature(value)}"
                for member, value in sorted(vars(thing).items())
                if (member == "__init__" and not is_protocol(thing))
                or (member[0] != "_" and callable(getattr(thing, member)))
            ]
        else:
            lines.append(f"{name}{signature(thing)}")
    return "\n".join(lines) + "\n"


def test_the_public_interface_is_as_recorded() -> None:
    assert described() == RECORD.read_text("utf-8")


@pytest.mark.parametrize("name", pgenrm.prototypes.__all__)
def test_names_of_prototypes_are_found_where_they_are_defined(name: str) -> None:
    pytest.importorskip("faiss")
    pytest.importorskip("torch")
    assert getattr(pgenrm.prototypes, name).__name__ == name


def test_a_name_that_prototypes_lack_is_no_attribute() -> None:
    assert not hasattr(pgenrm.prototypes, "Prototype")


if __name__ == "__main__":
    RECORD.write_text(described(), "utf-8")
