"""The curriculum: what is hard, how many hard pairs a block holds, and a run that was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm.errors import InputError
from pgenrm.train.callbacks import METRICS_FILE, append_row, read_rows
from pgenrm.train.curriculum import HARDNESS_FILE, train_curriculum
from pgenrm.train.hardness import (
    CurriculumDraw,
    Estimate,
    HardnessLog,
    HardnessSpec,
    Schedule,
    hardness,
)
from pgenrm.train.record import RunStatus, read_record
from pgenrm.train.rl_recipe import CurriculumRecipe
from tests.tiny_rl import make_model, recipe, write_comparisons
from tests.train_cases import LAUNCH_TWO

pytestmark = [
    pytest.mark.local,
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
]

IDS = [f"c{i}" for i in range(10)]
SPEC = HardnessSpec(n_samples=4, margin_weight=0.25, full_margin=4, hard_fraction=0.3, every=3)


def logged(path: Path, *estimates: Estimate, writes: bool = False) -> HardnessLog:
    log = HardnessLog(path / HARDNESS_FILE, IDS, 0.3, seed=0)
    for estimate in estimates:
        log.add(estimate, writes=writes)
    return log


def test_a_pair_is_the_harder_the_more_often_the_model_fails_and_the_closer_it_sees_it() -> None:
    assert hardness([True] * 4, [0.0] * 4, SPEC) == 1
    assert hardness([False] * 4, [5.0] * 4, SPEC) == 0
    assert hardness([False] * 4, [2.0] * 4, SPEC) == pytest.approx(0.125)
    assert hardness([True, False], [-4.0, 4.0], SPEC) == pytest.approx(0.625)
    assert hardness([True] * 4, [], SPEC) == 1  # none could be read


def test_the_hardest_part_is_hard_and_an_estimate_counts_from_its_block_on(tmp_path: Path) -> None:
    rising = Estimate(step=0, from_block=0, hardness={id_: i / 10 for i, id_ in enumerate(IDS)})
    later = Estimate(step=6, from_block=4, hardness={"c0": 1.0, "c9": 0.0})
    log = logged(tmp_path, rising, later)
    assert log.hard_ids(0) == log.hard_ids(3) == {"c7", "c8", "c9"}
    assert log.hard_ids(4) == {"c0", "c7", "c8"}
    hard, others = log.pools(4)
    assert sorted(hard + others) == list(range(10))


def test_a_resumed_run_forgets_estimates_of_steps_that_are_done_again(tmp_path: Path) -> None:
    first, second = (Estimate(step=s, from_block=s, hardness={"c1": 0.5}) for s in (0, 6))
    logged(tmp_path, first, second, writes=True)
    again = logged(tmp_path)
    again.rewind(5)
    assert again.estimates == [first]
    again.rewind(6)
    assert again.estimates == [first, second]


def test_the_pairs_longest_not_looked_at_come_first(tmp_path: Path) -> None:
    everything = Estimate(step=0, from_block=0, hardness=dict.fromkeys(IDS, 0.5))
    log = logged(tmp_path, everything)
    log.add(Estimate(step=3, from_block=4, hardness=dict.fromkeys(IDS[:7], 0.5)), writes=False)
    assert sorted(log.stalest(3)) == [7, 8, 9]
    assert sorted(log.stalest(None)) == list(range(10))


@pytest.mark.parametrize("shape", ["linear", "cosine", "step"])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_blocks_follow_the_schedule_and_repeat_no_pair(shape: Any, data: st.DataObject) -> None:
    n_prompts, n = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40))
    start, end = data.draw(st.floats(0, 1)), data.draw(st.floats(0, 1))
    schedule = Schedule(start=start, end=end, shape=shape)
    log = logged(Path("unused"), Estimate(step=0, from_block=0, hardness={"c3": 1.0}))
    draw = CurriculumDraw(log, schedule, n_blocks=n, n_prompts=n_prompts, seed=1)
    hard = set(log.pools(0)[0])
    total = 0.0
    for block in range(n):
        drawn = draw(block)
        assert len(drawn) == n_prompts
        assert sum(i in hard for i in drawn) == draw.n_hard[block]
        total += schedule.share(block / max(1, n - 1)) * n_prompts
        assert abs(sum(draw.n_hard[: block + 1]) - total) <= 0.5 + 1e-9
        if draw.n_hard[block] <= len(hard):
            assert len(set(drawn)) == n_prompts
    assert schedule.share(0) == pytest.approx(start)
    assert schedule.share(1) == pytest.approx(end)


# ---------------------------------------------------------------- runs


RUN = """
import json, sys
from pathlib import Path
from pgenrm.train.curriculum import train_curriculum
from pgenrm.train.rl_recipe import CurriculumRecipe
train_curriculum(CurriculumRecipe.model_validate(json.loads(sys.argv[1])), Path(sys.argv[2]))
"""


def curriculum(tmp_path: Path, **trl: Any) -> dict[str, Any]:
    model = make_model(tmp_path / "start")
    data = write_comparisons(tmp_path / "comparisons.jsonl", n=20)
    more = {"max_steps": 8, "save_steps": 4, "per_device_eval_batch_size": 40, **trl}
    return recipe(
        model,
        data,
        schedule={"start": 0.25, "end": 1.0},
        hardness={**SPEC.model_dump(exclude_none=True), "n_pairs": 12},
        trl=more,
    )


def trajectory(out: Path) -> list[tuple[Any, ...]]:
    names = ("step", "reward", "loss", "grad_norm", "hard_share_seen", "hardness_mean")
    return [tuple(row[n] for n in names) for row in read_rows(out / METRICS_FILE) if "loss" in row]


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    table = curriculum(tmp_path)
    chosen = CurriculumRecipe.model_validate(table)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_curriculum(chosen, whole)

    estimates = read_rows(whole / HARDNESS_FILE)
    assert [(e["step"], e["from_block"], len(e["hardness"])) for e in estimates] == [
        (0, 0, 20),
        (3, 4, 12),
        (6, 7, 12),
    ]
    rows = [row for row in read_rows(whole / METRICS_FILE) if "loss" in row]
    assert [row["hard_share_seen"] for row in rows] == [row["hard_share_planned"] for row in rows]
    planned = [row["hard_share_planned"] for row in rows]
    assert planned == [0.25, 0.25, 0.5, 0.75, 0.5, 0.75, 1.0, 1.0]  # of 4 prompts each

    process = subprocess.Popen([sys.executable, "-c", RUN, json.dumps(table), str(killed)])
    deadline = time.monotonic() + 280
    while len(read_rows(killed / HARDNESS_FILE)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    record = read_record(killed)
    assert record is not None
    assert record.status is RunStatus.RUNNING

    record = train_curriculum(chosen, killed, resume=True)
    assert record.status is RunStatus.FINISHED
    assert [attempt.from_step for attempt in record.attempts] == [0, 4]
    assert trajectory(killed) == trajectory(whole)
    assert read_rows(killed / HARDNESS_FILE) == estimates


def test_an_estimate_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = curriculum(tmp_path, max_steps=2, save_steps=2, per_device_eval_batch_size=8)
    chosen = CurriculumRecipe.model_validate(table)
    train_curriculum(chosen, tmp_path / "whole")
    kept = []

    def keep(path: Path, row: dict[str, Any]) -> None:
        append_row(path, row)
        kept.append(len(row["seen"]))
        if len(kept) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr("pgenrm.train.curriculum.append_row", keep)
    with pytest.raises(KeyboardInterrupt):
        train_curriculum(chosen, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / HARDNESS_FILE).exists()
    train_curriculum(chosen, tmp_path / "stopped", resume=True)
    assert kept == [2] * 10, "20 pairs, 2 at a time, each once"
    assert trajectory(tmp_path / "stopped") == trajectory(tmp_path / "whole")
    assert read_rows(tmp_path / "stopped" / HARDNESS_FILE) == read_rows(
        tmp_path / "whole" / HARDNESS_FILE
    )
    assert not list((tmp_path / "stopped").glob("hardness-*"))


def run_twofold(tmp_path: Path, code: str, table: dict[str, Any]) -> tuple[int, str]:
    """Run code in two processes; return the exit status and what was written to stderr."""
    (tmp_path / "run.py").write_text(code)
    done = subprocess.run(
        [*LAUNCH_TWO, str(tmp_path / "run.py"), json.dumps(table), str(tmp_path / "two")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return done.returncode, done.stderr


@pytest.mark.slow
def test_two_processes_follow_one_with_twice_the_batch(tmp_path: Path) -> None:
    table = curriculum(tmp_path) | {"rollouts": "nano"}
    train_curriculum(CurriculumRecipe.model_validate(table), tmp_path / "one")
    halves = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 20}
    status, stderr = run_twofold(tmp_path, RUN, table | {"trl": table["trl"] | halves})
    assert status == 0, stderr
    one, two = trajectory(tmp_path / "one"), trajectory(tmp_path / "two")
    assert len(one) == len(two) == 8
    for row, other in zip(one, two, strict=True):
        assert other == pytest.approx(row, rel=1e-3, abs=1e-6)
    assert read_rows(tmp_path / "one" / HARDNESS_FILE) == read_rows(
        tmp_path / "two" / HARDNESS_FILE
    )


@pytest.mark.slow
def test_the_process_that_fails_says_why(tmp_path: Path) -> None:
    code = f"""
import os
import pgenrm.train.curriculum as curriculum

def outcome(**columns):
    raise ValueError("rank 1 stumbles")

if os.environ["RANK"] == "1":
    curriculum.outcome = outcome
{RUN}"""
    status, _ = run_twofold(tmp_path, code, curriculum(tmp_path, per_device_train_batch_size=8))
    assert status != 0
    record = read_record(tmp_path / "two")
    assert record is not None
    assert record.status is RunStatus.FAILED
    assert "rank 1 stumbles" in str(record.reason)


@pytest.mark.parametrize(
    ("trl", "message"),
    [
        ({"per_device_eval_batch_size": 6}, "hardness.n_samples is 4, which does not divide the 6"),
        ({"dataloader_num_workers": 1}, "dataloader_num_workers is 1"),
        ({"num_generations_eval": 2}, "trl.num_generations_eval: not here"),
    ],
)
def test_settings_that_cannot_work_are_early_errors(
    tmp_path: Path, trl: dict[str, Any], message: str
) -> None:
    chosen = CurriculumRecipe.model_validate(curriculum(tmp_path, **trl))
    with pytest.raises(InputError, match=message):
        train_curriculum(chosen, tmp_path / "run")
