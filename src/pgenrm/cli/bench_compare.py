"""`pgenrm bench compare`: what became better or worse from one bench to another."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pgenrm.bench.compare import Change, RankingChange, compare, compare_rankings
from pgenrm.bench.statistics import Estimate
from pgenrm.report.tables import correlation, decimal, points


def compare_command(
    before: Annotated[Path, typer.Argument(help="Directory of a bench.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="Directory of another.", show_default=False)],
) -> None:
    """Compare two runs, method by method, on the comparisons that both have.

    Example: pgenrm bench compare runs/before runs/after
    """
    console = Console()
    if rankings := compare_rankings(before, after):
        _show_rankings(console, rankings)
    else:
        _show(console, compare(before, after))


def _show(console: Console, changes: list[Change]) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column("method")
    for name in ("n", "before", "after", "difference", "gained", "lost"):
        table.add_column(name, justify="right")
    for change in changes:
        table.add_row(
            change.name,
            str(change.n),
            f"{change.before:.1%}",
            f"{change.after:.1%}",
            points(change.by),
            f"{change.n_gained:g}",
            f"{change.n_lost:g}",
        )
    console.print(table)
    for change in changes:
        if change.n_missing_before or change.n_missing_after:
            console.print(
                f"{change.name} is incomplete: {change.n_missing_before:,} missing before, "
                f"{change.n_missing_after:,} after; they count as wrong"
            )


def _show_rankings(console: Console, changes: list[RankingChange]) -> None:
    table = Table(
        box=None, header_style="bold", title="correlation of rankings of policies (Spearman)"
    )
    for name in ("method", "domain"):
        table.add_column(name)
    for name in ("questions", "before", "after", "difference"):
        table.add_column(name, justify="right")
    for change in changes:
        table.add_row(
            change.name,
            change.domain.replace("_", " "),
            str(change.n),
            correlation(change.before),
            correlation(change.after),
            _signed(change.by),
        )
    console.print(table)
    console.print("questions that a method did not score in full in both runs are left out")


def _signed(found: Estimate | None) -> str:
    """Write a difference of correlations, with its sign."""
    if found is None:
        return "-"
    value, *interval = (
        f"{'-' if number < 0 else '+'}{decimal(abs(number))}"
        for number in (found.value, *(found.interval or ()))
    )
    return f"{value} [{', '.join(interval)}]" if interval else value
