"""Reinforcement learning: rows, blocks, TRL's own arithmetic, faults, and a model that learns."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig
from trl.trainer.utils import RepeatSampler
from typer.testing import CliRunner

from pgenrm.cli.train import train_app
from pgenrm.engines.local import LocalEngine
from pgenrm.engines.protocol import ChatRequest, Sampling
from pgenrm.errors import InputError, PgenrmWarning, TrainingError
from pgenrm.prompts import Template
from pgenrm.sim.world import Split, World
from pgenrm.train.blocks import BlockSampler, first_free_block, n_blocks, uniform_draw
from pgenrm.train.callbacks import METRICS_FILE, SAMPLES_FILE, read_rows
from pgenrm.train.grpo import check_groups, grpo_config, n_prompts
from pgenrm.train.grpo_callbacks import ConstantRewardCallback
from pgenrm.train.recipe import leaves, load_recipe, read_table, shipped_recipes
from pgenrm.train.record import RunStatus, read_record
from pgenrm.train.rewards import (
    CoverageRequest,
    Criteria,
    format_error,
    outcome,
    process_reward,
)
from pgenrm.train.rl import load_prompts, start_trainer, train_rl
from pgenrm.train.rl_recipe import CurriculumRecipe, RlRecipe
from pgenrm.train.rl_rows import EQUAL, prompt_rows, with_criteria
from pgenrm.types import Comparison, Failure, FailureKind, Message, Preference, User
from tests.test_train_rewards import write_card
from tests.tiny_rl import make_model, recipe, write_comparisons

pytestmark = [
    pytest.mark.local,
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
]

KINDS: dict[str, type[RlRecipe] | type[CurriculumRecipe]] = {
    "rl": RlRecipe,
    "curriculum": CurriculumRecipe,
}
JUDGE = {"kind": "model", "model": "openai:judge"}


class Judge:
    """Rates a chain by a function."""

    def __init__(self, rate: Callable[[CoverageRequest], float | Failure]) -> None:
        self._rate = rate

    def criteria(self, comparisons: Sequence[Comparison]) -> Criteria:
        return {c.user.id: c.user.criteria for c in comparisons}

    def rate(self, requests: Sequence[CoverageRequest]) -> list[float | Failure]:
        return [self._rate(request) for request in requests]

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparisons(tmp_path_factory.mktemp("data") / "comparisons.jsonl")


def rl_recipe(model: Path, data: Path, **more: Any) -> RlRecipe:
    return RlRecipe.model_validate(recipe(model, data, **{"alpha": 0, "beta": 1, **more}))


# ---------------------------------------------------------------- rows


def comparison(i: int = 0, **more: Any) -> Comparison:
    user = User(
        id=f"u{i}",
        criteria=("SECRET wish",),
        self_description="SECRET self",
        demographics={"age": "SECRET age"},
        history=tuple(
            Preference(
                context=f"Past {j}?",
                chosen=f"Yes {j}",
                rejected=f"No {j}",
                chosen_score=77,
                choice_attributes={"SECRET attribute": 3},
            )
            for j in range(5)
        ),
    )
    fields = {"responses": ("first", "second", "third"), "label": 1, **more}
    return Comparison(id=f"c{i}", user=user, context="Now?", **fields)


def test_prompts_hold_choices_and_no_statement_and_record_their_order() -> None:
    rows = prompt_rows([comparison(i) for i in range(60)], n_history=(0, 2), seed=1)
    for row in rows:
        shown = "\n".join(message["content"] for message in row["prompt"])
        assert "SECRET" not in shown
        assert "77" not in shown
        assert shown.count("<past_choice number") == row["n_history"]
        assert row["responses"] == [("first", "second", "third")[i] for i in row["order"]]
        assert row["responses"][row["label"]] == "second"
        places = [shown.index(f"\n{text}\n") for text in row["responses"]]
        assert places == sorted(places)
    assert set(rows["n_history"]) == {0, 2}
    assert len(Counter(map(tuple, rows["order"]))) == 6
    assert Counter(rows["label"]).most_common(3)[-1][1] > 8
    assert prompt_rows([comparison(7)], n_history=(0, 2), seed=1)[0] == rows[7]


def test_a_past_choice_that_tells_the_label_is_not_shown() -> None:
    plain = comparison()
    chosen, rejected = plain.responses[plain.label or 0], plain.responses[0]
    told = Preference(context=plain.context, chosen=chosen, rejected=rejected)
    later = (*plain.context, Message(role="assistant", content=chosen), *plain.context)
    after = Preference(context=later, chosen="Later yes", rejected="Later no")
    user = plain.user.model_copy(update={"history": (told, *plain.user.history, after)})
    rows = prompt_rows([plain.model_copy(update={"user": user})], n_history=(9,))
    assert rows["prompt"] == prompt_rows([plain], n_history=(9,))["prompt"]
    assert rows["n_history"] == [5]


def test_the_prompt_does_not_depend_on_the_label() -> None:
    first, second = (prompt_rows([comparison(label=label)])[0] for label in (0, 1))
    assert first["prompt"] == second["prompt"]
    assert first["label"] != second["label"]


def test_criteria_are_supervision_and_a_failure_is_no_criterion() -> None:
    lost = Failure(kind=FailureKind.REQUEST, reason="no answer")
    rows = prompt_rows([comparison(i) for i in range(3)])
    criteria: Criteria = {"u0": ("Short.",), "u1": lost}
    assert with_criteria(rows, criteria)["criteria"] == [["Short."], [], []]


def test_rows_that_cannot_be_learned_from_are_named() -> None:
    with pytest.raises(InputError, match=r"'c0' has no label"):
        prompt_rows([comparison(label=None)])
    twice = comparison(1, responses=("same", "same"))
    with pytest.warns(PgenrmWarning, match=f"1 comparisons left out: {EQUAL}"):
        assert len(prompt_rows([comparison(0), twice])) == 1


def test_long_prompts_lose_past_choices_first_and_then_count_as_errors() -> None:
    def count_tokens(messages: Sequence[Any]) -> int:
        return sum(len(message.content.split()) for message in messages)

    short = Template(
        "short",
        "{% block user %}{% for c in history %}{{ c.chosen }} {% endfor %}"
        "{{ responses | join(' ') }}{% endblock %}",
    )
    how: dict[str, Any] = {"template": short, "count_tokens": count_tokens}
    (row,) = prompt_rows([comparison()], **how, budget_tokens=5)
    assert row["cuts"] == ["history: oldest pairs left out: 2 of 3"]
    with pytest.raises(InputError, match="'c0': the prompt needs 3 tokens"):
        prompt_rows([comparison()], **how, budget_tokens=2)
    long = comparison(1, responses=("a b c d", "e", "f"))
    with pytest.warns(PgenrmWarning, match="1 comparisons left out: longer than 4 tokens"):
        rows = prompt_rows([comparison(), long], **how, budget_tokens=4, drops_long=True)
    assert rows["id"] == ["c0"]


# ---------------------------------------------------------------- blocks


def test_blocks_come_in_the_shape_of_trls_own_sampler() -> None:
    theirs = RepeatSampler(range(7), mini_repeat_count=2, batch_size=3, repeat_count=4)
    draw = uniform_draw(7, 3, seed=0)
    ours = BlockSampler(draw, 2, n_prompts=3, n_generations=2, n_repeats=4)

    def shape(indices: list[int]) -> list[int]:
        return [indices.index(i) for i in indices]

    assert shape(list(ours)) == shape(list(theirs))
    assert len(ours) == len(theirs) == len(list(ours))


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 3))
def test_every_row_is_drawn_once_per_epoch_whatever_the_size_of_blocks(
    n_rows: int, n_in_block: int, seed: int
) -> None:
    draw = uniform_draw(n_rows, n_in_block, seed)
    drawn = [i for block in range(2 * n_rows) for i in draw(block)]
    for epoch in range(2 * n_in_block):
        assert sorted(drawn[epoch * n_rows : (epoch + 1) * n_rows]) == list(range(n_rows))
    assert draw(1) == uniform_draw(n_rows, n_in_block, seed)(1)


@pytest.mark.parametrize(("accumulation", "per_generation"), [(1, 1), (2, 2), (1, 3), (4, 2)])
def test_a_block_counts_as_free_only_before_any_of_it_is_read(
    accumulation: int, per_generation: int
) -> None:
    args = GRPOConfig(
        output_dir="unused",
        use_cpu=True,
        bf16=False,
        report_to=[],
        max_steps=6,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=per_generation,
    )
    for n_steps in range(1, 6):
        n_batches_read = n_steps * accumulation + 1
        blocks_read = {batch // per_generation for batch in range(n_batches_read)}
        assert first_free_block(n_steps, args) == max(blocks_read) + 1
    assert first_free_block(0, args) == 0
    assert (
        n_blocks(args) * per_generation
        >= 6 * accumulation
        > (n_blocks(args) - 1) * (per_generation)
    )


# ---------------------------------------------------------------- recipes and early errors


def test_a_group_that_does_not_fill_the_batch_is_an_early_error(model: Path, data: Path) -> None:
    uneven = rl_recipe(model, data, trl={"num_generations": 5})
    with pytest.raises(InputError, match=r"num_generations is 5, which does not divide the 16"):
        train_rl(uneven, Path("unused"))
    assert not Path("unused").exists()


@pytest.mark.parametrize(
    ("trl", "message"),
    [
        ({"max_steps": -1}, "trl.max_steps is -1; give a whole number from 1 on"),
        ({"num_generations": "eight"}, "trl.num_generations is 'eight'; give a whole number"),
        ({"steps_per_generation": 2, "save_steps": 3}, "save_steps is 3"),
        ({"save_steps": 0.05}, "save_steps is 0.05; give it in steps"),
        ({"reward_weights": [1.0]}, "trl.reward_weights: not here"),
        ({"num_generation": 4}, r"no such setting \(did you mean num_generations"),
        ({"max_completion_length": 512}, "prompt and chain together have 512 tokens"),
    ],
)
def test_settings_that_cannot_work_are_early_errors(
    model: Path, data: Path, tmp_path: Path, trl: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_rl(rl_recipe(model, data, trl=trl), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_process_reward_needs_a_judge(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a judge exactly where alpha"):
        rl_recipe(model, data, alpha=0.5)
    with pytest.raises(InputError, match="do not go together"):
        train_rl(rl_recipe(model, data, alpha=0.5, judge=JUDGE), tmp_path / "run")


# ---------------------------------------------------------------- TRL's own arithmetic


def normalised(rewards: Any) -> Any:
    """[n_groups, n_generations] -> advantages as GRPO defines them."""
    mean, std = rewards.mean(axis=1, keepdims=True), rewards.std(axis=1, ddof=1, keepdims=True)
    return (rewards - mean) / (std + 1e-4)


def test_a_group_with_a_failed_process_score_goes_by_its_other_rewards(
    model: Path, data: Path, tmp_path: Path
) -> None:
    n_lost: Counter[str] = Counter()

    def rate(request: CoverageRequest) -> float | Failure:
        if int(request.id[1:]) % 2 and not n_lost[request.id]:  # one chain of every other group
            n_lost[request.id] += 1
            return Failure(kind=FailureKind.REQUEST, reason="lost")
        return 0.9 if request.chain.stated_scores[0] == 9 else 0.3

    trl = {"max_steps": 1, "per_device_train_batch_size": 128, "num_generations": 16}
    chosen = rl_recipe(model, data, alpha=0.5, judge=JUDGE, trl=trl)
    config = grpo_config(chosen, tmp_path, reward_weights=[0.5, 1.0, 1.0])
    prompts = load_prompts(chosen, config)
    trainer = start_trainer(
        chosen,
        tmp_path,
        config,
        prompts,
        criteria_of=Judge(rate).criteria,
        rewards=[process_reward(Judge(rate)), outcome, format_error],
        draw=uniform_draw(len(prompts.dataset), n_prompts(config), 0),
        command=(),
        resume=False,
        console=None,
    )
    trainer.train()

    logs: Any = trainer._logs
    process, won, unread = (
        np.array(logs["rewards"][name]).reshape(8, 16)
        for name in ("process", "outcome", "format_error")
    )
    advantages = np.array(logs["advantages"]).reshape(8, 16)
    lost = np.isnan(process)
    assert lost.any(axis=1).tolist() == lost.all(axis=1).tolist()  # a group loses it as a whole
    assert 0 < lost.all(axis=1).sum() == sum(n_lost.values()) < 8
    expected = np.where(lost, 0, 0.5 * process) + won + unread
    assert advantages == pytest.approx(normalised(expected), abs=1e-3)
    assert np.ptp(np.where(lost, 0, process), axis=1).max() > 0  # elsewhere it counts
    row = next(row for row in read_rows(tmp_path / METRICS_FILE) if "reward" in row)
    assert row["rewards/process/n_groups_dropped"] == sum(n_lost.values())


# ---------------------------------------------------------------- faults


def trajectory(out: Path) -> list[tuple[Any, ...]]:
    names = ("step", "reward", "loss", "grad_norm", "entropy")
    return [tuple(row[n] for n in names) for row in read_rows(out / METRICS_FILE) if "loss" in row]


@pytest.mark.parametrize("rollouts", ["transformers", "nano"])
def test_a_reward_that_raises_ends_clearly_and_the_resumed_run_is_the_unbroken_one(
    model: Path, data: Path, tmp_path: Path, rollouts: str
) -> None:
    calls = iter(range(10**6))

    def steady(request: CoverageRequest) -> float | Failure:
        return 0.7 if request.chain.stated_scores[0] == 9 else 0.1

    def broken(request: CoverageRequest) -> float | Failure:
        raise ZeroDivisionError("boom")

    class BreaksInStep5(Judge):
        def rate(self, requests: Sequence[CoverageRequest]) -> list[float | Failure]:
            return Judge(broken if next(calls) == 4 else steady).rate(requests)

    how = {"alpha": 0.5, "judge": JUDGE, "rollouts": rollouts}
    chosen = rl_recipe(model, data, **how, samples={"every": 2, "n": 1})
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train_rl(chosen, whole, judge=Judge(steady))
    with pytest.raises(TrainingError, match=r"failed at step 5: ZeroDivisionError: boom.*point-3"):
        train_rl(chosen, resumed, judge=BreaksInStep5(steady))
    record = read_record(resumed)
    assert record is not None
    assert record.status is RunStatus.FAILED
    assert "boom" in str(record.reason)

    record = train_rl(chosen, resumed, judge=Judge(steady), resume=True)
    assert record.status is RunStatus.FINISHED
    assert [attempt.from_step for attempt in record.attempts] == [0, 3]
    assert trajectory(resumed) == trajectory(whole)
    assert len(trajectory(whole)) == 6
    assert read_rows(resumed / SAMPLES_FILE) == read_rows(whole / SAMPLES_FILE)
    ours, theirs = (load_file(out / "model/model.safetensors") for out in (resumed, whole))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_a_run_knows_the_template_that_its_prompts_were_made_with(
    data: Path, tmp_path: Path
) -> None:
    own = make_model(tmp_path / "model")
    chosen = rl_recipe(own, data)
    config = grpo_config(chosen, tmp_path / "run", reward_weights=[1.0, 1.0])
    before = load_prompts(chosen, config).fingerprint
    assert load_prompts(chosen, config).fingerprint == before
    (own / "short.jinja").write_text((own / "short.jinja").read_text().replace("{{ query }}", ""))
    assert load_prompts(chosen, config).fingerprint != before


def test_a_limit_draws_comparisons_of_all_users(data: Path, tmp_path: Path) -> None:
    chosen = rl_recipe(make_model(tmp_path / "model"), data)
    few = chosen.model_copy(update={"data": chosen.data.model_copy(update={"limit": 8})})
    config = grpo_config(few, tmp_path / "run", reward_weights=[1.0, 1.0])
    whole, drawn = (load_prompts(r, config).dataset["id"] for r in (chosen, few))
    assert len(drawn) == 8
    assert set(drawn) <= set(whole)
    assert drawn != whole[:8]
    other = few.model_copy(update={"seed": few.seed + 1})
    assert load_prompts(other, config).dataset["id"] != drawn


def test_criteria_are_asked_for_once_and_kept_with_the_run(tmp_path: Path) -> None:
    data = write_comparisons(tmp_path / "comparisons.jsonl")
    chosen = rl_recipe(make_model(tmp_path / "model"), data, alpha=0.5, judge=JUDGE)
    asked = []

    def criteria_of(comparisons: Sequence[Comparison]) -> Criteria:
        asked.append(len(comparisons))
        found: dict[str, tuple[str, ...] | Failure] = {c.user.id: ("Short.",) for c in comparisons}
        found[comparisons[0].user.id] = Failure(kind=FailureKind.FORMAT, reason="nothing")
        return found

    def started(out: Path, *, resume: bool = False) -> Any:
        config = grpo_config(chosen, out, reward_weights=[1.0])
        prompts = load_prompts(chosen, config)
        draw = uniform_draw(len(prompts.dataset), n_prompts(config), 0)
        how: dict[str, Any] = {"draw": draw, "command": (), "resume": resume, "console": None}
        trainer = start_trainer(
            chosen, out, config, prompts, criteria_of=criteria_of, rewards=[outcome], **how
        )
        rows: Any = trainer.train_dataset
        return rows["criteria"]

    first = started(tmp_path / "run")
    assert len(asked) == 1
    assert started(tmp_path / "run", resume=True) == first
    assert len(asked) == 1
    record = read_record(tmp_path / "run")
    assert record is not None
    assert record.facts["n_users_without_criteria_by_failure"] == 1
    assert record.facts["n_rows_with_criteria"] == sum(map(bool, first)) == 24
    (tmp_path / "run/run.json").unlink()
    with data.open("a") as stream:
        stream.write(data.read_text().splitlines()[0].replace('"c0"', '"more"') + "\n")
    started(tmp_path / "run")
    assert len(asked) == 2, "other data have other criteria"


def test_a_run_that_cannot_begin_as_it_is_told_leaves_no_record(tmp_path: Path) -> None:
    data = write_comparisons(tmp_path / "comparisons.jsonl")
    chosen = rl_recipe(make_model(tmp_path / "model"), data, alpha=0.5, judge=JUDGE)

    class OfAnotherWorld(Judge):
        def criteria(self, comparisons: Sequence[Comparison]) -> Criteria:
            raise InputError("judge.world must be another")

    with pytest.raises(InputError, match="must be another"):
        train_rl(chosen, tmp_path / "run", judge=OfAnotherWorld(lambda request: 0.5))
    assert read_record(tmp_path / "run") is None


def test_a_reward_that_never_differs_is_warned_about() -> None:
    callback = ConstantRewardCallback(n_steps=3)
    args, control = TrainingArguments(use_cpu=True, report_to=[]), TrainerControl()

    def log(step: int, share: float) -> None:
        logs = {"frac_reward_zero_std": share, "rewards/outcome/mean": 0.0}
        callback.on_log(args, TrainerState(global_step=step), control, logs=logs)

    callback.on_train_begin(args, TrainerState(), control)
    for step in (1, 2):
        log(step, 1.0)
    log(3, 0.9)
    for step in (4, 5):
        log(step, 1.0)
    with pytest.warns(PgenrmWarning, match=r"nothing to learn: for 3 steps .*outcome 0\)"):
        log(6, 1.0)
    log(7, 1.0)  # and not with every step from then on


def test_one_reward_that_never_differs_is_warned_about_by_name() -> None:
    callback = ConstantRewardCallback(n_steps=3)
    args, control = TrainingArguments(use_cpu=True, report_to=[]), TrainerControl()

    def log(step: int, std: float) -> None:
        logs = {"frac_reward_zero_std": 0.0, "rewards/process/std": 0.3}
        logs |= {"rewards/outcome/mean": 0.0, "rewards/outcome/std": std}
        logs |= {"rewards/format_error/mean": 0.0, "rewards/format_error/std": 0.0}
        callback.on_log(args, TrainerState(global_step=step), control, logs=logs)

    callback.on_train_begin(args, TrainerState(), control)
    for step, std in ((1, 0.0), (2, 0.5), (3, 0.0), (4, 0.0)):
        log(step, std)
    with pytest.warns(PgenrmWarning, match="the reward outcome has been 0 for every chain of 3"):
        log(5, 0.0)


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("rollouts", ["transformers", "nano"])
def test_a_tiny_model_learns_to_prefer_what_was_chosen(
    model: Path, data: Path, tmp_path: Path, rollouts: str
) -> None:
    trl = {"max_steps": 60, "per_device_train_batch_size": 128, "num_generations": 8}
    trl["save_steps"] = 60
    chosen = rl_recipe(model, data, rollouts=rollouts, trl=trl, samples={"every": 30, "n": 2})
    record = train_rl(chosen, tmp_path / "run")
    rewards = [r["reward"] for r in read_rows(tmp_path / "run" / METRICS_FILE) if "reward" in r]
    assert np.mean(rewards[:5]) < 0.3
    assert np.mean(rewards[-5:]) > 0.75  # chains that do not look at the prompt earn half
    assert record.facts["n_rows"] == 32
    for name in (
        "chart.svg",
        "prompts.parquet",
        "model/model.safetensors",
        "model/pgenrm_prompt.jinja",
    ):
        assert (tmp_path / "run" / name).exists()
    samples = read_rows(tmp_path / "run" / SAMPLES_FILE)
    assert [sample["step"] for sample in samples] == [0, 0, 30, 30]
    assert len(samples[0]["chains"]) == 8
    assert set(samples[0]["chains"][0]["rewards"]) == {"outcome", "format_error"}
    assert sorted(samples[0]["order"]) == [0, 1]


def test_an_adapter_is_trained_and_the_local_engine_loads_it(
    model: Path, data: Path, tmp_path: Path
) -> None:
    trl = {"max_steps": 3, "learning_rate": 2e-2, "beta": 0.1}  # the reference: no adapter
    table = recipe(model, data, alpha=0, beta=1, trl=trl)
    table["model"]["lora"] = {"rank": 8, "alpha": 32, "target_modules": "all-linear"}
    train_rl(RlRecipe.model_validate(table), tmp_path / "run")
    rows = [row for row in read_rows(tmp_path / "run" / METRICS_FILE) if "kl" in row]
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["kl"] > 1e-4
    assert not (tmp_path / "run" / "model" / "model.safetensors").exists()
    prompt = Message(role="user", content="which one good bad")
    sampling = Sampling(max_tokens=1, temperature=0, logprobs=True)
    request = ChatRequest(messages=(prompt,), sampling=sampling)
    answers = []
    for path in (model, tmp_path / "run" / "model"):
        engine = LocalEngine(path, device="cpu")
        answers += engine.complete([request])
        engine.close()
    assert answers[0].n_prompt_tokens == answers[1].n_prompt_tokens
    assert answers[0] != answers[1]


def test_the_command_rewards_by_what_simulated_users_truly_want(
    model: Path, tmp_path: Path
) -> None:
    world = World(seed=0)
    write_card(world, tmp_path)
    comparisons = [
        c for i in range(12) for _, _, c in islice(world.of_user(world.person(i), Split), 2)
    ]
    (tmp_path / "train.jsonl").write_text("".join(c.model_dump_json() + "\n" for c in comparisons))
    settings = {
        "model.path": model,
        "template": model / "short.jinja",
        "data.path": tmp_path / "train.jsonl",
        "n_history": [0],
        "alpha": 0.5,
        "judge.kind": "world",
        "judge.world": tmp_path,
        "trl.max_steps": 2,
        "trl.max_completion_length": 1,
        "trl.per_device_train_batch_size": 64,
        "trl.report_to": [],
    }
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    out = tmp_path / "run"
    done = CliRunner().invoke(train_app, ["rl", "rl/tiny", "--out", str(out), *given])
    assert done.exit_code == 0, done.output
    row = read_rows(out / METRICS_FILE)[0]
    assert 0 < row["rewards/process/mean"] < 1  # some users do want it short
    assert row["rewards/process/n_groups_dropped"] == 0
    assert read_record(out).status is RunStatus.FINISHED  # type: ignore[union-attr]


# ---------------------------------------------------------------- shipped recipes


@pytest.mark.parametrize("name", [n for n in shipped_recipes() if n.split("/")[0] in KINDS])
def test_shipped_recipes_are_complete_and_say_where_each_number_is_from(name: str) -> None:
    kind = KINDS[name.split("/")[0]]
    loaded: RlRecipe | CurriculumRecipe = load_recipe(
        name, kind, ["model.path=some/model", "data.path=some/data"]
    )
    table = read_table(name)
    sources = table.pop("sources")
    numbers = [
        key
        for key, value in leaves(table)
        if not isinstance(value, bool | str) and key != "model.lora.target_modules"
    ]
    assert sorted(sources) == sorted(numbers)
    assert all(
        text.startswith(("paper", "ours", "DeepSeekMath", "QLoRA")) for text in sources.values()
    )
    known = {f.name for f in fields(GRPOConfig)}
    assert set(loaded.trl) <= known
    n_devices = {"llama-3.1-8b": 8, "qwen3-8b": 8, "llama-3.1-70b-lora": 24}
    check_groups(loaded.trl, n_devices.get(name.split("/")[1], 1))
