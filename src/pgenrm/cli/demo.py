"""`pgenrm demo`: three worked users, then a world in which the truth is known."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import pgenrm
from pgenrm.accuracy import Accuracy, accuracy
from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.attributes.model import AttributeModel
from pgenrm.cli.progress import counting_progress
from pgenrm.cli.show import percent, show_judgment
from pgenrm.evaluator import Evaluator
from pgenrm.judge import PGenRM
from pgenrm.rows import read_comparisons
from pgenrm.sim.observer import oracle, references
from pgenrm.sim.world import World
from pgenrm.types import Comparison

N_COMPARISONS = 500
N_FIT = 2400
"""Train comparisons of other users for the fitted population: 200 users."""
N_PAIRS = (0, 3)
CHAINS = (1, 8)


def demo_command(
    seed: Annotated[int, typer.Option(help="Of the world and of the judge.")] = 0,
) -> None:
    """Judge three worked users and 500 comparisons of a simulated world.

    Needs no model, no key and no network: the attribute evaluator writes the chains.
    """
    started = time.monotonic()
    console = Console()
    evaluator = AttributeEvaluator()
    console.rule("Three users, one question, the same two answers")
    rm = PGenRM(evaluator, seed=seed)
    for comparison in read_comparisons(sorted(examples_dir().glob("*.json"))):
        show_judgment(console, comparison, rm.judge_one(comparison))

    console.rule(f"{N_COMPARISONS} comparisons of unseen users of a simulated world")
    world = World(seed=seed)
    comparisons = list(world.comparisons("test_unseen", N_COMPARISONS))
    fitted = AttributeModel().fit(world.comparisons("train", N_FIT), name="fitted")
    console.print(_ladder([evaluator, AttributeEvaluator(fitted)], world, comparisons, seed))
    console.print(
        "Accuracy in percent with its 95 % interval over users; ties and unscored comparisons "
        "count as wrong. Columns: how many past choices are shown, and whether the user's own "
        "words (criteria, self-description) are. The attribute evaluator reads form and style "
        f"only; `fitted` learnt what people want from {N_FIT} choices of other users of this "
        "world. The Bayes observer is the best that any judge can do with what it sees; with "
        "nothing to see it is the verdict for people in general. The oracle knows the hidden "
        "weights and misses only the noise of the choices.",
        highlight=False,
        markup=False,
    )
    Console(stderr=True).print(f"took {time.monotonic() - started:.0f} s", style="dim")


def examples_dir() -> Path:
    """Find the worked users: inside the installed package, or in the source tree."""
    package = Path(pgenrm.__file__).parent
    installed = package / "examples"
    return installed if installed.is_dir() else package.parent.parent / "examples"


@dataclass(frozen=True)
class Setting:
    """What a judge gets to see of a user."""

    n_pairs: int
    with_statements: bool

    def __str__(self) -> str:
        shown = "shown" if self.with_statements else "hidden"
        return f"{self.n_pairs} choices,\nwords {shown}"

    def seen(self, comparison: Comparison) -> Comparison:
        """Hide what the user states of himself, where this setting says so."""
        if self.with_statements:
            return comparison
        silent = {"criteria": (), "self_description": None}
        user = comparison.user.model_copy(update=silent)
        return comparison.model_copy(update={"user": user})


def _ladder(
    evaluators: Sequence[Evaluator], world: World, comparisons: list[Comparison], seed: int
) -> Table:
    """Judge in every setting with every number of chains, beside the references."""
    settings = [Setting(n, shown) for shown in (False, True) for n in N_PAIRS]
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for heading in ("", *map(str, settings)):
        table.add_column(heading, justify="right" if heading else "left")
    with counting_progress(Console(stderr=True)) as progress:
        task = progress.add_task("judging", total=len(CHAINS) * len(settings) * len(comparisons))
        for evaluator, m in product(evaluators, CHAINS):
            cells = []
            for setting in settings:
                rm = PGenRM(evaluator, m, n_history=setting.n_pairs, seed=seed)
                outcomes = []
                for judgment in rm.judge(map(setting.seen, comparisons)):
                    progress.advance(task)
                    if judgment.outcome:
                        outcomes.append((judgment.user_id, judgment.outcome))
                cells.append(_cell(accuracy(outcomes, seed)))
            table.add_row(f"{evaluator.name}, m = {m}", *cells)
    bayes = [
        reference
        for shown in (False, True)
        for reference in references(comparisons, world, N_PAIRS, with_criteria=shown, seed=seed)
    ]
    table.add_row("Bayes observer", *(_cell(reference.accuracy) for reference in bayes))
    table.add_row("oracle", *[_cell(oracle(comparisons, world).accuracy)] * len(settings))
    return table


def _cell(result: Accuracy) -> str:
    return percent(result.accuracy, result.interval).replace("%", "")
