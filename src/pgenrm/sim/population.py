"""Who wants what: prototypes, users around them, and what they state of themselves.

The weights of user u of prototype k in scenario s, over the attributes a:

    w[u, s, a] = exp(spread * e[u, a]) * m[k, s, a] + b[u, a] * q[u, a] + pull[s, a]

with e ~ N(0, 1), b ~ Bernoulli(quirk_share), q ~ N(0, quirk_scale). A prototype has a first and a
second taste, each with a sign, and m is `primary` times the loadings of the first plus `secondary`
times those of the second; in some scenarios the two change places. Everything here works on
matrices and knows no text, so the same people choose between simulated and given responses.
"""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from scipy.special import log_softmax

from pgenrm.seeding import rng
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.tastes import (
    CRITERIA_DIRECTIONS,
    DESCRIPTION_DIRECTIONS,
    FLAWED,
    LOADINGS,
    PULL,
    Array,
    Indices,
)


@dataclass(frozen=True)
class Population:
    """The distribution that users are drawn from, and so the prior of the Bayes observer."""

    prototypes: Array
    """[n_prototypes, n_scenarios, n_attributes]; m above."""
    shares: Array
    """[n_prototypes]; how many users are of each, summing to one."""
    pull: Array
    """[n_scenarios, n_attributes]."""
    spread: float = 0.0
    quirk_share: float = 0.0
    quirk_scale: float = 0.0

    def sample(self, generator: np.random.Generator, prototypes: Indices) -> Array:
        """Draw the weights of one user per given prototype.

        Args:
            generator: where the deviations come from.
            prototypes: [n_users] of int, the prototype of each.

        Returns:
            [n_users, n_scenarios, n_attributes].
        """
        shape = (len(prototypes), 1, self.pull.shape[1])
        factor = np.exp(self.spread * generator.standard_normal(shape))
        has_quirk = generator.random(shape) < self.quirk_share
        quirk = has_quirk * self.quirk_scale * generator.standard_normal(shape)
        return np.asarray(self.prototypes[prototypes] * factor + quirk + self.pull)


def population(config: WorldConfig) -> Population:
    """Draw the prototypes of a world.

    All combinations of a first and a second taste with their signs come up before any repeats.
    """
    n_tastes = len(LOADINGS)
    combinations = list(product(permutations(range(n_tastes), 2), product((1, -1), repeat=2)))
    order = rng("prototypes", config.prototype_seed).permutation(len(combinations))
    levels = np.zeros((config.n_prototypes, len(PULL), n_tastes))
    for k in range(config.n_prototypes):
        tastes, signs = combinations[order[k % len(combinations)]]
        swaps = rng("prototype", config.prototype_seed, k).random(len(PULL)) < config.swap
        for s, is_swapped in enumerate(swaps):
            strengths = (config.primary, config.secondary)
            for taste, sign, strength in zip(
                tastes, signs, strengths[::-1] if is_swapped else strengths, strict=True
            ):
                levels[k, s, taste] = sign * strength
    sizes = np.arange(1.0, config.n_prototypes + 1) ** -config.tail
    pull = PULL.copy()
    pull[:, FLAWED] = config.flaw_weight
    return Population(
        prototypes=levels @ LOADINGS,
        shares=sizes / sizes.sum(),
        pull=pull,
        spread=config.spread,
        quirk_share=config.quirk_share,
        quirk_scale=config.quirk_scale,
    )


def choice_probability(margin: Array, noise: float) -> Array:
    """Return P(first is preferred) for the weighted difference first - second (Bradley-Terry).

    Margins beyond 30 times the noise count as 30, which keeps its logarithm finite in float32.
    """
    return np.asarray(1 / (1 + np.exp(-np.clip(margin / noise, -30, 30))))


# ---------------------------------------------------------------- what users state


@dataclass(frozen=True)
class StatementModel:
    """How likely it is that a user states an item: softmax(sharpness * direction . mean weights).

    Several items are drawn one after the other without replacement; an item also rules out its
    opposite, which is item ^ 1.
    """

    directions: Array
    """[n_items, n_attributes]."""
    sharpness: float

    def log_shares(self, weights: Array) -> Array:
        """Return [n_users, n_items], the log-probabilities of the first item.

        Args:
            weights: [n_users, n_scenarios, n_attributes]; the mean over scenarios counts.
        """
        scores = self.sharpness * (weights.mean(axis=1) @ self.directions.T)
        return np.asarray(log_softmax(scores, axis=1))

    def draw(self, generator: np.random.Generator, weights: Array, n: int) -> list[int]:
        """Draw n items that a user with weights [n_scenarios, n_attributes] states, in order."""
        shares = np.exp(self.log_shares(weights[None])[0])
        items: list[int] = []
        for _ in range(n):
            item = int(generator.choice(len(shares), p=shares / shares.sum()))
            items.append(item)
            shares[[item, item ^ 1]] = 0
        return items


def log_likelihood(log_shares: Array, items: list[int]) -> Array:
    """Return [n_users], the log-probability of stating these items in this order.

    Args:
        log_shares: [n_users, n_items], from `StatementModel.log_shares`.
        items: distinct, no two opposite, fewer than half of all.
    """
    total = np.zeros(len(log_shares), log_shares.dtype)
    if not items:
        return total
    shares = np.exp(log_shares)
    for item in items:
        total += log_shares[:, item] - np.log(shares.sum(axis=1))
        shares[:, [item, item ^ 1]] = 0
    return total


def criteria_model(config: WorldConfig) -> StatementModel:
    """Return how users state criteria, each about one attribute."""
    return StatementModel(CRITERIA_DIRECTIONS, config.criteria_sharpness)


def description_model(config: WorldConfig) -> StatementModel:
    """Return how users describe themselves, in one sentence about one taste."""
    return StatementModel(DESCRIPTION_DIRECTIONS, config.description_sharpness)
