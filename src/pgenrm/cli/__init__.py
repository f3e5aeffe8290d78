"""The command line: `pgenrm` and its commands."""

import io
import sys
from typing import Annotated

import typer
from rich.console import Console

import pgenrm
from pgenrm.cli.bench import bench_app
from pgenrm.cli.calibrate import calibrate_command
from pgenrm.cli.data import data_app
from pgenrm.cli.demo import demo_command
from pgenrm.cli.judge import judge_command
from pgenrm.cli.prototypes import prototypes_app
from pgenrm.cli.report import report_command
from pgenrm.cli.simulate import simulate_command
from pgenrm.cli.train import train_app
from pgenrm.errors import InputError, PgenrmError

app = typer.Typer(
    name="pgenrm",
    help="Judge responses for one user: chains of reasons, a weighted rubric, a verdict.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pgenrm {pgenrm.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    pass


app.command("judge")(judge_command)
app.add_typer(prototypes_app)
app.command("calibrate")(calibrate_command)
app.command("simulate")(simulate_command)
app.add_typer(data_app)
app.add_typer(train_app)
app.add_typer(bench_app)
app.command("report")(report_command)
app.command("demo")(demo_command)


def main() -> None:
    """Run the command line; errors of ours become one line and an exit code.

    Exit codes: 0 done, 1 the work could not be done, 2 the input is wrong, 130 stopped by Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a sign is no error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except PgenrmError as error:
        _complain(str(error))
        sys.exit(2 if isinstance(error, InputError) else 1)
    except OSError as error:  # a full disk, a directory without permission
        _complain(f"{error.filename or 'output'}: {error.strerror or error}")
        sys.exit(1)


def _complain(message: str) -> None:
    Console(stderr=True).print(
        "error:", message, style="red", markup=False, highlight=False, soft_wrap=True
    )
