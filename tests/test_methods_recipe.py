"""Recipes of trained methods: every number has a source."""

from pathlib import Path

import pytest

from pgenrm.errors import InputError
from pgenrm.methods.gpo import GpoRecipe
from pgenrm.methods.lore import LoreRecipe
from pgenrm.methods.pal import PalRecipe, PublishedPalRecipe
from pgenrm.methods.recipe import MethodRecipe, load_recipe, shipped_recipes
from pgenrm.methods.reward_model import RewardModelRecipe
from pgenrm.methods.vpl import VplRecipe

pytestmark = pytest.mark.local

KINDS: dict[str, type[MethodRecipe]] = {
    "gpo": GpoRecipe,
    "gpo_published": GpoRecipe,
    "lore": LoreRecipe,
    "lore_published": LoreRecipe,
    "pal_a": PalRecipe,
    "pal_a_published": PublishedPalRecipe,
    "pal_b": PalRecipe,
    "reward_model": RewardModelRecipe,
    "reward_model_full": RewardModelRecipe,
    "vpl": VplRecipe,
    "vpl_published": VplRecipe,
}

TOML = """
n_prototypes = 5
width = 8
learning_rate = 0.1
batch_size = 4
n_epochs = 1
[sources]
n_prototypes = "a"
width = "b"
learning_rate = "c"
batch_size = "d"
n_epochs = "e"
"""


def test_every_number_of_a_shipped_recipe_has_a_source() -> None:
    assert shipped_recipes() == sorted(KINDS)
    for name, kind in KINDS.items():
        recipe = load_recipe(kind, name)
        assert recipe.setting_names()
        assert set(recipe.sources) == set(recipe.setting_names()), name
        assert all(len(source) > 3 for source in recipe.sources.values()), name


def test_a_recipe_of_one_s_own_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TOML)
    recipe = load_recipe(PublishedPalRecipe, path)
    assert recipe.width == 8
    path.write_text(TOML.replace('"a"', '"elsewhere"'))
    assert load_recipe(PublishedPalRecipe, path).digest == recipe.digest
    path.write_text(TOML.replace("width = 8", "width = 9"))
    assert load_recipe(PublishedPalRecipe, path).digest != recipe.digest


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('width = "b"\n', "", "no source is given for width"),
        ('width = "b"\n', 'width = "b"\ndepth = "f"\n', "sources are given for depth"),
        ("width = 8\n", "", "width"),
        ("width = 8\n", "width = 8\ndepth = 1\n", "depth"),
        ("width = 8", "width =", "no recipe of this method"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TOML.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load_recipe(PublishedPalRecipe, path)


def test_an_unknown_recipe_is_met_with_those_there_are() -> None:
    with pytest.raises(InputError, match="lore_published"):
        load_recipe(LoreRecipe, "lores")
