"""Judge once at the largest number of chains and keep what the chains say as arrays on disk."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from benchmarks.scaling_study import setting
from numpy.typing import NDArray

from pgenrm import Comparison, PGenRM
from pgenrm.judge import RubricCheck
from pgenrm.scaling.evidence import Chains, Evidence, evidence_of, record_of


@dataclass(frozen=True)
class Job:
    """One pass over comparisons."""

    name: str
    evaluator: str
    h: int
    m: int
    n: int
    split: str = "test"
    k: int | None = setting.TRUE_K
    refinement: str = "refined"
    neighbours: str = "prototypes"
    """Or `random`."""
    history: str = "own"
    """Or `another user's`."""
    statements: bool = False
    n_folds: int = 1

    @property
    def place(self) -> str:
        return (
            f"{self.name}-{self.evaluator}-h{self.h}-m{self.m}-n{self.n}-{self.split}-k{self.k}-"
            f"{self.refinement}-{self.neighbours}-{self.history}-{self.statements}-{self.n_folds}"
        ).replace(" ", "_")


@dataclass(frozen=True)
class Judged:
    """Evidence with whose it is."""

    evidence: Evidence
    labels: NDArray[np.intp]
    users: NDArray[np.str_]
    prototype: NDArray[np.intp]
    """Index of the user's nearest prototype; -1 where none was looked for."""


def given(job: Job, n_test: int) -> list[Comparison]:
    seed = setting.TEST_SEED if job.split == "test" else setting.VALIDATION_SEED
    n = n_test if job.split == "test" else setting.N_VALIDATION
    found = setting.comparisons(seed, n, statements=job.statements)
    return found if job.history == "own" else setting.with_others_history(found)


def judge(job: Job, out: Path, n_test: int) -> Path:
    """Judge and save; what is there already is kept."""
    file = out / "evidence" / f"{job.place}-{n_test}.npz"
    if file.exists():
        return file
    source = None
    if job.n:
        source = (
            setting.RandomNeighbours(setting.stored_users())
            if job.neighbours == "random"
            else setting.prototypes(out, job.evaluator, job.k, job.refinement)
        )
    evaluator = setting.evaluator(job.evaluator)
    rm = PGenRM(
        evaluator,
        job.m,
        job.n,
        neighbours=source,
        rubric_check=RubricCheck(evaluator, n_folds=job.n_folds),
        n_history=job.h,
        seed=setting.JUDGE_SEED,
    )
    records, labels, users, nearest = [], [], [], []
    for judgment in rm.judge(given(job, n_test)):
        records.append(record_of(judgment))
        labels.append(-1 if judgment.label is None else judgment.label)
        users.append(judgment.user_id)
        nearest.append(-1 if judgment.prototype is None else judgment.prototype)
    evidence = evidence_of(records)
    kinds = {"own": evidence.own, "neighbours": evidence.neighbours}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        labels=labels,
        users=users,
        prototype=nearest,
        n_history=evidence.n_history,
        n_responses=evidence.n_responses,
        **{f"{kind}_{f}": getattr(c, f) for kind, c in kinds.items() for f in FIELDS},
    )
    partial.replace(file)
    return file


FIELDS = ("scores", "order", "similarity", "agreement")


def load(job: Job, out: Path, n_test: int) -> Judged:
    with np.load(out / "evidence" / f"{job.place}-{n_test}.npz") as data:
        own, neighbours = (
            Chains(*(data[f"{kind}_{f}"] for f in FIELDS)) for kind in ("own", "neighbours")
        )
        return Judged(
            Evidence(own, neighbours, data["n_history"], data["n_responses"]),
            data["labels"],
            data["users"],
            data["prototype"],
        )


def judge_all(
    jobs: list[Job], out: Path, n_test: int, n_workers: int, say: Callable[[str], None]
) -> None:
    """Judge all jobs, the longest first, in processes of one thread each."""
    started = time.monotonic()
    ordered = sorted(
        jobs,
        key=lambda job: (
            -(job.m + 3 * job.n) * (n_test if job.split == "test" else setting.N_VALIDATION)
        ),
    )
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes when they start
    with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(judge, job, out, n_test): job for job in ordered}
        for n_done, future in enumerate(as_completed(waiting), start=1):
            future.result()
            seconds = time.monotonic() - started
            say(f"{n_done}/{len(jobs)} passes, {seconds:.0f} s: {waiting[future].place}")
