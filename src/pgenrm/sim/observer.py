"""Exact references: how often an oracle and the Bayes observer are right on given comparisons.

The Bayes observer knows how the world is made and sees what a judge may see: the texts, the h past
choices that `draw_history` gives a judge and, when told so, what the user states. It draws
particles, users of the population, weighs them by the likelihood of what it sees, and averages
their choice probabilities. No judge does better, but by luck. Several independent sets of particles
show how much the drawing itself moves the accuracy.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Final

import numpy as np
from pydantic import Field

from pgenrm.accuracy import Accuracy, accuracy
from pgenrm.errors import InputError
from pgenrm.history import draw_history
from pgenrm.seeding import rng
from pgenrm.sim.population import choice_probability, log_likelihood
from pgenrm.sim.tastes import CRITERION_OF, DESCRIPTION_OF, Array
from pgenrm.sim.world import World
from pgenrm.types import Comparison, Outcome, User, Value

N_SETS: Final = 8
N_PARTICLES: Final = 2048
"""Per set. The relative error of a posterior mean is about 1 / sqrt(effective sample size)."""
N_REMEMBERED: Final = 64
"""Past choices whose likelihoods are kept: those of the user at hand."""


class Reference(Value):
    """What a known observer reaches on a list of comparisons."""

    name: str
    """`oracle` or `bayes`; `bayes` without pairs and criteria is the population mean."""
    n_pairs: int | None = None
    """Past choices seen; None for the oracle, which needs none."""
    with_criteria: bool | None = None
    """Whether stated criteria and self-descriptions were seen."""
    accuracy: Accuracy
    mc_error: float = 0.0
    """Standard error of the accuracy from drawing particles; 0 where none are drawn."""
    effective_sample_size: float | None = None
    """Of the pooled particles, median over the comparisons."""
    probabilities: Annotated[tuple[float, ...], Field(exclude=True)] = ()
    """[n_comparisons]; P(the first response is preferred). Not part of the JSON form."""


def oracle(comparisons: Iterable[Comparison], world: World) -> Reference:
    """Judge by the users' hidden weights; what it misses is the noise of their choices.

    Args:
        comparisons: labelled, of users of this world.
        world: as the comparisons were made.

    Raises:
        InputError: a comparison has no label or not two responses.
    """
    comparisons = list(comparisons)
    probabilities = []
    for comparison in comparisons:
        scenario, difference = _seen(world, comparison.context[-1].content, comparison.responses)
        margin = difference @ world.person_of(comparison.user.id).weights[scenario]
        probabilities.append(float(choice_probability(margin, world.config.noise)))
    return Reference(
        name="oracle",
        accuracy=_accuracy(comparisons, probabilities),
        probabilities=tuple(probabilities),
    )


def references(
    comparisons: Iterable[Comparison],
    world: World,
    n_pairs: Sequence[int] = (0, 3),
    *,
    with_criteria: bool = False,
    seed: int = 0,
    n_particles: int = N_PARTICLES,
    n_sets: int = N_SETS,
) -> list[Reference]:
    """Judge as the Bayes observer, once for each number of history pairs.

    Args:
        comparisons: labelled, of this world, with at least max(n_pairs) past choices inside.
        world: its configuration, seed and source give the prior and the reading of texts.
        n_pairs: how many past choices are seen.
        with_criteria: whether what users state of themselves is seen.
        seed: of the drawn history, which must be the judge's, and of the particles.
        n_particles: per set.
        n_sets: independent sets of particles, at least two.

    Returns:
        One reference per entry of `n_pairs`.

    Raises:
        InputError: a comparison has no label, not two responses, or texts of another world.
    """
    comparisons = list(comparisons)
    particles = Particles(world, seed, n_particles * n_sets)
    # [n_comparisons, n_pairs, n_sets]: weighted sums of choice probabilities, and of weights.
    hits = np.empty((len(comparisons), len(n_pairs), n_sets))
    totals = np.empty_like(hits)
    sizes = np.empty(hits.shape[:2])
    for i, comparison in enumerate(comparisons):
        chosen = particles.first_preferred(comparison)
        stated = particles.of_statements(comparison.user if with_criteria else None)
        for j, n in enumerate(n_pairs):
            log_weights = stated.copy()
            for pair in draw_history(comparison, n, seed).user.history:
                log_weights += particles.of_choice(
                    pair.context[-1].content, pair.chosen, pair.rejected
                )
            weights = np.exp(log_weights - log_weights.max())
            hits[i, j] = (weights * chosen).reshape(n_sets, -1).sum(axis=1)
            totals[i, j] = weights.reshape(n_sets, -1).sum(axis=1)
            sizes[i, j] = weights.sum() ** 2 / (weights**2).sum()
    pooled = hits.sum(axis=2) / totals.sum(axis=2)
    labels = np.array([c.label for c in comparisons])
    right = ((hits / totals < 0.5) == labels[:, None, None]).mean(axis=0)  # [n_pairs, n_sets]
    return [
        Reference(
            name="bayes",
            n_pairs=n,
            with_criteria=with_criteria,
            accuracy=_accuracy(comparisons, pooled[:, j].tolist()),
            mc_error=float(right[j].std(ddof=1) / np.sqrt(n_sets)),
            effective_sample_size=float(np.median(sizes[:, j])),
            probabilities=tuple(pooled[:, j].tolist()),
        )
        for j, n in enumerate(n_pairs)
    ]


class Particles:
    """Users drawn from the population, and how well each explains what is seen.

    Every method returns [n_particles] float32.
    """

    def __init__(self, world: World, seed: int, n: int) -> None:
        """Draw n users of the world's population."""
        generator = rng("particles", seed)
        # Stratified: the prototypes have their exact shares, up to one particle.
        grid = (np.arange(n) + 0.5) / n
        prototypes = np.searchsorted(np.cumsum(world.population.shares), grid)
        weights = world.population.sample(generator, generator.permutation(prototypes))
        self._world = world
        self.weights: Array = weights
        """[n_particles, n_scenarios, n_attributes]."""
        self._weights: Array = np.ascontiguousarray(weights.transpose(1, 2, 0), np.float32)
        self._criteria: Array = world.criteria.log_shares(weights).astype(np.float32)
        self._descriptions: Array = world.descriptions.log_shares(weights).astype(np.float32)
        self.of_choice: Callable[[str, str, str], Array] = lru_cache(N_REMEMBERED)(self._of_choice)

    def _probability(self, query: str, responses: tuple[str, ...]) -> Array:
        scenario, difference = _seen(self._world, query, responses)
        margin = difference.astype(np.float32) @ self._weights[scenario]
        return choice_probability(margin, self._world.config.noise)

    def first_preferred(self, comparison: Comparison) -> Array:
        """Return P(the first response is preferred)."""
        return self._probability(comparison.context[-1].content, comparison.responses)

    def _of_choice(self, query: str, chosen: str, rejected: str) -> Array:
        """Return the log-likelihood of a past choice."""
        return np.log(self._probability(query, (chosen, rejected)))

    def of_statements(self, user: User | None) -> Array:
        """Return the log-likelihood of what a user states, given that he states as much."""
        criteria = user.criteria if user else ()
        total = log_likelihood(self._criteria, [_item(CRITERION_OF, c) for c in criteria])
        if user and user.self_description is not None:
            total += self._descriptions[:, _item(DESCRIPTION_OF, user.self_description)]
        return total


def _item(items: Mapping[str, int], text: str) -> int:
    if text not in items:
        raise InputError(f"{text!r} is not said by users of the simulated world")
    return items[text]


def _seen(world: World, query: str, responses: tuple[str, ...]) -> tuple[int, Array]:
    if len(responses) != 2:
        raise InputError(f"references need two responses, found {len(responses)}")
    scenario, features = world.source.read(query, responses)
    return scenario, features[0] - features[1]


def _accuracy(comparisons: Sequence[Comparison], probabilities: Sequence[float]) -> Accuracy:
    unlabelled = next((c.id for c in comparisons if c.label is None), None)
    if unlabelled is not None:
        raise InputError(f"comparison {unlabelled!r} has no label; references need labels")
    return accuracy(
        (c.user.id, Outcome.CORRECT if (p < 0.5) == c.label else Outcome.WRONG)
        for c, p in zip(comparisons, probabilities, strict=True)
    )
