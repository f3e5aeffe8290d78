"""The reliability curve as a picture."""

from scipy.stats import binomtest

from pgenrm.errors import MissingExtraError
from pgenrm.prototypes.plots import BLUE, DASHED, GREY, STYLE
from pgenrm.scaling.reliability import Reliability

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtraError("prototypes", "drawing the reliability curve") from error


@matplotlib.rc_context(STYLE)
def reliability_figure(curve: Reliability) -> Figure:
    """Draw accuracy against confidence, a dot per bin with its 95 % interval."""
    figure = Figure(figsize=(5.6, 4.6), layout="constrained")
    axes = figure.subplots()
    intervals = [
        binomtest(round(b.accuracy * b.n), b.n).proportion_ci(method="wilson") for b in curve.bins
    ]
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=DASHED, label="perfectly calibrated")
    axes.errorbar(
        [b.confidence for b in curve.bins],
        [b.accuracy for b in curve.bins],
        [
            [b.accuracy - i.low for b, i in zip(curve.bins, intervals, strict=True)],
            [i.high - b.accuracy for b, i in zip(curve.bins, intervals, strict=True)],
        ],
        color=BLUE,
        ecolor=BLUE,
        elinewidth=1,
        marker="o",
        linestyle="none",
        label=f"{curve.bins[0].n:,} verdicts each, with 95 % interval",
    )
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of verdicts that were right")
    axes.set_title(f"Expected calibration error {curve.expected_calibration_error:.1%}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:.0%}")
    axes.set_xlim(min(0.5, curve.bins[0].confidence) - 0.02, 1.02)
    axes.set_ylim(0, 1.02)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure
