"""Controls: judges that know little, judges that know the world, and altered users."""

from collections.abc import Sequence

import pytest

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.errors import InputError
from pgenrm.methods.altered import FlippedHistory, ShuffledUsers
from pgenrm.methods.controls import RULES, BayesObserver, Fixed, Oracle
from pgenrm.methods.pgenrm import Personalised, Scaling
from pgenrm.methods.protocol import Method
from pgenrm.sim.observer import oracle, references
from pgenrm.sim.world import World, without_statements
from pgenrm.types import Comparison, Judgment, Outcome, Preference, User
from pgenrm.verdict import digest

USER = User(id="u")
N_PARTICLES = 256


def asked(*responses: str, id: str = "c0", user: User = USER, label: int | None = 0) -> Comparison:
    return Comparison(id=id, user=user, context="Why?", responses=responses, label=label)


def judge_by(name: str, comparisons: Sequence[Comparison], seed: int = 0) -> list[Judgment]:
    method: Method = Fixed(name, seed=seed)
    method.fit([], [])
    method.adapt([USER])
    return method.score(comparisons)


# ---------------------------------------------------------------- judges that know no user


def test_length_decides_and_equal_lengths_tie() -> None:
    rows = [asked("a", "bb", "c"), asked("aa", "bb", id="c1")]
    assert [j.choice for j in judge_by("longest", rows)] == [1, None]
    shortest = judge_by("shortest", rows)
    assert [j.outcome for j in shortest] == [Outcome.TIE, Outcome.TIE]


@pytest.mark.parametrize("name", ["first-position", "random"])
def test_position_and_chance_know_nothing_of_the_label(name: str) -> None:
    rows = [asked("a", "b", id=f"c{i}") for i in range(400)]
    right = sum(j.outcome is Outcome.CORRECT for j in judge_by(name, rows))
    assert 160 < right < 240
    assert [j.choice for j in judge_by(name, rows)] == [j.choice for j in judge_by(name, rows)]
    assert [j.choice for j in judge_by(name, rows)] != [j.choice for j in judge_by(name, rows, 1)]
    alone = [judge_by(name, [row])[0].scores for row in rows[:20]]
    assert alone == [j.scores for j in judge_by(name, rows)[:20]]


@pytest.mark.parametrize("name", RULES)
def test_permuting_the_responses_permutes_the_scores_of_rules_about_texts(name: str) -> None:
    texts = ("one", "a pair", "three of them")
    [there], [back] = judge_by(name, [asked(*texts)]), judge_by(name, [asked(*texts[::-1])])
    if name in {"longest", "shortest"}:
        assert there.scores == back.scores[::-1]
    else:
        assert there.scores == back.scores


# ---------------------------------------------------------------- judges that know the world


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=3)


@pytest.fixture(scope="module")
def comparisons(world: World) -> list[Comparison]:
    """Of 75 users, who state nothing and have one history each."""
    rows = [without_statements(c) for c in world.comparisons("test_unseen", 300)]
    users = {c.user.id: c.user for c in rows}
    return [c.model_copy(update={"user": users[c.user.id]}) for c in rows]


def users_of(comparisons: Sequence[Comparison]) -> list[User]:
    return list({c.user.id: c.user for c in comparisons}.values())


def share_right(method: Method, comparisons: Sequence[Comparison]) -> float:
    method.adapt(users_of(comparisons))
    judgments = method.score(comparisons)
    assert [j.comparison_digest for j in judgments] == [digest(c) for c in comparisons]
    assert [j.user_id for j in judgments] == [c.user.id for c in comparisons]
    return sum(j.outcome is Outcome.CORRECT for j in judgments) / len(judgments)


def test_observer_and_oracle_are_the_references_and_read_no_label(
    world: World, comparisons: list[Comparison]
) -> None:
    unlabelled = [c.model_copy(update={"label": None}) for c in comparisons[:40]]
    observer = BayesObserver(world, n_history=3, n_particles=N_PARTICLES, seed=5)
    observer.adapt(users_of(unlabelled))
    [known] = references(
        comparisons[:40], world, (3,), with_criteria=True, seed=5, n_particles=N_PARTICLES
    )
    assert [j.scores[0] for j in observer.score(unlabelled)] == list(known.probabilities)
    assert {j.n_history for j in observer.score(unlabelled)} == {3}
    found = Oracle(world).score(unlabelled)
    assert [j.scores[0] for j in found] == list(oracle(comparisons[:40], world).probabilities)
    assert {j.outcome for j in found} == {None}
    for judgment in [*found, *observer.score(unlabelled)]:
        chances = [score for score in judgment.scores if score is not None]
        assert judgment.confidence == pytest.approx(max(chances), abs=1e-6)
        assert judgment.is_calibrated


def test_the_more_is_known_the_more_is_right(world: World, comparisons: list[Comparison]) -> None:
    def observer(n_history: int | None) -> BayesObserver:
        return BayesObserver(world, n_history=n_history, n_particles=N_PARTICLES)

    nothing, everything = (share_right(observer(n), comparisons) for n in (0, None))
    assert nothing + 0.05 < everything < share_right(Oracle(world), comparisons) + 0.02


# ---------------------------------------------------------------- altered users


def attribute_evaluator() -> Personalised:
    return Personalised("attributes", AttributeEvaluator(), Scaling(m=8, n_history=None))


class Noting:
    """A judge by chance that notes what it is given."""

    name, version, is_trained = "noting", "1", False

    def __init__(self) -> None:
        self.adapted: list[User] = []
        self.seen: list[User] = []

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        self.n_fitted = len(train)

    def adapt(self, users: Sequence[User]) -> None:
        self.adapted += users

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        self.seen += [c.user for c in comparisons]
        return Fixed("random").score(comparisons)


def test_shuffled_users_fall_to_the_population_and_flipped_choices_below_it(
    comparisons: list[Comparison],
) -> None:
    own = share_right(attribute_evaluator(), comparisons)
    shuffled = share_right(ShuffledUsers(attribute_evaluator()), comparisons)
    flipped = share_right(FlippedHistory(attribute_evaluator()), comparisons)
    nobody = [c.model_copy(update={"user": User(id=c.user.id)}) for c in comparisons]
    population = share_right(attribute_evaluator(), nobody)
    assert own > population + 0.05
    assert shuffled < population + 0.05
    assert flipped < population - 0.05
    assert flipped < shuffled


def test_everything_that_is_known_is_somebody_elses_and_nobody_is_himself() -> None:
    users = [User(id=f"u{i}", self_description=f"I am {i}.") for i in range(7)]
    rows = [asked("a", "b", id=f"c{u.id}", user=u) for u in users]
    inner = Noting()
    method: Method = ShuffledUsers(inner)
    method.fit(rows, [])
    method.adapt(users)
    judgments = method.score(rows)
    assert inner.n_fitted == 7
    assert inner.adapted == users
    assert all(shown.id != own.id for shown, own in zip(inner.seen, users, strict=True))
    assert sorted(inner.seen, key=lambda u: u.id) == users
    assert [j.user_id for j in judgments] == [u.id for u in users]
    before = list(inner.seen)
    method.score(rows[3:5])
    assert inner.seen[7:] == before[3:5]

    lonely = ShuffledUsers(Noting())
    lonely.adapt(users[:1])
    with pytest.raises(InputError, match=r"noting\+shuffled: nobody can stand in for 'u0'"):
        lonely.score(rows[:1])


def test_a_flipped_choice_keeps_its_ratings_with_their_texts() -> None:
    pair = Preference(
        context="Tea?", chosen="Green.", rejected="Black.", chosen_score=9, rejected_score=2
    )
    user = User(id="u", history=(pair,))
    inner = Noting()
    method = FlippedHistory(inner)
    method.adapt([user])
    method.score([asked("a", "b", user=user)])
    for shown in (*inner.adapted, *inner.seen):
        [flipped] = shown.history
        assert (flipped.chosen, flipped.chosen_score) == ("Black.", 2)
        assert (flipped.rejected, flipped.rejected_score) == ("Green.", 9)


def test_versions_tell_what_was_altered() -> None:
    plain = attribute_evaluator()
    versions = {plain.version, ShuffledUsers(plain).version, FlippedHistory(plain).version}
    assert len(versions) == 3
    assert ShuffledUsers(plain).name == "attributes+shuffled"
