"""Train the variants of the bundled judge, judge with all of them, and write docs/ablation.md.

    python -m benchmarks.ablation [--from runs/nano] [--out runs/ablation] [--steps 60]

Starts from the base and SFT weights that `make train-nano` leaves. Everything is kept under --out:
a run that was stopped goes on with the same command.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--from", dest="source", type=Path, default=Path("runs/nano"))
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--steps", type=int, default=60, help="of CRE; the curriculum has half")
    parser.add_argument("--completions", type=int, default=64, help="per step")
    parser.add_argument("--users", type=int, default=400, help="of the worlds that are learnt from")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--comparisons", type=int, default=600)
    parser.add_argument("--chains", type=int, default=2, help="per comparison")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    from benchmarks.ablation.judging import PASSES, Figures, Questions
    from benchmarks.ablation.page import PICTURE, Results, page, picture
    from benchmarks.ablation.variants import Sizes, train_all
    from rich.console import Console

    from pgenrm.errors import PgenrmError
    from pgenrm.prototypes.plots import svg_of

    console = Console()
    sizes = Sizes(options.steps, options.completions, options.users, options.seeds)
    try:
        judges = list(train_all(options.source, options.out, sizes, console))
    except PgenrmError as error:
        sys.exit(f"error: {error}")
    questions = Questions(options.comparisons)
    found: dict[str, dict[str, list[Figures]]] = {}
    for judge in judges:
        for one in PASSES:
            figures = questions.judge(judge, one, options.chains, options.out, console)
            found.setdefault(judge.name, {}).setdefault(one.name, []).append(figures)
    results = Results(questions, found, options.chains)
    text = page(results, " ".join(["python -m benchmarks.ablation", *sys.argv[1:]]))
    (options.docs / "figures").mkdir(parents=True, exist_ok=True)
    (options.docs / "figures" / PICTURE).write_bytes(svg_of(picture(results)))
    (options.docs / "ablation.md").write_text(text, "utf-8")
    console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
