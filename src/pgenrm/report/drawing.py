"""Where things stand in the page's pictures: numbers for the template, which draws them."""

from collections.abc import Sequence
from math import ceil, floor, log2
from typing import Final, NamedTuple

from pgenrm.bench.metrics import ALL
from pgenrm.bench.results import BenchResult, CalibrationResult
from pgenrm.bench.rows import Kind
from pgenrm.bench.statistics import Estimate


class Scale(NamedTuple):
    """A part of the axis of shares, drawn from 0 to 100 % of a width."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Return where a share stands, in percent of the width."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    @property
    def ticks(self) -> list[float]:
        """Return round shares inside."""
        width = self.high - self.low
        step = 0.2 if width > 0.65 else 0.1 if width > 0.25 else 0.05
        n = int(width / step + 1e-9)
        return [round(self.low + i * step, 2) for i in range(n + 1)]


class Bar(NamedTuple):
    """An estimate on a scale, in percent of the width."""

    value: float
    low: float
    high: float


class Dot(NamedTuple):
    """A method on the ladder, in percent of width and height (from above)."""

    label: str
    x: float
    y: float
    low: float
    high: float
    n_chains: float


class Ladder(NamedTuple):
    """Accuracy against the chains that a comparison costs."""

    dots: list[Dot]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def scale_of(found: Sequence[Estimate]) -> Scale:
    """Return a scale in tenths that holds all estimates and one half."""
    ends = [end for e in found for end in (e.interval or (e.value, e.value))] + [0.5]
    low, high = floor(10 * min(ends) + 1e-9) / 10, ceil(10 * max(ends) - 1e-9) / 10
    return Scale(max(0.0, low), min(1.0, max(high, low + 0.1)))


def bar(found: Estimate, scale: Scale) -> Bar:
    """Place an estimate; without interval the bar is a point."""
    low, high = found.interval or (found.value, found.value)
    return Bar(scale.at(found.value), scale.at(low), scale.at(high))


def ladder(result: BenchResult) -> Ladder | None:
    """Place the P-GenRM rows; None with fewer than two of them."""
    ours = [m for m in result.methods if m.kind is Kind.OURS and ALL in m.parts and m.cost.n_chains]
    if len(ours) < 2:
        return None
    scale = _tight([m.parts[ALL].accuracy for m in ours])
    most = max(1, ceil(log2(max(m.cost.n_chains for m in ours))))
    dots = []
    for method in sorted(ours, key=lambda m: m.cost.n_chains):
        placed = bar(method.parts[ALL].accuracy, scale)
        dots.append(
            Dot(
                label=method.label.removeprefix("+ "),
                x=round(100 * log2(method.cost.n_chains) / most, 2),
                y=100 - placed.value,
                low=100 - placed.low,
                high=100 - placed.high,
                n_chains=method.cost.n_chains,
            )
        )
    return Ladder(
        dots=dots,
        x_ticks=[(100 * i / most, str(2**i)) for i in range(most + 1)],
        y_ticks=[(100 - scale.at(t), f"{100 * t:.0f} %") for t in scale.ticks],
    )


def _tight(found: Sequence[Estimate]) -> Scale:
    """Return a scale in twentieths that holds all estimates."""
    ends = [end for e in found for end in (e.interval or (e.value, e.value))]
    low, high = floor(20 * min(ends) + 1e-9) / 20, ceil(20 * max(ends) - 1e-9) / 20
    return Scale(max(0.0, low), min(1.0, max(high, low + 0.05)))


class Mark(NamedTuple):
    """A point of a reliability curve, in percent of width and height (from above)."""

    x: float
    y: float
    low: float
    high: float


SHARES: Final = Scale(0.0, 1.0)


def curve(found: CalibrationResult) -> list[Mark]:
    """Place the points with their 95 % intervals over users."""
    marks = []
    for point in found.curve:
        placed = bar(point.accuracy, SHARES)
        ends = (100 - share for share in placed)
        marks.append(Mark(SHARES.at(point.confidence), *(round(end, 2) for end in ends)))
    return marks
