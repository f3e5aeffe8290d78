"""The population can be estimated from many users, saved and loaded."""

import json
from pathlib import Path

import numpy as np
import pytest

from pgenrm.attributes.fit import fit_prior
from pgenrm.attributes.measure import ATTRIBUTES, N_ATTRIBUTES, measured
from pgenrm.attributes.model import AttributeModel, evidence
from pgenrm.attributes.population import NAMES, Population, default_population, population_of
from pgenrm.attributes.posterior import Choices, Prior
from pgenrm.attributes.scenario import SCENARIOS, classify
from pgenrm.errors import InputError
from pgenrm.history import draw_history
from pgenrm.sim.world import World
from pgenrm.types import Comparison

K = N_ATTRIBUTES


def accuracy(model: AttributeModel, comparisons: list[Comparison]) -> float:
    beliefs = model.beliefs([(evidence(c.user), classify(c.context)) for c in comparisons])
    right = []
    for comparison, belief in zip(comparisons, beliefs, strict=True):
        a, b = (measured(text).vector for text in comparison.responses)
        right.append((belief.mean @ (a - b) < 0) == comparison.label)
    return float(np.mean(right))


def test_means_and_spreads_of_a_known_population_are_found() -> None:
    generator = np.random.default_rng(0)
    start = default_population().prior()
    taste = np.zeros(K)
    taste[[0, 7]] = 1.0, -0.8
    means = start.means.copy()
    means[:, 3] += 0.5
    truth = Prior(means, np.outer(taste, taste) + 0.04 * np.eye(K), 0.04 * np.eye(K), 1.0)
    n_users, n = 600, 15
    own = generator.multivariate_normal(np.zeros(K), truth.user_cov, n_users)
    by_scenario = 0.2 * generator.standard_normal((n_users, len(SCENARIOS), K))
    x = generator.standard_normal((n_users, n, K))
    scenarios = generator.integers(0, len(SCENARIOS), (n_users, n))
    weights = truth.means + own[:, None] + by_scenario
    utility = (x * weights[np.arange(n_users)[:, None], scenarios]).sum(-1)
    sign = np.where(generator.logistic(size=utility.shape) < utility, 1.0, -1.0)
    choices = Choices(sign[..., None] * x, scenarios, np.zeros((n_users, K)))

    fitted = fit_prior(start, [choices])

    sds = np.sqrt(np.diag(fitted.user_cov))
    assert sds[0] == pytest.approx(1.02, abs=0.2)
    assert sds[7] == pytest.approx(0.82, abs=0.2)
    assert fitted.user_cov[0, 7] / (sds[0] * sds[7]) < -0.6
    assert (np.delete(sds, [0, 7]) < 0.5).all()
    assert (fitted.means[:, 3] - start.means[:, 3]).mean() == pytest.approx(0.5, abs=0.15)


def test_a_model_fitted_on_simulated_users_knows_unseen_ones_better() -> None:
    world = World(seed=0)
    test = [draw_history(c, 3) for c in world.comparisons("test_unseen", 600)]
    fitted = AttributeModel().fit(world.comparisons("train", 2400), name="toy")
    assert fitted.population_.name == "toy"
    assert accuracy(fitted, test) > accuracy(AttributeModel(), test) + 0.02


def test_a_population_survives_the_file(tmp_path: Path) -> None:
    model = AttributeModel().fit(World(seed=0).comparisons("train", 120), name="toy")
    path = tmp_path / "toy.json"
    model.save(path)
    assert AttributeModel.load(path).population_ == model.population_


def test_arrays_and_json_form_say_the_same() -> None:
    prior = default_population().prior()
    again = population_of(prior, "again").prior()
    np.testing.assert_allclose(again.means, prior.means, atol=1e-4)
    np.testing.assert_allclose(again.user_cov, prior.user_cov, atol=1e-4)
    np.testing.assert_allclose(again.scenario_cov, prior.scenario_cov, atol=1e-4)
    assert again.stated_shift == prior.stated_shift


def test_every_number_of_the_shipped_population_has_its_reason() -> None:
    population = default_population()
    assert population.about
    assert population.stated.why
    assert all(row.why for row in population.attributes.values())
    assert all(shift.why for row in population.scenarios.values() for shift in row.values())


def test_the_page_shows_the_attributes_and_the_population_in_use() -> None:
    page = (Path(__file__).parents[1] / "docs" / "attributes.md").read_text("utf-8")
    for a in ATTRIBUTES:
        assert f"| {a.name} | {a.low} | {a.high} | {a.centre:g} | {a.scale:g} |" in page
    for name, row in default_population().attributes.items():
        spreads = f"{row.mean:g} | {row.user_sd:g} | {row.scenario_sd:g}"
        assert f"| {name} | {spreads} | {row.why} |" in page


def test_fitting_on_nothing_says_what_is_missing() -> None:
    with pytest.raises(InputError, match="no comparison has a label"):
        AttributeModel().fit([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": {}}, "length"),
        ({"scenarios": {"casual": {"lenght": {"by": 1}}}}, "lenght"),
        ({"user_correlations": [[1.0] * K] * K}, "positive definite"),
        ({"stated": {"by": "much"}}, "stated.by"),
    ],
)
def test_a_wrong_population_file_says_where(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(default_population().model_dump(mode="json") | change))
    with pytest.raises(InputError, match=message) as error:
        AttributeModel.load(path)
    assert str(path) in str(error.value)


def test_a_missing_population_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
        AttributeModel.load(tmp_path / "none.json")


def test_the_population_names_every_attribute_once() -> None:
    assert list(default_population().attributes) == list(NAMES)
    assert Population.model_validate_json(default_population().model_dump_json()) == (
        default_population()
    )
