"""Many tasks in a few processes; how far they are is read off their records.

Workers are fresh interpreters that load the data themselves, so nothing is inherited half-way. They
end when the process that started them ends, however it ends: a killed bench leaves nobody behind
who writes to its records.
"""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Final

from pgenrm.bench.plan import DataSource, load_source, read_items
from pgenrm.bench.run import Task, records_path, run_method
from pgenrm.data.dataset import Dataset
from pgenrm.errors import PgenrmError
from pgenrm.methods.protocol import Method
from pgenrm.types import Comparison

LOOK_EVERY_S: Final = 0.5

Make = Callable[[Task, Dataset], Method]
"""Builds the method of a task. Sent to the workers, so a module-level function or a partial."""
Prepare = Callable[[Dataset, Sequence[Comparison]], None]
"""Called once with the data before any task starts. Sent to a worker, too."""
Watch = Callable[[Task, int, bool], None]
"""Told a task, how many of its comparisons have records, and whether it has ended."""


def run_tasks(
    tasks: Sequence[Task],
    make: Make,
    source: DataSource,
    out: Path,
    *,
    n_processes: int = 1,
    accept_unanswered: bool = False,
    prepare: Prepare | None = None,
    watch: Watch | None = None,
) -> dict[Task, str]:
    """Run tasks over the bench that `open_plan` wrote to `out`.

    A task that fails does not stop the others.

    Args:
        tasks: started in this order; put the longest first.
        make: builds methods.
        source: of the data, as in the plan.
        out: directory of the bench.
        n_processes: tasks under way at once. With more than one, each computes on one core.
        accept_unanswered: as in `run_method`.
        prepare: does what all tasks need. Where it fails, the tasks say why when they need it.
        watch: called about twice a second for every task that got further.

    Returns:
        Why, for every task that failed.
    """
    failed: dict[Task, str] = {}
    if prepare:
        with _workers(1, on_one_core=False) as executor:
            executor.submit(_prepare, prepare, source, out).result()
    n_workers = max(1, min(n_processes, len(tasks)))
    executor = _workers(n_workers, on_one_core=n_processes > 1)
    try:
        futures: dict[Future[str | None], Task] = {
            executor.submit(_work, task, make, source, out, accept_unanswered): task
            for task in tasks
        }
        counters = {task: _Counter(records_path(out, task)) for task in tasks}
        waiting = set(futures)
        while waiting:
            ended, waiting = wait(waiting, LOOK_EVERY_S, FIRST_COMPLETED)
            for future, task in futures.items():
                if future in ended and (reason := future.result()) is not None:
                    failed[task] = reason
                if watch and (future in ended or future in waiting):
                    watch(task, counters[task].count(), future in ended)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
    return failed


def _workers(n: int, *, on_one_core: bool) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        n,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(on_one_core,),
    )


class _Counter:
    """Counts the lines of a file that grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._n = path, 0, 0

    def count(self) -> int:
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
            self._offset += len(new)
            self._n += new.count(b"\n")
        return self._n


# ---------------------------------------------------------------- inside a worker


def _start_worker(on_one_core: bool) -> None:
    if on_one_core:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, which is later
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(
    task: Task, make: Make, source: DataSource, out: Path, accept_unanswered: bool
) -> str | None:
    """Run a task; return why it failed, since not every error survives the way between processes.

    A disk that is full fails its task like an engine that dies.
    """
    try:
        dataset, comparisons = _materials(source, out)
        run_method(
            make(task, dataset),
            task,
            dataset,
            comparisons,
            out,
            accept_unanswered=accept_unanswered,
        )
    except (PgenrmError, OSError) as error:
        return str(error)
    return None


def _prepare(prepare: Prepare, source: DataSource, out: Path) -> None:
    with suppress(PgenrmError):
        prepare(*_materials(source, out))


@cache
def _materials(source: DataSource, out: Path) -> tuple[Dataset, list[Comparison]]:
    """Load the data once per worker."""
    return load_source(source), [item.comparison for item in read_items(out)]
