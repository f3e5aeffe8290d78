"""From records to numbers: accuracy in several readings, calibration and cost of every method.

Headline: correct / all comparisons, so that ties, unscored and missing ones count as wrong. Where a
method was run with several seeds, a comparison counts the share of the runs that were right.
Intervals are over users (`pgenrm.bench.statistics`), differences paired.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from pgenrm.accuracy import OUTCOMES
from pgenrm.bench.confidence import calibration
from pgenrm.bench.counting import Counted, Mask, Runs
from pgenrm.bench.plan import Item, read_items, read_plan
from pgenrm.bench.ranking import rankings
from pgenrm.bench.records import find_tasks, read_settings
from pgenrm.bench.results import BenchResult, Cost, Group, MethodResult, Part
from pgenrm.bench.rows import Kind, place_of, row_of
from pgenrm.bench.run import PREPARED, Timing, read_times, times_path
from pgenrm.bench.statistics import mean_and_error
from pgenrm.errors import InputError
from pgenrm.types import Outcome

ALL: Final = "all"
HARD: Final = "hard"


def evaluate(out: Path, seed: int = 0) -> BenchResult:
    """Count the records of a bench.

    Args:
        out: directory of the bench.
        seed: of the resampling of users.

    Raises:
        InputError: there is no bench, no record, or no labelled comparison.
        RowError: a record is damaged.
    """
    plan, items = read_plan(out), read_items(out)
    runs = read_runs(out, items)
    is_labelled = np.array([item.comparison.label is not None for item in items])
    ranked = rankings(items, runs, seed)
    if not is_labelled.any() and not ranked:
        raise InputError(f"{out} has no labelled comparison to count")
    best = best_baseline(runs, is_labelled) if is_labelled.any() else None
    masks = {ALL: is_labelled}
    for split in plan.n_items:
        masks[split] = is_labelled & np.array([item.split == split for item in items])
    masks[HARD] = is_labelled & np.array([bool(item.is_hard) for item in items])
    users = [item.comparison.user.id for item in items]
    prototypes, prototypes_of = _prototypes(items, runs)
    parts: dict[str, dict[str, Part]] = {run.name: {} for run in runs}
    groups: dict[str, tuple[Group, ...]] = {run.name: () for run in runs}
    for name, mask in masks.items():
        if mask.any():
            counted = Counted(users, prototypes, runs, mask, seed)
            for run in runs:
                parts[run.name][name] = counted.part(run, best)
            if name == ALL:
                groups = {run.name: counted.groups(run) for run in runs}
    prepared = [timing.seconds for timing in read_times(out / PREPARED)]
    return BenchResult(
        plan=plan,
        best_baseline=best,
        prototypes_of=prototypes_of,
        methods=tuple(
            _result(run, parts[run.name], groups[run.name], is_labelled, out, seed)
            for run in sorted(runs, key=lambda run: place_of(run.name))
        ),
        rankings=ranked,
        prepare_seconds=sum(prepared) if prepared else None,
    )


def read_runs(out: Path, items: Sequence[Item]) -> list[Runs]:
    """Read the records of all methods.

    Raises:
        InputError: there is none, or one of another comparison.
    """
    tasks = find_tasks(out)
    if not tasks:
        raise InputError(f"{out} holds no records yet; run pgenrm bench first")
    return [
        Runs(name, {task: path for task, path in tasks.items() if task.method == name}, items)
        for name in sorted({task.method for task in tasks})
    ]


def best_baseline(runs: Sequence[Runs], mask: Mask) -> str | None:
    """Return the judge or trained baseline that is right most often.

    Only among those that have judged everything.
    """
    accuracy = {
        run.name: float(run.share_of(Outcome.CORRECT)[mask].mean())
        for run in runs
        if row_of(run.name).kind.is_baseline and len(run.records) == run.outcomes.size
    }
    return max(accuracy, key=lambda name: accuracy[name], default=None)


def _prototypes(items: Sequence[Item], runs: Sequence[Runs]) -> tuple[list[int | None], str | None]:
    """Return the true prototype of every comparison; where truth is unknown, those of one run.

    Prototypes of several runs are not the same ones, and an altered run has those of other users.

    Returns:
        [n_items], and which run they are of: the first in the order of the table, its lowest seed.
    """
    if any(item.prototype is not None for item in items):
        return [item.prototype for item in items], None
    for run in sorted(runs, key=lambda run: place_of(run.name)):
        for task in sorted(run.tasks, key=lambda task: task.seed):
            found = {record.id: record.prototype for record in run.by_task[task]}
            is_altered = row_of(run.name).kind is Kind.ALTERED
            if not is_altered and any(prototype is not None for prototype in found.values()):
                return [found.get(i.comparison.id) for i in items], f"{run.name}, seed {task.seed}"
    return [None] * len(items), None


def _result(
    run: Runs,
    parts: dict[str, Part],
    groups: tuple[Group, ...],
    mask: Mask,
    out: Path,
    seed: int,
) -> MethodResult:
    row = row_of(run.name)
    settings = [read_settings(path) for path in run.tasks.values()]
    right = run.outcomes[:, mask] == OUTCOMES.index(Outcome.CORRECT)
    accuracies = right.mean(axis=1).round(6).tolist() if mask.any() else []
    mean, error = mean_and_error(accuracies) if accuracies else (None, None)
    consistency = [r.order_consistency for r in run.records if r.order_consistency is not None]
    return MethodResult(
        name=run.name,
        label=row.label,
        kind=row.kind,
        versions=tuple(dict.fromkeys(s.version for s in settings)),
        evaluators=tuple(dict.fromkeys(r.evaluator for r in run.records)),
        prompt_versions=tuple(
            dict.fromkeys(r.prompt_version for r in run.records if r.prompt_version)
        ),
        seeds=tuple(s.seed for s in settings),
        n_missing=len(mask) * len(run.tasks) - len(run.records),
        parts=parts,
        accuracy_of_runs=tuple(accuracies),
        mean_of_runs=mean,
        error_of_runs=error,
        order_consistency=round(float(np.mean(consistency)), 6) if consistency else None,
        calibration=calibration(run, seed),
        groups=groups,
        cost=_cost(run, out),
    )


def _cost(run: Runs, out: Path) -> Cost:
    n = max(1, len(run.records))
    times = [timing for task in run.tasks for timing in read_times(times_path(out, task))]
    fits = [timing for timing in times if timing.stage == "fit"]
    n_cached = sum(timing.n_cached for timing in times)
    n_answers = n_cached + sum(timing.n_asked for timing in times)
    return Cost(
        n_chains=round(sum(r.n_chains for r in run.records) / n, 3),
        n_prompt_tokens=round(sum(r.n_prompt_tokens for r in run.records) / n, 1),
        n_completion_tokens=round(sum(r.n_completion_tokens for r in run.records) / n, 1),
        seconds=_each(times, "score", lambda timing: timing.seconds),
        adapt_seconds=_each(times, "adapt", lambda timing: timing.seconds),
        fit_seconds=max((timing.seconds for timing in fits), default=None),
        adapt_tokens=_each(times, "adapt", _tokens) or None,
        fit_tokens=max(map(_tokens, fits), default=0) or None,
        cached_share=round(n_cached / n_answers, 6) if n_answers else None,
    )


def _tokens(timing: Timing) -> int:
    return timing.n_prompt_tokens + timing.n_completion_tokens


def _each(times: Sequence[Timing], stage: str, spent: Callable[[Timing], float]) -> float | None:
    of_stage = [timing for timing in times if timing.stage == stage]
    n = sum(timing.n for timing in of_stage)
    return round(sum(map(spent, of_stage)) / n, 6) if n else None
