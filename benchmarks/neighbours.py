"""Neighbours among a million users: fitting from disk, lookups, and recall against exact search.

A file of unit vectors, one per user in groups of like users, is clustered and indexed in a fresh
process that uses one core. Memory is what the process allocates, sampled (Linux): pages of the
file that the system keeps in memory while there is room are not counted. Lookups are one query at a
time, 8 users without the asking one. Recall compares with all users of the same prototype.

    python -m benchmarks.neighbours [--users 1000000] [--json]
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pgenrm.prototypes.clustering import kmeans, nearest, retained_variance, unit
from pgenrm.prototypes.index import NeighbourIndex
from pgenrm.seeding import rng

N_NEIGHBOURS = 8
N_LOOKUPS = 2_000
CHUNK_ROWS = 65_536
SPREAD = 0.06
"""Standard deviation of a user per dimension; a group's centre has length one."""

Floats = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """One run; memory is the peak of the process, imports included."""

    n_users: int
    dimension: int
    n_prototypes: int
    file_mib: float
    imports_mib: float
    spectrum_s: float
    spectrum_mib: float
    kmeans_s: float
    kmeans_mib: float
    assign_s: float
    assign_mib: float
    index_s: float
    index_mib: float
    lookup_median_ms: float
    lookup_p99_ms: float
    lookup_cpu_p99_ms: float
    """Of the processor; the times above also hold waiting for it on a busy machine."""
    recall: float


def write_users(path: Path, n: int, d: int, n_groups: int) -> None:
    """Write float32 unit vectors [n, d] around random centres."""
    centres = unit(rng("centres").standard_normal((n_groups, d)).astype(np.float32))
    with path.open("wb") as file:
        for start in range(0, n, CHUNK_ROWS):
            generator = rng("users", start)
            size = min(CHUNK_ROWS, n - start)
            noise = generator.standard_normal((size, d), dtype=np.float32)
            unit(centres[generator.integers(n_groups, size=size)] + SPREAD * noise).tofile(file)


def allocated_mib() -> float:
    """Return the memory of this process that is not backed by a file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("needs /proc/self/status with RssAnon (Linux 4.5 or later)")


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """Return the result, seconds, and peak MiB allocated meanwhile."""
    start_s, peaks, done = time.perf_counter(), [0.0], threading.Event()

    def sample() -> None:
        while not done.wait(0.01):
            peaks.append(allocated_mib())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        result = work()
    finally:
        done.set()
        sampler.join()
    return result, round(time.perf_counter() - start_s, 1), round(max(*peaks, allocated_mib()))


def recall(
    rows: Floats, assignment: NDArray[np.int64], index: NeighbourIndex, at: list[int]
) -> float:
    """Return the share of the exact nearest users inside the prototype that the index finds."""
    n_found = n_exact = 0
    for i in at:
        members = np.flatnonzero(assignment == assignment[i])
        members = members[members != i]
        similarity = np.asarray(rows[members]) @ rows[i]
        exact = members[np.argsort(-similarity, kind="stable")[:N_NEIGHBOURS]]
        (hits,) = index.search(rows[i : i + 1], N_NEIGHBOURS, [i])
        inside = {hit.user for hit in hits.users if hit.prototype == hits.prototype}
        n_found += len(inside & set(exact.tolist()))
        n_exact += len(exact)
    return n_found / n_exact


def measure(path: Path, n: int, d: int, k: int) -> Measured:
    """Fit, index and look up in this process."""
    imports_mib = round(allocated_mib())
    rows = np.memmap(path, np.float32, "r", shape=(n, d))
    _, spectrum_s, spectrum_mib = timed(lambda: retained_variance(rows))
    prototypes, kmeans_s, kmeans_mib = timed(lambda: kmeans(rows, k))
    assignment, assign_s, assign_mib = timed(lambda: nearest(rows, prototypes))
    index, index_s, index_mib = timed(
        lambda: NeighbourIndex(prototypes, rows, np.arange(n), assignment)
    )
    at = rng("lookups").choice(n, min(N_LOOKUPS, n), replace=False).tolist()
    queries = rows[at]
    times_ms, cpu_ms = [], []
    for i, query in zip(at, queries, strict=True):
        start_s, start_cpu_s = time.perf_counter(), time.thread_time()
        index.search(query[None], N_NEIGHBOURS, [i])
        times_ms.append((time.perf_counter() - start_s) * 1000)
        cpu_ms.append((time.thread_time() - start_cpu_s) * 1000)
    return Measured(
        n_users=n,
        dimension=d,
        n_prototypes=k,
        file_mib=round(path.stat().st_size / 2**20),
        imports_mib=imports_mib,
        spectrum_s=spectrum_s,
        spectrum_mib=spectrum_mib,
        kmeans_s=kmeans_s,
        kmeans_mib=kmeans_mib,
        assign_s=assign_s,
        assign_mib=assign_mib,
        index_s=index_s,
        index_mib=index_mib,
        lookup_median_ms=round(float(np.median(times_ms)), 3),
        lookup_p99_ms=round(float(np.quantile(times_ms, 0.99)), 3),
        lookup_cpu_p99_ms=round(float(np.quantile(cpu_ms, 0.99)), 3),
        recall=recall(rows, assignment, index, at[:200]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--prototypes", type=int, default=1_024)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    n, d, k = options.users, options.dimension, options.prototypes
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # of the new process
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as directory,
        ProcessPoolExecutor(1, mp_context=spawn) as process,
    ):
        path = Path(directory, "users.f32")
        write_users(path, n, d, n_groups=k)
        found = process.submit(measure, path, n, d, k).result()
    if options.json:
        print(json.dumps(asdict(found)))
        return
    table = Table(title="Neighbours on one core")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in asdict(found).items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
