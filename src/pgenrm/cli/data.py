"""`pgenrm data check`: look at a data set before believing a number on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgenrm.cli.show import CONTROL_SIGNS

if TYPE_CHECKING:
    from pgenrm.data.report import CheckReport

data_app = typer.Typer(
    name="data", help="Data sets: what they hold and what is wrong with them.", no_args_is_help=True
)


@data_app.callback()
def _data() -> None:
    pass


@data_app.command("check")
def check_command(
    name: Annotated[
        str,
        typer.Argument(
            help="arena, prism, lampqa, prbench, sim, sim-real, or the path of a file of "
            "comparisons or of a directory with one per split.",
            show_default=False,
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Read from here, not from the hub: holds its repositories as folders of their "
            "names. For sim a simulated world, for sim-real the file of responses."
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit of the hub; several as NAME@COMMIT,NAME@COMMIT.")
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            help="For lampqa: the answers, JSON Lines of id, model and response. By default "
            "lampqa-candidates.jsonl in the folder."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print row counts, users in several splits, duplicates, equal scores and other traps.

    Example: pgenrm data check prism --folder hub
    """
    from pgenrm.data import check

    report = check(name, folder=folder, candidates=candidates, revision=revision)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _show(Console(), report)


def _show(console: Console, report: "CheckReport") -> None:
    console.print(_plain(f"{report.name}, {report.revision}"), style="bold")
    parts = list(dict.fromkeys(part for counts in report.rows.values() for part in counts))
    is_divided = any(list(counts) != [split] for split, counts in report.rows.items())
    rows = Table("split", "users", "rows", *(parts if is_divided else ()))
    for split, counts in report.rows.items():
        cells = [report.users[split], sum(counts.values())]
        cells += [counts.get(part, 0) for part in parts] if is_divided else []
        rows.add_row(_plain(split), *(f"{cell:,}" for cell in cells))
    console.print(rows)
    per_user = report.rows_per_user
    console.print(
        f"Rows per user: {per_user.smallest} to {per_user.largest}, median {per_user.median:g}."
    )
    comparisons = Table("a bench sees", "comparisons", "past choices of each, median")
    for split, n in report.comparisons.items():
        spread = report.history[split]
        comparisons.add_row(
            split, f"{n:,}", f"{spread.median:g} ({spread.smallest} to {spread.largest})"
        )
    console.print(comparisons)
    for column, values in report.values.items():
        listed = ", ".join(f"{value} {n:,}" for value, n in values.items())
        console.print(_plain(f"Column {column}, never shown to a model: {listed}."))
    checks = Table("check", "found", "of", "what it means, and where")
    for item in report.checks:
        where = "\n".join((item.matters, *item.examples)) if item.found else ""
        style = "yellow" if item.found else ""
        checks.add_row(item.name, f"{item.found:,}", f"{item.of:,}", _plain(where), style=style)
    console.print(checks)
    for note in report.notes:
        console.print(_plain(f"Note: {note}."))


def _plain(text: str) -> Text:
    """Show text of a data set as it is, without markup and control signs."""
    return Text(text.translate(CONTROL_SIGNS))
