"""What happens beside the training steps: numbers kept, samples written, broken steps refused."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pgenrm.errors import MissingExtraError, TrainingError
from pgenrm.train.record import last_checkpoint, write_whole

try:
    import torch
    from transformers import (
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
except ImportError as error:
    raise MissingExtraError("train", "training") from error

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"
Sampler = Callable[[int], list[dict[str, Any]]]
"""Takes the step, lets the model write, and returns one row per prompt."""


class MetricsCallback(TrainerCallback):
    """Append what is logged to metrics.jsonl: step, epoch, and every number of the trainer.

    A number that is none is written as null. Rows behind the checkpoint that a run resumes from are
    taken out first, as those steps are done again.
    """

    def __init__(self, out: Path) -> None:
        self._path = out / METRICS_FILE

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the steps that will be done again."""
        if state.is_world_process_zero:
            keep_steps(self._path, state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep a row."""
        if state.is_world_process_zero and logs:
            numbers = {k: _finite(v) for k, v in logs.items() if isinstance(v, int | float)}
            append_row(self._path, {"step": state.global_step, "epoch": state.epoch, **numbers})


class GuardCallback(TrainerCallback):
    """Stop before a gradient that is no number reaches the weights.

    A loss that is no number gives such a gradient, in every process once gradients are summed.
    Under fp16 the loss scaler meets infinite gradients as a matter of course and skips those steps,
    and DeepSpeed keeps gradients to itself: there, what is logged is watched instead.
    """

    def __init__(self, out: Path) -> None:
        self._out = out

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Look at the gradient.

        Raises:
            TrainingError: some of it is infinite or no number.
        """
        if args.fp16:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        # A shard of its own is what each process can look at without talking to the others.
        norms = [
            torch.linalg.vector_norm(getattr(g, "_local_tensor", g), dtype=torch.float32)
            for g in gradients
        ]
        if norms and not torch.isfinite(torch.stack(norms)).all():
            self._stop("the gradient", state.global_step + 1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at what is logged.

        Raises:
            TrainingError: loss or gradient norm are infinite or no number.
        """
        for name in ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(value):
                self._stop(f"{name} {value}", state.global_step)

    def _stop(self, what: str, step: int) -> None:
        good = last_checkpoint(self._out)
        kept = f"{good} is good" if good else "there is no checkpoint yet"
        raise TrainingError(
            f"{what} is no finite number at step {step}; {kept}. Lower trl.learning_rate or "
            "trl.max_grad_norm, or lengthen trl.warmup_steps, in a new directory"
        )


class SampleCallback(TrainerCallback):
    """Let the model write for a few prompts now and then, into samples.jsonl."""

    def __init__(self, out: Path, every: int, write: Sampler) -> None:
        """Prepare.

        Args:
            out: the run's directory.
            every: steps between samples; also before the first step.
            write: called in the main process alone.
        """
        self._path = out / SAMPLES_FILE
        self._every = every
        self._write = write

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the steps that will be done again; sample the model as it comes."""
        if state.is_world_process_zero:
            keep_steps(self._path, state.global_step)
            if state.global_step == 0:
                self._sample(0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Sample when it is time."""
        if state.is_world_process_zero and state.global_step % self._every == 0:
            self._sample(state.global_step)

    def _sample(self, step: int) -> None:
        for row in self._write(step):
            append_row(self._path, {"step": step, **row})


class ProgressCallback(TrainerCallback):
    """A progress bar with the last loss, where somebody watches."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}", style="cyan"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("training", shown="", total=None)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar."""
        if state.is_world_process_zero:
            self._progress.update(self._task, total=state.max_steps, completed=state.global_step)
            self._progress.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the loss, and the reward where there is one."""
        shown = {k: logs[k] for k in ("loss", "reward") if k in (logs or {})} if logs else {}
        if shown:
            text = "  ".join(f"{name} {value:.3f}" for name, value in shown.items())
            self._progress.update(self._task, shown=text)

    def track(self, rounds: Iterable[Any], what: str, n_rounds: int) -> Iterator[Any]:
        """Yield what is to be done between two steps, under a bar of its own."""
        task = self._progress.add_task(what, total=n_rounds, shown="")
        for one in rounds:
            yield one
            self._progress.advance(task)
        self._progress.remove_task(task)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Take the bar away, also when training broke off."""
        self._progress.stop()


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a JSON Lines file."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a JSON Lines file of a run; a last one that was cut off is left out."""
    if not path.exists():
        return []
    *lines, _ = path.read_text("utf-8").split("\n")  # `splitlines` would split inside texts, too
    return [json.loads(line) for line in lines]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a JSON Lines file anew."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def keep_steps(path: Path, step: int) -> None:
    """Take the rows of steps after `step` out of a file."""
    if path.exists():
        write_rows(path, [row for row in read_rows(path) if row["step"] <= step])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
