"""How well a chain's own rubric ranks past choices of the user that it was written without.

A rubric that also explains choices it has not seen deserves more weight among the user's chains.
Not part of the paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pgenrm.evaluator import RubricRequest, RubricScorer
from pgenrm.seeding import derive_seed
from pgenrm.types import Criterion, EvaluationChain, Failure, Preference


@dataclass(frozen=True)
class Agreement:
    """What a rubric says about choices that were held out from its chain's prompt."""

    margins: tuple[float, ...]
    """Of each scored choice, at least one: total of the chosen minus total of the rejected
    response, in points of the 0-10 scale."""
    n_failed: int
    """Choices that could not be scored; they enter nothing else."""

    @property
    def n_pairs(self) -> int:
        """Number of choices that were scored."""
        return len(self.margins)

    @property
    def mean_margin(self) -> float:
        """Mean of the margins."""
        return sum(self.margins) / self.n_pairs

    @property
    def share_right(self) -> float:
        """Share of the scored choices that the rubric ranks as the user did; a tie is not right."""
        return sum(margin > 0 for margin in self.margins) / self.n_pairs

    @property
    def log_likelihood(self) -> float:
        """Natural log-likelihood of the scored choices, where one point of margin is one logit."""
        return -float(np.logaddexp(0, np.negative(self.margins)).sum())


def agreement(
    scorer: RubricScorer,
    chains: Sequence[tuple[EvaluationChain, Sequence[Preference]]],
    seed: int = 0,
) -> list[Agreement | None]:
    """Apply the rubric of each chain to its held-out choices, all in one batch.

    Which response stands first is drawn by (seed, choice) alone: chains that are compared on one
    choice see it in one order, so that a scorer's liking for a place favours none of them. Choices
    between equal texts say nothing and are left out.

    Args:
        scorer: rates the responses; normally the evaluator that wrote the chains.
        chains: each with choices of the user that its prompt did not show.
        seed: of the run.

    Returns:
        One agreement per chain, in order; None where nothing was scored: the chain has no criterion
        with a weight, there is no choice, or every request failed.
    """
    held_out = [
        [pair for pair in pairs if pair.is_informative] if _has_rubric(chain) else []
        for chain, pairs in chains
    ]
    requests = [
        _request(chain.criteria, pair, seed)
        for (chain, _), pairs in zip(chains, held_out, strict=True)
        for pair in pairs
    ]
    scores = iter(scorer.score_rubrics(requests))
    return [_agreement([_margin(pair, next(scores), seed) for pair in pairs]) for pairs in held_out]


def _has_rubric(chain: EvaluationChain) -> bool:
    return any(criterion.weight for criterion in chain.criteria)


def _request(criteria: tuple[Criterion, ...], pair: Preference, seed: int) -> RubricRequest:
    responses = (pair.chosen, pair.rejected)
    rubric = [(c.name, c.weight, c.description) for c in criteria]
    id = f"rubric-{derive_seed(*rubric, *_texts(pair)):016x}"
    return RubricRequest(
        id=id,
        criteria=criteria,
        context=pair.context,
        responses=responses if _is_chosen_first(pair, seed) else responses[::-1],
        seed=derive_seed(seed, id),
    )


def _is_chosen_first(pair: Preference, seed: int) -> bool:
    return derive_seed("rubric order", seed, *_texts(pair)) % 2 == 0


def _texts(pair: Preference) -> tuple[str, ...]:
    """Return what identifies a choice, which has no id."""
    return (*(message.content for message in pair.context), pair.chosen, pair.rejected)


def _margin(pair: Preference, scores: tuple[float, ...] | Failure, seed: int) -> float | None:
    if isinstance(scores, Failure):
        return None
    first, second = scores
    return first - second if _is_chosen_first(pair, seed) else second - first


def _agreement(margins: Sequence[float | None]) -> Agreement | None:
    scored = tuple(margin for margin in margins if margin is not None)
    if not scored:
        return None
    return Agreement(margins=scored, n_failed=len(margins) - len(scored))
