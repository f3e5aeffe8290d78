"""Make the bundled judge from a seed: `python -m pgenrm.train.bundled` (`make train-nano`).

Tokenizer, exercises, base, plain judge, chains, SFT, CRE, curriculum: each stage stands in a
directory of its own, is left alone once it is finished, and goes on where it was killed. The
recipes are those of `pgenrm train recipes`; the sizes stand here.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from transformers import PreTrainedTokenizerFast

from pgenrm.errors import InputError, PgenrmError
from pgenrm.nano.tokenizer import build
from pgenrm.train.bundled_rows import (
    CURRICULUM_PART,
    N_HISTORY,
    RL_PART,
    WIDE,
    write_plain,
    write_practice,
    write_sec,
    write_world,
)
from pgenrm.train.coverage import WORDS, WorldCoverage
from pgenrm.train.curriculum import train_curriculum
from pgenrm.train.recipe import SftRecipe, load_recipe
from pgenrm.train.rl import train_rl
from pgenrm.train.rl_recipe import CurriculumRecipe, RlRecipe
from pgenrm.train.sft import train_sft


@dataclass(frozen=True)
class Sizes:
    """How much the judge gets to see, and what a run in minutes changes in the recipes."""

    n_exercises: int
    n_plain: int
    """Answers that the plain judge learns from."""
    n_comparisons: int
    """With chains to learn from."""
    n_history: int
    """Past choices in those, at most."""
    n_users: int
    """Of each world of the stages of reinforcement; three in four give twelve comparisons."""
    n_responses: int | None
    """Of each of those; None draws two, three or four."""
    overrides: dict[str, tuple[str, ...]]
    """By stage."""


FULL: Final = Sizes(
    n_exercises=80_000,
    n_plain=14_000,
    n_comparisons=18_000,
    n_users=1_200,
    n_responses=None,
    n_history=N_HISTORY,
    overrides={},
)
_SMALL: Final = (
    "trl.report_to=[]",
    *("trl.max_length=256", "data.too_long=drop"),
    *("trl.per_device_train_batch_size=8", "trl.num_train_epochs=1", "trl.save_steps=100"),
    *("trl.logging_steps=20", "trl.warmup_steps=10", "trl.lr_scheduler_kwargs.num_decay_steps=20"),
)
_FEW_CHAINS: Final = (
    "trl.report_to=[]",
    *("n_history=[0]", "trl.max_completion_length=160"),
    *("trl.per_device_train_batch_size=64", "trl.num_generations=8", "trl.learning_rate=3e-4"),
    *("trl.logging_steps=1", "trl.warmup_steps=2", "samples.every=10"),
)
SMOKE: Final = Sizes(
    n_exercises=2_000,
    n_plain=120,
    n_comparisons=150,
    n_history=0,
    n_users=60,
    n_responses=2,
    overrides={
        "base": (
            *_SMALL,
            *("model.config.hidden_size=128", "model.config.intermediate_size=256"),
            *("model.config.num_hidden_layers=2", "model.config.num_attention_heads=4"),
            "model.config.num_key_value_heads=4",
        ),
        **dict.fromkeys(("plain", "sft"), (*_SMALL, "samples=")),
        "rl": (*_FEW_CHAINS, "trl.max_steps=50", "trl.save_steps=10"),
        "curriculum": (
            *(*_FEW_CHAINS, "trl.max_steps=4", "trl.save_steps=2", "data.limit=64"),
            *("trl.per_device_eval_batch_size=64", "hardness.n_samples=2", "hardness.every=2"),
        ),
    },
)


def make(out: Path, sizes: Sizes, seed: int, console: Console) -> Path:
    """Make the judge and return the directory of its weights.

    Args:
        out: where the stages go.
        sizes: how much of everything.
        seed: of everything.
        console: where progress is shown.

    Raises:
        TrainingError: a stage had to stop; the same call goes on with it.
        InputError: what is in `out` was made in another way.
    """
    tokenizer, ours = out / "tokenizer", build()
    if not tokenizer.exists():
        ours.save_pretrained(tokenizer)
    if PreTrainedTokenizerFast.from_pretrained(tokenizer).get_vocab() != ours.get_vocab():
        raise InputError(f"{out} was begun with other words in its chains; choose another --out")
    console.rule("exercises")
    write_practice(out / "exercises", sizes.n_exercises, seed, os.cpu_count() or 1)
    console.rule("base")
    common = (f"seed={seed}", f"model.tokenizer={tokenizer}")

    def overrides(stage: str, data: Path, *more: str) -> list[str]:
        return [*common, f"data.path={data}", *more, *sizes.overrides.get(stage, ())]

    base = load_recipe("nano/base", SftRecipe, overrides("base", out / "exercises"))
    train_sft(base, out / "base", resume=True, console=console)
    console.rule("plain judge")
    answers = out / "answers" / "train.parquet"
    write_plain(answers, sizes.n_plain, seed)
    plain = overrides("plain", answers, f"model.path={out / 'base/model'}")
    train_sft(
        load_recipe("nano/plain", SftRecipe, plain), out / "plain", resume=True, console=console
    )
    console.rule("chains")
    write_sec(out / "chains", sizes.n_comparisons, seed, n_history=sizes.n_history)
    console.rule("SFT")
    chains = overrides("sft", out / "chains" / "train.parquet", f"model.path={out / 'base/model'}")
    train_sft(load_recipe("nano/sft", SftRecipe, chains), out / "sft", resume=True, console=console)
    console.rule("CRE")
    world = write_world(out / "worlds" / "rl", sizes.n_users, seed, RL_PART, sizes.n_responses)
    rl = overrides("rl", world / WIDE, f"model.path={out / 'sft/model'}", f"judge.world={world}")
    train_rl(
        load_recipe("nano/rl", RlRecipe, rl),
        out / "rl",
        judge=WorldCoverage.load(world, WORDS["nano"]),
        resume=True,
        console=console,
    )
    console.rule("curriculum")
    world = write_world(
        out / "worlds" / "curriculum", sizes.n_users, seed, CURRICULUM_PART, sizes.n_responses
    )
    hard = overrides("curriculum", world / WIDE, f"model.path={out / 'rl/model'}")
    train_curriculum(
        load_recipe("nano/curriculum", CurriculumRecipe, hard),
        out / "curriculum",
        resume=True,
        console=console,
    )
    return out / "curriculum" / "model"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/nano"), help="where stages go")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="minutes, for tests: learns little")
    options = parser.parse_args()
    console = Console()
    try:
        weights = make(options.out, SMOKE if options.smoke else FULL, options.seed, console)
    except PgenrmError as error:
        sys.exit(f"error: {error}")
    console.print(f"{weights}; put it into the package with: python -m pgenrm.nano.pack")


if __name__ == "__main__":
    main()
