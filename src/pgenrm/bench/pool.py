"""Many tasks in a few processes; how far they are is read off their records.

Workers are fresh interpreters that load the data themselves, so nothing is inherited half-way. They
end when the process that started them ends, however it ends: a killed bench leaves nobody behind
who writes to its records.
"""

import multiprocessing
import os
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import Final

from pgenrm.bench.plan import DataSource, load_source, read_items
from pgenrm.bench.run import PREPARED, Task, Timing, note_timing, records_path, run_method
from pgenrm.data.dataset import Dataset
from pgenrm.engines.cached import Usage
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
    usage: Callable[[], Usage] = Usage,
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
        usage: as in `run_method`; sent to the workers like `make`.
        watch: called about twice a second for every task that got further.

    Returns:
        Why, for every task that failed.
    """
    failed: dict[Task, str] = {}
    if prepare:
        with _worker(on_one_core=False) as worker, suppress(BrokenExecutor):
            worker.submit(_prepare, prepare, source, out).result()
    waiting = deque(tasks)
    counters = {task: _Counter(records_path(out, task)) for task in tasks}
    on_one_core = n_processes > 1
    idle = [_worker(on_one_core=on_one_core) for _ in range(min(n_processes, len(tasks)))]
    busy: dict[Future[str | None], tuple[Task, ProcessPoolExecutor]] = {}
    try:
        while waiting or busy:
            while waiting and idle:
                task, worker = waiting.popleft(), idle.pop()
                future = worker.submit(_work, task, make, source, out, accept_unanswered, usage)
                busy[future] = task, worker
            ended, _ = wait(busy, LOOK_EVERY_S, FIRST_COMPLETED)
            for future, (task, worker) in list(busy.items()):
                if future in ended:
                    del busy[future]
                    is_alive, reason = _end_of(future)
                    idle.append(worker if is_alive else _worker(on_one_core=on_one_core))
                    if reason is not None:
                        failed[task] = reason
                if watch:
                    watch(task, counters[task].count(), future in ended)
    finally:
        for worker in (*idle, *(worker for _, worker in busy.values())):
            worker.shutdown(wait=False, cancel_futures=True)
    return failed


def _end_of(future: Future[str | None]) -> tuple[bool, str | None]:
    """Return whether the process of a task still lives, and why the task failed if it did."""
    try:
        return True, future.result()
    except BrokenExecutor:
        return False, (
            "its process was ended from outside, as happens where memory runs out; run the same "
            "command again to continue, with fewer --processes if it was memory"
        )


def _worker(*, on_one_core: bool) -> ProcessPoolExecutor:
    """Return one process; each has a pool of its own, so that its end is no other's."""
    return ProcessPoolExecutor(
        1,
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
    task: Task,
    make: Make,
    source: DataSource,
    out: Path,
    accept_unanswered: bool,
    usage: Callable[[], Usage],
) -> str | None:
    """Run a task; return why it failed, since not every error survives the way between processes.

    A disk that is full fails its task like an engine that dies. Of an error that nobody foresaw the
    traceback is printed, too.
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
            usage=usage,
        )
    except (PgenrmError, OSError) as error:
        return str(error)
    except Exception as error:  # the boundary of the process: no task may end the others
        traceback.print_exc()
        return f"{type(error).__name__}: {error} (its traceback stands above)"
    return None


def _prepare(prepare: Prepare, source: DataSource, out: Path) -> None:
    # Whatever went wrong, tasks that need none of it go on, and the others meet it themselves.
    with suppress(Exception):
        dataset, comparisons = _materials(source, out)
        start = perf_counter()
        prepare(dataset, comparisons)
        seconds = round(perf_counter() - start, 6)
        note_timing(out / PREPARED, Timing("prepare", len(comparisons), seconds))


@cache
def _materials(source: DataSource, out: Path) -> tuple[Dataset, list[Comparison]]:
    """Load the data once per worker."""
    return load_source(source), [item.comparison for item in read_items(out)]
