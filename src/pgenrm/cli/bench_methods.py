"""`pgenrm bench methods`: the names that `--methods` takes."""

from rich.console import Console
from rich.table import Table

from pgenrm.bench.methods import ALTERED, MAKERS
from pgenrm.bench.rows import ALTERATIONS, place_of, row_of


def methods_command() -> None:
    """List the methods that a bench can run, and what each needs.

    Example: pgenrm bench methods
    """
    table = Table(box=None, header_style="bold")
    for column in ("name", "row of the table", "needs"):
        table.add_column(column)
    for name in sorted(MAKERS, key=place_of):
        maker = MAKERS[name]
        needs = {
            "--model": maker.needs_engine,
            "--reward-base": maker.needs_reward_base,
            "a train split": maker.needs_training,
            "the truth (sim)": maker.needs_truth,
        }
        given = ", ".join(need for need, is_needed in needs.items() if is_needed)
        table.add_row(name, row_of(name).label, given)
    console = Console()
    console.print(table)
    console.print(
        "Each also with "
        + " or ".join(f"+{name} ({ALTERATIONS[name]})" for name in ALTERED)
        + ", e.g. gpo+shuffled.",
        markup=False,
        highlight=False,
    )
