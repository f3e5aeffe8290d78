"""At what temperature to sample the bundled judge: chosen here, on a world that no figure is from.

python -m benchmarks.nano_temperatures [--model nano] [--comparisons 400]
"""

import argparse
from pathlib import Path
from typing import Final

from benchmarks.bundled_judge import JUDGE_SEED, Job, chains_of, mean, pooled_right, shown
from benchmarks.nano_judging import judged, single_right
from rich.console import Console

from pgenrm.sim.world import World

WORLD_SEED: Final = 403
TEMPERATURES: Final = (1.0, 0.7, 0.5)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--comparisons", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("runs/nano-temperatures"))
    options = parser.parse_args()
    console = Console()
    job = Job("own", options.model, 3, 8)
    given = job.given(World(seed=WORLD_SEED), options.comparisons)
    users = [c.user.id for c in given]
    rows = [
        "| temperature | one chain, % | m = 8, % | own arithmetic right, % |",
        "|---|---|---|---|",
    ]
    for temperature in TEMPERATURES:
        judgments = judged(
            given,
            options.out / f"{temperature}.jsonl",
            model=options.model,
            m=job.m,
            n_history=job.h,
            seed=JUDGE_SEED,
            temperature=temperature,
            settings={"world": WORLD_SEED},
            console=console,
        )
        _, readable, consistent = chains_of(judgments)
        one, eight = mean(users, single_right(judgments)), mean(users, pooled_right(judgments))
        right = 100 * consistent / max(1, readable)
        rows.append(f"| {temperature:g} | {shown(one)} | {shown(eight)} | {right:.1f} |")
    console.print("\n".join(rows), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
