import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm.errors import InputError, RowError
from pgenrm.judge import PGenRM
from pgenrm.runs import Run, read_judgments
from pgenrm.types import Comparison
from tests.cases import KnownEvaluator, comparison, lost, shorter_is_better

SETTINGS = {"model": "known", "m": 2}


def comparisons(n: int) -> list[Comparison]:
    return [comparison(f"c{i}", responses=("x" * (i % 5), "yyy")) for i in range(n)]


def judge_into(path: Path, n: int, stop_after: int | None = None) -> None:
    rm = PGenRM(KnownEvaluator(shorter_is_better), 2, batch_size=3)
    with Run(path, SETTINGS) as run:
        for i, judgment in enumerate(rm.judge(run.remaining(comparisons(n)))):
            if i == stop_after:
                return
            run.add(judgment)


@settings(max_examples=60)
@given(cut=st.integers(0, 10_000))
def test_a_run_cut_at_any_byte_goes_on_to_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    judge_into(folder / "whole.jsonl", 6)
    judge_into(folder / "cut.jsonl", 6)
    whole = (folder / "whole.jsonl").read_bytes()
    (folder / "cut.jsonl").write_bytes(whole[: cut % (len(whole) + 1)])
    judge_into(folder / "cut.jsonl", 6)
    assert (folder / "cut.jsonl").read_bytes() == whole


def test_a_run_that_stopped_early_goes_on(tmp_path: Path) -> None:
    judge_into(tmp_path / "a.jsonl", 9, stop_after=4)
    assert len(list(read_judgments(tmp_path / "a.jsonl"))) == 4
    judge_into(tmp_path / "a.jsonl", 9)
    judge_into(tmp_path / "b.jsonl", 9)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_the_tally_covers_what_was_stored_before(tmp_path: Path) -> None:
    judge_into(tmp_path / "a.jsonl", 5)
    with Run(tmp_path / "a.jsonl", SETTINGS) as run:
        assert run.tally.n_judged == 5
        accuracy = run.tally.accuracy()
        assert accuracy is not None
        assert accuracy.n == 5


def test_other_settings_are_refused(tmp_path: Path) -> None:
    judge_into(tmp_path / "a.jsonl", 2)
    with pytest.raises(InputError, match=r"other settings .*m: 2 -> 4"):
        Run(tmp_path / "a.jsonl", SETTINGS | {"m": 4})


def test_a_file_that_is_not_a_run_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text("my notes\n")
    with pytest.raises(InputError, match="cannot be continued"):
        Run(path, SETTINGS)
    assert path.read_text() == "my notes\n"
    (tmp_path / "notes.jsonl.run.json").write_text(json.dumps(SETTINGS))
    with pytest.raises(RowError, match=r"notes\.jsonl:1: not a judgment"):
        Run(path, SETTINGS)


def test_retrying_checks_before_it_takes_anything_out(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no newline")
    with pytest.raises(InputError, match="cannot be continued"):
        Run(path, SETTINGS, retry_unscored=True)
    assert path.read_text() == "no newline"


def test_a_comparison_that_changed_since_it_was_judged_is_refused(tmp_path: Path) -> None:
    judge_into(tmp_path / "a.jsonl", 2)
    changed = [comparison("c0", responses=("other", "yyy")), comparison("c1")]
    with (
        Run(tmp_path / "a.jsonl", SETTINGS) as run,
        pytest.raises(InputError, match="'c0' has changed since"),
    ):
        list(run.remaining(changed))


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with Run(tmp_path / "a.jsonl", SETTINGS), pytest.raises(InputError, match="another process"):
        Run(tmp_path / "a.jsonl", SETTINGS)


def test_an_id_stored_twice_is_refused(tmp_path: Path) -> None:
    judge_into(tmp_path / "a.jsonl", 2)
    content = (tmp_path / "a.jsonl").read_bytes()
    (tmp_path / "a.jsonl").write_bytes(content * 2)
    with pytest.raises(RowError, match=r"a\.jsonl:3: 'c0' is stored twice"):
        Run(tmp_path / "a.jsonl", SETTINGS)


def test_what_is_no_file_is_refused() -> None:
    with pytest.raises(InputError, match="/dev/null is not a file"):
        Run("/dev/null", SETTINGS)


def test_unscored_judgments_can_be_taken_out_and_judged_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Run(path, SETTINGS) as run:
        for judgment in PGenRM(KnownEvaluator(lost), 2).judge(comparisons(2)):
            run.add(judgment)
    with Run(path, SETTINGS, retry_unscored=True) as run:
        assert run.n_retried == 2
    judge_into(path, 4)
    assert [j.id for j in read_judgments(path)] == ["c0", "c1", "c2", "c3"]
    assert all(j.chains for j in read_judgments(path))


def test_a_killed_process_leaves_a_run_that_ends_whole(tmp_path: Path) -> None:
    """Kill -9 a judging process several times, then compare with an uninterrupted run."""
    rows = "".join(c.model_dump_json() + "\n" for c in comparisons(3000))
    (tmp_path / "in.jsonl").write_text(rows)
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "pgenrm", "judge", str(tmp_path / "in.jsonl"), "-m", "2"]
    for size in (1, 300_000, 900_000):
        process = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.DEVNULL)
        while process.poll() is None and (not out.exists() or out.stat().st_size < size):
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "--out", str(out)], check=True, stderr=subprocess.DEVNULL)
    whole = tmp_path / "whole.jsonl"
    subprocess.run([*command, "--out", str(whole)], check=True, stderr=subprocess.DEVNULL)
    assert out.read_bytes() == whole.read_bytes()
    assert sum(1 for _ in read_judgments(out)) == 3000
