"""The picture of a run: what was logged, against the step."""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from pgenrm.errors import MissingExtraError
from pgenrm.train.callbacks import METRICS_FILE, read_rows

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtraError("train", "drawing a run") from error

CHART_FILE = "chart.svg"
PANELS: Final = (
    ("Loss", ("loss", "eval_loss")),
    ("Reward", ("reward", "rewards/*/mean", "reward/*")),
    ("Share of tokens right", ("mean_token_accuracy", "eval_mean_token_accuracy")),
    ("Entropy and distance to the start", ("entropy", "kl")),
    ("Share of hard pairs", ("hard_*",)),
    ("Length of chains (tokens)", ("completions/mean_length",)),
    ("Gradient norm", ("grad_norm",)),
    ("Learning rate", ("learning_rate",)),
)
"""(title, names of metrics); a panel without any of its metrics is left out."""
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's, which colour-blind readers can tell apart."""
PANEL_INCHES: Final = (7.0, 2.2)
STYLE: Final[dict[Any, Any]] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.0,
    "axes.grid": True,
    "grid.color": "#EBEBEB",
    "svg.hashsalt": "pgenrm",
}


@matplotlib.rc_context(STYLE)
def draw_run(out: Path) -> Path | None:
    """Draw chart.svg from metrics.jsonl; None where nothing was logged."""
    rows = read_rows(out / METRICS_FILE)
    names = sorted({name for row in rows for name in row})
    panels = [
        (title, shown)
        for title, patterns in PANELS
        if (shown := [n for n in names if any(fnmatch(n, p) for p in patterns)])
    ]
    if not panels:
        return None
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width, height * len(panels)), layout="constrained")
    all_axes: list[Axes] = list(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0])
    for axes, (title, shown) in zip(all_axes, panels, strict=True):
        _draw(axes, rows, shown)
        axes.set_title(title)
    all_axes[-1].set_xlabel("Step")
    path = out / CHART_FILE
    figure.savefig(path, metadata={"Date": None})
    return path


def _draw(axes: Axes, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if points:
            steps, values = zip(*points, strict=True)
            marker = "o" if len(points) < 20 else ""
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(steps, values, color=colour, marker=marker, markersize=3, label=name)
    if len(names) > 1:
        # Beside the curves: to look for a free place among many points takes seconds.
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
