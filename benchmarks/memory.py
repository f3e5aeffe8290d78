"""Peak memory of judging a large file against that of a small one; the aim is a ratio below 1.2.

Each size runs in a process of its own: JSON Lines in, the attribute evaluator, the judge, a
resumable run as JSON Lines out. Every comparison has texts of its own, every ten share a user: what
may grow is one small count per user and one number per id.

    python -m benchmarks.memory [--json]
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.judge import PGenRM
from pgenrm.rows import read_comparisons
from pgenrm.runs import Run
from pgenrm.seeding import rng

RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
TEXT = """Start with the part that matters most to you. For example, one page a day is enough, and
nobody needs to see it. You could also try a timer, although that does not suit everyone; would a
friend help? Here is the short version, with numbers: 3 sessions, 20 minutes each, no exceptions."""


@dataclass(frozen=True)
class Measured:
    """One run over a file."""

    n_judgments: int
    peak_mib: float
    time_s: float


def write_rows(path: Path, n: int) -> None:
    """Write comparisons with two past choices and two responses of 60 words."""
    words = TEXT.split()
    with path.open("w", encoding="utf-8") as file:
        for i in range(n):
            generator = rng("memory", i)
            pairs = [
                {
                    "context": " ".join(generator.choice(words, size=12)),
                    "chosen": " ".join(generator.choice(words, size=60)),
                    "rejected": " ".join(generator.choice(words, size=60)),
                }
                for _ in range(3)
            ]
            row = pairs[0] | {"id": f"c{i}", "user_id": f"u{i // 10}", "history": pairs[1:]}
            file.write(json.dumps(row) + "\n")


def judge_file(rows: Path, out: Path, m: int) -> Measured:
    """Judge a file into a run, and measure this process."""
    start_s = time.perf_counter()
    judge = PGenRM(AttributeEvaluator(), m=m)
    n = 0
    with Run(out, {"m": m}) as run:
        for judgment in judge.judge(run.remaining(read_comparisons([rows]))):
            run.add(judgment)
            n += 1
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES
    return Measured(n, round(peak_bytes / 2**20, 1), round(time.perf_counter() - start_s, 1))


def measure(n: int, m: int) -> Measured:
    """Judge n comparisons in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as directory,
        ProcessPoolExecutor(1, mp_context=spawn) as process,
    ):
        rows = Path(directory, "rows.jsonl")
        write_rows(rows, n)
        return process.submit(judge_file, rows, Path(directory, "out.jsonl"), m).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=5_000, help="comparisons of the small file")
    parser.add_argument("--large", type=int, default=50_000, help="comparisons of the large file")
    parser.add_argument("--m", type=int, default=2, help="chains per comparison")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    rows = [measure(n, options.m) for n in (options.small, options.large)]
    ratio = round(rows[1].peak_mib / rows[0].peak_mib, 3)
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "ratio": ratio}))
        return
    table = Table(title=f"Peak memory at m = {options.m}: ratio {ratio:.3f}")
    for name in asdict(rows[0]):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*[str(value) for value in asdict(row).values()])
    Console().print(table)


if __name__ == "__main__":
    main()
