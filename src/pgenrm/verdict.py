"""From the aggregated scores of a comparison to its judgment."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations

import numpy as np
from scipy.special import stdtr

from pgenrm.case import Case
from pgenrm.scaling.aggregate import Combined, on_scale
from pgenrm.scaling.evidence import Chains, Evidence, Floats
from pgenrm.types import Comparison, JudgedChain, Judgment, Outcome

TIE_TOLERANCE = 1e-9
"""Pooled scores closer than this are equal; it only absorbs floating-point noise."""

PRIOR_MARGIN_SD = 1.5
PRIOR_CHAINS = 2.0
"""Confidence starts from a spread of margins of 1.5 points, worth two chains [ours]."""


@dataclass(frozen=True)
class Group:
    """Own or neighbours' chains of one comparison."""

    share: float
    """In the pooled scores."""
    by_order: Sequence[Floats]
    """[n_chains, n_responses] of every presentation order that was read."""
    is_complete: bool
    """Whether every order that was asked for was read."""

    @property
    def n_chains(self) -> int:
        """Readable chains."""
        return sum(map(len, self.by_order))


def verdict(
    case: Case,
    evidence: Evidence,
    combined: Combined,
    *,
    evaluator: str,
    aggregator: str,
    neighbour_source: str | None = None,
    is_settled: bool | None = None,
) -> Judgment:
    """Judge a case.

    Args:
        case: with all its chains.
        evidence: of this case alone.
        combined: what the aggregator made of it.
        evaluator: name to record.
        aggregator: name to record.
        neighbour_source: name to record.
        is_settled: what sequential stopping says, where it was used.
    """
    comparison = case.comparison
    n_responses = len(comparison.responses)
    evidence = on_scale(evidence, combined.scale)
    row = combined.scores[0, :n_responses]
    scores = None if np.isnan(row).any() else row
    choice, is_tie = _decide(scores)
    groups = _groups(case, evidence, float(combined.neighbour_weight[0]))
    probabilities = None if scores is None or n_responses == 1 else combined.probabilities
    return Judgment(
        id=comparison.id,
        user_id=comparison.user.id,
        comparison_digest=digest(comparison),
        scores=_optional(scores, n_responses),
        standard_errors=_optional(_standard_errors(groups), n_responses),
        choice=choice,
        is_tie=is_tie,
        label=comparison.label,
        outcome=outcome_of(comparison, choice, is_tie),
        confidence=_confidence(groups, scores, choice)
        if probabilities is None
        else round(float(probabilities[0, :n_responses].max()), 6),
        order_consistency=_order_consistency(groups),
        chains=case.chains,
        failures=tuple(case.failures),
        n_prompt_tokens=sum(s.n_prompt_tokens for s in case.sets),
        n_completion_tokens=sum(sample.n_tokens for s in case.sets for sample in s.samples),
        cuts=tuple(dict.fromkeys(cut for s in case.sets for cut in s.cuts)),
        evaluator=evaluator,
        prompt_version=", ".join(dict.fromkeys(s.prompt_version for s in case.sets)),
        seed=case.seed,
        n_history=case.n_history,
        aggregator=aggregator,
        is_calibrated=probabilities is not None,
        neighbour_weight=round(float(combined.neighbour_weight[0]), 6),
        prototype=case.neighbourhood.prototype if case.neighbourhood else None,
        n_outside=case.neighbourhood.n_outside if case.neighbourhood else 0,
        neighbour_source=neighbour_source,
        is_settled=is_settled,
    )


def _groups(case: Case, evidence: Evidence, neighbour_weight: float) -> list[Group]:
    groups = []
    for chains, share, of_neighbour in (
        (evidence.own, 1 - neighbour_weight, False),
        (evidence.neighbours, neighbour_weight, True),
    ):
        by_order = _by_order(chains, len(case.comparison.responses))
        lost = {f.order for f in case.failures if (f.neighbour is not None) is of_neighbour}
        read = {c.order for c in case.chains if (c.neighbour is not None) is of_neighbour}
        if share > 0 and by_order:
            groups.append(Group(share, by_order, is_complete=not lost - read))
    return groups


def _by_order(chains: Chains, n_responses: int) -> list[Floats]:
    order, scores = chains.order[0], chains.scores[0, :, :n_responses]
    return [scores[order == r] for r in np.unique(order[order >= 0])]


def _standard_errors(groups: Sequence[Group]) -> Floats | None:
    """Return the standard errors of the pooled scores; None with fewer than two chains.

    The spread is taken within orders, where an order has several chains; a kind of chains that
    shows none takes that of the other.
    """
    if sum(group.n_chains for group in groups) < 2:
        return None
    strata = [s for group in groups for s in group.by_order]
    if all(len(s) == 1 for s in strata):
        strata = [np.concatenate(strata)]
    overall = _variance(strata)
    total = np.zeros_like(overall)
    for group in groups:
        within = [s for s in group.by_order if len(s) > 1]
        variance = _variance(group.by_order) if within else overall
        n_orders = len(group.by_order)
        total += group.share**2 * variance * sum(1 / len(s) for s in group.by_order) / n_orders**2
    errors: Floats = np.sqrt(total)
    return errors


def _variance(strata: Sequence[Floats]) -> Floats:
    squares = np.sum([((s - s.mean(axis=0)) ** 2).sum(axis=0) for s in strata], axis=0)
    variance: Floats = squares / (sum(map(len, strata)) - len(strata))
    return variance


def _decide(scores: Floats | None) -> tuple[int | None, bool]:
    """Return (choice, is_tie)."""
    if scores is None or len(scores) == 1:
        return None, False
    best = np.flatnonzero(scores >= scores.max() - TIE_TOLERANCE)
    return (int(best[0]), False) if len(best) == 1 else (None, True)


def outcome_of(comparison: Comparison, choice: int | None, is_tie: bool) -> Outcome | None:
    """Say what a verdict is worth; None where there is no label, or nothing to choose."""
    if comparison.label is None or len(comparison.responses) == 1:
        return None
    if is_tie:
        return Outcome.TIE
    if choice is None:
        return Outcome.UNSCORED
    return Outcome.CORRECT if choice == comparison.label else Outcome.WRONG


def _optional(values: Floats | None, n_responses: int) -> tuple[float | None, ...]:
    if values is None:
        return (None,) * n_responses
    return tuple(float(value) for value in values.round(6))


def _confidence(groups: Sequence[Group], scores: Floats | None, choice: int | None) -> float | None:
    """Probability that the expected scores of all chains put the choice first.

    The margins of single chains are taken as normal with unknown spread under a conjugate prior, so
    that one chain already gives a defined value; a mean margin then follows a Student t. With more
    than two responses the chances of being overtaken by each of the others are added up. Where
    orders were asked for but not read, all chains of that kind count as one: they share what they
    owe to the positions. Weights of chains within a kind are left out.
    """
    if scores is None or len(scores) == 1:
        return None
    if choice is None:  # a tie
        return 1 / len(scores)
    counts = [group.n_chains if group.is_complete else 1 for group in groups]
    freedom = PRIOR_CHAINS + sum(counts) - 1
    p_overtaken = 0.0
    for other in range(len(scores)):
        if other == choice:
            continue
        squares = 0.0
        for group, n in zip(groups, counts, strict=True):
            for s in group.by_order if n > 1 else ():
                margin = s[:, choice] - s[:, other]
                squares += float(((margin - margin.mean()) ** 2).sum())
        spread = (PRIOR_CHAINS * PRIOR_MARGIN_SD**2 + squares) / freedom
        variance = spread * sum(g.share**2 / n for g, n in zip(groups, counts, strict=True))
        t = (scores[choice] - scores[other]) / np.sqrt(variance)
        p_overtaken += float(stdtr(freedom, -t))
    return round(max(1 - p_overtaken, 1 / len(scores)), 6)


def _order_consistency(groups: Sequence[Group]) -> float | None:
    """Share of the pairs of presentation orders whose own chains choose the same response."""
    if not groups or len(groups[0].by_order) < 2:
        return None
    choices = [_decide(chains.mean(axis=0))[0] for chains in groups[0].by_order]
    agree = [a is not None and a == b for a, b in combinations(choices, 2)]
    return round(sum(agree) / len(agree), 6)


def digest(comparison: Comparison) -> str:
    """Fingerprint a comparison, so that a changed one is not taken for judged."""
    return blake2b(comparison.model_dump_json().encode(), digest_size=8).hexdigest()


def typical_chain(judgment: Judgment) -> JudgedChain:
    """Pick the chain whose rubric shares most weight with those of the others.

    Among the own chains, unless there are none.
    """
    own = [judged for judged in judgment.chains if judged.neighbour is None]
    chains = own or judgment.chains
    rubrics = []
    for judged in chains:
        total = sum(c.weight for c in judged.chain.criteria) or 1.0
        rubrics.append({c.name: c.weight / total for c in judged.chain.criteria})

    def shared(i: int) -> float:
        return sum(
            min(share, other.get(name, 0.0))
            for j, other in enumerate(rubrics)
            for name, share in rubrics[i].items()
            if j != i
        )

    return chains[max(range(len(rubrics)), key=shared)]
