"""From a recipe's table `trl` to TRL's config: passed through, checked, and nothing guessed.

Only three things are added where the recipe is silent: loggers that are installed, no second
progress bar, and on a machine without a GPU `use_cpu` and float32.
"""

import importlib.util
import os
from dataclasses import fields
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.train.recipe import StageRecipe, near

try:
    from transformers import TrainingArguments

    from pgenrm.engines.checkpoint import default_device
except ImportError as error:
    raise MissingExtraError("train", "training") from error

C = TypeVar("C", bound=TrainingArguments)

OURS = {
    "output_dir": "--out",
    "seed": "the recipe's own seed",
    "data_seed": "the recipe's own seed",
    "resume_from_checkpoint": "--resume",
    "save_only_model": "nothing: such checkpoints cannot be gone on from",
    "logging_nan_inf_filter": "nothing: a loss that is no number stops the run",
    "model_init_kwargs": "the recipe's table model",
    "chat_template_path": "model.tokenizer",
}
"""Keys that a recipe may not pass, and what says it instead."""
LOGGERS = ("tensorboard", "trackio")


def trl_config(kind: type[C], recipe: StageRecipe, out: Path) -> C:
    """Build TRL's config. Under a launcher, this also connects the processes.

    Raises:
        InputError: a key is unknown or ours to set, or TRL refuses the values.
    """
    known = [f.name for f in fields(kind) if f.init]
    for key in recipe.trl:
        if key not in known:
            raise InputError(f"trl.{key}: {kind.__name__} has no such setting{near(key, known)}")
        if key in OURS:
            raise InputError(f"trl.{key}: not here; it is set by {OURS[key]}")
    given: dict[str, Any] = {**_defaults(out), **recipe.trl}
    given |= {"output_dir": str(out), "seed": recipe.seed, "logging_nan_inf_filter": False}
    for name in ("FSDP", "DEEPSPEED"):  # accelerate would train whole copies and not say so
        is_asked = os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true"
        if is_asked and given.get("use_cpu"):
            raise InputError(f"accelerate has no {name} without a GPU; launch with --multi_gpu")
    try:
        return kind(**given)
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(f"{kind.__name__} refuses the recipe's table trl: {error}") from error


def _name_of(out: Path) -> str:
    """Name a run by its directory and where that is: Trackio takes runs of one name for one."""
    return f"{out.name}-{blake2b(str(out.resolve()).encode(), digest_size=3).hexdigest()}"


def _defaults(out: Path) -> dict[str, Any]:
    found = {
        "report_to": [name for name in LOGGERS if importlib.util.find_spec(name)],
        "project": "pgenrm",
        "run_name": _name_of(out),
        "disable_tqdm": True,
    }
    if default_device() == "cpu":
        found |= {"use_cpu": True, "bf16": False}
    return found
