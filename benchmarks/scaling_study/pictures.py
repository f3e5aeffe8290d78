"""The pictures of docs/scaling.md, as SVG."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from benchmarks.scaling_study import jobs, setting
from benchmarks.scaling_study.tables import (
    FIXED,
    Figure,
    Right,
    Study,
    adaptive,
    calibration_of,
    figure,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pgenrm.prototypes.describe import describe
from pgenrm.prototypes.plots import map_figure, size_figure, svg_of, variance_figure

COLOURS = {
    "paper": "#b5651d",
    "shrinkage": "#4477aa",
    "shrinkage, rubrics checked": "#117733",
}
NEIGHBOURS = (0, 8, 16, 32)
ERRORS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
MIN_FOR_ACCURACY = 10
"""Comparisons that a prototype needs to be drawn with an accuracy."""


def draw(
    study: Study,
    ladders: Mapping[str, Mapping[tuple[str, int, int, int], Right]],
    known: Mapping[str, Sequence[Figure]],
    by_k: Sequence[tuple[int, float, float, float]],
    directory: Path,
    say: Callable[[str], None],
) -> None:
    """Draw everything into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    fitted = setting.prototypes(study.out, "shipped")
    description = describe(fitted)
    figures = {
        "scaling-ladder": _ladder(study, ladders, known),
        "scaling-stopping": _stopping(study),
        "scaling-calibration": _calibration(study),
        "prototypes-k": variance_figure(fitted.spectrum_, len(fitted.prototypes_), by_k),
        "prototypes-map": map_figure(fitted, description),
        "prototypes-sizes": size_figure(description, _by_prototype(study)),
    }
    for name, canvas in figures.items():
        (directory / f"{name}.svg").write_bytes(svg_of(canvas))
        say(f"{directory / name}.svg")


def _ladder(
    study: Study,
    ladders: Mapping[str, Mapping[tuple[str, int, int, int], Right]],
    known: Mapping[str, Sequence[Figure]],
) -> Canvas:
    """Accuracy at Ind-16 against the number of neighbours."""
    canvas = Canvas(figsize=(10, 6), layout="constrained")
    axes = canvas.subplots(len(ladders), len(jobs.PAIRS), sharex=True, squeeze=False)
    for row, (evaluator, rights) in enumerate(ladders.items()):
        for column, h in enumerate(jobs.PAIRS):
            one: Axes = axes[row][column]
            users = study.main(evaluator, h).users
            for offset, (name, colour) in enumerate(COLOURS.items()):
                counts = [n for n in NEIGHBOURS if (name, h, 16, n) in rights]
                found = [figure(rights[name, h, 16, n], users) for n in counts]
                means = np.array([f.mean for f in found])
                spans = [means - [f.low for f in found], [f.high for f in found] - means]
                one.errorbar(
                    np.array(counts) + 0.4 * (offset - 1),
                    100 * means,
                    100 * np.array(spans),
                    color=colour,
                    marker="o",
                    markersize=4,
                    capsize=2,
                    label=name,
                )
            bayes = known["Bayes observer"][1 + column]
            one.axhline(100 * bayes.mean, color="#777777", linestyle="--", linewidth=1)
            one.annotate(
                "Bayes observer",
                (32, 100 * bayes.mean),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color="#555555",
            )
            one.set_title(f"{evaluator}, {h} past choice{'s' * (h > 1)}", fontsize=10)
            one.grid(alpha=0.25)
            one.set_xticks(NEIGHBOURS)
            if column == 0:
                one.set_ylabel("accuracy, %")
            if row == len(ladders) - 1:
                one.set_xlabel("neighbours (Ind-16,Pro-n)")
    canvas.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return canvas


def _stopping(study: Study) -> Canvas:
    """Loss of accuracy against the mean number of chains."""
    canvas = Canvas(figsize=(7, 4.2), layout="constrained")
    axes = canvas.subplots()
    for evaluator, marker in zip(jobs.CAPS, "os", strict=True):
        for name in list(COLOURS)[1:]:
            found = [adaptive(study, evaluator, name, None, error) for error in ERRORS]
            axes.plot(
                [stop.mean_chains for stop in found],
                [100 * stop.difference.mean for stop in found],
                color=COLOURS[name],
                marker=marker,
                markersize=5,
                linestyle="-" if marker == "o" else "--",
                label=f"{evaluator}, {name}",
            )
    axes.axhline(-0.2, color="#777777", linewidth=1, linestyle=":")
    axes.axvline(8, color="#777777", linewidth=1, linestyle=":")
    axes.set_xlabel("chains per comparison, mean")
    axes.set_ylabel(f"accuracy against Ind-{FIXED[0]},Pro-{FIXED[1]}, points")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return canvas


def _calibration(study: Study) -> Canvas:
    """Accuracy against confidence."""
    canvas = Canvas(figsize=(5, 4.6), layout="constrained")
    axes = canvas.subplots()
    axes.plot([50, 100], [50, 100], color="#777777", linewidth=1, linestyle="--")
    for evaluator, marker in zip(jobs.CAPS, "os", strict=True):
        found = calibration_of(study, evaluator, checked=True)
        axes.plot(
            [100 * each.confidence for each in found.bins],
            [100 * each.accuracy for each in found.bins],
            marker=marker,
            color=list(COLOURS.values())[1 + (marker == "o")],
            label=f"{evaluator}, calibration error {100 * found.expected_calibration_error:.1f}",
        )
    axes.set_xlabel("confidence of the verdict, %")
    axes.set_ylabel("right verdicts, %")
    axes.grid(alpha=0.25)
    axes.legend()
    return canvas


def _by_prototype(study: Study) -> list[tuple[int, float, float, float]]:
    """Accuracy at Ind-16, Pro-16 of the test comparisons of every prototype."""
    judged = study.main("shipped", jobs.SWEEP_PAIRS)
    aggregator = study.shrinkage("shipped", checked=True)
    rights = study.right_at(judged, aggregator, 16, 16, checked=True)
    found = []
    for prototype in np.unique(judged.prototype[judged.prototype >= 0]):
        rows = judged.prototype == prototype
        if rows.sum() >= MIN_FOR_ACCURACY:
            one = figure(rights[rows], judged.users[rows])
            found.append((int(prototype), one.mean, one.low, one.high))
    return found
