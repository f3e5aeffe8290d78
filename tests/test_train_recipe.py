import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.errors import InputError
from pgenrm.train.estimate import A100, H100, RTX_4090, SHAPES, estimate
from pgenrm.train.recipe import (
    SftRecipe,
    leaves,
    load_recipe,
    read_table,
    recipe_text,
    shipped_recipes,
)

GIVEN = ["model.path=somewhere", "data.path=rows.parquet"]
SFT = [name for name in shipped_recipes() if name.startswith("sft/")]
TOML = [name for name in shipped_recipes() if not name.startswith("accelerate/")]


@pytest.mark.parametrize("name", SFT)
def test_a_shipped_recipe_loads_once_it_is_told_its_data(name: str) -> None:
    recipe = load_recipe(name, SftRecipe, GIVEN)
    assert recipe.data.path == "rows.parquet"


@pytest.mark.parametrize("name", TOML)
def test_every_number_of_a_shipped_recipe_has_a_source(name: str) -> None:
    table = read_table(name)
    numbers = {key for key, value in leaves(table) if type(value) in {int, float} and key != "seed"}
    assert numbers <= set(table["sources"])
    assert all(source.strip() for source in table["sources"].values())


@pytest.mark.parametrize("name", TOML)
def test_no_source_speaks_of_what_a_shipped_recipe_does_not_say(name: str) -> None:
    table = read_table(name)
    assert set(table["sources"]) <= {key for key, _ in leaves(table)}


def test_an_unknown_key_is_an_error_that_names_what_it_may_have_meant() -> None:
    with pytest.raises(InputError, match=r"'model\.lora\.rnk' .*did you mean rank"):
        load_recipe("sft/tiny", SftRecipe, [*GIVEN, "model.lora={rank=8, alpha=8, rnk=8}"])


def test_an_unknown_recipe_is_an_error_that_names_what_it_may_have_meant() -> None:
    with pytest.raises(InputError, match="did you mean sft/tiny"):
        load_recipe("sft/tinny", SftRecipe)


def test_a_recipe_of_another_stage_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "rl.toml"
    other.write_text('stage = "rl"\n')
    with pytest.raises(InputError, match="stage"):
        load_recipe(other, SftRecipe, GIVEN)


def test_an_override_is_read_as_toml_a_path_as_a_text_and_nothing_removes() -> None:
    recipe = load_recipe(
        "sft/llama-3.1-70b-lora",
        SftRecipe,
        ["data.path=/data/chains", "trl.max_steps=7", "trl.optim=adafactor", "model.lora="],
    )
    assert recipe.data.path == "/data/chains"
    assert (recipe.trl["max_steps"], recipe.trl["optim"]) == (7, "adafactor")
    assert recipe.model.lora is None


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trl.max_steps", "key=value"),
        (".x=1", "key=value"),
        ("trl.bf16=True", "small letters"),
        ("trl.learning_rate=.5", "write 0.5"),
        ("seed.x=1", "is no table"),
        ("seed=[", "no TOML value"),
    ],
)
def test_an_override_that_cannot_be_meant_is_refused(override: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_recipe("sft/llama-3.1-8b", SftRecipe, [*GIVEN, "seed=1", override])


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_an_override_says_what_the_recipe_could_have_said(value: float | bool) -> None:
    text = str(value).lower()
    recipe = load_recipe("sft/tiny", SftRecipe, [*GIVEN, f"trl.x={text}"])
    assert recipe.trl["x"] == tomllib.loads(f"x = {text}")["x"] == value


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("path='x'\nconfig={model_type='llama'}", "either path"),
        ("config={model_type='llama'}", "tokenizer"),
        ("config={hidden_size=8}\ntokenizer='x'", "model_type"),
        ("path='x'\nquantisation='nf4'", "add lora"),
    ],
)
def test_a_model_that_cannot_be_had_is_refused(tmp_path: Path, table: str, says: str) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(f"[data]\npath='x'\n[model]\n{table}\n")
    with pytest.raises(InputError, match=says):
        load_recipe(file, SftRecipe)


@pytest.mark.parametrize("name", [n for n in shipped_recipes() if n.startswith("accelerate/")])
def test_accelerate_reads_the_shipped_configs(name: str, tmp_path: Path) -> None:
    config_args: Any = pytest.importorskip("accelerate.commands.config.config_args")
    file = tmp_path / "config.yaml"
    file.write_text(recipe_text(name))
    config = config_args.load_config_from_file(str(file))
    assert config.num_processes == int(name.rpartition("-")[2])
    assert config.mixed_precision == "bf16"
    assert config.deepspeed_config if "zero3" in name else config.fsdp_config


@pytest.mark.parametrize(
    ("name", "card", "n_cards"),
    [
        ("sft/llama-3.1-8b", A100, 8),
        ("sft/qwen3-8b", A100, 8),
        ("sft/llama-3.1-70b-lora", H100, 32),
        ("sft/24gb-qlora", RTX_4090, 1),
    ],
)
def test_by_the_arithmetic_a_shipped_recipe_fits_its_cards(
    name: str, card: Any, n_cards: int
) -> None:
    recipe = load_recipe(name, SftRecipe, ["data.path=x"])
    shape = SHAPES[recipe.model.path or ""]
    need = estimate(recipe, shape, card, n_cards=n_cards, n_rows=10_000)
    assert need.card_gib < card.memory_gib
    more = estimate(recipe, shape, card, n_cards=n_cards, n_rows=20_000)
    assert more.hours == pytest.approx(2 * need.hours)


def test_shapes_have_as_many_weights_as_the_models_that_they_stand_for() -> None:
    known = {"Llama-3.1-8B": 8.03e9, "Llama-3.1-70B": 70.55e9, "Qwen3-8B": 8.19e9}
    for name, n in known.items():
        shape = next(shape for path, shape in SHAPES.items() if name in path)
        assert shape.n_parameters == pytest.approx(n, rel=0.001)
