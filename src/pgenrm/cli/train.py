"""`pgenrm train`: chains to learn from, and the three stages of training.

torch and TRL are imported when a command runs.
"""

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from pgenrm.cli.train_chains import chains_command
from pgenrm.cli.train_rl import Out, Overrides, Resume, curriculum_command, rl_command
from pgenrm.train.recipe import SftRecipe, load_recipe, recipe_text, shipped_recipes

train_app = typer.Typer(
    name="train",
    help="Train a judge: write chains, learn from them, then by reward.",
    no_args_is_help=True,
)


@train_app.command("sft")
def sft_command(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A TOML file, or a shipped one, e.g. sft/llama-3.1-8b; `pgenrm train recipes` "
            "lists them.",
            show_default=False,
        ),
    ],
    out: Out,
    overrides: Overrides = None,
    resume: Resume = False,
) -> None:
    """Fine-tune a model on chains, or train a new one on texts.

    Example: pgenrm train sft sft/llama-3.1-8b --set data.path=runs/chains --out runs/sft

    On several GPUs: accelerate launch --config_file fsdp.yaml -m pgenrm train sft ...
    """
    resolved = load_recipe(recipe, SftRecipe, overrides or ())  # before torch, which takes seconds
    from pgenrm.train.sft import train_sft

    record = train_sft(
        resolved,
        out,
        command=sys.argv,
        resume=resume,
        console=Console(stderr=True),
    )
    if os.environ.get("RANK", "0") == "0":
        Console(stderr=True).print(
            f"{record.status.value}: {out / 'model'}", markup=False, highlight=False, soft_wrap=True
        )


@train_app.command("recipes")
def recipes_command(
    name: Annotated[
        str | None,
        typer.Argument(help="Of the recipe to print; without it, all are listed."),
    ] = None,
) -> None:
    """List the recipes and accelerate configs that come with pgenrm, or print one to start from.

    Example: pgenrm train recipes accelerate/fsdp-8 > fsdp.yaml
    """
    print(recipe_text(name).rstrip() if name else "\n".join(shipped_recipes()))  # noqa: T201


train_app.command("chains")(chains_command)
train_app.command("rl")(rl_command)
train_app.command("curriculum")(curriculum_command)
