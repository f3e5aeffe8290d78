"""Fitted prototypes as plain arrays, for descriptions and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Arrays:
    """Satisfies `pgenrm.prototypes.describe.Fitted`."""

    prototypes_: NDArray[np.float32]
    rows_: NDArray[np.float32]
    assignment_: NDArray[np.int64]
    row_users_: Sequence[str]
    row_scenarios_: Sequence[str]
    row_texts_: Sequence[str]
    spectrum_: NDArray[np.float64]


THEMES = (
    "Wants answers short and plain, without code.",
    "Wants long, thorough answers with sources named.",
    "Wants warm words and emoji, never headings.",
)


def arrays(
    n_rows: int = 30, k: int = 3, dimension: int = 8, texts: Sequence[str] = THEMES, seed: int = 0
) -> Arrays:
    """Draw rows around k prototypes; row i belongs to i % k and its text is of the same theme.

    Every user has two rows, in different scenarios.
    """
    generator = np.random.default_rng(seed)
    prototypes = unit(generator.normal(size=(k, dimension)))
    assignment = np.arange(n_rows) % k
    rows = unit(prototypes[assignment] + 0.1 * generator.normal(size=(n_rows, dimension)))
    return Arrays(
        prototypes_=prototypes,
        rows_=rows,
        assignment_=assignment,
        row_users_=[f"u{i // 2}" for i in range(n_rows)],
        row_scenarios_=[("casual", "technical")[i % 2] for i in range(n_rows)],
        row_texts_=[f"{texts[i % k % len(texts)]} The answer of row {i}." for i in range(n_rows)],
        spectrum_=np.linspace(0.3, 1.0, min(n_rows, dimension)),
    )


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, np.float32)
