"""Stage 2, Criteria-based Reasoning Enhancement: GRPO by process and outcome (paper, section 3.2).

The prompt holds query, responses and a few past choices, but no criteria: the model must find them.
R = alpha * process + beta * outcome, and a small loss for a chain that cannot be read. This file is
the stage from end to end; `grpo` says what is added to TRL's trainer, `rewards` what is rewarded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.prompts import Template
from pgenrm.rows import load_value, read_comparisons
from pgenrm.seeding import rng
from pgenrm.train.blocks import Draw, uniform_draw
from pgenrm.train.grpo import ChainTrainer, grpo_config, n_prompts
from pgenrm.train.grpo_callbacks import ConstantRewardCallback, SampleWriter
from pgenrm.train.loop import recorded_end, run_to_end
from pgenrm.train.models import (
    check_chat_template,
    check_model,
    context_window,
    load_model,
    load_tokenizer,
    lora_config,
    model_config,
)
from pgenrm.train.record import (
    RunRecord,
    fingerprint_files,
    finished_run,
    note_facts,
    read_record,
    start_run,
    take_back,
    write_whole,
)
from pgenrm.train.rewards import CoverageJudge, Criteria, format_error, outcome, process_reward
from pgenrm.train.rl_recipe import GrpoRecipe, RlRecipe
from pgenrm.train.rl_rows import prompt_rows, with_criteria
from pgenrm.train.rows import find_files
from pgenrm.types import Comparison, Failure, Message, Value

try:
    import datasets
    from transformers import PreTrainedTokenizerBase, PrinterCallback
    from trl import GRPOConfig

    from pgenrm.train.callbacks import GuardCallback, MetricsCallback, ProgressCallback
except ImportError as error:
    raise MissingExtraError("train", "training") from error

CriteriaOf = Callable[[Sequence[Comparison]], Criteria]
CRITERIA_FILE = "criteria.json"


def train_rl(
    recipe: RlRecipe,
    out: Path,
    *,
    judge: CoverageJudge | None = None,
    command: Sequence[str] = (),
    resume: bool = False,
    console: Console | None = None,
) -> RunRecord:
    """Train a model to find a user's criteria and to judge by them.

    Leaves in `out`: run.json, metrics.jsonl, chart.svg, prompts.parquet (with the order of each),
    samples.jsonl where the recipe asks for them, checkpoints, and the weights in `model/`. Under
    `accelerate launch` every process calls this.

    Args:
        recipe: all that the run is told.
        out: the run's directory.
        judge: what the recipe's `judge` names; the caller builds and closes it.
        command: what was typed, for run.json.
        resume: go on with the run in `out`; where there is none, start it, and where it is
            finished, do nothing.
        console: where a progress bar is shown; None: nowhere.

    Raises:
        InputError: recipe, model and data do not go together, or `out` holds another run.
        TrainingError: the run had to stop; run.json says why, and where it can go on from.
    """
    if done := finished_run(out, recipe, resume=resume):
        return done
    if (judge is None) != (recipe.judge is None):
        raise InputError("the recipe's judge and the one given do not go together")
    rewards: dict[Callable[..., Any], float] = {outcome: recipe.beta, format_error: 1.0}
    if judge is not None:
        rewards = {process_reward(judge): recipe.alpha, **rewards}
    config = grpo_config(recipe, out, reward_weights=list(rewards.values()))
    prompts = load_prompts(recipe, config)
    trainer = start_trainer(
        recipe,
        out,
        config,
        prompts,
        criteria_of=judge.criteria if judge else None,
        rewards=list(rewards),
        draw=uniform_draw(len(prompts.dataset), n_prompts(config), recipe.seed),
        command=command,
        resume=resume,
        console=console,
    )
    return run(trainer, recipe, out)


# ---------------------------------------------------------------- shared with the curriculum


@dataclass(frozen=True)
class Prompts:
    """What a run of reinforcement learning samples chains for."""

    dataset: datasets.Dataset
    """See `pgenrm.train.rl_rows.prompt_rows`."""
    comparisons: list[Comparison]
    """That they were made of, and others that were left out."""
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    facts: dict[str, Any]
    """For run.json."""


def load_prompts(recipe: GrpoRecipe, config: GRPOConfig) -> Prompts:
    """Read comparisons and make prompts of them that fit the model.

    Under `data.limit` comparisons are drawn: files are mostly sorted by user, and the first ones
    would be those of few.

    Raises:
        InputError: there are none, or a model, tokenizer or template that does not fit them.
    """
    tokenizer = load_tokenizer(recipe.model)
    check_chat_template(tokenizer, recipe.model.name)
    n_parameters = check_model(recipe.model, tokenizer)
    shape = model_config(recipe.model, tokenizer)
    if recipe.rollouts == "nano":
        from pgenrm.train import nano_rollouts  # of another extra

        nano_rollouts.check_shape_of(shape, recipe.model.name)
    bounds = (
        recipe.max_tokens,
        context_window(shape),
        config.vllm_max_model_length,
    )
    window = min((n for n in bounds if n is not None), default=None)
    assert config.max_completion_length is not None  # TRL's own default is a number
    if window is not None and window <= config.max_completion_length:
        raise InputError(
            f"trl.max_completion_length is {config.max_completion_length}, but prompt and chain "
            f"together have {window} tokens (max_tokens, or what {recipe.model.name} attends to)"
        )

    def count_tokens(messages: Sequence[Message]) -> int:
        text = tokenizer.apply_chat_template(
            [m.model_dump() for m in messages], tokenize=False, add_generation_prompt=True
        )
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    files = find_files(recipe.data)
    comparisons = _drawn(list(read_comparisons(files)), recipe.data.limit, recipe.seed)
    fingerprint = fingerprint_files(
        [*files, *_besides(recipe)], recipe.data.split, recipe.data.limit
    )
    dataset = prompt_rows(
        comparisons,
        template=Template.load(recipe.template),
        n_history=recipe.n_history,
        seed=recipe.seed,
        count_tokens=count_tokens,
        budget_tokens=None if window is None else window - config.max_completion_length,
        drops_long=recipe.data.too_long == "drop",
    )
    return Prompts(
        dataset,
        comparisons,
        tokenizer,
        fingerprint,
        facts={
            "n_parameters": n_parameters,
            "n_rows": len(dataset),
            "n_users": len({c.user.id for c in comparisons}),
            "n_dropped_rows": len(comparisons) - len(dataset),
            "n_rows_with_cut_prompts": sum(map(bool, dataset["cuts"])),
        },
    )


def start_trainer(
    recipe: GrpoRecipe,
    out: Path,
    config: GRPOConfig,
    prompts: Prompts,
    *,
    criteria_of: CriteriaOf | None = None,
    rewards: list[Callable[..., Any]],
    draw: Draw,
    command: Sequence[str],
    resume: bool,
    console: Console | None,
) -> ChainTrainer:
    """Write run.json, ask what users want, and load the model into a trainer.

    From here on a run that ends, ends in run.json: the judge or a server of vLLM may be dead.

    Raises:
        InputError: `out` holds another run, or the model cannot be loaded.
        TrainingError: `criteria_of` could not be answered.
    """
    is_main = config.process_index == 0
    with config.main_process_first(local=False, desc="writing run.json"):
        if is_main:
            start_run(
                out,
                recipe,
                data_fingerprint=prompts.fingerprint,
                command=command,
                resume=resume,
                n_processes=config.world_size,
                facts=prompts.facts,
            )
    try:
        with recorded_end(out, is_main=is_main):
            dataset = prompts.dataset
            if criteria_of is not None:
                dataset = _with_criteria(recipe, out, config, prompts, criteria_of)
            if is_main:
                dataset.to_parquet(str(out / "prompts.parquet"))
            return _trainer(recipe, out, config, dataset, prompts.tokenizer, rewards, draw, console)
    except InputError:
        if is_main:
            take_back(out)
        raise


def _trainer(
    recipe: GrpoRecipe,
    out: Path,
    config: GRPOConfig,
    dataset: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    rewards: list[Callable[..., Any]],
    draw: Draw,
    console: Console | None,
) -> ChainTrainer:
    write = None
    if recipe.rollouts == "nano":
        from pgenrm.train import nano_rollouts

        write = nano_rollouts.write_completions
    trainer = ChainTrainer(
        model=load_model(recipe.model, tokenizer, recipe.seed),
        reward_funcs=rewards,
        args=config,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=lora_config(recipe.model.lora),
        callbacks=[
            MetricsCallback(out),
            GuardCallback(out),
            ConstantRewardCallback(),
            ProgressCallback(console or Console(quiet=True)),
        ],
        draw=draw,
        write=write,
    )
    trainer.remove_callback(PrinterCallback)
    if recipe.samples is not None:
        writer = SampleWriter(out, recipe.samples)
        trainer.add_callback(writer)
        trainer.observers.append(writer)
    return trainer


def run(trainer: ChainTrainer, recipe: GrpoRecipe, out: Path) -> RunRecord:
    """Train to the end, and return the record."""
    template = Path(recipe.template)
    run_to_end(trainer, out, template if template.is_file() else None)
    record = read_record(out)
    assert record is not None  # written before the first step
    return record


def _besides(recipe: GrpoRecipe) -> list[Path]:
    """Return the files beside the data that decide about prompts and rewards."""
    judge = getattr(recipe, "judge", None)
    world = [Path(judge.world) / "card.json"] if judge and judge.world else []
    return [path for path in (Path(recipe.template), *world) if path.is_file()]


def _drawn(comparisons: list[Comparison], limit: int | None, seed: int) -> list[Comparison]:
    if limit is None or limit >= len(comparisons):
        return comparisons
    places = rng("limit", seed).choice(len(comparisons), limit, replace=False)
    return [comparisons[i] for i in sorted(places.tolist())]


class _Kept(Value):
    """What criteria.json holds."""

    asked_for: str
    """Data and judge that they are of."""
    criteria: dict[str, tuple[str, ...] | Failure]


def _with_criteria(
    recipe: GrpoRecipe, out: Path, config: GRPOConfig, prompts: Prompts, criteria_of: CriteriaOf
) -> datasets.Dataset:
    """Ask what users want; it stays in `out`, so that a resumed run is rewarded by the same."""
    with config.main_process_first(local=False, desc="asking for criteria"):
        criteria = _kept(
            out / CRITERIA_FILE,
            f"{prompts.fingerprint} {getattr(recipe, 'judge', None)!r}",
            partial(criteria_of, prompts.comparisons),
        )
    dataset = with_criteria(prompts.dataset, criteria)
    if config.process_index == 0:
        n_unknown = sum(isinstance(found, Failure) for found in criteria.values())
        n_known = sum(map(bool, dataset["criteria"]))
        facts = {"n_rows_with_criteria": n_known, "n_users_without_criteria_by_failure": n_unknown}
        note_facts(out, facts)
    return dataset


def _kept(path: Path, asked_for: str, ask: Callable[[], Criteria]) -> Criteria:
    """Return the criteria of a run; they are asked for once."""
    if path.exists():
        kept = load_value(path, _Kept)
        if kept.asked_for == asked_for:
            return kept.criteria
    found = _Kept(asked_for=asked_for, criteria=dict(ask()))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, found.model_dump_json(indent=2) + "\n")
    return found.criteria
