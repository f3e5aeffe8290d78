"""The bundled judge, made from nothing in minutes: every stage runs, and the reward rises."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgenrm.engines.nano import NanoEngine
from pgenrm.engines.protocol import ChatRequest, Completion, Sampling
from pgenrm.errors import InputError
from pgenrm.sim.world import World
from pgenrm.train.bundled_rows import RL_PART, write_world
from pgenrm.train.record import RunStatus, read_record
from pgenrm.train.rewards import format_error, outcome
from pgenrm.train.rl_rows import prompt_rows

pytestmark = pytest.mark.local

N_PROMPTS, N_CHAINS = 100, 4


def rewards_of(weights: Path) -> Any:
    """Return what a judge earns by comparisons that it has not seen: [N_PROMPTS]."""
    given = World(seed=7).comparisons("test_unseen", N_PROMPTS)
    rows = prompt_rows(given, n_history=(0,)).to_list()
    engine = NanoEngine(weights)
    answers = engine.complete(
        [
            ChatRequest.model_validate(
                {"messages": row["prompt"], "n": N_CHAINS, "sampling": Sampling(max_tokens=160)}
            )
            for row in rows
        ]
    )
    engine.close()
    means = []
    for row, answer in zip(rows, answers, strict=True):
        texts = [s.text if isinstance(s, Completion) else "" for s in answer.samples]
        chains = [[{"role": "assistant", "content": text}] for text in texts]
        orders = [row["order"]] * N_CHAINS
        won = outcome(chains, label=[row["label"]] * N_CHAINS, order=orders)
        means.append(
            np.mean(np.array([won, format_error(chains, order=orders)], float).sum(axis=0))
        )
    return np.array(means)


def test_a_world_that_is_there_is_taken_only_if_it_is_the_right_one(tmp_path: Path) -> None:
    world = write_world(tmp_path / "world", 4, 0, RL_PART)
    written = (world / "train.jsonl").stat().st_mtime_ns
    assert write_world(world, 4, 0, RL_PART) == world
    assert (world / "train.jsonl").stat().st_mtime_ns == written
    with pytest.raises(InputError, match=r"was made otherwise"):
        write_world(world, 5, 0, RL_PART)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_stage_of_the_bundled_judge_runs_and_the_reward_rises(tmp_path: Path) -> None:
    out = tmp_path / "nano"
    command = [sys.executable, "-m", "pgenrm.train.bundled", "--smoke", "--out", str(out)]
    subprocess.run(command, check=True)

    for stage in ("base", "sft", "rl", "curriculum"):
        record = read_record(out / stage)
        assert record is not None
        assert record.status is RunStatus.FINISHED, stage
    before, after = rewards_of(out / "sft" / "model"), rewards_of(out / "rl" / "model")
    gain = after - before
    assert gain.mean() > 3 * gain.std(ddof=1) / np.sqrt(N_PROMPTS), (before.mean(), after.mean())
    NanoEngine(out / "curriculum" / "model").close()
