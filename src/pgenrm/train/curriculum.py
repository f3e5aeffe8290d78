"""Stage 3, hard-negative-aware curriculum: GRPO on ever more hard pairs (paper, section 3.2).

Rewarded are outcome and format only. The model's own failures say which pairs are hard, before the
first step and every so often after; `hardness` has the definition, the schedule and the draw. This
file is the stage from end to end.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.seeding import derive_seed
from pgenrm.train.blocks import first_free_block, n_blocks
from pgenrm.train.callbacks import ProgressCallback, append_row, read_rows, write_rows
from pgenrm.train.grpo import ChainTrainer, Rollouts, grpo_config, n_prompts
from pgenrm.train.hardness import CurriculumDraw, Estimate, HardnessLog, hardness
from pgenrm.train.record import RunRecord, finished_run
from pgenrm.train.rewards import format_error, margin, outcome, read_chain
from pgenrm.train.rl import load_prompts, run, start_trainer
from pgenrm.train.rl_recipe import CurriculumRecipe

try:
    import torch
    from accelerate.utils import gather_object
    from datasets import Dataset
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise MissingExtraError("train", "training") from error

HARDNESS_FILE = "hardness.jsonl"
PROBE_FILE = "hardness-{}.jsonl"
"""Of each process, while an estimate is under way."""


def train_curriculum(
    recipe: CurriculumRecipe,
    out: Path,
    *,
    command: Sequence[str] = (),
    resume: bool = False,
    console: Console | None = None,
) -> RunRecord:
    """Train a model on a rising share of the pairs that it fails at.

    Leaves in `out` what `train_rl` does, and hardness.jsonl with all estimates.

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
    config = grpo_config(
        recipe, out, reward_weights=[1.0, 1.0], num_generations_eval=recipe.hardness.n_samples
    )
    n_completions = config.per_device_eval_batch_size * config.world_size
    if n_completions % recipe.hardness.n_samples:
        raise InputError(
            f"hardness.n_samples is {recipe.hardness.n_samples}, which does not divide the "
            f"{n_completions} completions of trl.per_device_eval_batch_size on "
            f"{config.world_size} processes; change one of the two"
        )
    if config.dataloader_num_workers:
        raise InputError(
            f"trl.dataloader_num_workers is {config.dataloader_num_workers}, but the curriculum "
            "decides late which pairs come next; leave it at 0"
        )
    prompts = load_prompts(recipe, config)
    ids = prompts.dataset["id"]
    if len(ids) < 2:
        raise InputError("one pair cannot be told into hard and easy; give more comparisons")
    log = HardnessLog(out / HARDNESS_FILE, ids, recipe.hardness.hard_fraction, recipe.seed)
    draw = CurriculumDraw(
        log,
        recipe.schedule,
        n_blocks=n_blocks(config),
        n_prompts=n_prompts(config),
        seed=recipe.seed,
    )
    trainer = start_trainer(
        recipe,
        out,
        config,
        prompts,
        rewards=[outcome, format_error],
        draw=draw,
        command=command,
        resume=resume,
        console=console,
    )
    trainer.observers.append(_Mix(log, draw))
    probe = _Probe(trainer, prompts.dataset, log, recipe)
    trainer.observers.append(probe.see)
    trainer.add_callback(probe)
    return run(trainer, recipe, out)


class _Mix:
    """Log how many hard pairs were planned and are there, and how hard pairs are on average."""

    def __init__(self, log: HardnessLog, draw: CurriculumDraw) -> None:
        self._log = log
        self._draw = draw

    def __call__(self, rollouts: Rollouts) -> dict[str, float]:
        if rollouts.block is None:
            return {}
        hard = self._log.hard_ids(rollouts.block)
        return {
            "hard_share_planned": self._draw.share(rollouts.block),
            "hard_share_seen": sum(r["id"] in hard for r in rollouts.rows) / len(rollouts.rows),
            "hardness_mean": fmean(self._log.known(rollouts.block).values()),
        }


Seen = dict[str, list[tuple[bool, float | None]]]
"""Id of a comparison -> of each of its chains whether it failed, and its margin if it is
readable."""


class _Probe(TrainerCallback):
    """Estimate hardness: sample K chains for pairs, and see how often they fail.

    Random numbers are drawn beside those of the training, which therefore does not depend on when a
    run was killed. Every process keeps the batches of an estimate as they come, so that a killed
    one goes on, too.
    """

    def __init__(
        self, trainer: ChainTrainer, rows: Dataset, log: HardnessLog, recipe: CurriculumRecipe
    ) -> None:
        self._trainer = trainer
        self._rows = rows
        self._log = log
        self._spec = recipe.hardness
        self._seed = recipe.seed
        self._path = log.path.with_name(PROBE_FILE.format(trainer.args.process_index))
        self._seen: Seen = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at all pairs, unless a run is resumed that has done so."""
        self._log.rewind(state.global_step)
        if not self._log.estimates:
            self._estimate(0, None)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look again when it is time."""
        if state.global_step % self._spec.every == 0 and state.global_step < state.max_steps:
            self._estimate(state.global_step, self._spec.n_pairs)

    def _shown(self, batches: Any) -> Iterator[Any]:
        """Yield the batches, with a bar of their own where somebody watches."""
        for callback in self._trainer.callback_handler.callbacks:
            if isinstance(callback, ProgressCallback):
                return callback.track(batches, "how hard pairs are", len(batches))
        return iter(batches)

    def see(self, rollouts: Rollouts) -> Mapping[str, float]:
        """Keep what became of chains that are not trained on; an `Observer`."""
        if rollouts.block is None:
            for row, text, won in zip(
                rollouts.rows, rollouts.texts, rollouts.rewards["outcome"], strict=True
            ):
                read = read_chain(text, len(row["order"]))
                points = margin(read, row["label"]) if read else None
                self._seen.setdefault(row["id"], []).append((won != 1, points))
        return {}

    def _estimate(self, step: int, n_pairs: int | None) -> None:
        trainer = self._trainer
        rows = self._rows.select(self._log.stalest(n_pairs))
        done = [row for row in read_rows(self._path) if row["step"] == step]
        n_done = min(gather_object([len(done)]))  # all processes go through a batch together
        own = [row["seen"] for row in done[:n_done]]
        write_rows(self._path, done[:n_done])
        was_training, beta = trainer.model.training, trainer.beta
        trainer.model.eval()
        trainer.beta = 0.0  # or the reference would read all chains, for nothing
        with torch.random.fork_rng():
            for k, batch in enumerate(self._shown(trainer.get_eval_dataloader(rows))):
                if k >= n_done:
                    self._seen = {}
                    torch.manual_seed(
                        derive_seed(self._seed, "probe", step, trainer.args.process_index, k)
                    )
                    trainer._prepare_inputs(batch)  # samples and rewards, without a loss
                    append_row(self._path, {"step": step, "seen": self._seen})
                    own.append(self._seen)
        trainer.model.train(was_training)
        trainer.beta = beta
        trainer._metrics["eval"].clear()
        whole: Seen = {}
        for round_ in zip(*gather_object([own]), strict=True):  # in the order of the rows
            for id_, samples in chain.from_iterable(part.items() for part in round_):
                whole.setdefault(id_, []).extend(samples)
        found = {}
        for id_, samples in whole.items():
            samples = samples[: self._spec.n_samples]  # the last round is filled up with more
            margins = [points for _, points in samples if points is not None]
            found[id_] = hardness([failed for failed, _ in samples], margins, self._spec)
        self._log.add(
            Estimate(step=step, from_block=first_free_block(step, trainer.args), hardness=found),
            writes=trainer.is_world_process_zero(),
        )
        trainer.accelerator.wait_for_everyone()
        self._path.unlink()
