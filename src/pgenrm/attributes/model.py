"""The attribute model: from a user's past choices and stated wishes to samples of his weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pgenrm.attributes.fit import choices_of, fit_prior
from pgenrm.attributes.measure import N_ATTRIBUTES, Measured, Vector, measured
from pgenrm.attributes.population import Population, default_population, population_of
from pgenrm.attributes.posterior import Array, Choices, weights_posterior
from pgenrm.attributes.scenario import SCENARIOS, Scenario, classify
from pgenrm.attributes.stated import stated_directions
from pgenrm.errors import InputError
from pgenrm.rows import load_value
from pgenrm.types import Comparison, User


@dataclass(frozen=True)
class PastChoice:
    """A past choice, measured."""

    scenario: Scenario
    chosen: Measured
    rejected: Measured


@dataclass(frozen=True)
class Evidence:
    """What is known about a user, in the terms of the model."""

    choices: tuple[PastChoice, ...]
    """Without those whose two texts are equal: they say nothing."""
    stated: Vector
    """[n_attributes], directions asked for, in [-1, 1]."""
    cuts: tuple[str, ...]
    """What was left out, in words."""

    @cached_property
    def differences(self) -> Array:
        """[h, n_attributes]: chosen minus rejected."""
        rows = [choice.chosen.vector - choice.rejected.vector for choice in self.choices]
        return np.array(rows).reshape(len(rows), N_ATTRIBUTES)

    @cached_property
    def scenarios(self) -> NDArray[np.intp]:
        """[h]: indices of scenarios."""
        return np.array(
            [SCENARIOS.index(choice.scenario) for choice in self.choices], dtype=np.intp
        )


@dataclass(frozen=True)
class Belief:
    """Gaussian posterior of a user's weights in one scenario."""

    mean: Vector
    """[n_attributes], in logits per unit of an attribute."""
    root: Array
    """[n_attributes, n_attributes], lower triangular: the covariance is root @ root.T."""

    def weights(self, noise: Array) -> Array:
        """Turn standard normal noise [n, n_attributes] into n samples of the weights.

        A row of the result depends on its own row of noise only, to the last bit: a matrix product
        would add up in an order that depends on n.
        """
        samples: Array = self.mean + (noise[:, None, :] * self.root).sum(axis=-1)
        return samples


def evidence(user: User) -> Evidence:
    """Measure what is known about a user."""
    return Evidence(
        choices=tuple(
            PastChoice(classify(past.context), measured(past.chosen), measured(past.rejected))
            for past in user.history
            if past.is_informative
        ),
        stated=stated_directions(user),
        cuts=tuple(
            f"history: pair {number} left out: its two responses are the same text"
            for number, past in enumerate(user.history, start=1)
            if not past.is_informative
        ),
    )


class AttributeModel:
    """Bayesian logistic model of preferences over attribute differences.

    w_{user,scenario} = population mean of the scenario + the user's own deviation + his deviation
    in that scenario; see `posterior.py`.

    Attributes:
        population_: the prior in use; the one that ships until `fit` replaces it.
    """

    def __init__(self, population: Population | None = None) -> None:
        self.population_ = population or default_population()
        self._prior = self.population_.prior()

    def fit(self, comparisons: Iterable[Comparison], name: str = "fitted") -> Self:
        """Estimate the population from many users' histories and labels (empirical Bayes).

        Args:
            comparisons: of many users; a choice that occurs several times counts once.
            name: of the new population, as recorded in judgments.

        Raises:
            InputError: there is not a single informative choice.
        """
        data = choices_of(comparisons)
        if not data:
            raise InputError("no comparison has a label or a history with two different texts")
        self.population_ = population_of(fit_prior(self._prior, data), name)
        self._prior = self.population_.prior()
        return self

    def save(self, path: str | Path) -> None:
        """Write the population as JSON."""
        Path(path).write_text(self.population_.model_dump_json(indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a population that `save` wrote.

        Raises:
            InputError: the file cannot be read, or is not a population.
        """
        return cls(load_value(path, Population))

    def beliefs(self, users: Sequence[tuple[Evidence, Scenario]]) -> list[Belief]:
        """Return what is believed of each user's weights in the given scenario.

        Users with equally many choices are computed together; the result of one does not depend on
        the others.
        """
        found: dict[int, Belief] = {}
        numbers = [len(known.choices) for known, _ in users]
        for number in dict.fromkeys(numbers):
            rows = [i for i, n in enumerate(numbers) if n == number]
            choices = Choices(
                differences=np.array([users[i][0].differences for i in rows]),
                scenarios=np.array([users[i][0].scenarios for i in rows]),
                stated=np.array([users[i][0].stated for i in rows]),
            )
            queries = np.array([SCENARIOS.index(users[i][1]) for i in rows])
            means, covariances = weights_posterior(self._prior, choices, queries)
            roots = np.linalg.cholesky(covariances)
            found |= {i: Belief(means[j], roots[j]) for j, i in enumerate(rows)}
        return [found[i] for i in range(len(users))]
