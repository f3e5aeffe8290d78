"""The population prior: what users in general want, how far they differ, and where.

One JSON form for the prior that ships (`population.json`: set by hand, each number with its reason,
nothing fitted) and for one that `fit.py` estimated from many users. Weights are in logits per unit
of an attribute, a unit being about one standard deviation over real answers.
"""

from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from pgenrm.attributes.measure import ATTRIBUTES, N_ATTRIBUTES
from pgenrm.attributes.posterior import Array, Prior
from pgenrm.attributes.scenario import SCENARIOS, Scenario
from pgenrm.types import NonEmpty, Value

DEFAULT_FILE = Path(__file__).with_name("population.json")
NAMES = tuple(attribute.name for attribute in ATTRIBUTES)

Spread = Annotated[float, Field(gt=0)]
Correlations = tuple[
    Annotated[tuple[float, ...], Field(min_length=N_ATTRIBUTES, max_length=N_ATTRIBUTES)], ...
]


class AttributePrior(Value):
    """What is expected of a user's weight for one attribute."""

    mean: float
    """Over users, in no scenario in particular."""
    user_sd: Spread
    """Between users."""
    scenario_sd: Spread
    """Between the scenarios of one user."""
    why: str = ""


class Shift(Value):
    """How much a mean moves."""

    by: float
    why: str = ""


class Population(Value):
    """Means and spreads of the attribute weights over users and scenarios."""

    name: NonEmpty
    about: str = ""
    attributes: dict[str, AttributePrior]
    """One entry per attribute of `measure.ATTRIBUTES`."""
    scenarios: dict[Scenario, dict[str, Shift]] = Field(default_factory=dict)
    """Scenario -> attribute -> shift of the mean; what is not named does not move."""
    stated: Shift
    """Deviation from the mean that a stated wish reports; noise takes a fifth of it off."""
    user_correlations: Correlations | None = None
    """[n_attributes][n_attributes] between users; None: uncorrelated."""
    scenario_correlations: Correlations | None = None
    """As `user_correlations`, of the deviations between scenarios."""

    @model_validator(mode="after")
    def _names_and_shapes(self) -> Self:
        if set(self.attributes) != set(NAMES):
            odd = sorted(set(self.attributes) ^ set(NAMES))
            raise ValueError(f"attributes missing or unknown: {', '.join(odd)}")
        for scenario, shifts in self.scenarios.items():
            if unknown := sorted(set(shifts) - set(NAMES)):
                raise ValueError(f"scenario {scenario}: unknown attributes: {', '.join(unknown)}")
        for field in ("user_correlations", "scenario_correlations"):
            rows = getattr(self, field)
            if rows is not None and not _is_correlation_matrix(np.array(rows)):
                raise ValueError(
                    f"{field} must be a symmetric, positive definite matrix of "
                    f"{N_ATTRIBUTES} x {N_ATTRIBUTES} with ones on its diagonal"
                )
        return self

    def prior(self) -> Prior:
        """Return the numbers as arrays in the order of attributes and scenarios."""
        rows = [self.attributes[name] for name in NAMES]
        means = np.array([[row.mean for row in rows]] * len(SCENARIOS))
        for scenario, shifts in self.scenarios.items():
            for name, shift in shifts.items():
                means[SCENARIOS.index(scenario), NAMES.index(name)] += shift.by
        return Prior(
            means=means,
            user_cov=_covariance([row.user_sd for row in rows], self.user_correlations),
            scenario_cov=_covariance([row.scenario_sd for row in rows], self.scenario_correlations),
            stated_shift=self.stated.by,
        )


def default_population() -> Population:
    """Read the population that ships."""
    return Population.model_validate_json(DEFAULT_FILE.read_bytes())


def population_of(prior: Prior, name: str) -> Population:
    """Turn arrays into the JSON form, rounded to four decimals."""
    mean = prior.means.mean(axis=0)
    user_sd, user_correlations = _spread(prior.user_cov)
    scenario_sd, scenario_correlations = _spread(prior.scenario_cov)
    return Population(
        name=name,
        attributes={
            attribute: AttributePrior(
                mean=round(float(mean[i]), 4), user_sd=user_sd[i], scenario_sd=scenario_sd[i]
            )
            for i, attribute in enumerate(NAMES)
        },
        scenarios={
            scenario: {
                attribute: Shift(by=round(float(prior.means[s, i] - mean[i]), 4))
                for i, attribute in enumerate(NAMES)
            }
            for s, scenario in enumerate(SCENARIOS)
        },
        stated=Shift(by=round(prior.stated_shift, 4)),
        user_correlations=user_correlations,
        scenario_correlations=scenario_correlations,
    )


def _covariance(sds: list[float], correlations: Correlations | None) -> Array:
    sd = np.array(sds)
    return np.outer(sd, sd) * (np.eye(len(sd)) if correlations is None else np.array(correlations))


def _is_correlation_matrix(matrix: Array) -> bool:
    return (
        matrix.shape == (N_ATTRIBUTES, N_ATTRIBUTES)
        and bool((matrix == matrix.T).all() and (np.diag(matrix) == 1).all())
        and bool(np.linalg.eigvalsh(matrix)[0] > 0)
    )


def _spread(cov: Array) -> tuple[list[float], Correlations]:
    sd = np.sqrt(np.diag(cov))
    correlations = ((cov + cov.T) / 2 / np.outer(sd, sd)).round(4)
    return sd.round(4).tolist(), tuple(map(tuple, correlations.tolist()))
