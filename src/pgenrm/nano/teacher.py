"""A teacher for the simulated world: chains sampled from the posterior over the user.

It sees what a judge sees, reads the texts as the Bayes observer does, draws a few particles from
the posterior and writes down their mean leanings. The posterior's own mean would tell every chain
the same; what individual scaling averages are different hypotheses about the user.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.special import softmax

from pgenrm.errors import InputError
from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet
from pgenrm.nano.steps import PastReading, Steps, chain, leanings_of
from pgenrm.seeding import rng
from pgenrm.sim.observer import Particles
from pgenrm.sim.tastes import CRITERION_OF, DESCRIPTION_OF, LOADINGS, PULL, Array
from pgenrm.sim.world import World
from pgenrm.types import User

N_PARTICLES: Final = 8192
N_AVERAGED: Final = 6
"""Particles behind one chain: one alone is too noisy a target for a small model (docs/log.md)."""
PROMPT_VERSION: Final = "observer@1"


class PosteriorTeacher:
    """An evaluator that knows how the simulated world is made, but no user's hidden weights."""

    def __init__(
        self,
        world: World,
        *,
        n_averaged: int = N_AVERAGED,
        temperature: float = 1.0,
        n_particles: int = N_PARTICLES,
    ) -> None:
        """Draw the particles.

        Args:
            world: its configuration and source give the prior and the reading of texts.
            n_averaged: particles that are averaged for one chain.
            temperature: of the posterior; above 1 its hypotheses spread.
            n_particles: drawn from the population, once.
        """
        self.name = f"posterior:{n_averaged}"
        self.workers = 1
        self._world = world
        self._n_averaged = n_averaged
        self._temperature = temperature
        self._particles = Particles(world, 0, n_particles)
        own = self._particles.weights - PULL
        self._levels: Array = np.einsum("psa,ta->pst", own, LOADINGS) / (LOADINGS**2).sum(axis=1)

    def evaluate(self, requests: Sequence[ChainRequest]) -> list[ChainSet]:
        """Return one chain set per request, in order; see `pgenrm.evaluator.Evaluator`.

        Raises:
            InputError: a text or statement is not of the simulated world.
        """
        return [self._sampled(request) for request in requests]

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def steps(self, request: ChainRequest, generator: np.random.Generator) -> Steps:
        """Read everything that a chain rests on, and draw the leanings."""
        scenario, responses = self._world.source.read(
            request.context[-1].content, request.responses
        )
        [leanings] = self.leanings(request.user, [scenario], generator)
        return Steps(
            choices=tuple(
                self._read(p.context[-1].content, p.chosen, p.rejected)
                for p in request.user.history
            ),
            stated=tuple(_stated(criterion) for criterion in request.user.criteria),
            described=_described(request.user),
            leanings=leanings,
            scenario=scenario,
            responses=responses,
        )

    def leanings(
        self, user: User, scenarios: Sequence[int], generator: np.random.Generator
    ) -> list[tuple[int, ...]]:
        """Draw what the user may lean to in each scenario: [n_tastes] each, independently."""
        shares = self._posterior(user)
        size = (len(scenarios), self._n_averaged)
        return [
            leanings_of(self._levels[drawn, scenario].mean(axis=0))
            for scenario, drawn in zip(
                scenarios, generator.choice(len(shares), size=size, p=shares), strict=True
            )
        ]

    def chances(self, user: User, scenario: int, responses: Array) -> Array:
        """Return the chance of each response [n_responses] to be chosen, over the whole posterior.

        Args:
            user: with whatever is known of him.
            scenario: of the query.
            responses: [n_responses, n_attributes] of 0 and 1.
        """
        utilities = self._particles.weights[:, scenario] @ responses.T
        return np.asarray(self._posterior(user) @ softmax(utilities, axis=1))

    def _sampled(self, request: ChainRequest) -> ChainSet:
        chains = [
            chain(self.steps(request, rng(request.seed, "teacher", request.first + i)))
            for i in range(request.n)
        ]
        return ChainSet(
            samples=tuple(ChainSample(chain=one) for one in chains), prompt_version=PROMPT_VERSION
        )

    @lru_cache(maxsize=256)  # noqa: B019 - the teacher lives as long as the process
    def _read(self, query: str, chosen: str, rejected: str) -> PastReading:
        scenario, features = self._world.source.read(query, (chosen, rejected))
        return PastReading(scenario, *features)

    def _posterior(self, user: User) -> Array:
        log_weights = self._particles.of_statements(user).astype(float)
        for pair in user.history:
            log_weights += self._particles.of_choice(
                pair.context[-1].content, pair.chosen, pair.rejected
            )
        log_weights /= self._temperature
        weights = np.exp(log_weights - log_weights.max())
        return np.asarray(weights / weights.sum())


def _stated(criterion: str) -> tuple[int, int]:
    if criterion not in CRITERION_OF:
        raise InputError(f"{criterion!r} is not said by users of the simulated world")
    item = CRITERION_OF[criterion]
    return item // 2, 1 if item % 2 == 0 else -1


def _described(user: User) -> tuple[tuple[int, int], ...]:
    if user.self_description is None:
        return ()
    if user.self_description not in DESCRIPTION_OF:
        raise InputError(f"{user.self_description!r} is not said by users of the simulated world")
    item = DESCRIPTION_OF[user.self_description]
    return ((item // 2, 1 if item % 2 == 0 else -1),)
