"""Run the bench study and rewrite docs/results.md and the reports beside it.

    python -m benchmarks.bench_study [--model nano|none] [--out runs/bench-study] [--tiny]

The page says how long it took. Every step is a `pgenrm` command that keeps what it did, so that a
study that was stopped goes on. Where the language model is missing, everything else is run, and
the page says which rows are missing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.bench_study.steps import TINY, Bench, Sizes, benches, simulate

NONE = "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", help="of judges and P-GenRM; none: without")
    parser.add_argument("--reward-base", help="model to fine-tune; default: the bundled one's base")
    parser.add_argument("--out", type=Path, help="default: runs/bench-study, or ...-tiny")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--tiny", action="store_true", help="few of everything, to try it out")
    options = parser.parse_args()
    sizes = TINY if options.tiny else Sizes()
    options.out = options.out or Path(
        "runs/bench-study-tiny" if options.tiny else "runs/bench-study"
    )

    why_no_model = "left out" if options.model == NONE else missing(options.model)
    model = None if why_no_model else options.model
    reward_base = options.reward_base or base_weights()
    wanted = list(benches(sizes, model, reward_base))
    card = options.out / "world" / "card.json"
    if not card.exists():
        step(options.out, "world", simulate(options.out, sizes))
    world = json.loads(card.read_text())
    if (world["n_users"], world["seed"]) != (sizes.n_users, sizes.world_seed):
        sys.exit(f"{options.out} holds a study of another size; delete it or give another --out")
    failed = [
        bench.name
        for bench in wanted
        if not is_complete(options.out, bench)
        and not step(options.out, bench.name, bench.command(options.out, sizes))
    ]

    from benchmarks.bench_study.page import write

    write(options.out, options.docs, sizes, wanted, why_no_model, sys.argv[1:])
    if failed:
        sys.exit(f"not complete: {', '.join(failed)}; run the same command again to go on")


def missing(model: str) -> str:
    """Return why a language model cannot be loaded, or nothing."""
    from pgenrm.cli.models import ModelOptions, build_evaluator
    from pgenrm.errors import PgenrmError

    try:
        build_evaluator(ModelOptions(model=model)).close()
    except PgenrmError as error:
        return str(error)
    return ""


def base_weights() -> str | None:
    """Return where the weights lie that the bundled judge began with, if it is here."""
    from pgenrm.engines.nano import WEIGHTS

    return os.path.relpath(WEIGHTS / "base") if (WEIGHTS / "base").is_dir() else None


def is_complete(out: Path, bench: Bench) -> bool:
    """Whether nothing is left to judge."""
    from pgenrm.bench.methods import tasks_of
    from pgenrm.bench.plan import ITEMS
    from pgenrm.bench.run import records_path

    items = out / bench.name / ITEMS
    if not items.exists():
        return False
    n_items = items.read_bytes().count(b"\n")
    paths = (records_path(out / bench.name, t) for t in tasks_of(bench.methods, bench.n_seeds))
    return all(p.exists() and p.read_bytes().count(b"\n") == n_items for p in paths)


def step(out: Path, name: str, arguments: list[str]) -> bool:
    """Run a command of `pgenrm`, and note how long it took; return whether it did all."""
    print(f"pgenrm {' '.join(arguments)}", flush=True)
    started = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "pgenrm", *arguments], check=False).returncode
    took = time.monotonic() - started
    with (out / "steps.tsv").open("a") as file:
        file.write(f"{name}\t{took:.1f}\t{code}\n")
    print(f"{name}: {took:.0f} s" + (f", exit code {code}" if code else ""), flush=True)
    return code == 0


if __name__ == "__main__":
    main()
