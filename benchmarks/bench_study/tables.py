"""From the records of the study to the rows of its tables. Every number is counted here."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks.bench_study.steps import HISTORY_SIZES, NOT_RUN

from pgenrm.bench.counting import Counted
from pgenrm.bench.metrics import ALL, HARD, evaluate, read_runs
from pgenrm.bench.plan import read_items
from pgenrm.bench.published import published
from pgenrm.bench.results import BenchResult, Difference, MethodResult
from pgenrm.bench.rows import ROWS, Kind, row_of
from pgenrm.data.dataset import TEST_SEEN, TEST_UNSEEN
from pgenrm.report.tables import percent, points, quoted, seconds, share

Row = list[str]
TABLE_1: Final = (Kind.JUDGE, Kind.TRAINED, Kind.OURS)
NOTHING: Final = "-"


class Bench:
    """A bench of the study, counted."""

    def __init__(self, out: Path) -> None:
        self.out = out

    @cached_property
    def result(self) -> BenchResult:
        """Everything that a report shows."""
        return evaluate(self.out)

    @cached_property
    def methods(self) -> dict[str, MethodResult]:
        """The rows by name, those that have judged everything."""
        return {m.name: m for m in self.result.methods if not m.n_missing}

    @cached_property
    def _counted(self) -> Counted:
        items = read_items(self.out)
        runs = read_runs(self.out, items)
        users = [item.comparison.user.id for item in items]
        return Counted(users, [None] * len(items), runs, np.ones(len(items), bool))

    def difference(self, name: str, to: str) -> Difference | None:
        """Compare two methods of this bench on the same comparisons, where both are here."""
        return self._counted.difference(name, to) if {name, to} <= set(self.methods) else None


def is_there(out: Path) -> bool:
    """Whether a bench has records."""
    return any((out / "records").glob("*.jsonl"))


def main_rows(bench: Bench, names: Sequence[str], reason: str) -> list[Row]:
    """Return rows of table 1: every row of the paper and of the package, run or not.

    Args:
        bench: where they were run.
        names: of the rows.
        reason: why rows were not run, where `NOT_RUN` has none of its own.
    """
    rows = []
    for name in names:
        quotes = published().table_1.get(name)
        row = [row_of(name).label, *_figures(bench, name, NOT_RUN.get(name, reason))]
        rows.append([*row, quoted(quotes, "arena_8b"), quoted(quotes, "prism_8b")])
    return rows


def _figures(bench: Bench, name: str, reason: str) -> Row:
    method = bench.methods.get(name)
    if method is None:
        return [f"not run: {reason}", *[NOTHING] * 7]
    part = method.parts[ALL]
    return [
        percent(part.accuracy),
        share(part.coverage),
        *(percent(method.parts[n].accuracy) for n in (TEST_SEEN, TEST_UNSEEN, HARD)),
        NOTHING if part.versus_best is None else points(part.versus_best.by),
        NOTHING
        if method.error_of_runs is None
        else f"{share(method.mean_of_runs)} ± {share(method.error_of_runs)}",
        NOTHING if method.calibration is None else share(_calibration_error(method)),
    ]


def _calibration_error(method: MethodResult) -> float | None:
    return method.calibration.expected_calibration_error if method.calibration else None


def table_1_names() -> list[str]:
    """Return the rows of table 1 in order, ours among them."""
    return [row.name for row in ROWS if row.kind in TABLE_1]


def shuffled_rows(bench: Bench, without: Bench | None) -> list[Row]:
    """Return for every method that was run with shuffled users what that costs it.

    Args:
        bench: with methods and their shuffled forms.
        without: the same methods without any past choice; None where that was not run.
    """
    rows = []
    for name in bench.methods:
        plain, _, altered = name.partition("+")
        if altered != "shuffled":
            continue
        lost = bench.difference(name, plain)
        if lost is None:
            continue
        bare = without.methods.get(plain) if without else None
        rows.append(
            [
                row_of(plain).label,
                percent(bench.methods[plain].parts[ALL].accuracy),
                percent(bench.methods[name].parts[ALL].accuracy),
                points(lost.by),
                NOTHING if bare is None else percent(bare.parts[ALL].accuracy),
                "falls" if is_below(lost) else "does not fall: uses no user",
            ]
        )
    return rows


def is_below(difference: Difference) -> bool:
    """Whether the interval of a difference lies below nothing."""
    return difference.by.interval is not None and difference.by.interval[1] < 0


def is_above(difference: Difference) -> bool:
    """Whether the interval of a difference lies above nothing."""
    return difference.by.interval is not None and difference.by.interval[0] > 0


def variant_rows(bench: Bench) -> list[tuple[Row, Difference]]:
    """Return corrected beside published forms, with the paired difference."""
    rows = []
    for name in bench.methods:
        plain = name.removesuffix("-published")
        if name.endswith("-published") and (gain := bench.difference(plain, name)):
            cells = [percent(bench.methods[n].parts[ALL].accuracy) for n in (plain, name)]
            rows.append(([row_of(plain).label, *cells, points(gain.by)], gain))
    return rows


def history_rows(benches: dict[int, Bench], *, is_published: bool) -> list[Row]:
    """Return accuracy by the number of past choices.

    Args:
        benches: by that number.
        is_published: whether the numbers of table 12 are put below.
    """
    names = dict.fromkeys(name for bench in benches.values() for name in bench.methods)
    rows = [
        [
            row_of(name).label,
            *(
                percent(benches[n].methods[name].parts[ALL].accuracy)
                if n in benches and name in benches[n].methods
                else NOTHING
                for n in HISTORY_SIZES
            ),
        ]
        for name in names
    ]
    if is_published:
        quotes = published().table_12
        values = (f"*{quotes[n]:.2f}*" if n in quotes else NOTHING for n in HISTORY_SIZES)
        rows.append(["*published: P-GenRM, Arena, 8B*", *values])
    return rows


def hard_rows(bench: Bench, names: Iterable[str]) -> list[Row]:
    """Return accuracy on hard negatives beside that on all comparisons."""
    return [
        [
            row_of(name).label,
            percent(bench.methods[name].parts[ALL].accuracy),
            percent(bench.methods[name].parts[HARD].accuracy),
        ]
        for name in names
        if name in bench.methods
    ]


def cost_rows(bench: Bench, names: Iterable[str]) -> list[Row]:
    """Return what a comparison costs."""
    rows = []
    for name in names:
        if name in bench.methods:
            cost = bench.methods[name].cost
            rows.append(
                [
                    row_of(name).label,
                    f"{cost.n_chains:.1f}",
                    f"{cost.n_prompt_tokens + cost.n_completion_tokens:,.0f}",
                    seconds(cost.seconds and 1000 * cost.seconds),
                    seconds(cost.fit_seconds),
                ]
            )
    return rows


def markdown(head: Sequence[str], rows: Iterable[Row]) -> str:
    """Write a table."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (list(head), marks, *rows))
