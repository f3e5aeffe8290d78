"""run.json: what a run was told, with what it ran, and how it ended.

It is written before the first step, replaced as a whole, and never left half-written.
"""

import hashlib
import json
import os
import platform
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import Field

import pgenrm
from pgenrm.errors import InputError
from pgenrm.rows import load_value
from pgenrm.train.recipe import StageRecipe, leaves
from pgenrm.types import Value

RUN_FILE = "run.json"
MODEL_DIR = "model"
"""In the run's directory: the weights at the end, loadable like any checkpoint."""
CHECKPOINT = "checkpoint-"
STATE_FILE = "trainer_state.json"
RANDOM_FILE = "rng_state_{}.pth"
"""In a checkpoint: what each of several processes needs to go on."""
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
N_PARTS, N_BYTES = 256, 1 << 16
"""Of a large file of weights so many parts of so many bytes are digested."""
PACKAGES = ("torch", "transformers", "trl", "datasets", "accelerate", "peft", "tokenizers", "numpy")


class RunStatus(StrEnum):
    """What became of a run."""

    RUNNING = "running"
    """Also what a killed run leaves behind."""
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Attempt(Value):
    """One start of a run: the first, or one that resumed it."""

    started: str
    from_step: int
    versions: dict[str, str]
    git_commit: str | None
    """Of pgenrm's own source tree, with `-dirty` where files differ; None outside a checkout."""
    command: tuple[str, ...]


class RunRecord(Value):
    """Everything that is needed to repeat a run, and how it ended."""

    stage: str
    status: RunStatus
    reason: str | None = None
    """Why it failed or was interrupted."""
    recipe: dict[str, Any]
    """As resolved: defaults and overrides included."""
    data_fingerprint: str
    weights_fingerprint: str | None = None
    """Of the weights it started from, where they lie in a directory. Older runs have none."""
    n_processes: int
    attempts: tuple[Attempt, ...]
    ended: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    """What was found before the first step, e.g. numbers of rows, tokens and parameters."""


def finished_run(out: Path, recipe: StageRecipe, *, resume: bool) -> RunRecord | None:
    """Look what `out` holds before anything is loaded; return the record of a finished run.

    Raises:
        InputError: it holds a run and `resume` is False, or one with another recipe or from other
            weights.
    """
    before = read_record(out)
    if before is None:
        return None
    if not resume:
        raise InputError(f"{out} holds a run already; add --resume, or choose another directory")
    now = {
        "recipe": recipe.model_dump(mode="json"),
        "weights_fingerprint": fingerprint_weights(recipe.model.path),
    }
    _check_same(out, before, before.model_copy(update=now))
    return before if before.status is RunStatus.FINISHED else None


def start_run(
    out: Path,
    recipe: StageRecipe,
    *,
    data_fingerprint: str,
    command: Sequence[str],
    resume: bool,
    n_processes: int = 1,
    facts: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Write run.json; call it in the main process, before the first step.

    With `resume`, a directory without a run starts one, so that the same command can always be
    given.

    Raises:
        InputError: the directory holds a run and `resume` is False, or it was started with another
            recipe, weights, data or number of processes; the first differences are named.
    """
    finished_run(out, recipe, resume=resume)
    before = read_record(out)
    now = RunRecord(
        stage=getattr(recipe, "stage", type(recipe).__name__),
        status=RunStatus.RUNNING,
        recipe=recipe.model_dump(mode="json"),
        data_fingerprint=data_fingerprint,
        weights_fingerprint=fingerprint_weights(recipe.model.path),
        n_processes=n_processes,
        attempts=(),
        facts=dict(facts or {}),
    )
    if before is not None:
        _check_same(out, before, now)
    attempt = Attempt(
        started=_now(),
        from_step=step_of(last_checkpoint(out)),
        versions=_versions(),
        git_commit=_git_commit(),
        command=tuple(command),
    )
    out.mkdir(parents=True, exist_ok=True)
    attempts = (*(before.attempts if before else ()), attempt)
    return _write(out, now.model_copy(update={"attempts": attempts}))


def note_facts(out: Path, facts: Mapping[str, Any]) -> RunRecord:
    """Add to run.json what was found after it was written, and before the first step."""
    record = load_value(out / RUN_FILE, RunRecord)
    return _write(out, record.model_copy(update={"facts": {**record.facts, **facts}}))


def take_back(out: Path) -> None:
    """Remove run.json of a run that cannot begin: another recipe in its place would be refused."""
    record = read_record(out)
    if record is not None and len(record.attempts) == 1:
        (out / RUN_FILE).unlink()


def finish_run(out: Path, status: RunStatus, reason: str | None = None) -> RunRecord:
    """Say in run.json how the run ended."""
    record = load_value(out / RUN_FILE, RunRecord)
    ended = {"status": status, "reason": reason, "ended": _now()}
    return _write(out, record.model_copy(update=ended))


def read_record(out: Path) -> RunRecord | None:
    """Read run.json; None where the directory holds no run.

    Raises:
        InputError: it holds something else.
    """
    path = out / RUN_FILE
    return load_value(path, RunRecord) if path.exists() else None


def last_checkpoint(out: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end; None without one."""
    return max((c for c in checkpoints(out) if is_complete(c)), key=step_of, default=None)


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end.

    The first process writes the state file last, and does not wait for the others' random states.
    """
    try:
        json.loads((checkpoint / STATE_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    record = read_record(checkpoint.parent)
    if record is None or record.n_processes == 1:
        return True
    states = [checkpoint / RANDOM_FILE.format(rank) for rank in range(record.n_processes)]
    return all(map(zipfile.is_zipfile, states))  # its directory of contents is written last


def checkpoints(out: Path) -> list[Path]:
    """Return all checkpoints of a run, unfinished ones too."""
    found = out.glob(f"{CHECKPOINT}*") if out.is_dir() else ()
    return [path for path in found if path.name.removeprefix(CHECKPOINT).isdigit()]


def step_of(checkpoint: Path | None) -> int:
    """Return the step at which a checkpoint was saved; 0 for None.

    >>> step_of(Path("runs/sft/checkpoint-120"))
    120
    """
    return int(checkpoint.name.removeprefix(CHECKPOINT)) if checkpoint else 0


def fingerprint_files(paths: Sequence[Path], *parts: object) -> str:
    """Digest the content of files, in order, and what else says which rows are read."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16)
    for path in paths:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def fingerprint_weights(path: str | None) -> str | None:
    """Digest the weights in a directory; None for a name of the hub, and for a new model.

    Parts of large files stand for the whole: training changes every matrix, and to read 70B twice
    takes minutes.
    """
    files = sorted(file for kind in WEIGHTS for file in Path(path).glob(kind)) if path else []
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        size = file.stat().st_size
        digest.update(size.to_bytes(8))
        with file.open("rb") as stream:
            for place in range(0, size, max(N_BYTES, size // N_PARTS)):
                stream.seek(place)
                digest.update(stream.read(N_BYTES))
    return digest.hexdigest() if files else None


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the new one, whoever else writes it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def _write(out: Path, record: RunRecord) -> RunRecord:
    write_whole(out / RUN_FILE, record.model_dump_json(indent=2) + "\n")
    return record


def _check_same(out: Path, before: RunRecord, now: RunRecord) -> None:
    if differences := _differences(before, now):
        raise InputError(
            f"{out} was started otherwise: {'; '.join(differences[:3])}; resume it as it was, or "
            "choose another directory"
        )
    weights = {before.weights_fingerprint, now.weights_fingerprint} - {None}
    if len(weights) > 1:
        raise InputError(
            f"{out} was trained from other weights than are in {now.recipe['model']['path']} now; "
            f"delete {out} to train from those, or choose another directory"
        )


MOVES_NOTHING = {
    *("judge.base_url", "judge.concurrency", "judge.patience_s"),
    *("trl.save_total_limit", "trl.report_to", "trl.vllm_server_host", "trl.vllm_server_port"),
    *("trl.vllm_server_base_url", "trl.vllm_server_timeout"),
}
"""Keys that may differ when a run is resumed: what is learnt does not depend on them."""


def _differences(before: RunRecord, now: RunRecord) -> list[str]:
    old, new = (
        dict(leaves({**r.recipe, "data": {**r.recipe["data"], "content": r.data_fingerprint}}))
        | {"number of processes": r.n_processes}
        for r in (before, now)
    )
    # Through JSON, as what was read back has lists where the other has tuples.
    return [
        f"{key} was {_shown(old.get(key))} and is {_shown(new.get(key))}"
        for key in dict.fromkeys((*old, *new))
        if not key.startswith("sources.")
        and key not in MOVES_NOTHING
        and _shown(old.get(key)) != _shown(new.get(key))
    ]


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _versions() -> dict[str, str]:
    found = {"pgenrm": pgenrm.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(pgenrm.__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # installed inside another's checkout?
        dirty = "-dirty" if git("status", "--porcelain", "--", ".") else ""
        return git("rev-parse", "HEAD") + dirty
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
