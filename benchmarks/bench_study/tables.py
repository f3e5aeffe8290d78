"""From the records of the study to the rows of its tables. Every number is counted here."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks.bench_study.steps import HISTORY_SIZES, NOT_RUN

from pgenrm.accuracy import OUTCOMES
from pgenrm.bench.metrics import ALL, HARD, evaluate, read_runs
from pgenrm.bench.plan import Item, read_items
from pgenrm.bench.published import published
from pgenrm.bench.results import BenchResult, MethodResult
from pgenrm.bench.rows import ROWS, Kind, row_of
from pgenrm.bench.statistics import Estimate, Floats, mean_over_users
from pgenrm.data.dataset import TEST_SEEN, TEST_UNSEEN
from pgenrm.report.tables import (
    calibration_error,
    markdown_table,
    percent,
    points,
    quoted,
    seconds,
    share,
)
from pgenrm.types import Outcome

Row = list[str]
TABLE_1: Final = (Kind.JUDGE, Kind.TRAINED, Kind.OURS)
NOTHING: Final = "-"
NEXT_TO_NOTHING: Final = 0.02
"""A loss whose interval lies within this, either way, is none."""
CANNOT_TELL: Final = "cannot tell"
FALLS: Final = "falls"


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
    def items(self) -> list[Item]:
        """The comparisons."""
        return read_items(self.out)

    @cached_property
    def right(self) -> dict[str, dict[int, Floats]]:
        """Of every method, by the seed of the run, what was right: [n_comparisons] of 0 and 1."""
        correct = OUTCOMES.index(Outcome.CORRECT)
        return {
            runs.name: {
                task.seed: (outcomes == correct).astype(float)
                for task, outcomes in zip(runs.tasks, runs.outcomes, strict=True)
            }
            for runs in read_runs(self.out, self.items)
        }

    def difference(self, name: str, to: str, of: "Bench | None" = None) -> Estimate | None:
        """Compare a method with one of this bench or of another over the same comparisons.

        Returns:
            The first less the second, paired by user, over the seeds that both were run with; None
            where one of them was not run.
        """
        found = self.by_seed(name, to, of)
        if not found:
            return None
        users = [item.comparison.user.id for item in self.items]
        return mean_over_users(np.mean(list(found.values()), axis=0), users)

    def by_seed(self, name: str, to: str, of: "Bench | None" = None) -> dict[int, Floats]:
        """Return by seed what a method has right, less what another has: [n_comparisons] each."""
        other = of or self
        if name not in self.methods or to not in other.methods:
            return {}
        if [i.comparison.id for i in self.items] != [i.comparison.id for i in other.items]:
            raise SystemExit(f"{self.out} and {other.out} are over different comparisons")
        mine, others = self.right[name], other.right[to]
        return {seed: mine[seed] - others[seed] for seed in sorted(mine.keys() & others.keys())}


def is_there(out: Path) -> bool:
    """Whether a bench has records."""
    return any((out / "records").glob("*.jsonl"))


def main_rows(bench: Bench, names: Sequence[str], elsewhere: str) -> list[Row]:
    """Return rows of table 1: every row of the paper and of the package, run or not.

    Args:
        bench: where they were run.
        names: of the rows.
        elsewhere: said of rows that this bench was not asked for.
    """
    rows = []
    for name in names:
        quotes = published().table_1.get(name)
        row = [row_of(name).label, *_figures(bench, name, elsewhere)]
        rows.append([*row, quoted(quotes, "arena_8b"), quoted(quotes, "prism_8b")])
    return rows


def _figures(bench: Bench, name: str, elsewhere: str) -> Row:
    method = bench.methods.get(name)
    if method is None:
        return [_why_not(bench, name, elsewhere), *[NOTHING] * 7]
    part = method.parts[ALL]
    return [
        accuracy(method),
        share(part.coverage),
        *(accuracy(method, n) for n in (TEST_SEEN, TEST_UNSEEN, HARD)),
        NOTHING if part.versus_best is None else points(part.versus_best.by),
        NOTHING
        if method.error_of_runs is None
        else f"{share(method.mean_of_runs)} ± {share(method.error_of_runs)}",
        calibration_error(method),
    ]


def _why_not(bench: Bench, name: str, elsewhere: str) -> str:
    if name in NOT_RUN:
        return f"not run: {NOT_RUN[name]}"
    begun = next((method for method in bench.result.methods if method.name == name), None)
    return f"not complete: {begun.n_missing:,} missing" if begun else elsewhere


def accuracy(method: MethodResult, part: str = ALL) -> str:
    """Write the accuracy on a part of the comparisons, which a small bench may lack."""
    return percent(method.parts[part].accuracy) if part in method.parts else NOTHING


def table_1_names() -> list[str]:
    """Return the rows of table 1 in order, ours among them."""
    return [row.name for row in ROWS if row.kind in TABLE_1]


def altered_rows(bench: Bench, how: str, without: Bench | None) -> list[Row]:
    """Return for every method that was run with altered users what that costs it.

    Args:
        bench: with methods and their altered forms.
        how: `shuffled` or `flipped`.
        without: the same comparisons without any past choice; None where that was not run.
    """
    rows = []
    for name in bench.methods:
        plain, _, altered = name.partition("+")
        lost = bench.difference(name, plain) if altered == how else None
        if lost is None:
            continue
        above = bench.difference(name, plain, without) if without else None
        verdict = verdict_on(lost)
        rows.append(
            [
                row_of(plain).label,
                accuracy(bench.methods[plain]),
                accuracy(bench.methods[name]),
                points(lost),
                points(above),
                "; ".join(filter(None, (verdict, level_of(above) if verdict == FALLS else ""))),
            ]
        )
    return rows


def verdict_on(lost: Estimate) -> str:
    """Say whether a method falls when its users are altered, or that this cannot be told."""
    if lost.interval is None:
        return CANNOT_TELL
    low, high = lost.interval
    if high < 0:
        return FALLS
    if low > -NEXT_TO_NOTHING and high < NEXT_TO_NOTHING:
        return f"does not fall (within {100 * NEXT_TO_NOTHING:g} points)"
    return CANNOT_TELL


def level_of(above: Estimate | None) -> str:
    """Say whether it falls as far as to what is known of nobody."""
    if above is None or above.interval is None:
        return ""
    low, high = above.interval
    if high < NEXT_TO_NOTHING:
        return "to the population's level or below"
    return "stays above the population's level" if low > 0 else "how far cannot be told"


def variant_rows(bench: Bench) -> list[tuple[Row, bool]]:
    """Return corrected beside published forms, and whether they are ahead.

    That takes an interval above 0 and every seed: intervals are over users, and seeds differ too.
    """
    rows = []
    for name in bench.methods:
        plain = name.removesuffix("-published")
        if name.endswith("-published") and (gain := bench.difference(plain, name)):
            by_seed = [float(d.mean()) for d in bench.by_seed(plain, name).values()]
            is_ahead = gain.interval is not None and min(gain.interval[0], *by_seed) > 0
            cells = [accuracy(bench.methods[n]) for n in (plain, name)]
            seeds = ", ".join(f"{100 * value:+.1f}" for value in by_seed)
            rows.append(([row_of(plain).label, *cells, points(gain), seeds], is_ahead))
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
                accuracy(benches[n].methods[name])
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
            accuracy(bench.methods[name]),
            accuracy(bench.methods[name], HARD),
        ]
        for name in names
        if name in bench.methods
    ]


def cost_rows(bench: Bench, names: Iterable[str]) -> list[Row]:
    """Return what a comparison costs; cached answers took no time, so their share is told."""
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
                    share(cost.cached_share),
                    seconds(cost.fit_seconds),
                ]
            )
    return rows


def markdown(head: Sequence[str], rows: Sequence[Row]) -> str:
    """Write a table."""
    return "\n".join(markdown_table(head, rows))
