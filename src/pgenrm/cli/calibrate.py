"""`pgenrm calibrate`: judgments of validation users in; weights, stopping rule, confidence out."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from pgenrm.cli.progress import counting_progress
from pgenrm.cli.scaling import ERROR
from pgenrm.errors import InputError
from pgenrm.runs import read_judgments
from pgenrm.scaling.aggregate import ChainScale
from pgenrm.scaling.calibration import Calibration, HistoryBand, calibrate
from pgenrm.scaling.reliability import Reliability
from pgenrm.scaling.shrinkage import SIMILARITY_UNIT, ShrinkageWeights
from pgenrm.scaling.stopping import CONFIDENCE, StoppingRule
from pgenrm.types import Judgment

PICTURES = (".png", ".svg", ".pdf")
BAR_WIDTH = 30
ABOUT_ONE = 0.05
"""A factor this close to 1 makes no difference worth a line."""
UNMOVED = 1e-3
"""A weight this close to its default was not fitted to anything."""
WORDS = (
    ("share", "history", np.log(4), "neighbours, for a user with 3 past choices rather than none"),
    ("share", "number", np.log(2), "neighbours, where they are twice as many"),
    ("share", "own_number", np.log(2), "neighbours, where own chains are twice as many"),
    ("share", "spread", 1, "neighbours, where own chains differ by a point more than usual"),
    ("share", "similarity", 1, f"neighbours, where all are more similar by {SIMILARITY_UNIT}"),
    ("share", "agreement", 1, "neighbours, where their rubrics fit a past choice better by 1 nat"),
    ("chains", "neighbour_similarity", 1, f"a neighbour more similar by {SIMILARITY_UNIT}"),
    ("chains", "neighbour_agreement", 1, "a neighbour whose rubric fits better by 1 nat"),
    ("chains", "own_agreement", 1, "an own chain whose rubric fits better by 1 nat"),
)
"""(part of the weights, name, amount, what counts more or less where it is greater by that)."""


def calibrate_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Judgments that `pgenrm judge --out` wrote, of labelled comparisons.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File to write. As calibration.json in the directory of the prototypes, "
            "`pgenrm judge --prototypes` finds it.",
            show_default=False,
        ),
    ],
    error: Annotated[
        float, typer.Option(help="Share of right verdicts that --adaptive may cost.")
    ] = ERROR,
    scale: Annotated[
        ChainScale,
        typer.Option(help="common puts every chain's scores on one scale before averaging."),
    ] = ChainScale.RAW,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the reliability curve to this file (.png, .svg, .pdf).", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the parts of the chains that are fitted.")] = 0,
) -> None:
    """Learn how far to trust neighbours, when to stop, and how sure a verdict is.

    Needs at least 40 validation users, who are neither stored as neighbours nor judged later. Judge
    them once, at the largest -m and -n that will be used and without --adaptive.

    Example: pgenrm judge validation.jsonl -m 16 -n 8 --prototypes DIR --out runs/validation.jsonl

    then: pgenrm calibrate runs/validation.jsonl --out DIR/calibration.json
    """
    if not 0 < error < 1:
        raise InputError(f"--error {error}: use a share between 0 and 1, e.g. {ERROR}")
    for path in runs:
        if not path.is_file():
            raise InputError(f"{path} is not a file; name what `pgenrm judge --out` wrote")
    if plot:
        if plot.suffix not in PICTURES:
            raise InputError(f"--plot {plot}: end the name in {', '.join(PICTURES)}")
        from pgenrm.cli.reliability_plot import reliability_figure
    with counting_progress(Console(stderr=True)) as bars:
        reading = bars.add_task("reading judgments", total=None)
        fitting = bars.add_task("fitting weights", total=None)
        calibration = calibrate(
            _judgments(runs, lambda: bars.advance(reading)),
            error=error,
            scale=scale,
            seed=seed,
            progress=lambda _: bars.advance(fitting),
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    calibration.save(out)
    show_calibration(Console(), calibration)
    if plot:
        reliability_figure(calibration.reliability).savefig(plot)
    written = f"{out} and {plot}" if plot else str(out)
    Console(stderr=True).print(f"wrote {written}", markup=False, highlight=False, soft_wrap=True)


def _judgments(runs: Sequence[Path], on_read: Callable[[], None]) -> Iterator[Judgment]:
    for path in runs:
        for judgment in read_judgments(path):
            on_read()
            yield judgment


# ---------------------------------------------------------------- in words


def show_calibration(console: Console, calibration: Calibration) -> None:
    """Print what was learnt: neighbours' share, weights, reliability, when sampling stops."""
    weights, caps = calibration.weights, calibration.stopping.stages[-1]
    curve = calibration.reliability
    _say(
        console,
        f"fitted on {weights.n_comparisons:,} comparisons of {weights.n_users:,} users with "
        f"{caps.m} own and {caps.n} neighbours' chains by {calibration.evaluator}",
    )
    if caps.n:
        console.print(_history_table(calibration.by_history))
        _say(console, *weights_in_words(weights))
    console.print(_reliability_table(curve))
    _say(
        console,
        f"expected calibration error {curve.expected_calibration_error:.1%}, log score "
        f"{curve.log_score:.3f} nats; on half of the users, with weights fitted on the others",
        stopping_in_words(calibration.stopping),
    )


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _history_table(bands: Sequence[HistoryBand]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for name in ("past choices", "comparisons", "neighbours' share"):
        table.add_column(name, justify="right")
    table.add_column()
    for band in bands:
        choices = str(band.low) if band.low == band.high else f"{band.low}-{band.high}"
        share = band.neighbour_weight
        table.add_row(choices, f"{band.n:,}", f"{share:.0%}", "█" * round(share * BAR_WIDTH))
    return table


def weights_in_words(weights: ShrinkageWeights) -> list[str]:
    """Say what fitted weights do, as factors.

    Left out: those that do next to nothing, and those that the judgments say nothing about.
    """
    before = ShrinkageWeights()
    factors = []
    for kind, name, amount, what in WORDS:
        weight, default = (getattr(getattr(w, kind), name) for w in (weights, before))
        if abs(weight - default) > UNMOVED:
            factors.append((float(np.exp(amount * weight)), what))
    told = [f"  x {factor:.2f}  {what}" for factor, what in factors if abs(factor - 1) > ABOUT_ONE]
    return ["what counts more or less (factor of the odds):", *told] if told else []


def _reliability_table(curve: Reliability) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for name in ("confidence", "right", "verdicts"):
        table.add_column(name, justify="right")
    table.add_column()
    for one in curve.bins:
        table.add_row(
            f"{one.confidence:.0%}",
            f"{one.accuracy:.0%}",
            f"{one.n:,}",
            "█" * round(one.accuracy * BAR_WIDTH),
        )
    return table


def stopping_in_words(rule: StoppingRule) -> str:
    """Say when sampling stops, and how that is known."""
    caps = rule.stages[-1]
    at_caps = f"-m {caps.m} -n {caps.n}"
    if rule.threshold is None or len(rule.stages) == 1:
        return f"{at_caps} leaves nothing to stop early"
    if rule.threshold == 0:
        return (
            f"--adaptive goes on to {at_caps}: {rule.n_users} users do not show that stopping "
            f"earlier costs at most {rule.error:.2%} of the right verdicts"
        )
    return (
        f"--adaptive stops where going on to {at_caps} would gain at most {rule.threshold:.2%}; "
        f"over all comparisons this costs at most {rule.error:.2%} of the right verdicts, shown "
        f"on {rule.n_users} users with {CONFIDENCE:.0%} confidence"
    )
