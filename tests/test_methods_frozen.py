"""GPO, VPL, PAL and LoRe on frozen embeddings: what all of them must learn and must not do."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pgenrm.errors import InputError
from pgenrm.methods.frozen import FrozenMethod
from pgenrm.methods.gpo import GpoRecipe, gpo
from pgenrm.methods.lore import LoreRecipe, lore
from pgenrm.methods.pal import PalRecipe, pal
from pgenrm.methods.recipe import load_recipe
from pgenrm.methods.vpl import VplRecipe, vpl
from pgenrm.prototypes.embedder import MINILM, SentenceTransformerEmbedder
from pgenrm.types import Comparison
from tests.method_cases import (
    MeasuredEmbedder,
    accuracy,
    flipped,
    scores,
    shuffled,
    small_world,
)

pytestmark = pytest.mark.local

MEASURED = MeasuredEmbedder()


def small_gpo(seed: int = 0, n_epochs: int = 25) -> FrozenMethod:
    size = {"width": 64, "n_layers": 2, "learning_rate": 1e-3, "n_users_per_batch": 8}
    size["n_epochs"] = n_epochs
    return gpo(MEASURED, recipe=load_recipe(GpoRecipe, "gpo").model_copy(update=size), seed=seed)


def small_vpl(seed: int = 0, n_epochs: int = 40) -> FrozenMethod:
    size = {"width": 64, "learning_rate": 3e-3, "n_epochs": n_epochs}
    return vpl(MEASURED, recipe=load_recipe(VplRecipe, "vpl").model_copy(update=size), seed=seed)


def small_pal_a(seed: int = 0, n_epochs: int = 20) -> FrozenMethod:
    size = {"width": 32, "n_epochs": n_epochs}
    recipe = load_recipe(PalRecipe, "pal_a").model_copy(update=size)
    return pal(MEASURED, "a", recipe=recipe, seed=seed)


def small_pal_b(seed: int = 0, n_epochs: int = 20) -> FrozenMethod:
    size = {"width": 32, "n_epochs": n_epochs}
    recipe = load_recipe(PalRecipe, "pal_b").model_copy(update=size)
    return pal(MEASURED, "b", recipe=recipe, seed=seed)


def small_lore(seed: int = 0, n_epochs: int = 40) -> FrozenMethod:
    size = {"n_steps": 10 * n_epochs}
    recipe = load_recipe(LoreRecipe, "lore").model_copy(update=size)
    return lore(MEASURED, recipe=recipe, seed=seed)


METHODS: list[Callable[..., FrozenMethod]] = [
    small_gpo,
    small_vpl,
    small_pal_a,
    small_pal_b,
    small_lore,
]
all_methods = pytest.mark.parametrize("make", METHODS, ids=lambda make: make.__name__[6:])


@cache
def fitted(make: Callable[..., FrozenMethod]) -> FrozenMethod:
    method = make()
    data = small_world()
    method.fit(data.train, data.validation)
    return method


@all_methods
def test_a_user_s_own_history_helps_and_another_s_does_not(
    make: Callable[..., FrozenMethod],
) -> None:
    method, data = fitted(make), small_world()
    method.adapt([user.model_copy(update={"history": ()}) for user in data.users])
    of_anybody = accuracy(method, data.test)
    method.adapt(data.users)
    own = accuracy(method, data.test)
    method.adapt(shuffled(data.users))
    of_another = accuracy(method, data.test)
    method.adapt(flipped(data.users))
    opposite = accuracy(method, data.test)
    assert of_anybody > 0.52
    assert own > of_anybody + 0.1
    assert of_another < of_anybody + 0.05
    assert opposite < of_anybody - 0.1


@all_methods
def test_who_was_never_adapted_to_is_judged_as_without_history(
    make: Callable[..., FrozenMethod],
) -> None:
    method, data = fitted(make), small_world()
    seen = data.validation[:6]
    before = scores(method, seen)  # training users are not remembered
    method.adapt([c.user.model_copy(update={"history": ()}) for c in seen])
    assert_allclose(scores(method, seen), before, rtol=1e-4, atol=1e-5)
    assert [j.n_history for j in method.score(seen)] == [0] * 6
    method.adapt([c.user for c in seen])
    assert [j.n_history for j in method.score(seen)] == [len(c.user.history) for c in seen]
    method.adapt([c.user.model_copy(update={"history": ()}) for c in seen])
    assert_allclose(scores(method, seen), before, rtol=1e-4, atol=1e-5)


@all_methods
def test_a_judgment_depends_on_its_comparison_and_user_alone(
    make: Callable[..., FrozenMethod],
) -> None:
    method, data = fitted(make), small_world()
    method.adapt(data.users)
    some = data.test[:8]
    together = scores(method, data.test)[:8]
    turned = [
        c.model_copy(update={"responses": c.responses[::-1], "label": None, "id": "other"})
        for c in some
    ]
    assert_allclose([s[::-1] for s in scores(method, turned)], together, rtol=1e-4, atol=1e-5)
    for user in data.users[:2]:  # of these eight
        method.adapt([user])
    alone = [scores(method, [c])[0] for c in some]
    assert_allclose(alone, together, rtol=1e-3, atol=1e-4)


@all_methods
def test_any_number_of_responses_is_scored(make: Callable[..., FrozenMethod]) -> None:
    method, data = fitted(make), small_world()
    a, b, c = data.test[:3]
    three = a.model_copy(update={"responses": (*a.responses, b.responses[0]), "label": 2})
    one = b.model_copy(update={"responses": b.responses[:1], "label": None})
    judgments = method.score([three, c, one])
    assert [len(j.scores) for j in judgments] == [3, 2, 1]
    assert [j.id for j in judgments] == [a.id, c.id, b.id]
    rewards = [score for score in judgments[1].scores if score is not None]
    assert judgments[1].confidence == pytest.approx(
        1 / (1 + math.exp(-abs(rewards[0] - rewards[1]))), abs=1e-5
    )
    assert [j.is_calibrated for j in judgments] == [True, True, False]
    assert judgments[2].confidence is None


@all_methods
def test_the_seed_decides(make: Callable[..., FrozenMethod]) -> None:
    data = small_world()
    found = []
    for seed in (0, 0, 1):
        method = make(seed=seed, n_epochs=1)
        method.fit(data.train[:240], data.validation[:20])
        method.adapt(data.users[:5])
        found.append(np.array(scores(method, data.test[:20])))
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()


def test_there_must_be_something_to_learn_from_and_to_stop_by() -> None:
    data = small_world()
    unlabelled: list[Comparison] = [
        c.model_copy(update={"label": None, "user": c.user.model_copy(update={"history": ()})})
        for c in data.train[:4]
    ]
    with pytest.raises(InputError, match="nothing to learn from"):
        small_lore().fit(unlabelled, data.validation[:4])
    with pytest.raises(InputError, match="none is labelled"):
        small_lore().fit(data.train[:4], unlabelled)


@pytest.mark.parametrize("make", [gpo, vpl, pal, lore])
def test_versions_tell_variants_recipes_and_embedders_apart(
    make: Callable[..., FrozenMethod],
) -> None:
    other = MeasuredEmbedder()
    other.name = "other"
    methods = [make(MEASURED), make(MEASURED, variant="published"), make(other)]
    assert len({(m.name, m.version) for m in methods}) == 3
    assert [m.name.endswith("-published") for m in methods] == [False, True, False]


def test_sentence_embeddings_serve() -> None:
    data = small_world()
    train, others = data.train[:160], data.test[:60]
    method = lore(
        SentenceTransformerEmbedder(MINILM, device="cpu"),
        recipe=load_recipe(LoreRecipe, "lore").model_copy(update={"n_steps": 100}),
    )
    method.fit(train, data.validation[:20])
    method.adapt([c.user for c in others])
    assert accuracy(method, others) > 0.55


@all_methods
def test_what_was_learnt_is_kept_and_not_learnt_again(
    make: Callable[..., FrozenMethod], tmp_path: Path
) -> None:
    data = small_world()
    file = tmp_path / "models" / "method.pt"

    def fit(n_train: int = 240) -> list[tuple[float, ...]]:
        method = make(n_epochs=1)
        method.kept_in = file
        method.fit(data.train[:n_train], data.validation[:20])
        method.adapt(data.users[:5])
        return scores(method, data.test[:20])

    first = fit()
    kept = file.stat().st_mtime_ns
    assert fit() == first
    assert file.stat().st_mtime_ns == kept
    file.write_bytes(file.read_bytes()[:1000])  # as a full disk may leave it
    assert fit() == first
    assert fit(228) != first  # other data, so that it is learnt anew
    assert not list(tmp_path.rglob("*.partial"))
