"""Hyper-parameters of trained methods: TOML files in which every number names its source."""

import hashlib
import tomllib
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Self, TypeVar

from pydantic import ValidationError, model_validator

from pgenrm.errors import InputError
from pgenrm.types import Value

_SHIPPED = files("pgenrm.methods") / "recipes"


class Variant(StrEnum):
    """Which of two forms of a method is run."""

    CORRECTED = "corrected"
    """As the method is meant, with the defects of public implementations put right."""
    PUBLISHED = "published"
    """As public code runs it on this benchmark, defects included."""


class MethodRecipe(Value):
    """Base of the recipes: every setting in it has an entry of the same name in `sources`.

    A setting that is a table has one entry per key, e.g. `trl.learning_rate`.
    """

    sources: dict[str, str]

    @model_validator(mode="after")
    def _every_setting_has_a_source(self) -> Self:
        settings = set(self.setting_names())
        if missing := sorted(settings - set(self.sources)):
            raise ValueError(f"no source is given for {', '.join(missing)}; add it under [sources]")
        if unknown := sorted(set(self.sources) - settings):
            raise ValueError(f"sources are given for {', '.join(unknown)}, which is no setting")
        return self

    def setting_names(self) -> list[str]:
        """Return the names of what is set, those of a table's keys with a dot."""
        names = []
        for name in sorted(self.model_fields_set - {"sources"}):
            value = getattr(self, name)
            names += [f"{name}.{key}" for key in value] if isinstance(value, dict) else [name]
        return names

    @property
    def digest(self) -> str:
        """Fingerprint of the settings, whatever their sources."""
        settings = self.model_dump_json(exclude={"sources"})
        return hashlib.blake2b(settings.encode(), digest_size=6).hexdigest()


R = TypeVar("R", bound=MethodRecipe)


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(f.name.removesuffix(".toml") for f in _SHIPPED.iterdir())


def load_recipe(kind: type[R], name_or_path: str | Path) -> R:
    """Read a recipe of the package by name, or any other by path.

    Raises:
        InputError: there is none, or it does not fit `kind`.
    """
    shipped = _SHIPPED / f"{name_or_path}.toml"
    source = shipped if shipped.is_file() else Path(name_or_path)
    if not source.is_file():
        raise InputError(
            f"there is no recipe {str(name_or_path)!r}; give a TOML file or one of "
            f"{', '.join(shipped_recipes())}"
        )
    try:
        return kind.model_validate(tomllib.loads(source.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise InputError(f"{source} is no recipe of this method: {error}") from error
