from collections.abc import Sequence
from pathlib import Path

import pytest

from pgenrm.bench.methods import (
    MAKERS,
    MethodOptions,
    check_names,
    make_method,
    possible,
    tasks_of,
)
from pgenrm.bench.rows import Kind, row_of
from pgenrm.bench.run import NAME, Task
from pgenrm.data.dataset import Dataset
from pgenrm.data.simulated import world_dataset
from pgenrm.engines.cached import CachedEngine
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.errors import InputError
from pgenrm.evaluator import Evaluator
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.methods.personas import WithPersonas
from pgenrm.methods.synthesize_me import SynthesizeMe
from pgenrm.prototypes.embedder import MINILM
from pgenrm.sim.world import World
from pgenrm.types import User
from tests.bench_cases import Chance, dataset


def scripted(_: object) -> Evaluator:
    """Answer everything with the same chain of thought."""
    return LanguageModelEvaluator(ScriptedEngine(lambda request, i: "I do not know."))


def options(tmp_path: Path, **changes: object) -> MethodOptions:
    made = MethodOptions(
        build=scripted,
        model="script",
        has_engine=True,
        embedder=MINILM,
        vectors=tmp_path / "vectors.sqlite",
        reward_base="tiny",
        models=tmp_path / "models",
    )
    return made._replace(**changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world() -> Dataset:
    return world_dataset("sim", World(seed=1), 8)


def test_a_method_by_other_weights_is_another_version(world: Dataset, tmp_path: Path) -> None:
    def weights(digest: str) -> Evaluator:
        engine = ScriptedEngine(lambda request, i: "I do not know.")
        engine.weights_identity = digest  # type: ignore[attr-defined]
        return LanguageModelEvaluator(CachedEngine(engine, tmp_path / "completions.sqlite"))

    for name in ("judge-default", "synthesize-me", "pgenrm-ind8"):
        versions = [
            make_method(
                options(tmp_path, build=weights, model=digest), Task(name, 0), world
            ).version
            for digest in ("before", "after", "before")
        ]
        assert versions[0] == versions[2] != versions[1]


@pytest.mark.parametrize("name", MAKERS)
def test_every_method_can_be_made_and_has_the_name_it_was_asked_by(
    name: str, world: Dataset, tmp_path: Path
) -> None:
    method = make_method(options(tmp_path), Task(name, 2), world)
    assert method.name == name
    assert NAME.fullmatch(name)
    assert method.version
    assert row_of(name).kind not in {Kind.OTHER, Kind.ALTERED}
    n_tasks = len(tasks_of([name], 3))
    assert n_tasks == (3 if MAKERS[name].needs_training else 1)
    if n_tasks == 3:
        assert method.is_trained


def test_alterations_wrap_any_method(world: Dataset, tmp_path: Path) -> None:
    for name in ("attributes+shuffled", "judge-history+flipped"):
        method = make_method(options(tmp_path), Task(name, 0), world)
        assert method.name == name
        assert row_of(name).kind is Kind.ALTERED


def test_the_number_of_past_choices_is_part_of_the_version(world: Dataset, tmp_path: Path) -> None:
    versions = {
        make_method(options(tmp_path, n_history=n), Task("judge-history", 0), world).version
        for n in (None, 1, 8)
    }
    assert len(versions) == 3


@pytest.mark.parametrize("name", ["nonsense", "gpo+nonsense", "gpo+"])
def test_an_unknown_name_is_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(InputError, match=r"there is no method .*judge-history.*\+shuffled"):
        check_names([name])


def test_what_cannot_be_run_is_left_out_with_the_reason(tmp_path: Path) -> None:
    only_tests = Dataset("toy", "1", {"test_unseen": dataset().splits["test_unseen"]})
    names, why = possible(options(tmp_path, has_engine=False, reward_base=None), only_tests)
    assert {"attributes", "longest", "pgenrm"} <= set(names)
    assert "needs a language model" in why["judge-default"]
    assert "no train split" in why["gpo"]
    assert "--reward-base" in why["reward-model"]
    assert "truth" in why["oracle"]
    assert set(names) | set(why) == set(MAKERS)
    with pytest.raises(InputError, match="oracle needs the truth"):
        make_method(options(tmp_path), Task("oracle", 0), only_tests)


def test_methods_that_learn_from_others_come_first_and_once_per_seed() -> None:
    tasks = tasks_of(["judge-default", "gpo", "longest", "vpl+shuffled"], 2)
    assert [str(task) for task in tasks] == [
        "gpo.seed0",
        "gpo.seed1",
        "vpl+shuffled.seed0",
        "vpl+shuffled.seed1",
        "judge-default.seed0",
        "longest.seed0",
    ]


def test_a_reward_model_is_told_what_was_found_out_about_users_before_it_needs_it(
    world: Dataset,
) -> None:
    personas: dict[str, str] = {}
    known_at_fit: list[str] = []

    class Reader(Chance):
        def fit(self, train: Sequence[object], validation: Sequence[object]) -> None:
            known_at_fit.extend(personas)

    class Finder(SynthesizeMe):
        def adapt(self, users: Sequence[User]) -> None:
            self.personas_ |= {
                u.id: User(id=u.id, self_description=f"persona of {u.id}") for u in users
            }

    finder = Finder(ScriptedEngine(lambda request, i: ""))
    method = WithPersonas(Reader("reward-model-personas"), finder, personas)
    method.fit(world.splits["train"], world.splits["validation"])
    seen = {c.user.id for c in world.splits["train"]}
    assert set(known_at_fit) == seen
    unseen = [c.user for c in world.splits["test_unseen"]]
    method.adapt(unseen)
    assert set(personas) == seen | {user.id for user in unseen}
