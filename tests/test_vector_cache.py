"""The file of embeddings: nothing here needs a model."""

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pgenrm.errors import InputError
from pgenrm.prototypes.vector_cache import VectorCache


@given(st.dictionaries(st.text(), st.lists(st.floats(width=32), min_size=1, max_size=9)))
@settings(deadline=None, max_examples=30)
def test_what_is_stored_comes_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, list[float]]
) -> None:
    cache = VectorCache(tmp_path_factory.mktemp("cache") / "c")
    vectors = {text: np.array(row, np.float32) for text, row in rows.items()}
    cache.store("model", vectors)
    found = cache.load("model", [*rows, "another text that is not stored"])
    assert found.keys() == vectors.keys()
    assert all(found[text].tobytes() == vectors[text].tobytes() for text in vectors)
    assert cache.load("another model", rows) == {}


def random_vectors(first: int, n: int, dimension: int = 384) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(first)
    return {
        f"text {i}": rng.standard_normal(dimension, dtype=np.float32)
        for i in range(first, first + n)
    }


@pytest.mark.parametrize("dimension", [16, 1024])
def test_no_byte_of_forgotten_vectors_stays_on_disk(tmp_path: Path, dimension: int) -> None:
    """Pages are split and merged between the deletions, which leaves copies in free space."""
    cache = VectorCache(tmp_path / "c")
    vectors = random_vectors(0, 300, dimension)
    for model in ("a", "b"):
        cache.store(model, vectors)
    texts = list(vectors)
    np.random.default_rng(0).shuffle(texts)
    for n_gone in range(50, 250, 50):
        cache.forget(texts[n_gone - 50 : n_gone])
        cache.store("a", random_vectors(1000 + n_gone, 30, dimension))
        on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        is_there = [vectors[text].tobytes()[:16] in on_disk for text in texts]
        assert is_there == [False] * n_gone + [True] * (300 - n_gone)
    assert len(cache.load("b", texts)) == 100


def test_forgetting_says_so_when_a_reader_keeps_the_old_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgenrm.prototypes.vector_cache.LOCK_TIMEOUT_S", 0.1)
    cache = VectorCache(tmp_path / "c")
    cache.store("m", random_vectors(0, 10))
    with closing(sqlite3.connect(tmp_path / "c", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM vectors").fetchone()
        with pytest.raises(InputError, match="being read by another process"):
            cache.forget(["text 1"])
    cache.forget(["text 1"])


def _store_many(path: Path, first: int) -> None:
    for i in range(10):
        VectorCache(path).store("m", random_vectors(first + i * 5, 5))


def _store_for_ever(path: Path) -> None:
    for i in range(1_000_000):
        VectorCache(path).store("m", random_vectors(i * 5, 5))
        (path.parent / "started").touch()


def start(run: Callable[..., None], *args: object) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=run, args=args)
    process.start()
    return process


def test_processes_share_a_file(tmp_path: Path) -> None:
    processes = [start(_store_many, tmp_path / "c", first) for first in (0, 25)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    texts = [f"text {i}" for i in range(75)]  # 25 of them were stored by both
    assert len(VectorCache(tmp_path / "c").load("m", texts)) == 75


def test_what_was_stored_survives_a_kill(tmp_path: Path) -> None:
    process = start(_store_for_ever, tmp_path / "c")
    while not (tmp_path / "started").exists():
        process.join(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    found = VectorCache(tmp_path / "c").load("m", [f"text {i}" for i in range(10_000)])
    assert len(found) >= 5
    assert len(found) % 5 == 0, "a call is stored whole or not at all"
    assert found["text 3"].tobytes() == random_vectors(0, 5)["text 3"].tobytes()


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, " * 100)
    with pytest.raises(InputError, match="cannot be used as a cache of embeddings"):
        VectorCache(tmp_path / "text")
    with pytest.raises(InputError, match="cannot be used as a cache of embeddings"):
        VectorCache(tmp_path)
    with closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE wine (name TEXT)")
    with pytest.raises(InputError, match="a database of something else"):
        VectorCache(tmp_path / "other")
    with closing(sqlite3.connect(tmp_path / "newer")) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="version 99"):
        VectorCache(tmp_path / "newer")


def test_a_deleted_file_is_made_anew(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "c")
    cache.store("m", random_vectors(0, 3))
    (tmp_path / "c").unlink()
    assert cache.load("m", ["text 1"]) == {}
