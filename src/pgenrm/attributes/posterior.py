"""Posterior of a user's attribute weights given past choices: batched expectation propagation.

Model: w_{u,s} = mu_s + d_u + e_{u,s}, with d_u ~ N(0, user_cov) and e_{u,s} ~ N(0, scenario_cov); a
past choice in scenario s with attribute difference x (chosen minus rejected) has probability
sigmoid(x . w_{u,s}).

The h past choices enter only through their h utilities f = x . w, so the approximation is found in
that h-dimensional space: every choice is replaced by the Gaussian observation of f that matches the
moments (expectation propagation for Gaussian-process classification, Rasmussen and Williams 2006,
section 3.6, with the logistic moments by quadrature). Given Gaussian observations the posterior of
w is exactly Gaussian.

Why not a library: scikit-learn's Gaussian-process classifier takes one user at a time, without a
prior mean and without the posterior of w; Polya-Gamma samplers are exact in the limit but need
hundreds of sweeps per user. Why not the Laplace approximation, which is cheaper: a mode is not a
mean, and a population fitted on top of it came out with half the true spread between users. A test
compares with importance sampling. Users are batched by their number of choices, never padded, so
that a user's result does not depend on who else is in the batch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

Array = NDArray[np.float64]

NODES, WEIGHTS = np.polynomial.hermite.hermgauss(16)
MAX_SWEEPS = 200
TOLERANCE = 1e-4
"""A user is done when no mean and no variance of a utility moves by more than this."""
STATED_NOISE = 0.25
"""Variance of a wish around what its user wants, as a share of the variance between users."""
MIN_PROGRESS, DAMPING = 0.8, 0.9
"""A user whose sweep moves nearly as far as the last one is damped: parallel updates overshoot on
choices that say the same."""
JITTER = 1e-3
"""Variance of a choice that no attribute explains, in squared logits: keeps matrices invertible
where both texts measure the same."""


@dataclass(frozen=True)
class Prior:
    """The population that a user comes from, as arrays; k attributes."""

    means: Array
    """[n_scenarios, k]: mu_s."""
    user_cov: Array
    """[k, k]: spread between users."""
    scenario_cov: Array
    """[k, k]: spread between the scenarios of one user."""
    stated_shift: float
    """Deviation from the mean that a stated wish reports, in logits per unit."""


@dataclass(frozen=True)
class Choices:
    """The past choices of b users with h choices each."""

    differences: Array
    """[b, h, k]: attributes of the chosen minus those of the rejected response."""
    scenarios: NDArray[np.intp]
    """[b, h]: indices of scenarios."""
    stated: Array
    """[b, k]: directions asked for, in [-1, 1]."""


@dataclass(frozen=True)
class Sites:
    """What the choices of b users say, as Gaussian observations of their utilities."""

    gain: Array
    """[b, h]: K^-1 (posterior mean - prior mean), K the prior covariance of the utilities."""
    precision: Array
    """[b, h, h]: (K + T^-1)^-1, T the precisions of the observations."""


def weights_posterior(
    prior: Prior, choices: Choices, queries: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Return mean [b, k] and covariance [b, k, k] of the weights in each user's query scenario.

    Args:
        prior: the population.
        choices: the users' choices.
        queries: [b], scenario of each user's query.
    """
    x = choices.differences
    sites = fit_sites(prior, choices)
    is_same = (choices.scenarios == queries[:, None]).astype(float)
    cross = x @ prior.user_cov + is_same[..., None] * (x @ prior.scenario_cov)  # [b, h, k]
    shift = prior.stated_shift * lean(prior.user_cov, choices.stated)
    mean = prior.means[queries] + shift + (sites.gain[:, None, :] @ cross)[:, 0]
    cov = prior.user_cov + prior.scenario_cov - np.swapaxes(cross, 1, 2) @ sites.precision @ cross
    return mean, cov


def lean(user_cov: Array, stated: Array) -> Array:
    """Return [b, k]: where users lean who state these directions, per reported deviation.

    A wish is a noisy observation of the user's deviation in one attribute. What varies together
    between users moves together: who asks for warmth gets some of what warm people like.
    """
    if not stated.any():
        return np.zeros_like(stated)
    is_stated = (stated != 0).astype(float)
    observed = is_stated[:, :, None] * user_cov * is_stated[:, None, :]
    noise = np.where(is_stated, STATED_NOISE * np.diag(user_cov), 1.0)
    solved = np.linalg.solve(observed + _diagonal(noise), stated[..., None])[..., 0]
    leaning: Array = (user_cov * solved[:, None, :]).sum(-1)
    return leaning


def fit_sites(prior: Prior, choices: Choices) -> Sites:
    """Approximate every user's choices by Gaussian observations of their utilities."""
    x = choices.differences
    x_t = np.swapaxes(x, 1, 2)
    shift = prior.stated_shift * lean(prior.user_cov, choices.stated)
    weights = prior.means[choices.scenarios] + shift[:, None, :]
    is_same = choices.scenarios[:, :, None] == choices.scenarios[:, None, :]
    kernel = x @ prior.user_cov @ x_t + is_same * (x @ prior.scenario_cov @ x_t)
    kernel = kernel + JITTER * np.eye(x.shape[1])
    return _propagate(kernel, (x * weights).sum(-1))


def _propagate(kernel: Array, prior_mean: Array) -> Sites:
    """Run damped parallel expectation propagation until no user's utilities move.

    Args:
        kernel: [b, h, h], prior covariance of the utilities.
        prior_mean: [b, h].
    """
    root = np.linalg.cholesky(kernel)
    root_t = np.swapaxes(root, 1, 2)
    prior_var = np.diagonal(kernel, axis1=1, axis2=2)
    mean, var = prior_mean, prior_var
    precision = np.zeros_like(prior_mean)
    shift = np.zeros_like(prior_mean)
    rate = np.ones(len(kernel))
    last_move = np.full(len(kernel), np.inf)
    for _ in range(MAX_SWEEPS):
        cavity_precision = np.maximum(1 / var - precision, 1 / prior_var)
        cavity_mean = (mean / var - shift) / cavity_precision
        new_precision, new_shift = _match(cavity_mean, cavity_precision)
        precision = precision + rate[:, None] * (new_precision - precision)
        shift = shift + rate[:, None] * (new_shift - shift)
        # Posterior covariance = half.T @ half: a sum of squares, positive whatever the rounding.
        inner = np.eye(kernel.shape[1]) + root_t @ (precision[:, :, None] * root)
        half = np.linalg.solve(np.linalg.cholesky(inner), root_t)
        moved_var = (half**2).sum(axis=1)
        residual = shift - precision * prior_mean
        moved_mean = prior_mean + _times(np.swapaxes(half, 1, 2), _times(half, residual))
        move = (np.abs(moved_mean - mean) + np.abs(moved_var - var)).max(axis=1, initial=0.0)
        mean, var = moved_mean, moved_var
        rate = np.where(move > MIN_PROGRESS * last_move, DAMPING * rate, rate)
        rate = np.where(move < TOLERANCE, 0.0, rate)
        last_move = move
        if not rate.any():
            break
    scaled = half * precision[:, None, :]
    return Sites(
        gain=shift - precision * mean,
        precision=_diagonal(precision) - np.swapaxes(scaled, 1, 2) @ scaled,
    )


def _match(cavity_mean: Array, cavity_precision: Array) -> tuple[Array, Array]:
    """Return precision and shift of the Gaussian sites that stand for sigmoid(f).

    Cavity times site has the mean and variance of cavity times sigmoid, by quadrature.
    """
    offsets = np.sqrt(2 / cavity_precision)[..., None] * NODES
    log_likelihood = log_expit(cavity_mean[..., None] + offsets)
    mass = WEIGHTS * np.exp(log_likelihood - log_likelihood[..., -1:])
    mass = mass / mass.sum(-1, keepdims=True)
    step = (mass * offsets).sum(-1)
    variance = (mass * offsets**2).sum(-1) - step**2
    # The log likelihood curves by at most 1/4, so the variance has a floor.
    variance = np.maximum(variance, 1 / (cavity_precision + 0.25))
    precision = np.maximum(1 / variance - cavity_precision, 0.0)
    shift = (cavity_mean + step) / variance - cavity_mean * cavity_precision
    return precision, shift


def _diagonal(rows: Array) -> Array:
    diagonal: Array = rows[:, :, None] * np.eye(rows.shape[1])
    return diagonal


def _times(matrices: Array, vectors: Array) -> Array:
    product: Array = (matrices @ vectors[..., None])[..., 0]
    return product
