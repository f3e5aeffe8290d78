"""From the chains of a comparison to one score per response: the protocol and the paper's way."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

import numpy as np

from pgenrm.scaling.evidence import Chains, Evidence, Floats, pooled

MIDDLE, SOFT_SPREAD = 5.5, 0.5
LOGITS_PER_POINT = 0.6
"""What a point is taken to be worth where nothing was fitted."""


class ChainScale(StrEnum):
    """What is done to a chain's scores before averaging."""

    RAW = "raw"
    """Nothing: a chain that sees a large difference counts more."""
    COMMON = "common"
    """Centred at 5.5 and divided by their own spread (plus half a point, so that next to nothing
    is not blown up): every chain counts about alike."""


@dataclass(frozen=True)
class Combined:
    """The aggregated scores of b comparisons."""

    scores: Floats
    """[b, N]; NaN where there is no chain, and behind the last response."""
    neighbour_weight: Floats
    """[b]: share of the neighbours in the scores, in [0, 1]."""
    own_weights: Floats
    """[b, c]: how own chains count within their presentation order, relative to each other."""
    neighbour_weights: Floats
    """[b, c]: the same for neighbours' chains."""
    strength: Floats
    """[b]: logits that a point of score is worth."""
    probabilities: Floats | None = None
    """[b, N]: calibrated probability that the user prefers each response; None: not calibrated."""
    scale: ChainScale = ChainScale.RAW
    """Of the scores."""


class Aggregator(Protocol):
    """Combines own and neighbours' chains."""

    @property
    def name(self) -> str:
        """Recorded in every judgment; another one wherever the same chains may end otherwise."""
        ...

    def combine(self, evidence: Evidence) -> Combined:
        """Aggregate every comparison; its result does not depend on the others."""
        ...


class PaperAggregator:
    """Mean of the own chains plus mean of the neighbours' (paper, equation 9).

    Written as half of each, which gives the same verdict and keeps the 1-10 scale. With chains of
    one kind only, their mean.
    """

    def __init__(self, scale: ChainScale = ChainScale.RAW) -> None:
        self.scale = scale
        self.name = "paper" if scale is ChainScale.RAW else f"paper/{scale}"

    def combine(self, evidence: Evidence) -> Combined:
        """See `Aggregator`."""
        evidence = on_scale(evidence, self.scale)
        has_own = evidence.own.present.any(axis=1)
        has_neighbours = evidence.neighbours.present.any(axis=1)
        weight = np.where(has_own, 0.5 * has_neighbours, 1.0 * has_neighbours)
        return Combined(
            scores=blend(
                evidence,
                pooled(evidence.own),
                pooled(evidence.neighbours),
                weight,
            ),
            neighbour_weight=weight,
            own_weights=evidence.own.present.astype(float),
            neighbour_weights=evidence.neighbours.present.astype(float),
            strength=np.full(len(evidence), LOGITS_PER_POINT),
            scale=self.scale,
        )


def blend(evidence: Evidence, own: Floats, neighbours: Floats, weight: Floats) -> Floats:
    """Return (1 - weight) * own + weight * neighbours [b, N]; a part with no weight may be NaN."""
    part = weight[:, None]
    kept = np.where(part < 1, (1 - part) * own, 0.0)
    brought = np.where(part > 0, part * neighbours, 0.0)
    n_chains = evidence.own.present.sum(axis=1) + evidence.neighbours.present.sum(axis=1)
    is_known = (n_chains > 0)[:, None] & evidence.is_response
    mixed: Floats = np.where(is_known, kept + brought, np.nan)
    return mixed


def on_scale(evidence: Evidence, scale: ChainScale) -> Evidence:
    """Put every chain's scores on the chosen scale."""
    if scale is ChainScale.RAW:
        return evidence
    n = evidence.n_responses[:, None, None]

    def scaled(chains: Chains) -> Chains:
        is_score = chains.present[..., None] & evidence.is_response[:, None, :]
        mean = chains.scores.sum(axis=2, keepdims=True) / n
        offset = (chains.scores - mean) * is_score
        spread = np.sqrt((offset**2).sum(axis=2, keepdims=True) / n)
        return replace(chains, scores=(MIDDLE + offset / (spread + SOFT_SPREAD)) * is_score)

    return replace(evidence, own=scaled(evidence.own), neighbours=scaled(evidence.neighbours))
