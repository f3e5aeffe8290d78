"""`pgenrm bench compare`: what became better or worse from one bench to another."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pgenrm.bench.compare import compare
from pgenrm.report.tables import points


def compare_command(
    before: Annotated[Path, typer.Argument(help="Directory of a bench.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="Directory of another.", show_default=False)],
) -> None:
    """Compare two runs, method by method, on the comparisons that both have.

    Example: pgenrm bench compare runs/before runs/after
    """
    changes = compare(before, after)
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
    console = Console()
    console.print(table)
    for change in changes:
        if change.n_missing_before or change.n_missing_after:
            console.print(
                f"{change.name} is incomplete: {change.n_missing_before:,} missing before, "
                f"{change.n_missing_after:,} after; they count as wrong"
            )
