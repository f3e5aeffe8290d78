"""Reinforcement learning when things break: clear ends, and nothing lost by going on."""

import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pgenrm.engines.openai import OpenAIEngine
from pgenrm.errors import TrainingError
from pgenrm.train.callbacks import METRICS_FILE, read_rows
from pgenrm.train.process_judge import ModelCoverageJudge
from pgenrm.train.record import RunRecord, RunStatus, read_record
from pgenrm.train.rewards import CoverageRequest, Criteria
from pgenrm.train.rl import train_rl
from pgenrm.train.rl_recipe import RlRecipe
from pgenrm.types import Comparison, Failure
from tests.server import Reply, Server, refuses, says, serve
from tests.tiny_rl import make_model, recipe, write_comparisons

pytestmark = [
    pytest.mark.local,
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
]

Script = Callable[[dict[str, Any], int], Reply]


def grades(body: dict[str, Any], n_earlier: int) -> Reply:
    asked = str(body["messages"])
    if "PAST CHOICE" in asked:  # in a history, of which criteria are made
        return says("- What is good.")
    return says("1: 0.5" if "What is good" in asked else "Yes")


@contextmanager
def judged_by(
    script: Script, patience_s: float = 60
) -> Iterator[tuple[ModelCoverageJudge, Server]]:
    with serve(script) as server:
        engine = OpenAIEngine("judge", server.base_url, max_retries=0, context_window=4096)
        judge = ModelCoverageJudge(engine, patience_s=patience_s, first_wait_s=0.01)
        try:
            yield judge, server
        finally:
            judge.close()


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> RlRecipe:
    directory = tmp_path_factory.mktemp("start")
    model = make_model(directory / "model")
    data = write_comparisons(directory / "comparisons.jsonl")
    judge = {"kind": "model", "model": "openai:judge"}
    more = {"alpha": 0.5, "beta": 1, "judge": judge, "rollouts": "nano"}
    return RlRecipe.model_validate(recipe(model, data, **more, trl={"save_steps": 2}))


@pytest.fixture(scope="module")
def unbroken(chosen: RlRecipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A run of six steps, and how many answers its judge gave."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    with judged_by(grades) as (judge, server):
        train_rl(chosen, out, judge=judge)
    return out, len(server.calls)


def assert_same(out: Path, whole: Path) -> None:
    names = ("step", "reward", "rewards/process/mean", "loss", "grad_norm")
    ours, theirs = (
        [[row[n] for n in names] for row in read_rows(run / METRICS_FILE) if "loss" in row]
        for run in (out, whole)
    )
    assert ours == theirs
    assert len(ours) == 6
    weights, expected = (load_file(run / "model/model.safetensors") for run in (out, whole))
    assert all(weights[name].equal(expected[name]) for name in expected)


def assert_goes_on(chosen: RlRecipe, out: Path, whole: Path, reason: str) -> None:
    """The run in `out` has failed for this reason after step 4, and ends like the unbroken one."""
    record = read_record(out)
    assert record is not None
    assert record.status is RunStatus.FAILED
    assert reason in str(record.reason)
    with judged_by(grades) as (judge, _):
        record = train_rl(chosen, out, judge=judge, resume=True)
    assert [attempt.from_step for attempt in record.attempts] == [0, 4]
    assert_same(out, whole)


def test_a_judge_that_dies_and_comes_back_costs_a_run_nothing_but_time(
    chosen: RlRecipe, unbroken: tuple[Path, int], tmp_path: Path
) -> None:
    whole, n_calls = unbroken

    def script(body: dict[str, Any], n_earlier: int) -> Reply:
        is_dead = n_calls // 2 <= n_earlier < n_calls // 2 + 12
        return Reply(cut_at=0) if is_dead else grades(body, n_earlier)

    with judged_by(script) as (judge, server):
        record = train_rl(chosen, tmp_path, judge=judge)
    assert len(server.calls) > n_calls + 12
    assert len(record.attempts) == 1
    assert_same(tmp_path, whole)
    rows = [row for row in read_rows(tmp_path / METRICS_FILE) if "loss" in row]
    assert not any(row["rewards/process/n_failed"] for row in rows)


def test_a_judge_that_stays_dead_stops_the_run_which_then_goes_on(
    chosen: RlRecipe, unbroken: tuple[Path, int], tmp_path: Path
) -> None:
    whole, n_calls = unbroken

    def script(body: dict[str, Any], n_earlier: int) -> Reply:
        return refuses(503) if n_earlier >= n_calls - 1 else grades(body, n_earlier)

    with (
        judged_by(script, patience_s=0.2) as (judge, _),
        pytest.raises(TrainingError, match=r"has not answered for 0\.2 s"),
    ):
        train_rl(chosen, tmp_path, judge=judge)
    assert_goes_on(chosen, tmp_path, whole, "has not answered for 0.2 s")


def test_a_judge_that_is_dead_from_the_start_ends_a_run_clearly_which_then_begins(
    chosen: RlRecipe, tmp_path: Path
) -> None:
    pair = {"context": "which", "chosen": "PAST CHOICE", "rejected": "bad"}
    silent = {"id": "u", "history": [pair]}
    data = write_comparisons(tmp_path / "comparisons.jsonl", user=silent)
    spec = chosen.data.model_copy(update={"path": str(data)})
    trl = {**chosen.trl, "max_steps": 2}
    asking = chosen.model_copy(update={"data": spec, "trl": trl})
    out = tmp_path / "run"
    meanwhile: list[RunRecord | None] = []

    def dead(body: dict[str, Any], n_earlier: int) -> Reply:
        meanwhile.append(read_record(out))
        return Reply(cut_at=0)

    with (
        judged_by(dead, patience_s=0.2) as (judge, _),
        pytest.raises(TrainingError, match=r"has not answered for 0\.2 s .*go on with --resume"),
    ):
        train_rl(asking, out, judge=judge)
    assert {record and record.status for record in meanwhile} == {RunStatus.RUNNING}
    record = read_record(out)
    assert record is not None
    assert record.status is RunStatus.FAILED
    assert "has not answered for 0.2 s" in str(record.reason)
    assert record.recipe["alpha"] == 0.5

    with judged_by(grades) as (judge, _):
        record = train_rl(asking, out, judge=judge, resume=True)
    assert record.status is RunStatus.FINISHED
    assert [attempt.from_step for attempt in record.attempts] == [0, 0]
    assert record.facts["n_rows_with_criteria"] == 32


class BreaksInStep5:
    """Rates as the server does, until the fifth step."""

    def __init__(self, breaks: Callable[[], float]) -> None:
        self._breaks = breaks
        self._n_calls = 0

    def criteria(self, comparisons: Sequence[Comparison]) -> Criteria:
        return {c.user.id: c.user.criteria for c in comparisons}

    def rate(self, requests: Sequence[CoverageRequest]) -> list[float | Failure]:
        self._n_calls += 1
        rating = self._breaks() if self._n_calls == 5 else 0.5
        return [rating] * len(requests)

    def close(self) -> None:
        pass


def test_an_infinite_reward_stops_the_run_before_it_counts(
    chosen: RlRecipe, unbroken: tuple[Path, int], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"process is infinite at step 5; .*checkpoint-4 is g"):
        train_rl(chosen, tmp_path, judge=BreaksInStep5(lambda: float("inf")))
    assert_goes_on(chosen, tmp_path, unbroken[0], "process is infinite at step 5")


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
@pytest.mark.parametrize("rollouts", ["transformers", "nano"])
def test_weights_that_burst_stop_the_run_and_a_good_checkpoint_stays(
    chosen: RlRecipe, tmp_path: Path, rollouts: str
) -> None:
    trl = {**chosen.trl, "learning_rate": 1e30, "save_steps": 1}
    steep = chosen.model_copy(
        update={"trl": trl, "rollouts": rollouts, "alpha": 0.0, "judge": None}
    )
    with pytest.raises(TrainingError, match=r"checkpoint-1 is good"):
        train_rl(steep, tmp_path)
    record = read_record(tmp_path)
    assert record is not None
    assert record.status is RunStatus.FAILED
    weights = load_file(tmp_path / "checkpoint-1/model.safetensors")
    assert all(weight.isfinite().all() for weight in weights.values())


def test_a_full_disk_keeps_the_last_checkpoint(
    chosen: RlRecipe, unbroken: tuple[Path, int], tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fills_the_disk() -> float:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # the weights take 85,000
        return 0.5

    try:
        with pytest.raises(TrainingError, match=r"could not be written.*checkpoint-4 is good"):
            train_rl(chosen, tmp_path, judge=BreaksInStep5(fills_the_disk))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "checkpoint-6").exists()
    assert_goes_on(chosen, tmp_path, unbroken[0], "could not be written")
