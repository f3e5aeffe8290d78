import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import expit, softmax

from pgenrm.errors import InputError
from pgenrm.history import draw_history
from pgenrm.seeding import rng
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.language import QUERIES, read_attributes, write_response
from pgenrm.sim.observer import Reference, oracle, references
from pgenrm.sim.population import Population
from pgenrm.sim.tastes import ATTRIBUTES, CRITERIA, SCENARIOS, Array
from pgenrm.sim.world import World
from pgenrm.types import Comparison, Preference, User


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=21)


@pytest.fixture(scope="module")
def comparisons(world: World) -> list[Comparison]:
    return list(world.comparisons("test_unseen", 2000))


@pytest.fixture(scope="module")
def hidden(world: World, comparisons: list[Comparison]) -> dict[int | None, Reference]:
    """The Bayes observer by number of pairs, with nothing stated."""
    return {r.n_pairs: r for r in references(comparisons, world, (0, 1, 3, 6))}


# ---------------------------------------------------------------- a tiny world, by quadrature

SIZE, SPREAD, SHARE = 1.2, 0.5, 0.7
SHORT, LONG = np.zeros(len(ATTRIBUTES)), np.eye(len(ATTRIBUTES))[ATTRIBUTES.index("detailed")]


def tiny_world() -> World:
    """Two prototypes that differ in one attribute: 0.7 of the people like detail."""
    world = World(WorldConfig(n_prototypes=2))
    prototypes = np.zeros((2, len(SCENARIOS), len(ATTRIBUTES)))
    prototypes[:] = LONG * SIZE
    prototypes[1] *= -1
    pull = np.zeros((len(SCENARIOS), len(ATTRIBUTES)))
    world.population = Population(prototypes, np.array([SHARE, 1 - SHARE]), pull, SPREAD)
    return world


def tiny_comparison(likes_detail: list[bool], criteria: tuple[str, ...] = ()) -> Comparison:
    """Face a long and a short response after the given choices between a long and a short one."""
    queries = list(QUERIES.values())

    def pair(i: int) -> tuple[str, str]:
        long, short = (write_response(queries[i], x, rng("tiny", i)) for x in (LONG, SHORT))
        return long, short

    history = tuple(
        Preference(context=queries[i].text, chosen=pair(i)[not like], rejected=pair(i)[like])
        for i, like in enumerate(likes_detail)
    )
    return Comparison(
        id="tiny",
        user=User(id="u00000", history=history, criteria=criteria),
        context=queries[99].text,
        responses=pair(99),
        label=0,
    )


def by_quadrature(likes_detail: list[bool], stated: int | None = None) -> float:
    """Integrate P(long is preferred) over both prototypes and the log-normal deviation."""
    nodes, masses = hermegauss(40)
    hit = total = 0.0
    for share, sign in ((SHARE, 1), (1 - SHARE, -1)):
        for node, mass in zip(nodes, masses, strict=True):
            weight = sign * SIZE * np.exp(SPREAD * node)
            p = expit(weight)
            posterior = share * mass * np.prod([p if like else 1 - p for like in likes_detail])
            if stated is not None:
                scores = np.zeros(len(CRITERIA))
                scores[:2] = 1.5 * np.array([weight, -weight])
                posterior *= softmax(scores)[stated]
            hit += posterior * p
            total += posterior
    return hit / total


@pytest.mark.parametrize("likes_detail", [[], [True], [False], [True, False], [False] * 3])
def test_particles_agree_with_quadrature_on_a_tiny_world(likes_detail: list[bool]) -> None:
    comparison = tiny_comparison(likes_detail)
    (reference,) = references([comparison], tiny_world(), [len(likes_detail)])
    assert reference.probabilities[0] == pytest.approx(by_quadrature(likes_detail), abs=0.01)


@pytest.mark.parametrize("stated", [0, 1, 7])
def test_particles_agree_with_quadrature_on_what_is_stated(stated: int) -> None:
    comparison = tiny_comparison([True], criteria=(CRITERIA[stated][0],))
    (reference,) = references([comparison], tiny_world(), [1], with_criteria=True)
    assert reference.probabilities[0] == pytest.approx(by_quadrature([True], stated), abs=0.01)


# ---------------------------------------------------------------- the default world


def test_the_defaults_leave_room_between_the_references(
    world: World, comparisons: list[Comparison], hidden: dict[int | None, Reference]
) -> None:
    assert 0.88 < oracle(comparisons, world).accuracy.accuracy < 0.93
    assert 0.75 < hidden[3].accuracy.accuracy < 0.81
    assert 0.52 < hidden[0].accuracy.accuracy < 0.61
    assert hidden[1].accuracy.accuracy < hidden[3].accuracy.accuracy < hidden[6].accuracy.accuracy


def test_the_probabilities_of_the_observer_are_calibrated(
    comparisons: list[Comparison], hidden: dict[int | None, Reference]
) -> None:
    chose_first = np.array([c.label == 0 for c in comparisons])
    for reference in hidden.values():
        p = np.array(reference.probabilities)
        for low in np.arange(0, 1, 0.2):
            inside = (p >= low) & (p < low + 0.2)
            variance = (p * (1 - p))[inside].sum()
            assert abs((chose_first - p)[inside].sum()) <= 4 * np.sqrt(variance)


def test_the_monte_carlo_error_is_small_and_reported(
    hidden: dict[int | None, Reference],
) -> None:
    for reference in hidden.values():
        assert 0 < reference.mc_error < 0.004
        assert reference.effective_sample_size is not None
        assert reference.effective_sample_size > 500


def test_stated_criteria_help_those_who_state_them(
    world: World, comparisons: list[Comparison]
) -> None:
    stating = [c for c in comparisons if c.user.criteria][:400]
    silent = [c for c in comparisons if not c.user.criteria and c.user.self_description is None]
    (without,) = references(stating, world, [0])
    (shown,) = references(stating, world, [0], with_criteria=True)
    assert shown.accuracy.accuracy > without.accuracy.accuracy + 0.1
    (nothing,) = references(silent[:50], world, [3])
    (the_same,) = references(silent[:50], world, [3], with_criteria=True)
    assert nothing.probabilities == the_same.probabilities


def test_no_simple_judge_beats_the_observer(
    world: World, comparisons: list[Comparison], hidden: dict[int | None, Reference]
) -> None:
    right = np.mean([(tally(draw_history(c, 3)) > 0) == (c.label == 0) for c in comparisons])
    noise = 2 * np.sqrt(0.25 / len(comparisons))
    assert hidden[3].accuracy.accuracy > right - noise
    assert hidden[3].accuracy.accuracy > hidden[0].accuracy.accuracy + 0.1
    assert right > 0.6


def tally(comparison: Comparison) -> float:
    """Count how often each attribute was with the chosen response; score by the counts."""
    votes: Array = np.zeros(len(ATTRIBUTES))
    for pair in comparison.user.history:
        votes += read_attributes(pair.chosen) - read_attributes(pair.rejected)
    first, second = map(read_attributes, comparison.responses)
    return float(votes @ (first - second))


def test_the_observer_sees_the_pairs_that_a_judge_is_given(
    world: World, comparisons: list[Comparison]
) -> None:
    some = comparisons[:20]
    limited = [draw_history(c, 2, seed=5) for c in some]
    (own,) = references(some, world, [2], seed=5)
    (given,) = references(limited, world, [2], seed=5)
    assert own.probabilities == given.probabilities


def test_a_reference_does_not_depend_on_the_comparisons_beside_it(
    world: World, comparisons: list[Comparison]
) -> None:
    (all_,) = references(comparisons[:10], world, [3])
    (last,) = references(comparisons[9:10], world, [3])
    assert all_.probabilities[9] == last.probabilities[0]


def test_a_missing_label_is_an_error(world: World, comparisons: list[Comparison]) -> None:
    unlabelled = comparisons[0].model_copy(update={"label": None})
    with pytest.raises(InputError, match=r"u00003-test-0.* has no label"):
        oracle([unlabelled], world)


def test_a_comparison_of_another_world_is_an_error(
    world: World, comparisons: list[Comparison]
) -> None:
    foreign = Comparison(id="x", user=comparisons[0].user, context="2 + 2?", responses=["4", "5"])
    with pytest.raises(InputError, match="not asked in the simulated world"):
        references([foreign], world, [0])
    told = comparisons[0].user.model_copy(update={"criteria": ("Be nice.",)})
    with pytest.raises(InputError, match=r"'Be nice\.' is not said"):
        references(
            [comparisons[0].model_copy(update={"user": told})], world, [0], with_criteria=True
        )
    single = comparisons[0].model_copy(update={"responses": ("4",), "label": 0})
    with pytest.raises(InputError, match="need two responses, found 1"):
        oracle([single], world)
