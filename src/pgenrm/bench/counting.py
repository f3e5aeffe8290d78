"""Records aligned with the comparisons, and what users contribute to every statistic."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pgenrm.accuracy import OUTCOMES
from pgenrm.bench.plan import Item
from pgenrm.bench.records import read_records
from pgenrm.bench.results import Difference, Group, Part
from pgenrm.bench.run import Task
from pgenrm.bench.statistics import Estimate, Floats, estimate, mean_of_defined, resample, share
from pgenrm.errors import InputError
from pgenrm.types import Outcome

Mask = NDArray[np.bool_]


class Runs:
    """The records of one method, one run for each seed.

    Attributes:
        by_task: the records of every run.
        records: of all runs.
        user_of: whose a comparison is, by its id.
        outcomes: [n_runs, n_items], indices into `OUTCOMES`; what has no record is unscored.
    """

    def __init__(self, name: str, tasks: Mapping[Task, Path], items: Sequence[Item]) -> None:
        self.name = name
        self.tasks = tasks
        self.by_task = {task: list(read_records(path)) for task, path in tasks.items()}
        self.records = list(chain.from_iterable(self.by_task.values()))
        self.user_of = {item.comparison.id: item.comparison.user.id for item in items}
        self.outcomes = np.full((len(tasks), len(items)), OUTCOMES.index(Outcome.UNSCORED))
        at = {item.comparison.id: i for i, item in enumerate(items)}
        self._has_record = np.zeros(self.outcomes.shape, dtype=bool)
        for run, (task, path) in enumerate(tasks.items()):
            for record in self.by_task[task]:
                if record.id not in at:
                    raise InputError(f"{path}:{record.line}: {record.id!r} is not in this bench")
                self._has_record[run, at[record.id]] = True
                if record.outcome is not None:
                    self.outcomes[run, at[record.id]] = OUTCOMES.index(record.outcome)

    def n_missing(self, rows: NDArray[np.integer]) -> int:
        """Count what has no record among these comparisons, over all runs."""
        return int((~self._has_record[:, rows]).sum())

    def share_of(self, outcome: Outcome) -> Floats:
        """Return the share of the runs with this outcome, [n_items]."""
        found: Floats = (self.outcomes == OUTCOMES.index(outcome)).mean(axis=0)
        return found


class Counted:
    """One part of the comparisons, its users resampled once for all methods."""

    def __init__(
        self,
        users: Sequence[str],
        prototypes: Sequence[int | None],
        runs: Sequence[Runs],
        mask: Mask,
        seed: int = 0,
    ) -> None:
        """Sum what users contribute.

        Args:
            users: [n_items], their ids.
            prototypes: [n_items], of the users; None where it is not known.
            runs: of all methods.
            mask: [n_items], which comparisons are counted.
            seed: of the resampling.
        """
        names, self._user = np.unique(np.array(users)[mask], return_inverse=True)
        self._mask, self._n_users = mask, len(names)
        known = {p for p, is_in in zip(prototypes, mask, strict=True) if is_in and p is not None}
        self._is_in = {
            p: np.array([other == p for other in prototypes])[mask] for p in sorted(known)
        }
        columns = {"n": self._per_user(np.ones(int(mask.sum()))), "users": np.ones(len(names))}
        for p, is_in in self._is_in.items():
            columns[f"n of {p}"] = self._per_user(is_in)
        for run in runs:
            for column, values in self._columns_of(run):
                columns[f"{run.name} {column}"] = values
        sums = resample(np.stack(list(columns.values()), axis=1), seed)
        self._sums = dict(zip(columns, sums.T, strict=True))

    def _per_user(self, values: NDArray[np.generic]) -> Floats:
        return np.bincount(self._user, values.astype(float), self._n_users).astype(float)

    def _columns_of(self, run: Runs) -> Iterator[tuple[str, Floats]]:
        correct = run.share_of(Outcome.CORRECT)[self._mask]
        yield "correct", self._per_user(correct)
        yield "decided", self._per_user(correct + run.share_of(Outcome.WRONG)[self._mask])
        yield "by user", self._per_user(correct) / self._per_user(np.ones(len(correct)))
        for p, is_in in self._is_in.items():
            yield f"correct of {p}", self._per_user(correct * is_in)

    def _estimate(self, numerator: Floats, denominator: str) -> Estimate:
        found = estimate(share(numerator, self._sums[denominator]), self._n_users)
        if found is None:
            raise ValueError("nothing is counted in this part")
        return found

    def part(self, run: Runs, best: str | None) -> Part:
        """Count a method, beside the baseline of this name."""
        counts = np.bincount(run.outcomes[:, self._mask].ravel(), minlength=len(OUTCOMES))
        outcomes = {o: int(n) for o, n in zip(OUTCOMES, counts, strict=True)}
        of = {column: self._sums[f"{run.name} {column}"] for column in ("correct", "decided")}
        return Part(
            n=int(self._sums["n"][0]),
            n_users=self._n_users,
            outcomes=outcomes,
            accuracy=self._estimate(of["correct"], "n"),
            coverage=round(1 - outcomes[Outcome.UNSCORED] / sum(outcomes.values()), 6),
            decided_accuracy=estimate(share(of["correct"], of["decided"]), self._n_users),
            user_macro=self._estimate(self._sums[f"{run.name} by user"], "users"),
            prototype_macro=self._prototype_macro(run),
            versus_best=None if best in {None, run.name} else self.difference(run.name, str(best)),
        )

    def difference(self, name: str, to: str) -> Difference:
        """Compare two methods on the same comparisons."""
        by = self._sums[f"{name} correct"] - self._sums[f"{to} correct"]
        return Difference(to=to, by=self._estimate(by, "n"))

    def _shares(self, run: Runs, prototype: int) -> Floats:
        return share(
            self._sums[f"{run.name} correct of {prototype}"], self._sums[f"n of {prototype}"]
        )

    def _prototype_macro(self, run: Runs) -> Estimate | None:
        if not self._is_in:
            return None
        shares = np.stack([self._shares(run, p) for p in self._is_in], axis=1)
        return estimate(mean_of_defined(shares), self._n_users)

    def groups(self, run: Runs) -> tuple[Group, ...]:
        """Count a method for every prototype, largest first."""
        found = []
        for p, is_in in self._is_in.items():
            n_users = len(np.unique(self._user[is_in]))
            accuracy = estimate(self._shares(run, p), n_users)
            if accuracy:
                found.append(
                    Group(prototype=p, n=int(is_in.sum()), n_users=n_users, accuracy=accuracy)
                )
        return tuple(sorted(found, key=lambda g: (-g.n, g.prototype)))
