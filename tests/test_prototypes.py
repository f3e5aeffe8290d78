"""Prototypes from fit to removal, with an embedder that hashes words."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("faiss")
pytest.importorskip("torch")
pytest.importorskip("sklearn")

from pgenrm.errors import DriftWarning, InputError
from pgenrm.neighbours import NeighbourQuery
from pgenrm.prototypes.analyses import Analysis
from pgenrm.prototypes.clustering import nearest
from pgenrm.prototypes.store import Prototypes
from pgenrm.seeding import derive_seed, rng
from pgenrm.types import Message, Preference, User

TASTES = ("short plain facts numbers", "warm gentle questions feelings", "long playful stories jokes")


class WordEmbedder:
    """Adds up one random direction per word; remembers what it embedded."""

    name = "words"
    dimension = 24

    def __init__(self) -> None:
        self.known: dict[str, NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        for text in texts:
            words = [rng("word", word).standard_normal(self.dimension) for word in text.split()]
            total = np.sum(words, axis=0)
            self.known[text] = (total / np.linalg.norm(total)).astype(np.float32)
        return np.stack([self.known[text] for text in texts])

    def forget(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.known.pop(text, None)


def user(number: int, n_choices: int = 4) -> User:
    pairs = tuple(
        Preference(
            context=(Message(role="user", content=f"What is fact {number} {i}?"),),
            chosen=f"chosen {TASTES[number % 3]} {number} {i}",
            rejected=f"rejected {TASTES[(number + 1) % 3]} {number} {i}",
        )
        for i in range(n_choices)
    )
    return User(id=f"u{number}", history=pairs)


def analysis(number: int, scenario: str = "factual", taste: int | None = None) -> Analysis:
    words = TASTES[number % 3 if taste is None else taste]
    return Analysis(
        user_id=f"u{number}", scenario=scenario, text=f"{words} {words} user{number} {scenario}"
    )


def fitted(n_users: int = 30, k: int | None = 3, **options: object) -> Prototypes:
    options = {"refinement": None} | options
    users = [user(i) for i in range(n_users)]
    analyses = [analysis(i, s) for i in range(n_users) for s in ("factual", "casual")]
    return Prototypes(WordEmbedder(), k, **options).fit(users, analyses)  # type: ignore[arg-type]


def ask(user_id: str, n: int = 4, *analyses: str, scenario: str = "factual") -> NeighbourQuery:
    return NeighbourQuery(user_id=user_id, scenario=scenario, analyses=analyses, n=n)


def test_users_of_one_taste_share_a_prototype_and_are_neighbours() -> None:
    prototypes = fitted()
    for number in range(3):
        own = {prototypes.assignment_[2 * i] for i in range(number, 30, 3)}
        assert len(own) == 1
        (found,) = prototypes.find([ask(f"u{number}", 9)])
        ids = [neighbour.user.id for neighbour in found.neighbours]
        assert sorted(ids) == sorted(f"u{i}" for i in range(number + 3, 30, 3))
        assert found.prototype in own
        assert found.n_outside == 0


def test_saved_prototypes_are_the_same_when_loaded(tmp_path: Path) -> None:
    prototypes = fitted()
    prototypes.save(tmp_path)
    loaded = Prototypes.load(tmp_path, WordEmbedder())
    assert loaded.name == prototypes.name
    queries = [ask(f"u{i}", 5) for i in range(30)]
    assert loaded.find(queries) == prototypes.find(queries)
    np.testing.assert_array_equal(loaded.rows_, prototypes.rows_)
    assert loaded.row_texts_ == prototypes.row_texts_
    assert loaded.users_ == prototypes.users_
