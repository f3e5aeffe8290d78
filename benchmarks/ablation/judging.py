"""How the judges do: passes over comparisons of unseen users, each judgment kept.

All judges see the same comparisons, past choices and presentation orders, by the same seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks.ablation.variants import Trained
from benchmarks.nano_judging import judged, single_right
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import spearmanr

from pgenrm import Comparison, EvaluationChain, Judgment
from pgenrm.sim.observer import references
from pgenrm.sim.tastes import ATTRIBUTES, WANTED
from pgenrm.sim.world import World, without_statements
from pgenrm.train.coverage import nano_meaning, signed_weights
from pgenrm.types import Outcome

WORLD_SEED: Final = 402
"""No judge was trained on a world of this seed."""
JUDGE_SEED: Final = 1
MIN_DIFFERENCES: Final = 3
"""Attributes that a rank correlation needs."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pass:
    """What is shown to a judge."""

    name: str
    n_choices: int
    is_stated: bool = False
    """Users' own words are shown, and only users who say something are judged for."""
    share: float = 1.0
    """Of the comparisons."""


MAIN: Final = Pass("3-choices", 3)
STATED: Final = Pass("stated", 3, is_stated=True)
FEWER: Final = tuple(Pass(f"{h}-choices", h, share=1 / 3) for h in (1, 2, 4))
PASSES: Final = (MAIN, STATED, *FEWER)


@dataclass(frozen=True)
class Figures:
    """What is known of each comparison of a pass: [n] each."""

    right: Floats
    """1 where the mean of the chains puts the chosen response first; a tie does not."""
    one_right: Floats
    """Share of the chains asked for that do so on their own."""
    readable: Floats
    """Share of the chains asked for."""
    agreement: Floats
    """Mean rank correlation of the chains' rubrics with what the user truly wants; may be NaN."""

    @classmethod
    def mean(cls, runs: Sequence["Figures"]) -> "Figures":
        """Average over seeds, comparison by comparison; an agreement over those that have one."""
        known = np.array([run.agreement for run in runs])
        n_known = (~np.isnan(known)).sum(axis=0)
        return cls(
            right=np.mean([run.right for run in runs], axis=0),
            one_right=np.mean([run.one_right for run in runs], axis=0),
            readable=np.mean([run.readable for run in runs], axis=0),
            agreement=np.where(n_known, np.nansum(known, axis=0) / np.maximum(n_known, 1), np.nan),
        )


class Questions:
    """The comparisons, and what a Bayes observer makes of them."""

    def __init__(self, n: int) -> None:
        """Draw the first `n` comparisons of unseen users."""
        self.world = World(seed=WORLD_SEED)
        self._all = list(self.world.comparisons("test_unseen", n))

    def given(self, one: Pass) -> list[Comparison]:
        """Return what is judged in a pass."""
        found = self._all[: max(1, round(len(self._all) * one.share))]
        if one.is_stated:
            return [found[i] for i in self.stating]
        return [without_statements(c) for c in found]

    @cached_property
    def stating(self) -> list[int]:
        """Positions of the comparisons whose users say something of themselves."""
        users = [c.user for c in self._all]
        return [i for i, u in enumerate(users) if u.criteria or u.self_description]

    def users(self, one: Pass) -> list[str]:
        """Return whose comparisons they are."""
        return [c.user.id for c in self.given(one)]

    def bayes(self, one: Pass) -> Floats:
        """Return the probability of the label by the observer who sees the same."""
        given = self.given(one)
        [found] = references(
            given, self.world, [one.n_choices], with_criteria=one.is_stated, seed=JUDGE_SEED
        )
        first = np.array(found.probabilities)
        return np.where(np.array([c.label for c in given]) == 0, first, 1 - first)

    @cached_property
    def hard(self) -> NDArray[np.bool_]:
        """Whether a comparison is among the third that the Bayes observer is least sure of."""
        sureness = np.abs(self.bayes(MAIN) - 0.5)
        rank = sureness.argsort(kind="stable").argsort()
        return rank < len(rank) / 3

    def judge(self, judge: Trained, one: Pass, m: int, out: Path, console: Console) -> Figures:
        """Let a judge judge what it has not judged yet, and sum every comparison up."""
        given = self.given(one)
        judgments = judged(
            given,
            out / "judged" / judge.label / f"{one.name}.jsonl",
            model=f"nano:{judge.weights}",
            m=m,
            n_history=one.n_choices,
            seed=JUDGE_SEED,
            settings={"world": WORLD_SEED},
            console=console,
        )
        return Figures(
            right=np.array([j.outcome is Outcome.CORRECT for j in judgments], float),
            one_right=single_right(judgments),
            readable=np.array([len(j.chains) / m for j in judgments]),
            agreement=np.array(
                [self._agreement(c, j) for c, j in zip(given, judgments, strict=True)]
            ),
        )

    def _agreement(self, comparison: Comparison, judgment: Judgment) -> float:
        scenario, features = self.world.source.read(
            comparison.context[-1].content, comparison.responses
        )
        weights = self.world.person_of(comparison.user.id).weights[scenario]
        differing = features.min(axis=0) != features.max(axis=0)
        truth = {
            name: float(weights[ATTRIBUTES.index(name)])
            for name in WANTED
            if differing[ATTRIBUTES.index(name)]
        }
        found = [agreement(judged.chain, truth) for judged in judgment.chains]
        defined = [value for value in found if not np.isnan(value)]
        return float(np.mean(defined)) if defined else float("nan")


def agreement(chain: EvaluationChain, truth: dict[str, float]) -> float:
    """Return Spearman's correlation of a rubric's signed weights with what the user truly wants.

    Args:
        chain: with the bundled judge's words; what it does not name has weight 0.
        truth: attribute -> weight, for the attributes in which the responses differ.

    Returns:
        NaN with fewer than `MIN_DIFFERENCES` attributes, or where the rubric names none of them.
    """
    weights = signed_weights(chain, nano_meaning)
    said = [weights.get(name, 0.0) for name in truth]
    if len(said) < MIN_DIFFERENCES or len(set(said)) == 1:
        return float("nan")
    return float(spearmanr(said, list(truth.values())).statistic)
