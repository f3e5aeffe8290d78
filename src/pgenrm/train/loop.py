"""The run itself: from the last good checkpoint to the weights, whatever happens on the way.

All three stages train here. A run ends in one of three states, written to run.json: finished, with
the weights in `model/`; failed, with the reason; or interrupted. A killed one stays `running`. Each
of the last three can be resumed.
"""

import errno
import json
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pgenrm.errors import MissingExtraError, PgenrmError, TrainingError
from pgenrm.train.callbacks import ProgressCallback
from pgenrm.train.chart import draw_run
from pgenrm.train.record import (
    MODEL_DIR,
    STATE_FILE,
    RunStatus,
    checkpoints,
    finish_run,
    is_complete,
    last_checkpoint,
    read_record,
)

try:
    from safetensors import SafetensorError
    from transformers import Trainer

    from pgenrm.engines.checkpoint import TEMPLATE_FILE
except ImportError as error:
    raise MissingExtraError("train", "training") from error

logger = logging.getLogger(__name__)

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TO_RESUME = (
    *("trainer_state.json", "optimizer*", "scheduler.pt", "scaler.pt", "rng_state*"),
    *("pytorch_model_fsdp*", "global_step*", "latest", "zero_to_fp32.py"),  # FSDP, DeepSpeed
)
"""What a checkpoint holds beside the weights."""
TORCH_WRITER = ("PytorchStreamWriter", "inline_container.cc")
"""In the messages of torch's own writer, which raises plain RuntimeErrors."""


def run_to_end(trainer: Trainer, out: Path, template: Path | None = None) -> None:
    """Train, keep the weights, draw the chart, and say how it ended.

    Goes on from the last good checkpoint where there is one. Call `start_run` before.

    Args:
        trainer: knows model and data.
        out: the run's directory.
        template: a prompt of the user's own, which is kept with the weights for the local engine.

    Raises:
        TrainingError: a loss is no number, or the disk is full; the last good checkpoint is kept.
    """
    is_main = trainer.is_world_process_zero()
    start = last_checkpoint(out)
    trainer.accelerator.wait_for_everyone()
    if is_main:
        remove_unfinished(out)
    with recorded_end(out, is_main=is_main):
        try:
            if start is not None and _is_last(start):  # killed before the weights were in model/
                if is_main:
                    copy_weights(start, out, template)
            else:
                trainer.train(resume_from_checkpoint=None if start is None else str(start))
                save_model(trainer, out, template)
        finally:
            _take_bars_away(trainer)
        if is_main:
            draw_run(out)
            finish_run(out, RunStatus.FINISHED)
    trainer.accelerator.wait_for_everyone()


@contextmanager
def recorded_end(out: Path, *, is_main: bool) -> Iterator[None]:
    """Write into run.json why a run ends, where what happens inside raises.

    Of several processes each may be the first to fail; the others then fail by its end, and say so.

    Raises:
        TrainingError: the disk is full, or another process has failed before.
    """
    try:
        yield
    except BaseException as error:
        cause = _full_disk(error, out) or _failed_before(error, out)
        if is_main:
            remove_unfinished(out)  # makes room, too
        _end_badly(out, cause or error)
        if cause is not None:
            raise cause from error
        raise


def save_model(trainer: Trainer, out: Path, template: Path | None = None) -> None:
    """Write weights and tokenizer to `out/model`, all of it or nothing."""
    partial = out / f"{MODEL_DIR}.partial"
    trainer.save_model(str(partial))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        if not partial.is_dir():  # FSDP that saves shards alone
            raise TrainingError(
                f"no weights came out at the end of {out}; set fsdp_state_dict_type: "
                "FULL_STATE_DICT in the accelerate config, then go on with --resume"
            )
        _publish(partial, out, template)


def copy_weights(checkpoint: Path, out: Path, template: Path | None = None) -> None:
    """Write the weights and the tokenizer of a checkpoint to `out/model`."""
    partial = out / f"{MODEL_DIR}.partial"
    shutil.copytree(checkpoint, partial, ignore=shutil.ignore_patterns(*TO_RESUME))
    _publish(partial, out, template)


def remove_unfinished(out: Path) -> None:
    """Remove checkpoints and weights that were not written to their end."""
    for checkpoint in checkpoints(out):
        if not is_complete(checkpoint):
            logger.warning("%s was not written to its end; removed", checkpoint)
            shutil.rmtree(checkpoint, ignore_errors=True)  # another process may still write
    shutil.rmtree(out / f"{MODEL_DIR}.partial", ignore_errors=True)
    for left in filter(Path.is_file, out.glob("*.partial")):  # of files that are written whole
        left.unlink(missing_ok=True)


def _publish(partial: Path, out: Path, template: Path | None) -> None:
    if template is not None:
        shutil.copyfile(template, partial / TEMPLATE_FILE)
    shutil.rmtree(out / MODEL_DIR, ignore_errors=True)
    partial.replace(out / MODEL_DIR)


def _is_last(checkpoint: Path) -> bool:
    """Whether all steps are done; the trainer, resumed there, would do one more."""
    state = json.loads((checkpoint / STATE_FILE).read_bytes())
    return bool(state["global_step"] >= state["max_steps"])


def _end_badly(out: Path, error: BaseException) -> None:
    is_stopped = isinstance(error, KeyboardInterrupt)
    status = RunStatus.INTERRUPTED if is_stopped else RunStatus.FAILED
    reason = "stopped by Ctrl-C" if is_stopped else f"{type(error).__name__}: {error}"
    for _ in range(2):
        try:
            record = read_record(out)
            if record is not None and record.status is RunStatus.RUNNING:
                finish_run(out, status, reason)
            return
        except OSError as full:
            logger.error("run.json could not be written either: %s", full)
            remove_unfinished(out)  # in any process: no checkpoint is finished on a full disk


def _full_disk(error: BaseException, out: Path) -> TrainingError | None:
    """Tell whether writing failed, which each library reports in its own way."""
    seen: BaseException | None = error
    while seen is not None:
        is_full = (
            (isinstance(seen, OSError) and seen.errno in FULL)
            or (isinstance(seen, SafetensorError) and "deserializ" not in str(seen))
            or getattr(seen, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            or (isinstance(seen, RuntimeError) and any(w in str(seen) for w in TORCH_WRITER))
        )
        if is_full:
            good = last_checkpoint(out)
            kept = f"{good} is good" if good else "there is no checkpoint yet"
            return TrainingError(
                f"{out} could not be written to ({seen}); {kept}. Make room, then go on with "
                "--resume; trl.save_total_limit keeps fewer checkpoints"
            )
        seen = seen.__cause__ or seen.__context__
    return None


def _failed_before(error: BaseException, out: Path) -> TrainingError | None:
    """Tell whether another process ended the run, of which this one knows a lost connection."""
    record = read_record(out)
    is_plain = isinstance(error, PgenrmError) or not isinstance(error, Exception)
    if is_plain or record is None or record.reason is None:  # one that runs has no reason yet
        return None
    return TrainingError(f"another process ended the run: {record.reason}")


def _take_bars_away(trainer: Any) -> None:
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, ProgressCallback):
            callback.close()
