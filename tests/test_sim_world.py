from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm.errors import InputError
from pgenrm.seeding import rng
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.population import criteria_model, log_likelihood, population
from pgenrm.sim.source import is_held_out
from pgenrm.sim.tastes import CRITERIA, FLAWED
from pgenrm.sim.world import Choice, Person, Split, World


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=11)


@pytest.fixture(scope="module")
def lives(world: World) -> list[tuple[Person, list[Choice]]]:
    """Two hundred users, each with all that he chose."""
    people = [world.person(i) for i in range(200)]
    parts = ("train", "validation", "test")
    return [(p, [c for part in parts for c in world.choices(p, part)]) for p in people]


def test_a_user_is_the_same_whoever_else_is_made(world: World) -> None:
    alone = World(seed=11).person(7)
    among_others = [world.person(i) for i in reversed(range(10))][2]
    assert alone.user == among_others.user
    np.testing.assert_array_equal(alone.weights, among_others.weights)
    assert world.person_of("u00007").user == alone.user


def test_a_comparison_is_the_same_however_many_are_made(world: World) -> None:
    few = list(world.comparisons("test_unseen", 10))
    many = list(world.comparisons("test_unseen", 30))
    assert few == many[:10]


def test_choices_do_not_depend_on_how_many_there_are_per_user(world: World) -> None:
    more = World(WorldConfig(n_test=9), seed=11)
    person = world.person(3)
    few, many = world.choices(person, "test"), more.choices(person, "test")
    assert [(c.id, c.query, c.responses, c.label) for c in few] == [
        (c.id, c.query, c.responses, c.label) for c in many[: len(few)]
    ]


def test_another_seed_gives_other_users_of_the_same_prototypes(world: World) -> None:
    other = World(seed=12)
    assert not np.array_equal(world.person(0).weights, other.person(0).weights)
    np.testing.assert_array_equal(world.population.prototypes, other.population.prototypes)


def test_ids_name_user_and_part(world: World) -> None:
    comparison = next(world.comparisons("test_unseen", 1))
    assert comparison.id == f"{comparison.user.id}-test-0"
    assert comparison.user.id == "u00003"


@pytest.mark.parametrize("split", Split)
def test_history_is_the_users_own_train_choices_and_never_the_query_at_hand(
    world: World, split: Split
) -> None:
    for comparison in world.comparisons(split, 40):
        person = world.person_of(comparison.user.id)
        assert person.is_seen is split.is_of_seen
        train = {c.query: c for c in world.choices(person, "train")}
        history = comparison.user.history
        assert len(history) == world.config.n_history
        assert len({h.chosen for h in history}) == len(history)
        for pair in history:
            query = pair.context[-1].content
            assert query != comparison.context[-1].content
            assert {pair.chosen, pair.rejected} == set(train[query].responses)
            assert not train[query].is_narrow
            assert {pair.chosen, pair.rejected}.isdisjoint(comparison.responses)


def test_queries_of_validation_and_test_are_never_in_train(
    lives: list[tuple[Person, list[Choice]]],
) -> None:
    for _, choices in lives:
        for choice in choices:
            assert is_held_out(choice.query) is ("-train-" not in choice.id)


def test_choices_follow_their_probabilities(lives: list[tuple[Person, list[Choice]]]) -> None:
    p = np.array([c.probability for _, choices in lives for c in choices])
    chose_first = np.array([c.label == 0 for _, choices in lives for c in choices])
    for low, high in ((0, 0.1), (0.1, 0.4), (0.4, 0.6), (0.6, 0.9), (0.9, 1)):
        inside = (p >= low) & (p <= high)
        expected, variance = p[inside].sum(), (p * (1 - p))[inside].sum()
        assert abs(chose_first[inside].sum() - expected) < 4 * np.sqrt(variance)


def test_the_first_response_is_preferred_as_often_as_the_second(
    lives: list[tuple[Person, list[Choice]]],
) -> None:
    labels = [c.label for _, choices in lives for c in choices]
    assert abs(np.mean(labels) - 0.5) < 4 * 0.5 / np.sqrt(len(labels))


def test_hard_negatives_are_unflawed_and_decided_by_this_users_taste(
    world: World, lives: list[tuple[Person, list[Choice]]]
) -> None:
    hard = [(p, c) for p, choices in lives for c in choices if c.is_hard]
    assert len(hard) > 0.04 * sum(len(choices) for _, choices in lives)
    for person, choice in hard:
        difference = choice.features[0] - choice.features[1]
        assert not choice.features[:, FLAWED].any()
        assert abs(person.weights[choice.scenario] @ difference) >= 1
        typical = world.population.prototypes + world.population.pull
        margins = np.abs(typical[:, choice.scenario] @ difference)
        assert world.population.shares[margins < 1].sum() > 0.5


def test_the_share_of_users_who_state_criteria_is_as_set(
    lives: list[tuple[Person, list[Choice]]],
) -> None:
    stated = [len(person.user.criteria) for person, _ in lives]
    assert set(stated) == {0, 2}
    assert abs(np.mean(np.array(stated) > 0) - 0.4) < 4 * np.sqrt(0.24 / len(stated))


def test_weights_depend_on_the_scenario(world: World) -> None:
    differing = [
        np.ptp(world.population.prototypes[k], axis=0).max() > 0
        for k in range(world.config.n_prototypes)
    ]
    assert np.mean(differing) > 0.4


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_probabilities_of_all_pairs_of_statements_sum_to_one(seed: int) -> None:
    config = WorldConfig()
    weights = population(config).sample(rng(seed), np.array([0, 5]))
    shares = criteria_model(config).log_shares(weights)
    pairs = [[i, j] for i, j in permutations(range(len(CRITERIA)), 2) if i ^ 1 != j]
    total = sum(np.exp(log_likelihood(shares, pair)) for pair in pairs)
    np.testing.assert_allclose(total, 1)


def test_statements_are_drawn_as_often_as_the_model_says() -> None:
    model = criteria_model(WorldConfig())
    weights = population(WorldConfig()).sample(rng(1), np.array([0]))
    n = 3000
    drawn = [tuple(model.draw(rng("draw", i), weights[0], 2)) for i in range(n)]
    common = max(set(drawn), key=drawn.count)
    p = float(np.exp(log_likelihood(model.log_shares(weights), list(common))[0]))
    assert abs(drawn.count(common) - n * p) < 4 * np.sqrt(n * p * (1 - p))


def test_a_split_that_cannot_have_comparisons_is_an_error() -> None:
    with pytest.raises(InputError, match="no test_unseen comparisons"):
        World(WorldConfig(unseen_share=0)).comparisons("test_unseen", 1)
    with pytest.raises(InputError, match="n_validation"):
        World(WorldConfig(n_validation=0)).comparisons("validation", 1)


def test_an_id_of_another_world_is_an_error(world: World) -> None:
    with pytest.raises(InputError, match="'anna' is no simulated user"):
        world.person_of("anna")


def test_more_prototypes_than_combinations_of_tastes_differ_still() -> None:
    prototypes = population(WorldConfig(n_prototypes=48)).prototypes
    assert len(np.unique(prototypes.reshape(48, -1), axis=0)) > 36
