"""P-GenRM as a method: what `fit` learns from whom, and that scaling is what was asked for."""

from collections.abc import Sequence

import pytest

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.errors import InputError
from pgenrm.evaluator import Evaluator
from pgenrm.history import gather_users
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.methods.pgenrm import VARIANTS, Personalised, Scaling
from pgenrm.methods.protocol import Method
from pgenrm.scaling.calibration import MIN_USERS
from pgenrm.sim import Split, World, WorldConfig
from pgenrm.types import Comparison, Outcome, User
from pgenrm.verdict import digest
from tests.method_cases import MeasuredEmbedder
from tests.reading_engine import reading_engine

N_USERS = 110
SMALL = Scaling(m=4, n=4, k=4, is_refined=False)
ADAPTIVE = SMALL.model_copy(update={"is_adaptive": True, "m": 6})


@pytest.fixture(scope="module")
def data() -> dict[Split, list[Comparison]]:
    world = World(WorldConfig(n_prototypes=4, n_train=5, n_validation=1, n_test=1, n_history=4))
    found: dict[Split, list[Comparison]] = {split: [] for split in Split}
    for index in range(N_USERS):
        for split, _, comparison in world.of_user(world.person(index), Split):
            found[split].append(comparison)
    return found


def fitted(data: dict[Split, list[Comparison]], scaling: Scaling, seed: int = 0) -> Personalised:
    method = Personalised(
        "pgenrm", AttributeEvaluator(), scaling, embedder=MeasuredEmbedder(), seed=seed
    )
    method.fit(data[Split.TRAIN], data[Split.VALIDATION])
    return method


def users_of(comparisons: Sequence[Comparison]) -> list[User]:
    return gather_users(c.model_copy(update={"label": None}) for c in comparisons)


def test_nobody_is_both_a_neighbour_and_calibrated_on(data: dict[Split, list[Comparison]]) -> None:
    method = fitted(data, SMALL)
    assert method.is_trained
    assert method.prototypes_ is not None
    assert method.calibration_ is not None
    stored = set(method.prototypes_.users_)
    train = {c.user.id for c in data[Split.TRAIN]}
    assert stored < train
    assert len(train - stored) == MIN_USERS
    assert method.calibration_.weights.n_users <= MIN_USERS

    strangers = [
        c.model_copy(update={"user": c.user.model_copy(update={"id": f"v{c.user.id}"})})
        for c in data[Split.VALIDATION]
    ]
    method.fit(data[Split.TRAIN], strangers)
    assert method.prototypes_ is not None
    assert set(method.prototypes_.users_) == train


def test_neighbours_are_asked_and_judgments_are_calibrated(
    data: dict[Split, list[Comparison]],
) -> None:
    test = data[Split.TEST_UNSEEN]
    method: Method = fitted(data, SMALL)
    method.adapt(users_of(test))
    judgments = method.score(test)
    assert [j.id for j in judgments] == [c.id for c in test]
    assert [j.comparison_digest for j in judgments] == [digest(c) for c in test]
    for judgment in judgments:
        neighbours = [chain.neighbour for chain in judgment.chains if chain.neighbour]
        assert len(judgment.chains) == 8
        assert len(set(neighbours)) == 4
        assert judgment.user_id not in neighbours
        assert judgment.is_calibrated
        assert judgment.order_consistency is not None
        assert judgment.n_history == 3
    again = fitted(data, SMALL)
    again.adapt(users_of(test))
    assert again.score(test[:3]) == judgments[:3]


def test_sampling_stops_early_where_the_verdict_is_settled(
    data: dict[Split, list[Comparison]],
) -> None:
    method = fitted(data, ADAPTIVE)
    test = data[Split.TEST_UNSEEN]
    method.adapt(users_of(test))
    judgments = method.score(test)
    assert method.calibration_ is not None
    assert all(j.is_settled is not None for j in judgments)
    assert {len(j.chains) for j in judgments} <= {2, 8, 10}


def test_few_validation_users_leave_shipped_weights_and_the_papers_aggregator_needs_none(
    data: dict[Split, list[Comparison]],
) -> None:
    method = Personalised("pgenrm", AttributeEvaluator())
    method.fit(data[Split.TRAIN], data[Split.VALIDATION][: MIN_USERS - 1])
    assert method.calibration_ is None
    paper = fitted(data, SMALL.model_copy(update={"aggregator": "paper"}))
    assert paper.calibration_ is None
    assert paper.prototypes_ is not None
    assert len(paper.prototypes_.users_) == len({c.user.id for c in data[Split.TRAIN]})
    [judgment] = paper.score(data[Split.TEST_UNSEEN][:1])
    assert judgment.aggregator == "paper"
    assert not judgment.is_calibrated


def test_a_language_model_writes_the_chains_from_any_engine() -> None:
    short, long = "Take it to a shop.", "First, remove the wheel. " * 12
    evaluator = LanguageModelEvaluator(reading_engine())
    method = Personalised("pgenrm", evaluator)
    rows = [
        Comparison(
            id=wish,
            user=User(id=wish, criteria=(f"I want {wish} answers.",)),
            context="How do I fix a flat tyre?",
            responses=(short, long),
            label=label,
        )
        for label, wish in enumerate(("short", "long and detailed"))
    ]
    method.adapt([c.user for c in rows])
    judgments = method.score(rows)
    assert [j.outcome for j in judgments] == [Outcome.CORRECT] * 2
    assert all(j.chains[0].chain.criteria for j in judgments)
    assert all(j.n_completion_tokens > 0 for j in judgments)
    assert judgments[0].prompt_version in method.version


def test_history_is_what_was_adapted_to(data: dict[Split, list[Comparison]]) -> None:
    test = data[Split.TEST_UNSEEN][:5]
    method = Personalised("pgenrm", AttributeEvaluator())
    assert {j.n_history for j in method.score(test)} == {0}
    method.adapt(users_of(test))
    assert {j.n_history for j in method.score(test)} == {3}
    method.adapt([User(id=c.user.id) for c in test])
    assert {j.n_history for j in method.score(test)} == {0}


def test_what_is_missing_is_said() -> None:
    with pytest.raises(InputError, match="pgenrm-ind8-pro4 asks 4 neighbours, which needs an emb"):
        Personalised("pgenrm-ind8-pro4", AttributeEvaluator())
    method = Personalised("pgenrm-ind8-pro4", AttributeEvaluator(), embedder=MeasuredEmbedder())
    with pytest.raises(InputError, match="call fit first"):
        method.score([])


def test_versions_differ_with_scaling_evaluator_and_embedder() -> None:
    class Other(MeasuredEmbedder):
        name = "other"

    evaluators: list[Evaluator] = [
        AttributeEvaluator(),
        LanguageModelEvaluator(ScriptedEngine([])),
    ]
    made = [
        Personalised(name, evaluator, embedder=embedder)
        for name in VARIANTS
        for evaluator in evaluators
        for embedder in (MeasuredEmbedder(), Other())
    ]
    n_without = sum(not scaling.n for scaling in VARIANTS.values())
    assert len({method.version for method in made}) == len(made) - n_without * len(evaluators)
