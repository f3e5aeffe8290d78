"""Which pairs are hard for the current model, and how many of them a block holds.

Paper, section 3.2, stage 3, gives neither definition nor schedule; both are ours. The hardness of a
pair is how often the model, over K samples, fails to put the chosen response first, mixed with how
small a margin it sees between the responses. The hardest part of the pairs is called hard.

Estimates are kept in a file with the block from which each is in force, so that a resumed run draws
every block as it was drawn before.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from pgenrm.rows import read_values
from pgenrm.seeding import derive_seed, rng
from pgenrm.train.record import write_whole
from pgenrm.types import Value

Share = Annotated[float, Field(ge=0, le=1)]


class Schedule(Value):
    """How the share of hard pairs in a block goes on during the run."""

    start: Share
    end: Share
    shape: Literal["linear", "cosine", "step"] = "linear"
    """cosine: slow at both ends; step: `start` for the first half, then `end`."""

    def share(self, progress: float) -> float:
        """Return the share at a point of the run, from 0 at its start to 1 at its end.

        >>> Schedule(start=0.2, end=0.8).share(0.5)
        0.5
        """
        way = {
            "linear": progress,
            "cosine": (1 - math.cos(math.pi * progress)) / 2,
            "step": float(progress >= 0.5),
        }[self.shape]
        return self.start + (self.end - self.start) * way


class HardnessSpec(Value):
    """How hardness is estimated."""

    n_samples: PositiveInt
    """K: chains of the current model per pair."""
    margin_weight: Share
    """Share of the quality margin in the hardness; the rest is the failure rate."""
    full_margin: Annotated[float, Field(gt=0)]
    """Points between the scores of the responses from which on a margin counts as large."""
    hard_fraction: Annotated[float, Field(gt=0, lt=1)]
    """The hardest so many of all pairs are hard."""
    every: PositiveInt
    """Optimiser steps between two estimates; the first is made before the first step."""
    n_pairs: PositiveInt | None = None
    """Pairs in an estimate after the first, those longest not looked at; None: all."""


class Estimate(Value):
    """A line of `hardness.jsonl`."""

    step: int
    """Optimiser steps done."""
    from_block: int
    """First block that is drawn by it."""
    hardness: dict[str, float]
    """Id of a comparison -> hardness in [0, 1]; others keep the one they had."""


class HardnessLog:
    """All estimates of a run, in its directory."""

    def __init__(self, path: Path, ids: Sequence[str], hard_fraction: float, seed: int) -> None:
        """Set up the log; nothing is read yet.

        Args:
            path: the file.
            ids: [n_rows] of all comparisons, in the order of the data.
            hard_fraction: the hardest so many are hard.
            seed: decides between pairs that are equally hard.
        """
        self.path = path
        self.estimates: list[Estimate] = []
        self._ids = list(ids)
        self._n_hard = min(len(ids) - 1, max(1, round(hard_fraction * len(ids))))
        self._lots = [derive_seed("lot", seed, id_) for id_ in ids]
        self._pools: dict[int, tuple[list[int], list[int]]] = {}

    def rewind(self, step: int) -> None:
        """Read the file, without what came after the step that a run goes on from."""
        found = read_values(self.path, Estimate) if self.path.exists() else ()
        self.estimates = [estimate for _, estimate in found if estimate.step <= step]
        self._pools.clear()

    def add(self, estimate: Estimate, *, writes: bool) -> None:
        """Append an estimate; one process of a run writes the file."""
        self.estimates.append(estimate)
        if writes:
            lines = (e.model_dump_json() + "\n" for e in self.estimates)
            write_whole(self.path, "".join(lines))

    def hard_ids(self, block: int) -> set[str]:
        """Return the ids of the pairs that are hard in a block."""
        return {self._ids[i] for i in self.pools(block)[0]}

    def known(self, block: int) -> dict[str, float]:
        """Return the hardness of pairs by id, as it is known for a block."""
        known: dict[str, float] = {}
        for estimate in self.estimates:
            if estimate.from_block <= block:
                known |= estimate.hardness
        return known

    def pools(self, block: int) -> tuple[list[int], list[int]]:
        """Return the indices of hard and of other pairs, as they are known for a block."""
        n_known = sum(estimate.from_block <= block for estimate in self.estimates)
        if n_known not in self._pools:
            hardness = self.known(block)
            ranked = sorted(
                range(len(self._ids)),
                key=lambda i: (-hardness.get(self._ids[i], 0.0), self._lots[i]),
            )
            self._pools[n_known] = ranked[: self._n_hard], ranked[self._n_hard :]
        return self._pools[n_known]

    def stalest(self, n: int | None) -> list[int]:
        """Return the indices of the n pairs longest without an estimate, in a drawn order."""
        last = {id_: k for k, estimate in enumerate(self.estimates) for id_ in estimate.hardness}
        return sorted(
            range(len(self._ids)), key=lambda i: (last.get(self._ids[i], -1), self._lots[i])
        )[:n]


class CurriculumDraw:
    """Draws blocks with the scheduled number of hard pairs; a `pgenrm.train.blocks.Draw`."""

    def __init__(
        self, log: HardnessLog, schedule: Schedule, *, n_blocks: int, n_prompts: int, seed: int
    ) -> None:
        self._log = log
        self._n_prompts = n_prompts
        self._seed = seed
        progress = np.linspace(0, 1, n_blocks)
        shares = np.array([schedule.share(p) for p in progress.tolist()])
        # Rounding the sum, not each block, keeps the share of the whole run right.
        whole = np.floor(np.cumsum(shares * n_prompts) + 0.5).astype(int)
        self.n_hard: list[int] = np.diff(whole, prepend=0).tolist()
        """[n_blocks]; hard pairs in each."""

    def share(self, block: int) -> float:
        """Return the planned share of hard pairs in a block, in whole pairs."""
        return self.n_hard[block] / self._n_prompts

    def __call__(self, block: int) -> list[int]:
        """Return the indices of the block's pairs; each is drawn once while there are others."""
        generator = rng("curriculum", self._seed, block)
        n_hard = self.n_hard[block]
        drawn: list[int] = []
        for pool, n in zip(self._log.pools(block), (n_hard, self._n_prompts - n_hard), strict=True):
            drawn += generator.choice(pool, n, replace=n > len(pool)).tolist()
        return drawn


def hardness(failures: Sequence[bool], margins: Sequence[float], spec: HardnessSpec) -> float:
    """Return how hard a pair is, in [0, 1].

    Args:
        failures: [K]; whether a chain did not put the chosen response first, readable or not.
        margins: of the readable ones, chosen score minus the best other, in points.
        spec: how the two are mixed.
    """
    failure_rate = sum(failures) / len(failures)
    mean = abs(sum(margins) / len(margins)) if margins else 0.0
    smallness = 1 - min(1.0, mean / spec.full_margin)
    return (1 - spec.margin_weight) * failure_rate + spec.margin_weight * smallness
