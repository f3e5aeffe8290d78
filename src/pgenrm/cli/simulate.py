"""`pgenrm simulate`: a world in which the truth is known, written to files."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from pgenrm.cli.progress import counting_progress
from pgenrm.errors import InputError
from pgenrm.rows import read_values
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.dataset import simulate


def simulate_command(
    out: Annotated[Path, typer.Option(help="Directory to write to.", show_default=False)],
    users: Annotated[int, typer.Option(min=1, help="Users, seen and unseen together.")] = 200,
    seed: Annotated[int, typer.Option(help="Fixes users, texts and choices.")] = 0,
    responses: Annotated[
        Path | None,
        typer.Option(
            help="Let the users choose between given responses: JSON Lines of 'instruction' and "
            "'responses'. Default: texts of the world's own.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings of the world as JSON (docs/simulated-world.md).")
    ] = None,
) -> None:
    """Write a world of simulated users, their choices and the hidden truth.

    train, validation, test_seen and test_unseen are comparisons as `pgenrm judge` reads them;
    truth.jsonl is never read by a judge; card.md tells what an oracle and the best possible judge
    reach.

    Example: pgenrm simulate --users 200 --out runs/world
    """
    stderr = Console(stderr=True)
    with counting_progress(stderr) as progress:
        task = progress.add_task("users", total=users)
        card = simulate(
            out,
            users,
            seed,
            config=read_config(config) if config else None,
            responses=responses,
            progress=lambda done, _: progress.update(task, completed=done),
        )
    Console().print(Markdown((out / "card.md").read_text("utf-8")))
    stderr.print(f"wrote {sum(card.counts.values())} comparisons to {out}", markup=False)


def read_config(path: Path) -> WorldConfig:
    """Read the settings of a world.

    Raises:
        InputError: the file is not one JSON object of settings.
    """
    values = [value for _, value in read_values(path, WorldConfig)]
    if len(values) != 1:
        raise InputError(f"{path} must hold one JSON object of settings, found {len(values)}")
    return values[0]
