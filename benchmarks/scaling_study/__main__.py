"""Run the scaling study and rewrite docs/scaling.md.

    python -m benchmarks.scaling_study [--comparisons 2000] [--out runs/scaling-study] [--workers 2]

Everything that was judged is kept under --out: a run that was stopped goes on. Under 30 minutes on
two cores.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comparisons", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("runs/scaling-study"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    from benchmarks.scaling_study.gather import judge_all
    from benchmarks.scaling_study.jobs import JOBS, STORES
    from benchmarks.scaling_study.setting import prototypes

    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)

    for evaluator, k, refinement in sorted(STORES, key=str):
        fitted = prototypes(options.out, evaluator, k, refinement)
        say(f"prototypes of {evaluator}, k = {k}, {refinement}: {len(fitted.row_users_)} rows")
    judge_all(JOBS, options.out, options.comparisons, options.workers, say)
    from benchmarks.scaling_study.report import write

    write(options.out, options.comparisons, options.docs, say)


if __name__ == "__main__":
    main()
