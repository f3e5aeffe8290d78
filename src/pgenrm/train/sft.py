"""Stage 1, Persona-guided Scoring Induction: learn to write chains from kept ones (section 3.2).

TRL's `SFTTrainer` does the work; the loss is on the completion. The same command trains a new model
from random weights on texts and short practice tasks. This file is the stage from end to end; what
TRL is told beside the recipe stands in `trl_config`, what happens beside the steps in `callbacks`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pgenrm.errors import MissingExtraError
from pgenrm.train.loop import run_to_end
from pgenrm.train.models import (
    check_model,
    context_window,
    load_model,
    load_tokenizer,
    lora_config,
    model_config,
)
from pgenrm.train.recipe import SampleSpec, SftRecipe
from pgenrm.train.record import RunRecord, finished_run, read_record, start_run
from pgenrm.train.rows import Rows, load_rows
from pgenrm.train.sampler import EpochSampler
from pgenrm.train.samples import chain_writer

try:
    import datasets
    import torch
    from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState
    from transformers.utils.logging import disable_progress_bar
    from trl import SFTConfig, SFTTrainer

    from pgenrm.train.callbacks import (
        GuardCallback,
        MetricsCallback,
        ProgressCallback,
        SampleCallback,
    )
    from pgenrm.train.muon import MuonAdamW
    from pgenrm.train.trl_config import trl_config
except ImportError as error:
    raise MissingExtraError("train", "training") from error

logger = logging.getLogger(__name__)


def train_sft(
    recipe: SftRecipe,
    out: Path,
    *,
    command: Sequence[str] = (),
    resume: bool = False,
    console: Console | None = None,
) -> RunRecord:
    """Fine-tune a model on chains, or train a new one on texts.

    Leaves in `out`: run.json, metrics.jsonl, chart.svg, samples.jsonl where the recipe asks for
    them, checkpoints, and the weights in `model/`. Under `accelerate launch` every process calls
    this.

    Args:
        recipe: all that the run is told.
        out: the run's directory.
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
    console = console or Console(quiet=True)
    if not console.is_terminal:
        datasets.disable_progress_bars()
        disable_progress_bar()  # type: ignore[no-untyped-call]
    config = trl_config(SFTConfig, recipe, out)
    tokenizer = load_tokenizer(recipe.model)
    n_parameters = check_model(recipe.model, tokenizer)
    window = _window(config, context_window(model_config(recipe.model, tokenizer)))
    with config.main_process_first(desc="reading rows"):
        rows = load_rows(recipe.data, tokenizer, window, recipe.model.name)
        held_out = (
            load_rows(recipe.eval, tokenizer, window, recipe.model.name) if recipe.eval else None
        )
    if "completion_mask" in rows.columns_to_train and config.completion_only_loss is None:
        config.completion_only_loss = True  # TRL sees this by itself only for texts
    trainer = _Trainer(
        model=load_model(recipe.model, tokenizer, recipe.seed),
        args=config,
        train_dataset=rows.dataset.select_columns(rows.columns_to_train),
        eval_dataset=held_out.dataset.select_columns(held_out.columns_to_train)
        if held_out
        else None,
        processing_class=tokenizer,
        peft_config=lora_config(recipe.model.lora),
        callbacks=[MetricsCallback(out), GuardCallback(out), ProgressCallback(console)],
        muon_momentum=recipe.muon_momentum,
    )
    trainer.remove_callback(PrinterCallback)
    if recipe.samples is not None:
        _add_samples(trainer, recipe.samples, rows, recipe.seed, out)
    if config.process_index == 0:
        start_run(
            out,
            recipe,
            data_fingerprint="+".join(r.fingerprint for r in (rows, held_out) if r),
            command=command,
            resume=resume,
            n_processes=config.world_size,
            facts=_facts(rows, n_parameters),
        )
    run_to_end(trainer, out)
    record = read_record(out)
    assert record is not None  # written before the first step
    return record


class _Trainer(SFTTrainer):
    """TRL's trainer, with rows in an order that a resumed run repeats, and Muon where asked for."""

    def __init__(self, *args: Any, muon_momentum: float | None, **kwargs: Any) -> None:
        self._muon_momentum = muon_momentum
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self._muon_momentum is None or self.optimizer is not None:
            return super().create_optimizer(model)
        trained: Any = self.model if model is None else model
        self.optimizer = MuonAdamW(
            trained,
            lr=self.args.learning_rate,
            weight_decay=self.args.weight_decay,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            momentum=self._muon_momentum,
        )
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy == "sequential":
            return super()._get_train_sampler(train_dataset)
        is_grouped = self.args.train_sampling_strategy == "group_by_length"
        n_accumulated = self.args.gradient_accumulation_steps * self.args.world_size
        sampler = EpochSampler(
            len(rows),
            self.args.seed,
            lengths=[len(ids) for ids in rows["input_ids"]] if is_grouped else None,
            n_batch=self.args.train_batch_size * n_accumulated,
        )
        self.add_callback(_EpochCallback(sampler))
        return sampler


class _EpochCallback(TrainerCallback):
    """Tell the sampler which epoch begins; accelerate does not reach it in a resumed run."""

    def __init__(self, sampler: EpochSampler) -> None:
        self._sampler = sampler

    def on_epoch_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._sampler.set_epoch(int(state.epoch or 0))


def _window(config: SFTConfig, context: int | None) -> int | None:
    """Return the tokens that a row may have; packed rows are cut by TRL as it says."""
    bounds = [n for n in (context, None if config.packing else config.max_length) if n is not None]
    return min(bounds, default=None)


def _facts(rows: Rows, n_parameters: int) -> dict[str, Any]:
    return {
        "n_parameters": n_parameters,
        "n_rows": len(rows.n_tokens),
        "n_dropped_rows": rows.n_dropped,
        "n_tokens": sum(rows.n_tokens),
        "n_prompt_tokens": sum(rows.n_prompt_tokens),
        "longest_row_tokens": max(rows.n_tokens),
    }


def _add_samples(trainer: Any, spec: SampleSpec, rows: Rows, seed: int, out: Path) -> None:
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        logger.warning("no samples: the weights are spread over processes, and one cannot write")
        return
    write = chain_writer(trainer.model, trainer.processing_class, rows.dataset, spec, seed)
    trainer.add_callback(SampleCallback(out, spec.every, write))
