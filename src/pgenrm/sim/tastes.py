"""What people in the simulated world can want: attributes, latent tastes, and words for both.

Everything is read from `tastes.toml`. The order of `ATTRIBUTES` is that of every feature vector in
this package, the order of `SCENARIOS` that of every table of weights.
"""

import tomllib
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Indices = NDArray[np.integer[Any]]


def read_data(name: str) -> dict[str, Any]:
    """Read a TOML file of this package."""
    return tomllib.loads((files("pgenrm.sim") / name).read_text(encoding="utf-8"))


_DATA: Final = read_data("tastes.toml")

ATTRIBUTES: Final[tuple[str, ...]] = tuple(_DATA["attributes"])
"""Binary in the simulated texts; over given responses each is a measured value."""
WANTED: Final = tuple(name for name, words in _DATA["attributes"].items() if words)
"""The attributes that people differ about: all but the flaw."""
MEASURED: Final[dict[str, str]] = {name: _DATA["attributes"][name]["measured"] for name in WANTED}
"""Attribute here -> attribute of `pgenrm.attributes` that sees it in a text."""
FLAWED: Final = ATTRIBUTES.index("flawed")
SCENARIOS: Final[tuple[str, ...]] = tuple(_DATA["pull"])
TASTES: Final[tuple[str, ...]] = tuple(_DATA["tastes"])
DEMOGRAPHICS: Final[dict[str, list[str]]] = _DATA["demographics"]


def _row(values: dict[str, float]) -> list[float]:
    unknown = set(values) - set(ATTRIBUTES)
    if unknown:
        raise ValueError(f"tastes.toml: no attribute is called {sorted(unknown)}")
    return [values.get(name, 0.0) for name in ATTRIBUTES]


LOADINGS: Final[Array] = np.array([_row(t["loadings"]) for t in _DATA["tastes"].values()])
"""[n_tastes, n_attributes]; no two tastes share an attribute."""
PULL: Final[Array] = np.array([_row(_DATA["pull"][name]) for name in SCENARIOS])
"""[n_scenarios, n_attributes]; what everybody likes a little in a scenario."""

# ---------------------------------------------------------------- words for both directions

CRITERIA: Final[tuple[tuple[str, ...], ...]] = tuple(
    tuple(
        sentence[:1].upper() + sentence[1:]
        for words in _DATA["attributes"][name][pole]
        for sentence in (template.format(words) for template in _DATA["criteria"]["templates"])
    )
    for name in WANTED
    for pole in ("plus", "minus")
)
"""[2 * n_wanted][n_paraphrases]; item 2a wants attribute a, item 2a + 1 wants it absent."""
DESCRIPTIONS: Final[tuple[tuple[str, ...], ...]] = tuple(
    tuple(_DATA["tastes"][name][pole]) for name in TASTES for pole in ("plus", "minus")
)
"""[2 * n_tastes][n_paraphrases]; item 2t is a sentence of one who leans to taste t."""


def _both_ways(rows: Array) -> Array:
    return np.stack([rows, -rows], axis=1).reshape(-1, rows.shape[1])


CRITERIA_DIRECTIONS: Final[Array] = _both_ways(np.eye(len(ATTRIBUTES))[: len(WANTED)])
"""[n_items, n_attributes]; a criterion is stated the sooner, the more the weights point there."""
DESCRIPTION_DIRECTIONS: Final[Array] = _both_ways(
    LOADINGS / (LOADINGS**2).sum(axis=1, keepdims=True)
)
"""[n_items, n_attributes]; times the weights, the level of the taste."""

CRITERION_OF: Final = {text: item for item, texts in enumerate(CRITERIA) for text in texts}
DESCRIPTION_OF: Final = {text: item for item, texts in enumerate(DESCRIPTIONS) for text in texts}
"""Sentence -> item: what is said can be read back without doubt."""
