"""The posterior of a user's weights is right, sharpens with evidence, and depends on him alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_expit

from pgenrm.attributes.measure import BOUND, N_ATTRIBUTES
from pgenrm.attributes.population import default_population
from pgenrm.attributes.posterior import STATED_NOISE, Array, Choices, Prior, weights_posterior
from pgenrm.attributes.scenario import SCENARIOS

PRIOR = default_population().prior()


def made_up_choices(n_users: int, n_choices: int, seed: int = 0) -> Choices:
    """Choices of users drawn from the prior."""
    generator = np.random.default_rng(seed)
    k = N_ATTRIBUTES
    own = generator.multivariate_normal(np.zeros(k), PRIOR.user_cov, n_users)
    by_scenario = generator.multivariate_normal(
        np.zeros(k), PRIOR.scenario_cov, (n_users, len(SCENARIOS))
    )
    weights = PRIOR.means + own[:, None] + by_scenario
    x = 1.3 * generator.standard_normal((n_users, n_choices, k))
    scenarios = generator.integers(0, len(SCENARIOS), (n_users, n_choices))
    utility = (x * weights[np.arange(n_users)[:, None], scenarios]).sum(-1)
    is_first = np.log(generator.random(utility.shape)) < log_expit(utility)
    return Choices(np.where(is_first[..., None], x, -x), scenarios, np.zeros((n_users, k)))


def by_importance_sampling(
    prior: Prior, choices: Choices, query: int, n: int = 400_000
) -> tuple[Array, Array, float]:
    """Mean, covariance and effective sample size for the first user, from draws of the prior."""
    generator = np.random.default_rng(1)
    k = N_ATTRIBUTES
    user_root = np.linalg.cholesky(prior.user_cov)
    scenario_root = np.linalg.cholesky(prior.scenario_cov)
    own = generator.standard_normal((n, k)) @ user_root.T
    scenarios = choices.scenarios[0].tolist()
    weights = {
        s: prior.means[s] + own + generator.standard_normal((n, k)) @ scenario_root.T
        for s in {query, *scenarios}
    }
    log_mass = np.zeros(n)
    for x, s in zip(choices.differences[0], scenarios, strict=True):
        log_mass += log_expit(weights[s] @ x)
    mass = np.exp(log_mass - log_mass.max())
    size = float(mass.sum() ** 2 / (mass**2).sum())
    mass /= mass.sum()
    mean = mass @ weights[query]
    centred = weights[query] - mean
    return mean, (centred * mass[:, None]).T @ centred, size


@pytest.mark.parametrize("n_choices", [1, 3, 6])
def test_the_posterior_agrees_with_importance_sampling(n_choices: int) -> None:
    choices = made_up_choices(1, n_choices, seed=n_choices)
    query = int(choices.scenarios[0, 0])
    mean, cov = weights_posterior(PRIOR, choices, np.array([query]))
    expected_mean, expected_cov, size = by_importance_sampling(PRIOR, choices, query)
    sd = np.sqrt(np.diag(expected_cov))
    assert size > 10_000
    np.testing.assert_allclose(mean[0] / sd, expected_mean / sd, atol=5 / np.sqrt(size))
    scale = np.outer(sd, sd)
    np.testing.assert_allclose(cov[0] / scale, expected_cov / scale, atol=7 / np.sqrt(size))


def test_without_choices_the_posterior_is_the_prior() -> None:
    choices = made_up_choices(2, 0)
    mean, cov = weights_posterior(PRIOR, choices, np.array([0, 3]))
    np.testing.assert_allclose(mean, PRIOR.means[[0, 3]])
    np.testing.assert_allclose(cov, np.array([PRIOR.user_cov + PRIOR.scenario_cov] * 2))


def test_more_choices_make_a_sharper_posterior() -> None:
    full = made_up_choices(20, 32)
    queries = full.scenarios[:, 0]
    spreads = []
    for n in (0, 1, 3, 10, 32):
        part = Choices(full.differences[:, :n], full.scenarios[:, :n], full.stated)
        _, cov = weights_posterior(PRIOR, part, queries)
        spreads.append(float(np.linalg.slogdet(cov)[1].mean()))
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[0] - spreads[-1] > 5


def test_a_choice_in_the_same_scenario_says_more_than_one_in_another() -> None:
    x = np.zeros((2, 1, N_ATTRIBUTES))
    x[:, :, 0] = -2.0
    choices = Choices(x, np.array([[0], [1]]), np.zeros((2, N_ATTRIBUTES)))
    mean, _ = weights_posterior(PRIOR, choices, np.array([0, 0]))
    assert mean[0, 0] < mean[1, 0] < PRIOR.means[0, 0]


def stating(directions: dict[int, float]) -> Choices:
    """A user who has made no choice but states these directions."""
    stated = np.zeros((1, N_ATTRIBUTES))
    for attribute, direction in directions.items():
        stated[0, attribute] = direction
    return Choices(np.zeros((1, 0, N_ATTRIBUTES)), np.zeros((1, 0), dtype=np.intp), stated)


def test_a_stated_direction_moves_the_mean_of_that_attribute_less_the_noise() -> None:
    mean, _ = weights_posterior(PRIOR, stating({2: -1.0}), np.array([1]))
    move = mean[0] - PRIOR.means[1]
    assert move[2] == pytest.approx(-PRIOR.stated_shift / (1 + STATED_NOISE))
    np.testing.assert_allclose(np.delete(move, 2), 0)


def test_a_stated_direction_moves_what_goes_with_it_in_the_population() -> None:
    cov = PRIOR.user_cov.copy()
    cov[2, 5] = cov[5, 2] = -0.6 * np.sqrt(cov[2, 2] * cov[5, 5])
    prior = replace(PRIOR, user_cov=cov)
    one, _ = weights_posterior(prior, stating({2: 1.0}), np.array([0]))
    both, _ = weights_posterior(prior, stating({2: 1.0, 5: -1.0}), np.array([0]))
    assert one[0, 5] < prior.means[0, 5]
    assert both[0, 5] < one[0, 5]
    assert prior.means[0, 2] < one[0, 2] < both[0, 2]


@given(st.integers(1, 6), st.integers(0, 7), st.integers(0, 2**31))
@settings(max_examples=30)
def test_a_user_gets_the_same_posterior_alone_and_in_any_batch(
    n_users: int, n_choices: int, seed: int
) -> None:
    together = made_up_choices(n_users, n_choices, seed)
    queries = np.arange(n_users) % len(SCENARIOS)
    mean, cov = weights_posterior(PRIOR, together, queries)
    for i in range(n_users):
        part = slice(i, i + 1)
        alone = Choices(together.differences[part], together.scenarios[part], together.stated[part])
        own_mean, own_cov = weights_posterior(PRIOR, alone, queries[part])
        np.testing.assert_array_equal(own_mean[0], mean[i])
        np.testing.assert_array_equal(own_cov[0], cov[i])


@given(
    st.lists(
        st.lists(st.floats(-2 * BOUND, 2 * BOUND), min_size=N_ATTRIBUTES, max_size=N_ATTRIBUTES),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 15),
)
@settings(max_examples=40)
def test_any_choices_however_redundant_give_a_proper_posterior(
    rows: list[list[float]], n_copies: int
) -> None:
    x = np.array(rows * n_copies)[None]
    scenarios = np.zeros(x.shape[:2], dtype=np.intp)
    choices = Choices(x, scenarios, np.zeros((1, N_ATTRIBUTES)))
    mean, cov = weights_posterior(PRIOR, choices, np.array([0]))
    assert np.isfinite(mean).all()
    assert np.linalg.eigvalsh(cov[0])[0] > 0
    assert np.linalg.eigvalsh(PRIOR.user_cov + PRIOR.scenario_cov - cov[0])[0] > -1e-9
