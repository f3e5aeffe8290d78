"""Spectrum, number of prototypes, K-means and assignment."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("sklearn")

from hypothesis import given
from hypothesis import strategies as st

from pgenrm.errors import InputError
from pgenrm.prototypes import clustering
from pgenrm.prototypes.clustering import choose_k, kmeans, nearest, retained_variance, unit
from pgenrm.seeding import rng

Floats = NDArray[np.float32]


def groups(n: int, k: int, d: int = 32, spread: float = 0.05) -> tuple[Floats, NDArray[np.int64]]:
    generator = rng("groups", n, k, d)
    centres = unit(generator.standard_normal((k, d)).astype(np.float32))
    truth = np.arange(n) % k
    noise = generator.standard_normal((n, d)).astype(np.float32)
    return unit(centres[truth] + spread * noise), truth


def same_groups(found: NDArray[np.int64], truth: NDArray[np.int64]) -> bool:
    pairs = set(zip(found.tolist(), truth.tolist(), strict=True))
    return len(pairs) == len(set(found.tolist())) == len(set(truth.tolist()))


@pytest.mark.parametrize(("n", "d"), [(20, 32), (32, 32), (200, 32)])
def test_retained_variance_is_that_of_the_singular_values(n: int, d: int) -> None:
    rows, _ = groups(n, 5, d)
    squares = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    expected = np.cumsum(squares) / squares.sum()
    np.testing.assert_allclose(retained_variance(rows), expected, atol=1e-5)


def test_retained_variance_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = groups(100, 5)
    whole = retained_variance(rows)
    monkeypatch.setattr(clustering, "CHUNK_ROWS", 7)
    np.testing.assert_allclose(retained_variance(rows), whole, atol=1e-6)


@pytest.mark.parametrize("n", [1, 5, 100])
def test_equal_rows_have_no_variance_and_one_prototype(n: int) -> None:
    rows = np.repeat(groups(1, 1)[0], n, axis=0)
    spectrum = retained_variance(rows)
    np.testing.assert_array_equal(spectrum, np.ones(min(n, 32)))
    assert choose_k(spectrum, n) == 1


@pytest.mark.parametrize("k", [2, 5, 12])
def test_k_is_the_number_of_groups_where_there_are_clear_groups(k: int) -> None:
    rows, _ = groups(600, k, d=64)
    assert choose_k(retained_variance(rows), len(rows)) == k


def test_k_leaves_enough_rows_to_every_prototype() -> None:
    rows, _ = groups(600, 12)
    spectrum = retained_variance(rows)
    assert choose_k(spectrum, 100) == 100 // clustering.MIN_ROWS_PER_PROTOTYPE
    assert choose_k(spectrum, 3) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(1, 1000))
def test_k_is_possible_for_any_spectrum(steps: list[float], n_rows: int) -> None:
    total = sum(steps)
    spectrum = np.cumsum(sorted(steps, reverse=True)) / total if total else np.ones(len(steps))
    assert 1 <= choose_k(spectrum, n_rows) <= max(1, n_rows)


@pytest.mark.parametrize("in_batches", [False, True])
def test_kmeans_finds_groups_and_is_fixed_by_its_seed(
    in_batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_batches:
        monkeypatch.setattr(clustering, "MAX_FULL_ROWS", 0)
        monkeypatch.setattr(clustering, "CHUNK_ROWS", 256)
    rows, truth = groups(2000, 4)
    centroids = kmeans(rows, 4, seed=3)
    assert centroids.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-6)
    assert same_groups(nearest(rows, centroids), truth)
    np.testing.assert_array_equal(kmeans(rows, 4, seed=3), centroids)


def test_kmeans_reads_a_file_like_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = groups(1000, 4)
    on_disk = np.memmap(tmp_path / "rows", np.float32, "w+", shape=rows.shape)
    on_disk[:] = rows
    for limit in (10_000, 0):
        monkeypatch.setattr(clustering, "MAX_FULL_ROWS", limit)
        np.testing.assert_array_equal(kmeans(on_disk, 4), kmeans(rows, 4))
    np.testing.assert_array_equal(retained_variance(on_disk), retained_variance(rows))


def test_batches_hold_every_row_once() -> None:
    rows = np.arange(1000, dtype=np.float32)[:, None]
    batches = list(clustering._random_batches(rows, 300, rng("batches")))
    assert len(batches) == 3
    assert sorted(np.concatenate(batches).ravel().tolist()) == rows.ravel().tolist()


@pytest.mark.parametrize("k", [0, 11])
def test_kmeans_refuses_a_k_that_the_rows_cannot_fill(k: int) -> None:
    rows, _ = groups(10, 2)
    with pytest.raises(InputError, match=f"k is {k} but there are 10 rows"):
        kmeans(rows, k)


def test_fewer_distinct_rows_than_k_leave_prototypes_without_members() -> None:
    rows = np.repeat(np.eye(2, 8, dtype=np.float32), 5, axis=0)
    with pytest.warns(UserWarning, match="distinct clusters"):
        centroids = kmeans(rows, 4)
    assert len(centroids) == 4
    assert same_groups(nearest(rows, centroids), np.repeat([0, 1], 5))


def test_nearest_is_the_largest_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "CHUNK_ROWS", 7)
    rows, _ = groups(50, 5)
    prototypes = rows[:6]
    expected = [max(range(6), key=lambda j: float(row @ prototypes[j])) for row in rows]
    assert nearest(rows, prototypes).tolist() == expected
    assert nearest(rows[:0], prototypes).shape == (0,)
