"""`pgenrm report`: the results of a bench for people."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pgenrm.report.card import FULL
from pgenrm.report.write import write_report


def report_command(
    bench: Annotated[
        Path, typer.Argument(help="Directory that `pgenrm bench` wrote.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Directory to write to; default: the same.", show_default=False),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            min=0, help="Judgments shown of every method, but altered forms, and outcome."
        ),
    ] = 3,
    card_of: Annotated[
        str | None,
        typer.Option(
            "--card",
            help=f"Method of the model card. Default: {FULL}, or else the first of P-GenRM's forms "
            "that was run.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of the model in the card; default: as recorded.", show_default=False
        ),
    ] = None,
) -> None:
    """Write the report of a bench: a page that needs nothing else, CSV, JSON, Markdown, model card.

    Example: pgenrm report runs/bench
    """
    for path in write_report(bench, out, n_samples=samples, card_of=card_of, model=model):
        Console().print(str(path), markup=False, highlight=False, soft_wrap=True)
