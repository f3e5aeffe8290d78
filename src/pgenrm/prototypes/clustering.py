"""Where the prototypes start: K-means on the analyses of all users (paper, section 3.3).

Rows are unit vectors, so that Euclidean K-means groups by cosine. Arrays may be `np.memmap`s: they
are read in chunks and never copied whole. Refinement is in `refine.py`.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.seeding import derive_seed, rng

try:
    from sklearn.cluster import KMeans, MiniBatchKMeans
except ImportError as error:
    raise MissingExtraError("prototypes", "clustering") from error

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CHUNK_ROWS: Final = 16_384
"""Rows in memory at once: 24 MiB at d = 384."""
MAX_FULL_ROWS: Final = 20_000
"""Above so many rows K-means goes over batches. Measured at d = 384 and k = 50 on one core: 20,000
rows take 1.8 s per start of full K-means and 1.0 s in batches, with distances 0.3 % larger; 100,000
rows 13 s and 1.9 s, 0.1 %."""
N_STARTS: Final = 4
"""Of full K-means; the tightest clustering counts [ours]."""
MAX_PASSES: Final = 10
SMALLEST_GAIN: Final = 1e-3
"""Batches go on while a pass brings rows this much closer to their centroid, relatively [ours]."""
BLOCK_ROWS: Final = 32
"""A batch is put together from blocks of neighbouring rows: on disk, single rows read slowly."""
MIN_ROWS_PER_PROTOTYPE: Final = 20
"""What `choose_k` leaves to a prototype on average: enough for 8 neighbours [ours]."""
_SAME: Final = 1e-10
"""Mean squared distance of unit vectors from their mean that is rounding."""


def retained_variance(rows: Floats) -> NDArray[np.float64]:
    """Return the share of variance kept by the first 1, 2, ... singular vectors.

    The mean is taken off first [ours]: K-means does not see what all analyses share, and it would
    be most of the first share. Rows are read twice, in chunks; memory is O(d * d).

    Args:
        rows: [n, d].

    Returns:
        [min(n, d)], rising to 1; all ones where the rows are equal.
    """
    n, d = rows.shape
    total = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in _chunks(rows))
    mean = np.asarray(total / n, np.float32)
    if n <= d:
        variances = np.linalg.svd(np.asarray(rows - mean, np.float64), compute_uv=False) ** 2
    else:
        gram = np.zeros((d, d))
        for chunk in _chunks(rows):
            centred = chunk - mean
            gram += centred.T @ centred
        variances = np.linalg.eigvalsh(gram)[::-1].clip(min=0)
    whole = variances.sum()
    return np.ones(min(n, d)) if whole <= _SAME * n else variances.cumsum() / whole


def choose_k(spectrum: NDArray[np.float64], n_rows: int) -> int:
    """Choose the number of prototypes at the knee of the retained-variance curve.

    The paper reads k off this curve by eye. [ours] The knee is the point farthest above the
    straight line from no singular vector to all of them: from there on a further one keeps less
    than an average one. Since K groups differ in K - 1 directions, k is one more. There are never
    more than one prototype to `MIN_ROWS_PER_PROTOTYPE` rows.

    Args:
        spectrum: as `retained_variance` gives it.
        n_rows: how many rows will be clustered.

    >>> choose_k(np.array([0.5, 0.9, 0.92, 0.94, 0.96, 0.98, 1.0]), n_rows=1000)
    3
    """
    line = np.arange(1, len(spectrum) + 1) / len(spectrum)
    above = spectrum - line
    knee = 1 + int(above.argmax()) if above.max() > 0 and spectrum[0] < 1 else 0
    return max(1, min(knee + 1, n_rows // MIN_ROWS_PER_PROTOTYPE))


def kmeans(rows: Floats, k: int, seed: int = 0) -> Floats:
    """Return k centroids as unit vectors (paper, section 3.3).

    Above `MAX_FULL_ROWS` rows, passes over batches of rows in random order replace the full
    algorithm. With fewer than k distinct rows scikit-learn warns, and some prototypes will have no
    member.

    Args:
        rows: [n, d], unit vectors.
        k: at most n.
        seed: fixes the starts and the order of batches.

    Returns:
        [k, d].

    Raises:
        InputError: there are fewer rows than k.
    """
    if not 1 <= k <= len(rows):
        raise InputError(f"k is {k} but there are {len(rows)} rows to cluster; use 1 to that many")
    random_state = derive_seed("kmeans", seed) % 2**32
    if len(rows) <= MAX_FULL_ROWS:
        model = KMeans(k, n_init=N_STARTS, random_state=random_state).fit(np.asarray(rows))
    else:
        model = MiniBatchKMeans(k, n_init=1, random_state=random_state)
        _fit_in_passes(model, rows, max(CHUNK_ROWS, 4 * k), seed)
    return unit(model.cluster_centers_)


def _fit_in_passes(model: MiniBatchKMeans, rows: Floats, batch_rows: int, seed: int) -> None:
    """Fit on batches until a pass hardly helps."""
    before = np.inf
    for n_pass in range(MAX_PASSES):
        distance = 0.0
        for batch in _random_batches(rows, batch_rows, rng("batches", seed, n_pass)):
            distance += model.partial_fit(batch).inertia_
        if distance > (1 - SMALLEST_GAIN) * before:
            return
        before = distance


def _random_batches(
    rows: Floats, batch_rows: int, generator: np.random.Generator
) -> Iterator[Floats]:
    """Yield all rows once, in batches of blocks drawn at random."""
    starts = generator.permutation(np.arange(0, len(rows), BLOCK_ROWS))
    n_batches = max(1, len(rows) // batch_rows)
    for blocks in np.array_split(starts, n_batches):
        index = (np.sort(blocks)[:, None] + np.arange(BLOCK_ROWS)).ravel()
        yield rows[index[index < len(rows)]]


def nearest(rows: Floats, prototypes: Floats) -> Ints:
    """Return the index of the nearest prototype of every row, the first among equals.

    Args:
        rows: [n, d], unit vectors, read in chunks.
        prototypes: [k, d], unit vectors.

    Returns:
        [n].
    """
    parts = [(chunk @ prototypes.T).argmax(axis=1) for chunk in _chunks(rows)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def unit(vectors: Floats) -> Floats:
    """Scale rows to length 1; a zero row has no direction and stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def _chunks(rows: Floats) -> Iterator[Floats]:
    for start in range(0, len(rows), CHUNK_ROWS):
        yield rows[start : start + CHUNK_ROWS]
