"""Judging with weights of the bundled judge, as `pgenrm judge` does, every judgment kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from pgenrm import Comparison, Judgment, PGenRM
from pgenrm.cli.models import NANO_TEMPERATURE, ModelOptions, build_evaluator
from pgenrm.engines.nano import NanoEngine
from pgenrm.engines.protocol import Sampling
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.runs import Run, read_judgments


def judged(
    given: Sequence[Comparison],
    path: Path,
    *,
    model: str,
    m: int,
    n_history: int,
    seed: int,
    temperature: float = NANO_TEMPERATURE,
    settings: dict[str, Any],
    console: Console,
) -> list[Judgment]:
    """Judge what has no judgment yet, and return all.

    Args:
        given: labelled comparisons.
        path: of the judgments; one of other settings or weights is refused.
        model: `nano`, `nano:NAME` or `nano:DIR`.
        m: chains for each.
        n_history: past choices shown.
        seed: of orders, drawn choices and sampling.
        temperature: of the sampling.
        settings: what else the judgments depend on.
        console: where progress is shown.
    """
    evaluator = build_evaluator(
        ModelOptions(model=model, sampling=Sampling(temperature=temperature))
    )
    assert isinstance(evaluator, LanguageModelEvaluator)
    assert isinstance(evaluator.engine, NanoEngine)
    weights = evaluator.engine.weights_identity
    rm = PGenRM(evaluator, m, n_history=n_history, seed=seed)
    with Run(
        path, {**settings, "seed": seed, "m": m, "weights": weights, "temperature": temperature}
    ) as run:
        left = list(run.remaining(given))
        for judgment in track(rm.judge(left), path.stem, len(left), console=console):
            run.add(judgment)
    evaluator.close()
    by_id = {judgment.id: judgment for judgment in read_judgments(path)}
    return [by_id[c.id] for c in given]


def single_right(judgments: Sequence[Judgment]) -> NDArray[np.float64]:
    """Return the share of each judgment's chains that are right on their own; a lost one is not."""
    shares = []
    for judgment in judgments:
        label = judgment.label
        assert label is not None  # all of the simulated world is labelled
        rows = [list(chain.scores) for chain in judgment.chains]
        n_right = sum(row.pop(label) > max(row) for row in rows)
        shares.append(n_right / (len(judgment.chains) + len(judgment.failures)))
    return np.array(shares)
