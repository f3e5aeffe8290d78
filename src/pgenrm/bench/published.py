"""The numbers that others published, as quoted, for standing beside ours; see `published.toml`."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Annotated

from pydantic import Field

from pgenrm.types import Value

ArenaAndPrism = Annotated[tuple[float, float], Field(description="percent, 8B")]
MeanAndError = Annotated[tuple[float, float], Field(description="percent")]


class PublishedRow(Value):
    """A row of table 1: (mean, standard error) in percent; None where nothing was published."""

    label: str
    arena_8b: MeanAndError | None = None
    arena_70b: MeanAndError | None = None
    prism_8b: MeanAndError | None = None
    prism_70b: MeanAndError | None = None


class PublishedRung(Value):
    """A row of table 2: accuracy in percent of the 8B model with m own and n neighbours' chains."""

    m: int
    n: int
    arena: float
    prism: float


class Source(Value):
    """Where the numbers come from."""

    title: str
    address: str
    note: str


class Published(Value):
    """Everything quoted."""

    source: Source
    table_1: dict[str, PublishedRow]
    """By our name of the method, in the order of the paper."""
    prompt_study_prism: dict[str, float]
    """By our name of the method; accuracy in percent."""
    table_2: tuple[PublishedRung, ...]
    table_3: dict[str, ArenaAndPrism]
    """Ablation of the training stages."""
    table_4: dict[str, ArenaAndPrism]
    """Persona against signals of the user."""
    table_5: dict[str, tuple[float, float, float, float]]
    """By system: Spearman for arts, personal development, society, and their mean."""
    table_7: dict[str, ArenaAndPrism]
    """Weights of the rewards."""
    table_10: dict[str, float]
    """By system: mean over prototypes of PRISM, in percent."""
    table_12: dict[int, float]
    """By number of past choices shown: accuracy on Arena in percent."""
    table_13: dict[str, ArenaAndPrism]
    """Number of prototypes, with Ind-8, Pro-4."""


@cache
def published() -> Published:
    """Return the published numbers."""
    text = files("pgenrm.bench").joinpath("published.toml").read_text("utf-8")
    return Published.model_validate(tomllib.loads(text))
