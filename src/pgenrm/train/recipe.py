"""Recipes: a TOML file that says all that a training run is told.

A recipe holds what the paper varies, and in `sources` where each number comes from. Its table
`trl` goes to TRL's config as it is. A key that nobody reads is an error. Paths are relative to the
working directory. Deliberately left out: recipes that include others.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from pgenrm.errors import InputError
from pgenrm.rows import explain
from pgenrm.types import Value

SHIPPED = files("pgenrm.train") / "recipes"
SUFFIXES = (".toml", ".yaml")


class LoraSpec(Value):
    """Low-rank adapters in place of full fine-tuning."""

    rank: PositiveInt
    alpha: float
    dropout: float = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of linear layers, e.g. `["q_proj", "v_proj"]`."""


class ModelSpec(Value):
    """The model that a run starts from: a checkpoint, or a shape with random weights."""

    path: str | None = None
    """Directory or hub id of a checkpoint, or of a LoRA adapter, which is then trained further."""
    revision: str | None = None
    config: dict[str, Any] | None = None
    """Shape of a new model, as transformers names it, e.g. `{model_type = "llama", ...}`. Its
    weights are drawn by the recipe's seed; vocabulary and special tokens are the tokenizer's."""
    tokenizer: str | None = None
    """Directory or hub id; None: that of `path`."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights. What is trained in full needs float32 to keep small updates; TRL's `bf16`
    computes in bfloat16 all the same."""
    attention: str | None = None
    """transformers' `attn_implementation`, e.g. `flash_attention_2`; None leaves it to them."""
    lora: LoraSpec | None = None
    quantisation: Literal["none", "nf4"] = "none"
    """nf4: frozen weights in 4 bits (QLoRA)."""

    @property
    def name(self) -> str:
        """What to call the model in messages."""
        return self.path or "a new model"

    @property
    def tokenizer_source(self) -> str:
        """Directory or hub id of the tokenizer."""
        return self.tokenizer or self.path or ""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if (self.path is None) == (self.config is None):
            raise ValueError("needs either path (a checkpoint) or config (the shape of a new one)")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError('config needs model_type, e.g. config = {model_type = "llama", ...}')
        if self.config is not None and self.tokenizer is None:
            raise ValueError("config needs a tokenizer beside it; a new model has none")
        if self.quantisation != "none" and self.lora is None:
            raise ValueError(f"quantisation {self.quantisation} freezes the weights; add lora")
        return self


class DataSpec(Value):
    """The rows that a run reads; see `pgenrm.train.rows`."""

    path: str
    """A `.parquet`, `.jsonl` or `.jsonl.gz` file, or a directory of them."""
    split: str | None = None
    """In a directory: the file (or the directory of files) of this name."""
    limit: PositiveInt | None = None
    """So many rows only: the first ones in SFT, drawn ones in reinforcement; None: all."""
    too_long: Literal["error", "drop"] = "error"
    """What becomes of a row that does not fit; dropped ones are counted in run.json."""


class SampleSpec(Value):
    """What the model writes now and then while it learns, for a person to read."""

    every: PositiveInt
    """Steps."""
    n: PositiveInt = 4
    """Prompts."""
    max_tokens: PositiveInt = 1024


class StageRecipe(Value):
    """What the recipes of all stages hold; each stage's own file adds what it varies."""

    model: ModelSpec
    data: DataSpec
    seed: NonNegativeInt = 0
    samples: SampleSpec | None = None
    trl: dict[str, Any] = Field(default_factory=dict)
    """Goes to TRL's config unchanged; `pgenrm.train.trl_config` refuses keys that it lacks."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Where each number comes from, by its dotted key: `paper, section 4.1`, or `ours: why`."""


class SftRecipe(StageRecipe):
    """Supervised fine-tuning: Persona-guided Scoring Induction (paper, section 3.2, stage 1)."""

    stage: Literal["sft"] = "sft"
    eval: DataSpec | None = None
    """Rows to measure the loss on; when, says `trl.eval_strategy`."""
    muon_momentum: float | None = None
    """Train the linear layers by Muon with this momentum, the rest by AdamW (`pgenrm.train.muon`);
    None: all by `trl.optim`. It is for models trained from random weights."""


R = TypeVar("R", bound=StageRecipe)


def load_recipe(source: str | Path, kind: type[R], overrides: Sequence[str] = ()) -> R:
    """Read a recipe and apply overrides.

    Args:
        source: a TOML file, or the name of a shipped recipe, e.g. `sft/llama-3.1-8b`.
        kind: the stage's recipe type.
        overrides: `key=value` each, where key is dotted (`trl.learning_rate`) and value is TOML; a
            bare word or path is a text, and an empty value removes the key.

    Raises:
        InputError: there is no such recipe, or it does not say what it should.
    """
    table = read_table(source)
    for override in overrides:
        _apply(table, override)
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        detail = error.errors()[0]
        hint = ""
        if detail["type"] == "extra_forbidden":
            hint = near(str(detail["loc"][-1]), _known_keys(kind, detail["loc"][:-1]))
        raise InputError(f"{source}: {explain(error, kind)}{hint}") from error


def read_table(source: str | Path) -> dict[str, Any]:
    """Read the TOML of a recipe, of a file or a shipped one.

    Raises:
        InputError: there is no such recipe, or it is not TOML.
    """
    try:
        return tomllib.loads(recipe_text(source))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is not valid TOML: {error}") from error


def recipe_text(source: str | Path) -> str:
    """Return a file, or what is shipped under a name, as it stands.

    Raises:
        InputError: there is no such file, and nothing of this name.
    """
    path = Path(source)
    try:
        if path.is_file():
            return path.read_text("utf-8")
        if str(source) in shipped_recipes():
            files_shipped = (SHIPPED / f"{source}{suffix}" for suffix in SUFFIXES)
            return next(f for f in files_shipped if f.is_file()).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source} cannot be read: {error}") from error
    raise InputError(
        f"there is no recipe {str(source)!r}{near(str(source), shipped_recipes())}; give a TOML "
        f"file, or one of {', '.join(shipped_recipes())}"
    )


def shipped_recipes() -> list[str]:
    """Return the names of the recipes and accelerate configs that come with the package."""
    return sorted(
        f"{folder.name}/{file.name.rpartition('.')[0]}"
        for folder in SHIPPED.iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith(SUFFIXES)
    )


def near(key: str, known: Sequence[str]) -> str:
    """Suggest known keys that look like an unknown one; empty where none does.

    >>> near("learning_rat", ["seed", "learning_rate"])
    ' (did you mean learning_rate?)'
    """
    found = get_close_matches(key, known, n=3)
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of all that is no table.

    >>> list(leaves({"seed": 0, "trl": {"max_steps": 8}}))
    [('seed', 0), ('trl.max_steps', 8)]
    """
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise InputError(f"--set {override}: write key=value, e.g. trl.learning_rate=1e-5")
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {override}: {part!r} is no table")
    if text.strip():
        table[path[-1]] = _value(text.strip(), override)
    else:
        table.pop(path[-1], None)


def _value(text: str, override: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if text in {"True", "False", "None"} or not (text[0].isalpha() or text[0] in "/~."):
            hint = "true and false are in small letters; an empty value removes the key"
            raise InputError(f"--set {override}: {text!r} is no TOML value ({hint})") from error
        if text[0] == "." and text[1:2].isdigit():
            raise InputError(f"--set {override}: write 0{text}") from error
        return text


def _known_keys(kind: type[Value], location: Sequence[int | str]) -> list[str]:
    """Return the keys of the table at a location inside a recipe."""
    for part in location:
        annotation = kind.model_fields[str(part)].annotation
        options = get_args(annotation) or (annotation,)
        kind = next(o for o in options if isinstance(o, type) and issubclass(o, Value))
    return list(kind.model_fields)
