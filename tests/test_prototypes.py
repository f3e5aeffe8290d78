"""Prototypes from fit to removal, with an embedder that hashes words."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("faiss")
pytest.importorskip("torch")
pytest.importorskip("sklearn")

from pgenrm.errors import DriftWarning, InputError
from pgenrm.neighbours import NeighbourQuery, learnt
from pgenrm.prototypes.analyses import Analysis
from pgenrm.prototypes.clustering import choose_k, nearest
from pgenrm.prototypes.fitting import texts_of
from pgenrm.prototypes.refine import RefinementConfig
from pgenrm.prototypes.state import means_of
from pgenrm.prototypes.store import Prototypes
from pgenrm.prototypes.vector_cache import VectorCache
from pgenrm.seeding import rng
from pgenrm.types import Message, Preference, User

TASTES = (
    "short plain facts numbers",
    "warm gentle questions feelings",
    "long playful stories jokes",
)


class WordEmbedder:
    """Adds up one random direction per word; keeps vectors in a file if asked to."""

    def __init__(self, cache: VectorCache | None = None, name: str = "words") -> None:
        self.name = name
        self.dimension = 24
        self.cache = cache

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.stack([self._vector(text) for text in texts])
        if self.cache:
            self.cache.store(self.name, dict(zip(texts, vectors, strict=True)))
        return vectors

    def _vector(self, text: str) -> NDArray[np.float32]:
        words = [rng("word", word).standard_normal(self.dimension) for word in text.split()]
        total = np.sum(words, axis=0)
        return np.asarray(total / np.linalg.norm(total), np.float32)

    def forget(self, texts: Iterable[str]) -> None:
        if self.cache:
            self.cache.forget(texts)


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


def fitted(n_users: int = 30, k: int | None = 3, **options: Any) -> Prototypes:
    return unfitted(k, **options).fit(users(n_users), analyses_of(n_users))


def unfitted(k: int | None = 3, **options: Any) -> Prototypes:
    return Prototypes(options.pop("embedder", WordEmbedder()), k, **{"refinement": None} | options)


def users(n: int) -> list[User]:
    return [user(i) for i in range(n)]


def analyses_of(n_users: int) -> list[Analysis]:
    return [analysis(i, s) for i in range(n_users) for s in ("factual", "casual")]


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


# ---------------------------------------------------------------- fitting


def test_the_number_of_prototypes_is_chosen_where_it_is_not_given() -> None:
    prototypes = fitted(n_users=90, k=None)
    assert prototypes.k is None
    assert len(prototypes.prototypes_) == choose_k(prototypes.spectrum_, 180)


def test_a_row_is_the_mean_of_the_analyses_of_a_user_in_a_scenario() -> None:
    texts = ["short facts", "warm stories", "plain numbers"]
    several = [Analysis(user_id="u0", scenario="factual", text=text) for text in texts]
    prototypes = unfitted(1).fit(users(2), [*several, analysis(0, "casual"), analysis(1)])
    mean = WordEmbedder().embed(texts).mean(axis=0)
    np.testing.assert_allclose(prototypes.rows_[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert prototypes.row_users_ == ("u0", "u0", "u1")
    assert prototypes.row_scenarios_ == ("factual", "casual", "factual")
    assert prototypes.row_texts_[0] == "plain numbers"


def test_refinement_is_kept_with_the_prototypes(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    prototypes = unfitted(refinement=RefinementConfig(max_epochs=2)).fit(
        users(30), analyses_of(30), progress=lambda *done: told.append(done)
    )
    assert prototypes.refinement_ is not None
    assert prototypes.refinement_[0].validation_loss is not None
    np.testing.assert_array_equal(
        prototypes.assignment_, nearest(prototypes.rows_, prototypes.prototypes_)
    )
    assert told[0] == ("embedding analyses", 60, 60)
    assert told[-1] == ("refining", 2, 2)
    prototypes.save(tmp_path)
    loaded = Prototypes.load(tmp_path, WordEmbedder())
    assert loaded.refinement == prototypes.refinement
    assert loaded.refinement_ == prototypes.refinement_
    assert prototypes.scorer_ is not None
    assert loaded.scorer_ is not None
    for name, array in prototypes.scorer_.arrays().items():
        np.testing.assert_array_equal(loaded.scorer_.arrays()[name], array)


def test_choices_that_cannot_be_embedded_are_left_out_of_the_refinement() -> None:
    context = (Message(role="user", content="What is a fact?"),)
    odd = (
        Preference(context=context, chosen="same", rejected="same"),
        Preference(context=context, chosen="good", rejected=" "),
        Preference(context=(Message(role="user", content="hi"),), chosen="a", rejected="b"),
    )
    some = [u.model_copy(update={"history": (*odd, *u.history)}) for u in users(6)]
    analyses = [analysis(i) for i in range(6)]
    config = RefinementConfig(max_epochs=1)
    with_odd = unfitted(2, refinement=config).fit(some, analyses)
    without = unfitted(2, refinement=config).fit(users(6), analyses)
    np.testing.assert_array_equal(with_odd.prototypes_, without.prototypes_)


def test_the_same_seed_fits_the_same_prototypes() -> None:
    one, other = fitted(), fitted()
    assert one.name == other.name
    assert learnt(fitted(n_users=29).name) != learnt(one.name)
    np.testing.assert_array_equal(one.prototypes_, other.prototypes_)
    assert fitted(seed=1).name != one.name
    assert fitted(n_history=2).name != one.name


def test_texts_are_placed_at_the_nearest_prototype() -> None:
    prototypes = fitted()
    found, similarity = prototypes.transform([analysis(i).text for i in range(30)])
    np.testing.assert_array_equal(found, prototypes.assignment_[::2])
    own = np.einsum("nd,nd->n", prototypes.rows_[::2], prototypes.prototypes_[found])
    np.testing.assert_allclose(similarity, own, atol=1e-6)


# ---------------------------------------------------------------- neighbours


def test_a_user_without_a_row_is_placed_by_his_analyses() -> None:
    prototypes = fitted()
    assert prototypes.knows("u0", "casual")
    assert not prototypes.knows("u0", "technical")
    assert not prototypes.knows("new", "factual")
    new, known = prototypes.find([ask("new", 3, analysis(0).text), ask("u3", 3)])
    assert new.neighbours[0].user.id == "u0"
    assert new.neighbours[0].similarity == pytest.approx(1, abs=1e-6)
    assert known.prototype == new.prototype
    similarities = [neighbour.similarity for neighbour in known.neighbours]
    assert similarities == sorted(similarities, reverse=True)


def test_nobody_is_his_own_neighbour_even_by_foreign_analyses() -> None:
    prototypes = fitted()
    queries = [ask("u0", 40), ask("u0", 40, analysis(1).text)]
    for found in prototypes.find(queries):
        ids = [neighbour.user.id for neighbour in found.neighbours]
        assert "u0" not in ids
        assert len(set(ids)) == len(ids) == 29


def test_fewer_users_than_asked_for_are_all_there_are_and_outsiders_are_counted() -> None:
    (found,) = fitted().find([ask("u0", 100)])
    assert len(found.neighbours) == 29
    assert found.n_outside == 20


def test_queries_may_ask_for_different_numbers() -> None:
    prototypes = fitted()
    assert [len(f.neighbours) for f in prototypes.find([ask("u0", n) for n in (3, 0, 1, 3)])] == [
        3, 0, 1, 3,
    ]  # fmt: skip
    assert prototypes.find([]) == []


def test_a_neighbour_shows_the_same_pairs_to_everybody() -> None:
    prototypes = fitted()
    shown: dict[str, User] = {}
    for found in prototypes.find([ask(f"u{i}", 29) for i in range(30)]):
        for neighbour in found.neighbours:
            assert shown.setdefault(neighbour.user.id, neighbour.user) == neighbour.user
            assert len(neighbour.user.history) == 3
            history = prototypes.users_[neighbour.user.id].history
            assert all(pair in history for pair in neighbour.user.history)
    (whole,) = fitted(n_history=None).find([ask("u0", 1)])
    assert len(whole.neighbours[0].user.history) == 4


def test_neighbours_of_stored_users_are_found_without_the_embedder(tmp_path: Path) -> None:
    class Unloaded(WordEmbedder):
        def __init__(self) -> None:
            self.name = "words"

        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            raise AssertionError(f"asked to embed {texts}")

    prototypes = fitted()
    prototypes.save(tmp_path)
    stored = Prototypes.load(tmp_path, Unloaded())
    assert stored.find([ask("u0"), ask("u1")]) == prototypes.find([ask("u0"), ask("u1")])


def test_who_else_is_asked_about_does_not_move_a_digit() -> None:
    class Rounding(WordEmbedder):
        """As on a GPU, what stands beside a text moves its last digits."""

        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            moved = super().embed(texts) + np.float32(1e-6 * len(texts))
            return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)

    prototypes = fitted(embedder=Rounding())
    queries = [ask(f"new {i}", 5, f"warm jokes {i}", f"plain numbers {i}") for i in range(6)]
    together = prototypes.find(queries)
    assert together == [prototypes.find([query])[0] for query in queries]


def test_threads_find_what_one_thread_finds() -> None:
    queries = [ask(f"u{i}", 7) for i in range(30)]
    expected = fitted().find(queries)
    prototypes = fitted()
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda q: prototypes.find([q])[0], queries)) == expected


# ---------------------------------------------------------------- life


def test_an_update_runs_the_mean_on() -> None:
    later = Analysis(user_id="u0", scenario="factual", text="warm jokes")
    updated = fitted()
    updated.update_user(user(0, n_choices=1), [later, analysis(0, "creative")])
    at_once = unfitted().fit(users(30), [*analyses_of(30), later, analysis(0, "creative")])
    np.testing.assert_allclose(updated.rows_, at_once.rows_, atol=1e-6)
    assert updated.row_texts_ == at_once.row_texts_
    assert len(updated.users_["u0"].history) == 1
    assert updated.knows("u0", "creative")


def test_added_users_are_found_and_move_no_prototype(tmp_path: Path) -> None:
    prototypes = fitted()
    before, name = prototypes.prototypes_, prototypes.name
    prototypes.add_users([user(30), user(31)], [analysis(30), analysis(31)])
    assert learnt(prototypes.name) == learnt(name)
    np.testing.assert_array_equal(prototypes.prototypes_, before)
    np.testing.assert_array_equal(prototypes.assignment_, nearest(prototypes.rows_, before))
    assert prototypes.name != name
    (found,) = prototypes.find([ask("u0", 10)])
    assert "u30" in [neighbour.user.id for neighbour in found.neighbours]
    prototypes.save(tmp_path)
    loaded = Prototypes.load(tmp_path, WordEmbedder())
    assert loaded.find([ask("u31", 5)]) == prototypes.find([ask("u31", 5)])
    np.testing.assert_array_equal(loaded.drift_, prototypes.drift_)


def test_users_of_the_same_kind_are_no_drift() -> None:
    prototypes = fitted()
    assert prototypes.drift_.max() == 0
    prototypes.add_users([user(i) for i in range(30, 60)], [analysis(i) for i in range(30, 60)])
    assert 0 < prototypes.drift_.max() < 0.25


def test_a_new_kind_of_users_is_told_as_drift() -> None:
    prototypes = fitted()
    words = "terse legal citations dates"
    strangers = [Analysis(user_id=f"u{i}", scenario="factual", text=words) for i in range(30, 90)]
    with pytest.warns(DriftWarning, match="fit again"):
        prototypes.add_users([user(i) for i in range(30, 90)], strangers)
    before = means_of(prototypes.rows_[:60], prototypes.assignment_[:60], 3)
    after = means_of(prototypes.rows_, prototypes.assignment_, 3)
    for j in range(3):
        to_next = min(np.linalg.norm(before[j] - before[i]) for i in range(3) if i != j)
        moved = np.linalg.norm(after[j] - before[j])
        assert prototypes.drift_[j] == pytest.approx(moved / to_next, abs=1e-5)


def test_a_removed_user_is_gone_from_files_index_and_cache(tmp_path: Path) -> None:
    own = "zzunmistakable"
    loner = User(
        id=f"{own}-id",
        history=(
            Preference(
                context=(Message(role="user", content=f"What is {own}?"),),
                chosen=f"chosen {own}",
                rejected=f"rejected {own}",
            ),
        ),
    )
    texts = [f"{own} tastes alone {i}" for i in range(3)]
    first, second, third = (
        Analysis(user_id=loner.id, scenario="factual", text=text) for text in texts
    )
    embedder = WordEmbedder(VectorCache(tmp_path / "cache.sqlite"))
    prototypes = unfitted(4, embedder=embedder, refinement=RefinementConfig(max_epochs=1))
    prototypes.fit([*users(30), loner], [*analyses_of(30), first, second])
    prototypes.save(tmp_path / "prototypes")
    vectors = WordEmbedder().embed([*texts[:2], *(t for c in loner.history for t in texts_of(c))])
    secrets = [own.encode(), *(v.tobytes() for v in [*vectors, prototypes.rows_[60]])]
    assert all(is_in_a_file(secret, tmp_path) for secret in secrets)
    assert len(prototypes.prototypes_) == 4

    prototypes.update_user(loner.model_copy(update={"history": ()}), [third])
    prototypes.save(tmp_path / "prototypes")
    secrets += [WordEmbedder().embed([third.text]).tobytes(), prototypes.rows_[60].tobytes()]
    assert all(is_in_a_file(secret, tmp_path) for secret in secrets[-2:])
    prototypes.remove_user(loner.id)
    prototypes.save(tmp_path / "prototypes")
    assert not any(is_in_a_file(secret, tmp_path) for secret in secrets)
    assert len(prototypes.prototypes_) == 3  # one was his alone
    assert not prototypes.knows(loner.id, "factual")
    for store in (prototypes, Prototypes.load(tmp_path / "prototypes", embedder)):
        (found,) = store.find([ask("new", 40, "zz")])
        assert sorted(n.user.id for n in found.neighbours) == sorted(f"u{i}" for i in range(30))


def alone() -> tuple[User, Analysis]:
    loner = User(id="alone", history=user(0).history)
    return loner, Analysis(user_id="alone", scenario="factual", text="zz unlike anybody else")


def test_what_was_learnt_from_a_user_alone_goes_with_him_even_if_others_joined(
    tmp_path: Path,
) -> None:
    loner, his = alone()
    prototypes = unfitted(4).fit([*users(30), loner], [*analyses_of(30), his])
    vector, own = prototypes.rows_[60], prototypes.assignment_[60]
    similar = his.model_copy(update={"user_id": "u30", "text": "zz unlike anybody"})
    prototypes.add_users([user(30)], [similar])
    assert prototypes.assignment_[61] == own
    prototypes.save(tmp_path / "prototypes")
    assert is_in_a_file(vector.tobytes(), tmp_path)
    prototypes = Prototypes.load(tmp_path / "prototypes", WordEmbedder())
    prototypes.remove_user("alone")
    prototypes.save(tmp_path / "prototypes")
    assert not is_in_a_file(vector.tobytes(), tmp_path)
    assert not is_in_a_file(b'"alone"', tmp_path)
    assert max((a @ vector).max() for a in (prototypes.prototypes_, prototypes.centroids_)) < 0.99
    np.testing.assert_allclose(prototypes.prototypes_[own], prototypes.rows_[60], atol=1e-6)
    np.testing.assert_array_equal(
        prototypes.assignment_, nearest(prototypes.rows_, prototypes.prototypes_)
    )
    prototypes.remove_user("u30")  # who was alone there in his turn
    assert len(prototypes.prototypes_) == 3


def test_a_prototype_of_one_user_goes_with_him_even_if_his_row_has_moved_on(tmp_path: Path) -> None:
    loner, his = alone()
    prototypes = unfitted(4).fit([*users(30), loner], [*analyses_of(30), his])
    vector, own = prototypes.rows_[60], prototypes.assignment_[60]
    later = his.model_copy(update={"text": f"{TASTES[0]} {TASTES[0]}"})
    prototypes.update_user(loner, [later] * 9)
    assert prototypes.assignment_[60] != own
    prototypes.remove_user("alone")
    prototypes.save(tmp_path)
    assert len(prototypes.prototypes_) == 3
    assert not is_in_a_file(vector.tobytes(), tmp_path)


def test_a_removal_that_the_cache_refuses_can_be_repeated() -> None:
    class Busy(WordEmbedder):
        refusals = 1
        forgotten: Iterable[str] = ()

        def forget(self, texts: Iterable[str]) -> None:
            if self.refusals:
                self.refusals -= 1
                raise InputError("the cache is being read")
            self.forgotten = texts

    embedder = Busy()
    prototypes = fitted(embedder=embedder)
    with pytest.raises(InputError, match="being read"):
        prototypes.remove_user("u0")
    assert prototypes.knows("u0", "factual")
    prototypes.remove_user("u0")
    assert not prototypes.knows("u0", "factual")
    assert analysis(0).text in embedder.forgotten


def is_in_a_file(secret: bytes, directory: Path) -> bool:
    return any(secret in path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_removal_leaves_the_neighbours_of_others_as_they_were() -> None:
    prototypes = fitted()
    queries = [ask(f"u{i}", 29) for i in range(1, 30)]
    before = prototypes.find(queries)
    prototypes.remove_user("u0")
    for old, new in zip(before, prototypes.find(queries), strict=True):
        assert [n for n in old.neighbours if n.user.id != "u0"] == list(new.neighbours)


# ---------------------------------------------------------------- files


def test_an_interrupted_save_leaves_the_old_or_the_new_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = fitted(), fitted(n_users=12)
    names = set()
    for n_steps in range(12):
        directory = tmp_path / str(n_steps)
        old.save(directory)
        with monkeypatch.context() as patched:
            left = iter(range(n_steps))
            for step in ("replace", "unlink", "write_text"):
                patched.setattr(Path, step, killed_after(left, getattr(Path, step)))
            with contextlib.suppress(KeyboardInterrupt):
                new.save(directory)
        names.add(Prototypes.load(directory, WordEmbedder()).name)
        new.save(directory)
        assert Prototypes.load(directory, WordEmbedder()).name == new.name
        assert len(list(directory.iterdir())) == 4
    assert names == {old.name, new.name}


def killed_after(left: Iterator[int], step: Callable[..., object]) -> Callable[..., object]:
    def counted(*args: object) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(*args)

    return counted


def test_saving_again_leaves_other_files_alone(tmp_path: Path) -> None:
    own = ["notes.txt", "users-train.jsonl", "download.partial"]
    for name in own:
        (tmp_path / name).write_text("mine")
    fitted().save(tmp_path)
    fitted(n_users=12).save(tmp_path)
    assert all((tmp_path / name).read_text() == "mine" for name in own)
    assert len(list(tmp_path.iterdir())) == len(own) + 4


@pytest.mark.parametrize("kind", ["arrays", "users", "rows", "prototypes"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_directory_is_named(tmp_path: Path, kind: str, damage: str) -> None:
    fitted().save(tmp_path)
    (path,) = tmp_path.glob(f"{kind}*")
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        path.unlink()
    with pytest.raises(InputError, match=re.escape(str(tmp_path)) + ".*fit and save"):
        Prototypes.load(tmp_path, WordEmbedder())


def test_another_format_or_manifest_is_refused(tmp_path: Path) -> None:
    fitted().save(tmp_path)
    manifest = tmp_path / "prototypes.json"
    content = manifest.read_text()
    manifest.write_text(content.replace('"format": 1', '"format": 7'))
    with pytest.raises(InputError, match="format 7, this version of pgenrm reads 1"):
        Prototypes.load(tmp_path, WordEmbedder())
    manifest.write_text(content.replace('"embedder"', '"model"'))
    with pytest.raises(InputError, match="'embedder' is missing"):
        Prototypes.load(tmp_path, WordEmbedder())


def test_another_embedder_is_refused(tmp_path: Path) -> None:
    fitted().save(tmp_path)
    with pytest.raises(InputError, match="'words', not 'syllables'"):
        Prototypes.load(tmp_path, WordEmbedder(name="syllables"))


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="is a file"):
        fitted().save(tmp_path / "taken")


# ---------------------------------------------------------------- bad input


def test_impossible_settings_are_refused() -> None:
    impossible: list[dict[str, Any]] = [{"k": 0}, {"n_probe": 0}, {"n_history": -1}]
    for wrong in impossible:
        with pytest.raises(ValueError, match="must be 1 or more"):
            Prototypes(WordEmbedder(), **wrong)


def test_users_must_suffice_for_k() -> None:
    with pytest.raises(InputError, match="2 users with an analysis are too few for 3"):
        unfitted(3).fit(users(2), analyses_of(2))
    with pytest.raises(InputError, match="0 users with an analysis"):
        unfitted(None).fit(users(2), [])
    assert len(unfitted(2).fit(users(2), analyses_of(2)).prototypes_) == 2


def test_users_without_an_analysis_are_not_stored() -> None:
    prototypes = unfitted(2).fit(users(4), analyses_of(3))
    assert list(prototypes.users_) == ["u0", "u1", "u2"]


def test_ids_must_be_distinct_and_analyses_somebodys() -> None:
    with pytest.raises(InputError, match="2 users have the id 'u0'"):
        unfitted(1).fit([user(0), user(0)], analyses_of(1))
    with pytest.raises(InputError, match="user 'u1', who is not among"):
        unfitted(1).fit(users(1), analyses_of(2))
    prototypes = fitted()
    with pytest.raises(InputError, match="'u0' is stored already; use update_user"):
        prototypes.add_users([user(0)], [analysis(0)])
    with pytest.raises(InputError, match="'u99' is not stored; use add_users"):
        prototypes.update_user(user(99), [analysis(99)])
    with pytest.raises(InputError, match="user 'u1', who is not among"):
        prototypes.update_user(user(0), [analysis(1)])
    with pytest.raises(InputError, match="'u99' is not stored"):
        prototypes.remove_user("u99")


def test_the_only_user_cannot_be_removed() -> None:
    prototypes = unfitted(1).fit(users(1), analyses_of(1))
    with pytest.raises(InputError, match="the only one"):
        prototypes.remove_user("u0")


class BadEmbedder(WordEmbedder):
    """Gives the same vectors, whatever the text."""

    def __init__(self, row: Sequence[float]) -> None:
        super().__init__()
        self.row = row

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([self.row] * len(texts), np.float32)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([np.nan] * 24, "length nan instead of 1 for text 0: 'short plain"),
        ([0.0] * 24, "length 0.0 instead of 1"),
        ([1.0] * 24, "length 4.89"),
        ([1.0, 0.0], r"shape \(6, 2\) for 6 texts and dimension 24"),
    ],
)
def test_vectors_that_are_not_of_unit_length_are_refused(row: list[float], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        unfitted(1, embedder=BadEmbedder(row)).fit(users(3), analyses_of(3))


def test_analyses_that_cancel_out_are_refused() -> None:
    class Opposites(WordEmbedder):
        def _vector(self, text: str) -> NDArray[np.float32]:
            return np.array([-1 if "not" in text else 1] + [0] * 23, np.float32)

    texts = ["likes jokes", "does not like jokes"]
    analyses = [Analysis(user_id="u0", scenario="casual", text=text) for text in texts]
    with pytest.raises(InputError, match="casual analyses of user 'u0' cancel out"):
        unfitted(1, embedder=Opposites()).fit(users(1), analyses)


def test_equal_analyses_leave_prototypes_without_members_but_neighbours_are_found() -> None:
    same = [Analysis(user_id=f"u{i}", scenario="casual", text="all alike") for i in range(6)]
    with pytest.warns(UserWarning, match="distinct clusters"):
        prototypes = unfitted(3).fit(users(6), same)
    assert set(prototypes.assignment_) == {0}
    (found,) = prototypes.find([ask("u0", 5, scenario="casual")])
    assert len(found.neighbours) == 5
    assert prototypes.drift_.tolist() == [0, 0, 0]


def test_a_stranger_without_analyses_is_refused() -> None:
    with pytest.raises(InputError, match="'new' has no row in scenario 'factual'"):
        fitted().find([ask("new")])


def test_nothing_works_before_fit() -> None:
    prototypes = unfitted()
    for use in (
        lambda: prototypes.find([ask("u0")]),
        lambda: prototypes.transform(["text"]),
        lambda: prototypes.remove_user("u0"),
        lambda: prototypes.save("nowhere"),
        lambda: prototypes.prototypes_,
    ):
        with pytest.raises(InputError, match="not fitted; call fit, or load"):
            use()
