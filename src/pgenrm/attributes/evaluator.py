"""The attribute evaluator: evaluation chains without a language model."""

from collections.abc import Sequence

import numpy as np

from pgenrm.attributes.measure import N_ATTRIBUTES, measured
from pgenrm.attributes.model import AttributeModel, Belief, evidence
from pgenrm.attributes.population import default_population
from pgenrm.attributes.posterior import Array
from pgenrm.attributes.render import CRITERIA, Renderer, grounds, rate
from pgenrm.attributes.scenario import classify
from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet, RubricRequest
from pgenrm.seeding import rng
from pgenrm.types import Failure, FailureKind

VERSION = "attributes@2"
"""Recorded with every chain; changes whenever the same request may give other chains."""


DRAWS_PER_CHAIN = 3
"""Posterior draws averaged into one chain [ours]: after a few choices the weights of a single draw
are mostly noise, in sign too, and make a rubric that contradicts them."""


class AttributeEvaluator:
    """Draws samples of a user's attribute weights and writes one chain for each few of them.

    The embedded default when no language model is configured. It judges form and style only, and
    says so in every chain.
    """

    def __init__(self, model: AttributeModel | None = None) -> None:
        """Set up the evaluator.

        Args:
            model: None takes the population prior that ships.
        """
        self.model = model or AttributeModel()
        population = self.model.population_
        is_default = population == default_population()
        self.name = "attributes" if is_default else f"attributes:{population.name}"
        self.workers = 1

    def evaluate(self, requests: Sequence[ChainRequest]) -> list[ChainSet]:
        """Return one chain set per request, in order; see `pgenrm.evaluator.Evaluator`.

        Sample i of a request is drawn by (seed, id, i), in mirrored pairs. A user and scenario that
        occur in several requests, as in the orders of one comparison, are worked out once.
        """
        users = {id(request.user): request.user for request in requests}
        known = {key: evidence(user) for key, user in users.items()}
        cases = [(id(request.user), classify(request.context)) for request in requests]
        distinct = {(key, scenario): (known[key], scenario) for key, scenario in cases}
        beliefs = dict(zip(distinct, self.model.beliefs(list(distinct.values())), strict=True))
        known_grounds = {case: grounds(*pair) for case, pair in distinct.items()}
        sets = []
        for request, case in zip(requests, cases, strict=True):
            user, scenario = distinct[case]
            responses = [measured(text) for text in request.responses]
            renderer = Renderer(known_grounds[case], scenario, responses)
            sets.append(_sample(request, beliefs[case], renderer, user.cuts))
        return sets

    def score_rubrics(self, requests: Sequence[RubricRequest]) -> list[tuple[float, ...] | Failure]:
        """Rate by rubrics of our own chains; see `pgenrm.evaluator.RubricScorer`.

        The responses that a chain was written for get that chain's totals. A rubric with a
        criterion that no chain of ours states is a failure of kind `format`.
        """
        ratings = {
            responses: rate([measured(text) for text in responses])[0]
            for responses in {request.responses for request in requests}
        }
        return [_totals(request, ratings[request.responses]) for request in requests]

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def _sample(
    request: ChainRequest, belief: Belief, renderer: Renderer, cuts: tuple[str, ...]
) -> ChainSet:
    chains = [renderer.chain(weights) for weights in belief.weights(_noise(request))]
    return ChainSet(
        samples=tuple([ChainSample(chain=chain) for chain in chains]),
        cuts=cuts,
        prompt_version=VERSION,
    )


def _noise(request: ChainRequest) -> Array:
    """Return normal noise [n, n_attributes], every other row the mirror of the last.

    Each row alone is a fair mean of `DRAWS_PER_CHAIN` draws, and a mirrored pair has the posterior
    mean in its middle: pooled scores come close to those of infinitely many chains after a few.
    """
    end = request.first + request.n
    shape = ((end + 1) // 2, N_ATTRIBUTES)
    drawn = rng("attributes", request.seed, request.id).standard_normal(shape)
    mirrored: Array = np.stack([drawn, -drawn], axis=1).reshape(-1, N_ATTRIBUTES)
    noise: Array = mirrored[request.first : end] / np.sqrt(DRAWS_PER_CHAIN)
    return noise


def _totals(
    request: RubricRequest, ratings: list[list[list[float]]]
) -> tuple[float, ...] | Failure:
    """Weigh ratings [direction wanted][n_responses][n_attributes]."""
    unknown = [c.name for c in request.criteria if c.name not in CRITERIA]
    if unknown:
        return Failure(
            kind=FailureKind.FORMAT,
            reason=f"{request.id}: {unknown[0]!r} is no criterion of the attribute evaluator; have "
            "a rubric rated by the evaluator that wrote it",
        )
    meant = [(c.weight, *CRITERIA[c.name]) for c in request.criteria]
    whole = sum(weight for weight, _, _ in meant)
    return tuple(
        round(sum(weight * ratings[direction][i][k] for weight, k, direction in meant) / whole, 4)
        for i in range(len(request.responses))
    )
