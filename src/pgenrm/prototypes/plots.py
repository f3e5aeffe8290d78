"""Pictures of fitted prototypes, each a matplotlib figure of its own.

Nothing here touches the state of pyplot; save a figure with `figure.savefig(path)`. Colours are
those of Okabe and Ito, which colour-blind readers can tell apart; numbers say the same as colours.
"""

import io
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pgenrm.errors import MissingExtraError
from pgenrm.prototypes.describe import Description, Fitted, Spread, Summary, spread_of
from pgenrm.seeding import derive_seed, rng

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import findfont, get_font
    from matplotlib.ticker import LogLocator, NullLocator
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
except ImportError as error:
    raise MissingExtraError("prototypes", "plotting prototypes") from error

METHODS: Final = {"tsne": "t-SNE", "pca": "PCA"}
Method = Literal["tsne", "pca"]
AccuracyAt = tuple[int, float, float, float]
"""(number of prototypes or index of one, accuracy, low, high); shares in [0, 1]."""

MAX_ROWS_DRAWN: Final = 3_000
"""Rows on the map; of more, so many are drawn. t-SNE of 3,000 takes about 15 s on one core."""
MAX_NAMED: Final = 60
"""With more prototypes there is no room for their numbers."""
N_TEXT_LINES: Final = 9
TEXT_WIDTH: Final = 54
"""Signs in a line of text beside the map."""

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, GREY = "#222222", "#6B6B6B"
TINTS: Final = ("#E3BE85", "#B4D6EE", "#9FD3C1", "#EFE6A1", "#E2BDD3", "#CFCFCF")
"""Orange, sky, green, yellow, purple and grey, pale: neighbours on the map differ."""
DASHED: Final = (0, (4, 3))
BADGE: Final[dict[str, Any]] = {
    "color": "white",
    "weight": "bold",
    "ha": "center",
    "va": "center_baseline",
}
STYLE: Final[dict[Any, Any]] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#EBEBEB",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "figure.dpi": 160,
}
"""Everything that moves a picture, so that a user's own matplotlib settings do not."""


@matplotlib.rc_context(STYLE)
def variance_figure(
    spectrum: NDArray[np.float64], k: int, accuracy: Sequence[AccuracyAt] = ()
) -> Figure:
    """Draw the retained variance against the number of singular vectors, with k marked.

    Where accuracies at several numbers of prototypes are given they stand beside it (paper,
    section 3.3 and table 13).

    Args:
        spectrum: share of variance kept by the first 1, 2, ... singular vectors.
        k: number of prototypes.
        accuracy: (number of prototypes, accuracy, low, high), in any order.
    """
    figure = Figure(figsize=(9.6 if accuracy else 5.6, 3.8), layout="constrained")
    panels = figure.subplots(1, 2 if accuracy else 1, squeeze=False)[0]
    _draw_spectrum(panels[0], spectrum, k)
    if accuracy:
        _draw_accuracy_at_k(panels[1], sorted(accuracy), k)
    return figure


def _draw_spectrum(axes: Axes, spectrum: NDArray[np.float64], k: int) -> None:
    axes.plot(np.arange(1, len(spectrum) + 1), spectrum, color=BLUE, linewidth=2)
    kept = spectrum[min(k, len(spectrum)) - 1]
    lowest = max(0.0, float(spectrum[0]) - 0.08)
    axes.plot([k, k, 1], [lowest, kept, kept], color=ORANGE, linestyle=DASHED, linewidth=1.2)
    axes.plot(k, kept, "o", color=ORANGE, markersize=7, markeredgecolor="white")
    is_right = k > len(spectrum) ** 0.5
    axes.annotate(
        f"k = {k} keeps {kept:.1%}",
        (k, lowest + 0.08 * (1 - lowest)),
        (-8 if is_right else 8, 0),
        textcoords="offset points",
        ha="right" if is_right else "left",
        color=ORANGE,
        weight="bold",
    )
    axes.set_xscale("log")
    axes.set(
        title="Variance kept by the first singular vectors",
        xlabel="number of singular vectors",
        xlim=(1, max(len(spectrum), k)),
        ylim=(lowest, 1.02),
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    _write_percents(axes)


def _draw_accuracy_at_k(axes: Axes, accuracy: Sequence[AccuracyAt], k: int) -> None:
    """Space the numbers of prototypes evenly: studies double them."""
    n_prototypes, mean, low, high = np.array(accuracy).T
    x = np.arange(len(accuracy))
    axes.fill_between(x, low, high, color=BLUE, alpha=0.12, linewidth=0, label="95 % interval")
    axes.plot(x, mean, "o-", color=BLUE, linewidth=2, markersize=5)
    is_k = n_prototypes == k
    axes.plot(
        x[is_k],
        mean[is_k],
        "o",
        color=ORANGE,
        markersize=8,
        markeredgecolor="white",
        label=f"k = {k}",
    )
    axes.set(title="Accuracy", xlabel="number of prototypes k")
    axes.set_xticks(x, [f"{n:.0f}" for n in n_prototypes])
    _write_percents(axes)
    _put_legend(axes)


def _write_percents(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")


def _put_legend(axes: Axes) -> None:
    """Put the legend above the axes, where it can hide nothing."""
    axes.legend(
        frameon=False,
        loc="lower right",
        bbox_to_anchor=(1.01, 0.99),
        ncols=4,
        fontsize=9,
        borderpad=0,
    )


@matplotlib.rc_context(STYLE)
def map_figure(
    fitted: Fitted,
    description: Description,
    *,
    method: Method = "tsne",
    highlight: tuple[int, int] | None = None,
    seed: int = 0,
) -> Figure:
    """Draw users and prototypes in two dimensions, with typical texts of two prototypes.

    Args:
        fitted: what is drawn; a dot is a row, i.e. a user in one scenario.
        description: of the same prototypes.
        method: t-SNE keeps neighbours together and does not tell distances between groups; PCA
            is a plain projection, and fast.
        highlight: the two prototypes that get a colour and their texts; default: `contrasting`.
        seed: of the rows drawn and of t-SNE.
    """
    figure = Figure(figsize=(11.0, 6.2), layout="constrained")
    axes, side = figure.subplots(1, 2, width_ratios=(1.45, 1))
    n_rows = len(fitted.rows_)
    shown = np.arange(n_rows)
    if n_rows > MAX_ROWS_DRAWN:
        shown = np.sort(rng("map", seed).choice(n_rows, MAX_ROWS_DRAWN, replace=False))
    points = flat(np.concatenate([fitted.rows_[shown], fitted.prototypes_]), method, seed)
    rows, prototypes = points[: len(shown)], points[len(shown) :]
    assignment = np.asarray(fitted.assignment_)[shown]
    told = highlight or contrasting(fitted.prototypes_, description)
    colours = dict(zip(told, (BLUE, ORANGE), strict=False))

    for j in sorted(set(assignment.tolist()), key=colours.__contains__):
        axes.scatter(
            *rows[assignment == j].T,
            s=14,
            color=colours.get(j, TINTS[j % len(TINTS)]),
            alpha=0.85,
            linewidth=0,
            rasterized=True,
        )
    are_named = len(prototypes) <= MAX_NAMED
    size = 15 - 0.06 * len(prototypes) if are_named else 5
    for j, (x, y) in enumerate(prototypes):
        layer = 4 if j in told else 3
        colour = colours.get(j, GREY)
        axes.plot(x, y, "o", color=colour, markersize=size, markeredgecolor="white", zorder=layer)
        if are_named:
            axes.text(x, y, str(j), size=0.54 * size, zorder=layer, **BADGE)
    axes.set(title="Users and prototypes", xticks=[], yticks=[])
    n_dots = f"{len(shown):,}" + (f" of {n_rows:,}" if n_rows > len(shown) else "")
    axes.set_xlabel(
        f"{METHODS[method]}; a dot is a user in one scenario ({n_dots} shown), "
        f"a {'number' if are_named else 'circle'} a prototype",
        color=GREY,
    )
    axes.spines[:].set_visible(False)
    side.axis("off")
    for top, j in zip((1.0, 0.48), told, strict=False):
        _write_summary(side, description.prototypes[j], top, colours[j])
    return figure


def flat(vectors: NDArray[np.float32], method: Method, seed: int) -> NDArray[np.float32]:
    """Lay vectors [n, d] out in two dimensions, [n, 2]."""
    seed = derive_seed("layout", seed) % 2**32
    n_components = min(2 if method == "pca" else 50, *vectors.shape)
    points = PCA(n_components, random_state=seed).fit_transform(vectors)
    if method == "tsne":
        perplexity = min(30.0, (len(points) - 1) / 3)
        points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
    return np.asarray(points, np.float32)


def contrasting(prototypes: NDArray[np.float32], description: Description) -> tuple[int, ...]:
    """Choose the largest prototype and, of the larger half, the one least similar to it."""
    larger_half = description.by_size[: max(2, (len(prototypes) + 1) // 2)]
    first = larger_half[0].prototype
    others = [s.prototype for s in larger_half[1:] if s.n_rows]
    if not others:
        return (first,)
    return first, min(others, key=lambda j: float(prototypes[first] @ prototypes[j]))


def _write_summary(axes: Axes, summary: Summary, top: float, colour: str) -> None:
    """Write a prototype's words and the text of its most typical member below `top`."""
    heading = f"Prototype {summary.prototype} · {summary.n_users} users"
    axes.text(0, top, heading, color=colour, weight="bold", size=11, va="top")
    words = textwrap.wrap(drawable(", ".join(summary.words)), TEXT_WIDTH)[:2]
    text = " ".join(drawable(summary.typical[0].text).split()) if summary.typical else ""
    body = textwrap.wrap(f"“{text}”", TEXT_WIDTH, max_lines=N_TEXT_LINES, placeholder=" …”")
    axes.text(0, top - 0.055, "\n".join(words), size=9, weight="bold", va="top", parse_math=False)
    axes.text(
        0,
        top - 0.065 - 0.04 * len(words),
        "\n".join(body),
        size=9,
        va="top",
        linespacing=1.35,
        parse_math=False,
    )


def drawable(text: str) -> str:
    """Replace signs that the font of the pictures does not have."""
    font = get_font(findfont("DejaVu Sans"))
    return "".join(
        c if c.isspace() or font.get_char_index(ord(c)) else "\N{WHITE SQUARE}" for c in text
    )


@matplotlib.rc_context(STYLE)
def size_figure(description: Description, accuracy: Sequence[AccuracyAt] = ()) -> Figure:
    """Draw users and rows per prototype, largest first, with their macro statistics.

    Where the accuracy of every prototype is given it stands below (paper, figure of samples and
    accuracy per prototype).

    Args:
        description: the prototypes.
        accuracy: (prototype, accuracy, low, high); prototypes may be missing.
    """
    figure = Figure(figsize=(9.6, 6.2 if accuracy else 3.8), layout="constrained")
    panels = figure.subplots(2 if accuracy else 1, 1, sharex=True, squeeze=False)[:, 0]
    summaries = description.by_size
    at = {s.prototype: x for x, s in enumerate(summaries)}
    x = np.arange(len(summaries))
    axes = panels[0]
    axes.bar(
        x, [s.n_rows for s in summaries], color="#A6CEE3", width=0.8, label="rows (user × scenario)"
    )
    axes.bar(x, [s.n_users for s in summaries], color=BLUE, width=0.45, label="users")
    _draw_spread(axes, description.rows_per_prototype, "{:.0f}".format)
    axes.set(title="Members of every prototype", ylabel="count")
    _put_legend(axes)
    if accuracy:
        _draw_accuracy_by_prototype(panels[1], accuracy, at)
    names = [str(s.prototype) for s in summaries] if len(summaries) <= MAX_NAMED else []
    panels[-1].set_xticks(x[: len(names)], names, size=8)
    panels[-1].set(xlabel="prototype, largest first", xlim=(-0.7, len(summaries) - 0.3))
    return figure


def _draw_accuracy_by_prototype(
    axes: Axes, accuracy: Sequence[AccuracyAt], at: dict[int, int]
) -> None:
    prototype, mean, low, high = np.array(accuracy).T
    x = [at[int(j)] for j in prototype]
    axes.errorbar(
        x, mean, [mean - low, high - mean], fmt="o", color=BLUE, ecolor="#9DC3DD", markersize=4.5
    )
    _draw_spread(axes, spread_of(mean.tolist()), "{:.1%}".format)
    axes.set(title="Accuracy of every prototype")
    _write_percents(axes)
    _put_legend(axes)


def _draw_spread(axes: Axes, spread: Spread, write: Callable[[float], str]) -> None:
    """Draw macro mean, median and one standard deviation to both sides."""
    axes.axhspan(
        spread.mean - spread.std,
        spread.mean + spread.std,
        color=ORANGE,
        alpha=0.08,
        linewidth=0,
        zorder=0,
    )
    axes.axhline(
        spread.mean,
        color=ORANGE,
        linewidth=1.4,
        label=f"mean {write(spread.mean)} ± {write(spread.std)}",
    )
    axes.axhline(
        spread.median,
        color=GREEN,
        linewidth=1.4,
        linestyle=DASHED,
        label=f"median {write(spread.median)}",
    )


def svg_of(figure: Figure) -> bytes:
    """Return the figure as an SVG; the same figure gives the same bytes."""
    svg = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "pgenrm"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()
