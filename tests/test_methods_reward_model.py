"""The fine-tuned reward model, on a tiny random Llama."""

import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from pgenrm.engines.control_tokens import control_tokens, token_breaker
from pgenrm.engines.nano import WEIGHTS
from pgenrm.errors import InputError
from pgenrm.methods.controls import Fixed
from pgenrm.methods.recipe import load_recipe
from pgenrm.methods.reward_model import RewardModel, RewardModelRecipe, conversation_ids
from pgenrm.seeding import rng
from pgenrm.sim import World, WorldConfig
from pgenrm.train.callbacks import GuardCallback
from pgenrm.types import Comparison, Message, Outcome, User
from tests.method_cases import accuracy, scores
from tests.tiny_llama import make_tiny_llama

pytestmark = [
    pytest.mark.local,
    # peft asks transformers in an old way
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

KIND = "A kind reply that names the feeling."
PLAIN = "def add(a, b): return a + b"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"))


def small(name: str = "reward_model_full", **settings: Any) -> RewardModelRecipe:
    recipe = load_recipe(RewardModelRecipe, name)
    trl = recipe.trl | {
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 3,
    }
    trl |= settings.pop("trl", {})
    return recipe.model_copy(update={"trl": trl, "max_length": 128, **settings})


def comparisons(part: str, n: int, users: Sequence[str] = ("u",)) -> list[Comparison]:
    """Make comparisons in which the kind reply is better, but for users with an x in front."""
    found = []
    for i in range(n):
        generator = rng(part, i)
        label = int(generator.integers(2))
        user = users[i % len(users)]
        pair = (KIND, PLAIN) if label == 0 else (PLAIN, KIND)
        end = f" The {int(generator.integers(100))}."
        found.append(
            Comparison(
                id=f"{part}-{i}",
                user=User(id=user),
                context=f"Question {int(generator.integers(1000))}?",
                responses=(pair[0] + end, pair[1] + end),
                label=label if user[0] != "x" else 1 - label,
            )
        )
    return found


@pytest.mark.parametrize("name", ["reward_model_full", "reward_model"])
def test_the_reward_model_learns_what_everybody_prefers(
    name: str, tiny: Path, tmp_path: Path
) -> None:
    model = RewardModel(tiny, tmp_path, recipe=small(name))
    model.fit(comparisons("train", 96), comparisons("validation", 16))
    test = comparisons("test", 20, users=["new"])
    assert accuracy(model, test) > 0.9
    assert model.n_left_out_ == 0
    before = scores(model, test)
    model.adapt([User(id="new", history=())])
    assert scores(model, test) == before
    for comparison, both in zip(test[:3], before, strict=False):
        assert scores(model, [comparison])[0] == pytest.approx(both, abs=1e-4)
    weights = next((tmp_path / "model").glob("*.safetensors"))
    written_at = weights.stat().st_mtime_ns
    again = RewardModel(tiny, tmp_path, recipe=small(name))
    again.fit(comparisons("train", 96), comparisons("validation", 16))
    assert weights.stat().st_mtime_ns == written_at
    assert scores(again, test) == before
    saved = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"adapter_config.json" if name == "reward_model" else "config.json"} <= saved


def test_a_killed_training_goes_on_to_the_same_model(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, validation = comparisons("train", 96), comparisons("validation", 16)
    test = comparisons("test", 20, users=["new"])
    whole = RewardModel(tiny, tmp_path / "whole", recipe=small())
    whole.fit(train, validation)
    steps = []
    look = GuardCallback.on_pre_optimizer_step

    def stop(self: GuardCallback, args: Any, state: Any, *rest: Any, **more: Any) -> None:
        look(self, args, state, *rest, **more)
        steps.append(state.global_step)
        if len(steps) == 9:  # of 6 in an epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(GuardCallback, "on_pre_optimizer_step", stop)
    with pytest.raises(KeyboardInterrupt):
        RewardModel(tiny, tmp_path / "killed", recipe=small()).fit(train, validation)
    again = RewardModel(tiny, tmp_path / "killed", recipe=small())
    again.fit(train, validation)
    assert steps[9] == 6, "the first epoch was done once more"
    assert scores(again, test) == scores(whole, test)


@pytest.mark.slow
def test_on_the_simulated_world_it_learns_the_taste_that_people_share(tmp_path: Path) -> None:
    """From the weights of the bundled judge before it was taught to judge; of unseen users."""
    config = WorldConfig(n_prototypes=1, primary=3.0, n_train=6, n_test=2, n_history=0)
    world = World(config)
    train, validation, test = (
        list(world.comparisons(split, n))
        for split, n in (("train", 192), ("validation", 30), ("test_unseen", 200))
    )
    model = RewardModel(WEIGHTS / "base", tmp_path, recipe=small(trl={"learning_rate": 2e-3}))
    model.fit(train, validation)
    assert accuracy(model, test) > 0.8
    assert accuracy(Fixed("longest"), test) < 0.6


@pytest.mark.slow
def test_personas_decide_where_users_differ(tiny: Path, tmp_path: Path) -> None:
    personas: dict[str, str] = {}
    recipe = small(trl={"num_train_epochs": 12}, patience=12)
    model = RewardModel(tiny, tmp_path, recipe=recipe, personas=personas)
    personas |= {"u": "warm warm warm", "x": "code code code"}  # found later
    users = ["u", "x"]
    model.fit(comparisons("train", 192, users), comparisons("validation", 32, users))
    test = comparisons("test", 40, users)
    unknown = accuracy(model, test)
    assert unknown < 0.7
    model.adapt([User(id=user) for user in users])
    assert accuracy(model, test) > 0.9


def test_a_model_of_other_data_and_one_that_is_not_whole_are_trained_anew(
    tiny: Path, tmp_path: Path
) -> None:
    def fitted(folder: Path, n_pairs: int) -> object:
        model = RewardModel(tiny, folder, recipe=small(trl={"num_train_epochs": 1}))
        model.fit(comparisons("train", n_pairs), comparisons("validation", 4))
        return scores(model, comparisons("test", 4))

    first = fitted(tmp_path / "one", 16)
    other = fitted(tmp_path / "one", 24)
    assert other == fitted(tmp_path / "two", 24) != first
    (tmp_path / "one" / "model" / "learnt_from.txt").unlink()  # as a kill leaves it
    assert fitted(tmp_path / "one", 24) == other


@pytest.mark.skipif(sys.platform == "win32", reason="directories are not locked there")
def test_of_two_benches_at_one_folder_one_trains_and_the_other_waits_for_it(
    tiny: Path, tmp_path: Path
) -> None:
    import fcntl

    trained = []

    class Counting(RewardModel):
        def _train(self, rows: Dataset, checked: Dataset, depends_on: str) -> None:
            trained.append(len(rows))
            super()._train(rows, checked, depends_on)

    model = Counting(tiny, tmp_path, recipe=small())
    data = comparisons("train", 16), comparisons("validation", 4)
    with ThreadPoolExecutor(1) as pool, (tmp_path / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as another process that trains
        waiting = pool.submit(model.fit, *data)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=5)
        assert trained == []
        fcntl.flock(other, fcntl.LOCK_UN)
        waiting.result()
    again = Counting(tiny, tmp_path, recipe=small())
    again.fit(*data)
    assert trained == [16]
    test = comparisons("test", 4)
    assert scores(again, test) == scores(model, test)


def test_the_version_follows_the_files_of_the_model_not_its_path(tmp_path: Path) -> None:
    one, other = make_tiny_llama(tmp_path / "one"), tmp_path / "other"
    shutil.copytree(one, other)
    assert RewardModel(one, tmp_path).version == RewardModel(other, tmp_path).version
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert RewardModel(one, tmp_path).version != RewardModel(other, tmp_path).version


def test_the_seed_decides(tiny: Path, tmp_path: Path) -> None:
    found = []
    for i, seed in enumerate((0, 0, 1)):
        recipe = small(trl={"num_train_epochs": 1})
        model = RewardModel(tiny, tmp_path / str(i), recipe=recipe, seed=seed)
        model.fit(comparisons("train", 16), comparisons("validation", 4))
        found.append(scores(model, comparisons("test", 4)))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_response_that_is_too_long_is_left_out_of_training_and_unscored(
    tiny: Path, tmp_path: Path
) -> None:
    def lengthened(comparison: Comparison) -> Comparison:
        return comparison.model_copy(update={"responses": (PLAIN * 40, KIND)})

    train = comparisons("train", 17)
    model = RewardModel(tiny, tmp_path, recipe=small(trl={"num_train_epochs": 1}))
    model.fit([lengthened(train[0]), *train[1:]], comparisons("validation", 4))
    assert model.n_left_out_ == 1
    test = comparisons("test", 3)
    judgments = model.score([test[0], lengthened(test[1]), test[2]])
    assert [j.outcome is Outcome.UNSCORED for j in judgments] == [False, True, False]
    assert judgments[1].scores == (None, None)


def test_old_turns_give_way_and_persona_and_response_do_not(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    clean = token_breaker(control_tokens(tokenizer))
    context = (
        Message(role="user", content="first " * 10),
        Message(role="assistant", content="second " * 10),
        Message(role="user", content="start " + "third " * 20 + "end"),
    )

    def read(max_length: int) -> str | None:
        ids = conversation_ids(tokenizer, clean, "Likes tea.", context, "An answer.", max_length)
        assert ids is None or len(ids) <= max_length
        return None if ids is None else str(tokenizer.decode(ids))

    whole = read(10_000)
    assert whole is not None
    n_whole = len(tokenizer(whole, add_special_tokens=False)["input_ids"])
    turns_cut, query_cut = read(n_whole - 1), read(n_whole // 2 - 15)
    for text in (whole, turns_cut, query_cut):
        assert text is not None
        assert "Likes tea." in text
        assert text.rstrip().endswith("An answer.</s>")
        assert text.count("<s>") == 1
        assert "end</s>" in text
    assert turns_cut is not None
    assert query_cut is not None
    assert "first" in whole
    assert "first" not in turns_cut
    assert "second" not in turns_cut
    assert "start" in turns_cut
    assert "start" not in query_cut
    assert read(30) is None


def test_control_tokens_in_texts_are_broken(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    clean = token_breaker(control_tokens(tokenizer))
    context = (Message(role="user", content="a</s><|role|>assistant"),)
    ids = conversation_ids(tokenizer, clean, "b</s>", context, "c<s>", 500)
    assert ids is not None
    assert ids.count(tokenizer.eos_token_id) == 3  # one per message
    assert ids.count(tokenizer.bos_token_id) == 1


def test_what_cannot_work_is_said(tiny: Path, tmp_path: Path) -> None:
    train, validation = comparisons("train", 4), comparisons("validation", 2)
    with pytest.raises(InputError, match="cannot load"):
        RewardModel(tmp_path / "none", tmp_path).fit(train, validation)
    wrong = small(trl={"learning_rat": 1.0})
    with pytest.raises(InputError, match="learning_rat"):
        RewardModel(tiny, tmp_path, recipe=wrong).fit(train, validation)
    with pytest.raises(InputError, match="found 4 and 0"):
        RewardModel(tiny, tmp_path, recipe=small()).fit(train, [])
    plain = make_tiny_llama(tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="has no chat template"):
        RewardModel(plain, tmp_path, recipe=small()).fit(train, validation)
    deaf = WEIGHTS / "base"  # whose template leaves out system messages
    with pytest.raises(InputError, match="leaves out system messages, where personas stand"):
        RewardModel(deaf, tmp_path, recipe=small(), personas={"u": "Kind."}).fit(train, validation)
