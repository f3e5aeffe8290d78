"""How the bundled judge came to learn in context: accuracy against the samples it was taught with.

python -m benchmarks.nano_curve runs/nano/sft/checkpoint-* [--comparisons 300]

Takes checkpoints of an SFT run (`save_total_limit` in its recipe says how many are kept) and judges
the same comparisons of unseen users with each, with three past choices and with none. The loss
falls from the first step on; that choices are made use of is seen where the two part.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.bundled_judge import JUDGE_SEED, Job, mean, shown
from benchmarks.nano_judging import judged, single_right
from matplotlib.figure import Figure
from rich.console import Console

from pgenrm.bench.statistics import Estimate
from pgenrm.prototypes.plots import svg_of
from pgenrm.sim.world import World

WORLD_SEED: Final = 404
"""No judge was trained on a world of this seed, and no other figure is from it."""
SHOWN: Final = (3, 0)
"""Past choices."""
COLOURS: Final = ("#4477aa", "#b5651d")


@dataclass(frozen=True)
class Point:
    """A checkpoint, judged."""

    n_samples: int
    accuracy: tuple[Estimate, ...]
    """Of one chain, in percent; one per number of past choices."""


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--comparisons", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/nano-learning"), help="of judgments")
    parser.add_argument("--svg", type=Path, default=Path("docs/figures/nano-curve.svg"))
    options = parser.parse_args()
    console = Console()
    world = World(seed=WORLD_SEED)
    points = []
    for place in sorted(options.checkpoints, key=n_samples):
        found = []
        for h in SHOWN:
            job = Job("own", f"nano:{place}", h, 2)
            given = job.given(world, options.comparisons)
            judgments = judged(
                given,
                options.out / f"{n_samples(place)}-{h}.jsonl",
                model=job.model,
                m=job.m,
                n_history=h,
                seed=JUDGE_SEED,
                settings={"world": WORLD_SEED},
                console=console,
            )
            found.append(mean([c.user.id for c in given], single_right(judgments)))
        points.append(Point(n_samples(place), tuple(found)))
    options.svg.parent.mkdir(parents=True, exist_ok=True)
    options.svg.write_bytes(svg_of(picture(points)))
    rows = [
        "| samples | " + " | ".join(f"{h} past choices, %" for h in SHOWN) + " |",
        "|---|" + "---|" * len(SHOWN),
        *(f"| {p.n_samples:,} | " + " | ".join(map(shown, p.accuracy)) + " |" for p in points),
    ]
    console.print("\n".join(rows), markup=False, highlight=False, soft_wrap=True)


def n_samples(checkpoint: Path) -> int:
    """Return how many rows were learnt from, by the trainer's own record."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return int(state["global_step"]) * int(state["train_batch_size"])


def picture(points: Sequence[Point]) -> Figure:
    """Draw accuracy against samples, with and without past choices."""
    canvas = Figure(figsize=(6, 3.4), layout="constrained")
    axes = canvas.subplots()
    for i, (h, colour) in enumerate(zip(SHOWN, COLOURS, strict=True)):
        estimates = [point.accuracy[i] for point in points]
        ends = [e.interval or (e.value, e.value) for e in estimates]
        axes.errorbar(
            [point.n_samples for point in points],
            [e.value for e in estimates],
            yerr=[
                [e.value - low for e, (low, _) in zip(estimates, ends, strict=True)],
                [high - e.value for e, (_, high) in zip(estimates, ends, strict=True)],
            ],
            color=colour,
            marker="o",
            capsize=2,
            label=f"{h} past choices" if h else "none",
        )
    axes.axhline(50, color="#777777", linewidth=1, linestyle=":")
    axes.set_xlabel("samples of SFT")
    axes.set_ylabel("one chain right, %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.legend()
    return canvas


if __name__ == "__main__":
    main()
