"""Estimate the population prior from many users' choices (empirical Bayes).

Alternates two steps until little moves: the posterior of every user under the current prior
(`posterior.py`), then the prior under these posteriors. Means, scenario shifts and what a stated
wish reports take a Newton step on their marginal posterior; the two covariances become the average
posterior second moments (EM). The prior one starts from counts as a few users' worth of evidence,
so that little data moves it little.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pgenrm.attributes.measure import N_ATTRIBUTES, Vector, measure
from pgenrm.attributes.posterior import Array, Choices, Prior, Sites, fit_sites, lean
from pgenrm.attributes.scenario import SCENARIOS, classify
from pgenrm.attributes.stated import stated_directions
from pgenrm.types import Comparison, Context

MEAN_SD = 0.5
SHIFT_SD = 0.2
STATED_SD = 0.5
"""How far means, scenario shifts and the worth of a stated wish may lie from the start."""
PSEUDO_USERS = 5.0
"""Users' worth of evidence that the covariances one starts from count as."""
MAX_ROUNDS = 50
TOLERANCE = 5e-3
"""Largest move of a mean or a standard deviation, in logits, at which the fit ends."""


def choices_of(comparisons: Iterable[Comparison]) -> list[Choices]:
    """Collect every user's distinct choices, from histories and labels, batched by their number.

    A label among more than two responses counts as one choice over each of the others.
    """
    rows: dict[str, dict[tuple[Context, str, str], tuple[Vector, int]]] = defaultdict(dict)
    stated: dict[str, Vector] = {}

    def note(user: str, context: Context, chosen: str, rejected: str) -> None:
        key = (context, chosen, rejected)
        if chosen != rejected and key not in rows[user]:
            scenario = SCENARIOS.index(classify(context))
            rows[user][key] = (measure(chosen) - measure(rejected), scenario)

    for comparison in comparisons:
        user = comparison.user
        stated[user.id] = stated_directions(user)
        for past in user.history:
            note(user.id, past.context, past.chosen, past.rejected)
        if comparison.label is not None:
            chosen = comparison.responses[comparison.label]
            for other in comparison.responses:
                note(user.id, comparison.context, chosen, other)
    by_number: dict[int, list[str]] = defaultdict(list)
    for user_id, choices in rows.items():
        by_number[len(choices)].append(user_id)
    return [
        Choices(
            differences=np.array([[x for x, _ in rows[u].values()] for u in users]),
            scenarios=np.array([[s for _, s in rows[u].values()] for u in users], dtype=np.intp),
            stated=np.array([stated[u] for u in users]),
        )
        for users in by_number.values()
    ]


def fit_prior(start: Prior, data: list[Choices]) -> Prior:
    """Estimate the prior; `start` is both where it begins and what it is drawn towards."""
    designs = [_design(choices) for choices in data]
    centre = np.concatenate([np.zeros(N_ATTRIBUTES), start.means.ravel(), [start.stated_shift]])
    sds = np.repeat([MEAN_SD, SHIFT_SD, STATED_SD], [N_ATTRIBUTES, start.means.size, 1])
    penalty = sds**-2.0
    coefficients = centre
    prior = start
    for _ in range(MAX_ROUNDS):
        score = penalty * (centre - coefficients)
        information = np.diag(penalty)
        user = _Moments(start.user_cov)
        scenario = _Moments(start.scenario_cov)
        for choices, design in zip(data, designs, strict=True):
            sites = fit_sites(prior, choices)
            design[..., -1] = _wished(prior, choices)
            design_t = np.swapaxes(design, 1, 2)
            score = score + (design_t @ sites.gain[..., None]).sum(axis=(0, 2))
            information = information + (design_t @ sites.precision @ design).sum(axis=0)
            everywhere = np.ones(choices.scenarios.shape, dtype=bool)
            user.add(prior.user_cov, choices, sites, everywhere)
            for s in range(len(SCENARIOS)):
                scenario.add(prior.scenario_cov, choices, sites, choices.scenarios == s)
        coefficients = coefficients + np.linalg.solve(information, score)
        updated = Prior(
            means=_means(coefficients),
            user_cov=user.mean(),
            scenario_cov=scenario.mean(),
            stated_shift=float(coefficients[-1]),
        )
        move = _largest_move(prior, updated)
        prior = updated
        if move < TOLERANCE:
            break
    return prior


class _Moments:
    """Average posterior second moment of deviations with a common covariance."""

    def __init__(self, start: Array) -> None:
        self.total = PSEUDO_USERS * start
        self.n = PSEUDO_USERS

    def add(self, cov: Array, choices: Choices, sites: Sites, concerned: NDArray[np.bool_]) -> None:
        """Add the deviation of every user that has a choice among the concerned ones.

        Args:
            cov: [k, k], its current prior covariance.
            choices: the users' choices.
            sites: their posterior.
            concerned: [b, n], the choices that the deviation bears on.
        """
        some = concerned.any(axis=1)
        cross = (choices.differences[some] * concerned[some, :, None]) @ cov  # [b, n, k]
        cross_t = np.swapaxes(cross, 1, 2)
        mean = cross_t @ sites.gain[some, :, None]  # [b, k, 1]
        second = mean @ np.swapaxes(mean, 1, 2) + cov - cross_t @ sites.precision[some] @ cross
        self.total = self.total + second.sum(axis=0)
        self.n += len(second)

    def mean(self) -> Array:
        return self.total / self.n


def _design(choices: Choices) -> Array:
    """Return [b, n, p]: every choice's utility as a function of the population's coefficients.

    The p coefficients are a mean per attribute, its shift per scenario and attribute, and what a
    stated wish reports. The last column depends on the prior: it is filled in every round.
    """
    x = choices.differences
    is_scenario = choices.scenarios[..., None] == np.arange(len(SCENARIOS))
    by_scenario = is_scenario[..., None] * x[:, :, None, :]
    return np.concatenate(
        [x, by_scenario.reshape(*x.shape[:2], -1), np.zeros_like(x[..., :1])], axis=-1
    )


def _wished(prior: Prior, choices: Choices) -> Array:
    leaning = lean(prior.user_cov, choices.stated)
    product: Array = (choices.differences * leaning[:, None, :]).sum(-1)
    return product


def _means(coefficients: Array) -> Array:
    shifts = coefficients[N_ATTRIBUTES:-1].reshape(len(SCENARIOS), N_ATTRIBUTES)
    return coefficients[:N_ATTRIBUTES] + shifts


def _largest_move(a: Prior, b: Prior) -> float:
    return max(
        float(np.abs(a.means - b.means).max()),
        abs(a.stated_shift - b.stated_shift),
        *(
            float(np.abs(np.sqrt(np.diag(x)) - np.sqrt(np.diag(y))).max())
            for x, y in ((a.user_cov, b.user_cov), (a.scenario_cov, b.scenario_cov))
        ),
    )
