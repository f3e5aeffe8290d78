"""The first part of `pgenrm demo`: the bundled judge, beside the attribute evaluator."""

from collections.abc import Sequence
from itertools import islice
from typing import Final

from rich.console import Console
from rich.table import Table

from pgenrm.accuracy import accuracy
from pgenrm.cli.models import ModelEvaluator
from pgenrm.cli.progress import counting_progress
from pgenrm.cli.show import percent_of, show_judgment
from pgenrm.evaluator import Evaluator
from pgenrm.judge import PGenRM
from pgenrm.sim.observer import references
from pgenrm.sim.world import World, without_statements

N_TEST: Final = 48
"""Comparisons, each of another user: a few seconds on two cores."""
N_HISTORY: Final = 3
CHAINS: Final = (1, 4)


def bundled_judge(
    console: Console,
    judge: ModelEvaluator,
    others: Sequence[Evaluator],
    world: World,
    seed: int,
) -> None:
    """Show one judgment with its chain, then how often each evaluator is right.

    Args:
        console: where it is shown.
        judge: writes the chain that is shown.
        others: stand beside it.
        world: of the comparisons, which are those of unseen users with bare past choices.
        seed: of the judge.
    """
    every = world.config.n_test
    made = islice(world.comparisons("test_unseen", N_TEST * every), 0, None, every)
    given = [without_statements(c) for c in made]
    first = PGenRM(judge, 4, n_history=N_HISTORY, seed=seed).judge_one(given[0])
    show_judgment(console, given[0], first)
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column(f"{N_TEST} comparisons, {N_HISTORY} past choices")
    for m in CHAINS:
        table.add_column(f"m = {m}", justify="right")
    evaluators = (judge, *others)
    with counting_progress(Console(stderr=True)) as progress:
        task = progress.add_task("judging", total=len(evaluators) * len(CHAINS) * N_TEST)
        for evaluator in evaluators:
            cells = []
            for m in CHAINS:
                outcomes = []
                for judgment in PGenRM(evaluator, m, n_history=N_HISTORY, seed=seed).judge(given):
                    assert judgment.outcome is not None  # all comparisons are labelled
                    outcomes.append((judgment.user_id, judgment.outcome))
                    progress.advance(task)
                cells.append(percent_of(accuracy(outcomes, seed)))
            table.add_row(evaluator.name, *cells)
    [bayes] = references(given, world, [N_HISTORY], seed=seed)
    table.add_row("Bayes observer", *[percent_of(bayes.accuracy)] * len(CHAINS))
    console.print(table)
