"""`pgenrm train rl` and `pgenrm train curriculum`: the two stages of reinforcement learning."""

import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pgenrm.cli.models import ModelOptions, build_evaluator
from pgenrm.errors import InputError
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.train.recipe import load_recipe
from pgenrm.train.rl_recipe import CurriculumRecipe, JudgeSpec, RlRecipe

if TYPE_CHECKING:
    from pgenrm.train.record import RunRecord
    from pgenrm.train.rewards import CoverageJudge

CACHE_FILE = f"judge_cache.{socket.gethostname()}.sqlite"
"""One for each machine: SQLite files are not shared over a network."""

Out = Annotated[Path, typer.Option(help="The run's directory.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Override the recipe: KEY=VALUE, e.g. trl.max_steps=200. May be repeated.",
        show_default=False,
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the last checkpoint in --out, if any.")
]


def rl_command(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A TOML file, or a shipped one, e.g. rl/llama-3.1-8b.", show_default=False
        ),
    ],
    out: Out,
    overrides: Overrides = None,
    resume: Resume = False,
) -> None:
    """Train a model to find a user's criteria by itself: GRPO with process and outcome reward.

    Example: pgenrm train rl rl/llama-3.1-8b --set data.path=runs/world --out runs/rl
    """
    from pgenrm.train.rl import train_rl

    resolved = load_recipe(recipe, RlRecipe, overrides or ())
    judge = build_judge(resolved.judge, out) if resolved.judge else None
    try:
        record = train_rl(
            resolved,
            out,
            judge=judge,
            command=sys.argv,
            resume=resume,
            console=Console(stderr=True),
        )
    finally:
        if judge is not None:
            judge.close()
    _report(out, record)


def curriculum_command(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A TOML file, or a shipped one, e.g. curriculum/llama-3.1-8b.",
            show_default=False,
        ),
    ],
    out: Out,
    overrides: Overrides = None,
    resume: Resume = False,
) -> None:
    """Train a model on ever more of the pairs that it fails at: GRPO by outcome.

    Example: pgenrm train curriculum curriculum/llama-3.1-8b --out runs/curriculum
    """
    from pgenrm.train.curriculum import train_curriculum

    resolved = load_recipe(recipe, CurriculumRecipe, overrides or ())
    record = train_curriculum(
        resolved, out, command=sys.argv, resume=resume, console=Console(stderr=True)
    )
    _report(out, record)


def build_judge(spec: JudgeSpec, out: Path) -> "CoverageJudge":
    """Build the judge of the process reward that a recipe names.

    Raises:
        InputError: it cannot be one.
        EngineError: its model cannot be loaded.
    """
    if spec.world is not None and spec.kind == "world":
        from pgenrm.train.coverage import WORDS, WorldCoverage

        return WorldCoverage.load(Path(spec.world), WORDS[spec.words])
    from pgenrm.train.process_judge import ModelCoverageJudge

    options = ModelOptions(
        model=spec.model or "",
        base_url=spec.base_url,
        concurrency=spec.concurrency,
        extra_body=json.dumps(spec.extra_body),
    )
    evaluator = build_evaluator(options)
    if not isinstance(evaluator, LanguageModelEvaluator):
        raise InputError(f"judge.model {spec.model}: rating criteria takes a language model")
    out.mkdir(parents=True, exist_ok=True)
    return ModelCoverageJudge(evaluator.engine, cache=out / CACHE_FILE, patience_s=spec.patience_s)


def _report(out: Path, record: "RunRecord") -> None:
    if os.environ.get("RANK", "0") != "0":
        return
    Console(stderr=True).print(
        f"{record.status.value}: {out / 'model'}", markup=False, highlight=False, soft_wrap=True
    )
