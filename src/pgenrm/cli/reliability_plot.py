"""The reliability curve as a picture."""

import matplotlib  # behind pgenrm.prototypes.plots, which names the extra where it is missing
from matplotlib.figure import Figure

from pgenrm.prototypes.plots import BLUE, DASHED, GREY, STYLE
from pgenrm.scaling.reliability import Reliability


@matplotlib.rc_context(STYLE)
def reliability_figure(curve: Reliability) -> Figure:
    """Draw accuracy against confidence, a dot per bin with its area as its size."""
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    low = min(*(min(b.confidence, b.accuracy) for b in curve.bins), 0.5)
    axes.plot([low, 1], [low, 1], color=GREY, linestyle=DASHED, label="perfectly calibrated")
    axes.plot(
        [b.confidence for b in curve.bins],
        [b.accuracy for b in curve.bins],
        color=BLUE,
        marker="o",
        label=f"verdicts, {curve.bins[0].n:,} to a dot",
    )
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of verdicts that were right")
    axes.set_title(f"Expected calibration error {curve.expected_calibration_error:.1%}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:.0%}")
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper left")
    return figure
