import json
import zipfile
from pathlib import Path

import pytest

from pgenrm.errors import InputError
from pgenrm.train.callbacks import append_row, keep_steps, read_rows
from pgenrm.train.recipe import SftRecipe, load_recipe
from pgenrm.train.record import (
    RunRecord,
    RunStatus,
    fingerprint_files,
    fingerprint_weights,
    finish_run,
    finished_run,
    last_checkpoint,
    read_record,
    start_run,
)

GIVEN = ["model.path=somewhere", "data.path=rows.parquet"]


def start(out: Path, *more: str, data: str = "abc", resume: bool = False, n: int = 1) -> RunRecord:
    recipe = load_recipe("sft/tiny", SftRecipe, [*GIVEN, *more])
    return start_run(
        out, recipe, data_fingerprint=data, command=["pgenrm"], resume=resume, n_processes=n
    )


def checkpoint(out: Path, step: int, state: str) -> Path:
    path = out / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "trainer_state.json").write_text(state)
    return path


def test_run_json_holds_what_is_needed_to_repeat_a_run(tmp_path: Path) -> None:
    start(tmp_path / "run", "trl.max_steps=3", "seed=5")
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stored["status"] == "running"
    assert stored["recipe"]["trl"]["max_steps"] == 3
    assert stored["recipe"]["seed"] == 5
    assert stored["recipe"]["model"]["dtype"] == "float32"  # a default, resolved
    assert stored["data_fingerprint"] == "abc"
    (attempt,) = stored["attempts"]
    assert {"pgenrm", "python", "torch", "trl"} <= set(attempt["versions"])
    assert attempt["command"] == ["pgenrm"]


def test_a_directory_that_holds_a_run_is_not_written_over(tmp_path: Path) -> None:
    start(tmp_path)
    with pytest.raises(InputError, match="--resume"):
        start(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"more": ("trl.learning_rate=1e-4",)}, "trl.learning_rate was 0.001 and is 0.0001"),
        ({"more": ("trl.weight_decay=0.1",)}, "trl.weight_decay was null and is 0.1"),
        ({"data": "abd"}, 'data.content was "abc" and is "abd"'),
        ({"n": 2}, "number of processes was 1 and is 2"),
    ],
)
def test_a_run_is_not_resumed_as_another(tmp_path: Path, change: dict, says: str) -> None:  # type: ignore[type-arg]
    start(tmp_path)
    with pytest.raises(InputError, match=says):
        start(tmp_path, *change.pop("more", ()), resume=True, **change)


def test_what_moves_no_result_may_change_when_a_run_is_resumed(tmp_path: Path) -> None:
    start(tmp_path, "trl.save_total_limit=3")
    resumed = start(tmp_path, "trl.save_total_limit=1", resume=True)
    assert len(resumed.attempts) == 2


def test_rows_of_a_run_are_lines_whatever_stands_in_their_texts(tmp_path: Path) -> None:
    rows = [{"step": i, "text": "one\u2028two\x85three"} for i in (1, 2, 3)]
    for row in rows:
        append_row(tmp_path / "samples.jsonl", row)
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"step": 4, "te')
    keep_steps(tmp_path / "samples.jsonl", 2)
    assert read_rows(tmp_path / "samples.jsonl") == rows[:2]


def test_a_resumed_run_remembers_every_start(tmp_path: Path) -> None:
    start(tmp_path, resume=True)
    checkpoint(tmp_path, 40, "{}")
    record = start(tmp_path, resume=True)
    assert [attempt.from_step for attempt in record.attempts] == [0, 40]


def test_how_a_run_ended_is_written_down(tmp_path: Path) -> None:
    start(tmp_path)
    finish_run(tmp_path, RunStatus.FAILED, "no room")
    record = read_record(tmp_path)
    assert record is not None
    assert (record.status, record.reason) == (RunStatus.FAILED, "no room")
    assert record.ended is not None


def test_a_checkpoint_that_was_not_written_to_its_end_does_not_count(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    good = checkpoint(tmp_path, 9, '{"global_step": 9}')
    checkpoint(tmp_path, 10, '{"global_st')
    (tmp_path / "checkpoint-11").mkdir()
    assert last_checkpoint(tmp_path) == good


def test_a_checkpoint_that_lacks_the_random_state_of_a_process_does_not_count(
    tmp_path: Path,
) -> None:
    start(tmp_path, n=2)
    good, cut, lacking = (checkpoint(tmp_path, step, "{}") for step in (4, 5, 6))
    for path in (good, cut, lacking):
        for rank in range(2):
            with zipfile.ZipFile(path / f"rng_state_{rank}.pth", "w") as state:
                state.writestr("state", "0" * 1000)
    whole = (cut / "rng_state_1.pth").read_bytes()
    (cut / "rng_state_1.pth").write_bytes(whole[: len(whole) // 2])
    (lacking / "rng_state_1.pth").unlink()
    assert last_checkpoint(tmp_path) == good


def weights(directory: Path, content: bytes | bytearray, name: str = "model.safetensors") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / name).write_bytes(content)
    return directory


@pytest.mark.parametrize("status", [RunStatus.FINISHED, RunStatus.FAILED])
def test_a_run_from_weights_that_have_changed_since_is_refused(
    tmp_path: Path, status: RunStatus
) -> None:
    base, out = weights(tmp_path / "base", b"old"), tmp_path / "sft"
    recipe = load_recipe("sft/tiny", SftRecipe, [f"model.path={base}", "data.path=rows.parquet"])
    start_run(out, recipe, data_fingerprint="abc", command=[], resume=False)
    finish_run(out, status)
    weights(base, b"config and logs may change", name="training_args.bin")
    assert bool(finished_run(out, recipe, resume=True)) is (status is RunStatus.FINISHED)
    weights(base, b"new")
    with pytest.raises(InputError, match=f"other weights than are in {base} now; delete {out} to"):
        finished_run(out, recipe, resume=True)


def test_a_run_that_does_not_know_its_weights_or_has_lost_them_is_not_refused(
    tmp_path: Path,
) -> None:
    base, old, new = weights(tmp_path / "base", b"old"), tmp_path / "a", tmp_path / "b"
    recipe = load_recipe("sft/tiny", SftRecipe, [f"model.path={base}", "data.path=rows.parquet"])
    for out in (old, new):
        start_run(out, recipe, data_fingerprint="abc", command=[], resume=False)
        finish_run(out, RunStatus.FINISHED)
    record = json.loads((old / "run.json").read_text())
    del record["weights_fingerprint"]  # as versions before wrote it
    (old / "run.json").write_text(json.dumps(record))
    weights(base, b"new")
    assert finished_run(old, recipe, resume=True)
    (base / "model.safetensors").unlink()
    assert finished_run(new, recipe, resume=True)


def test_a_change_anywhere_in_large_weights_that_is_as_large_as_a_matrix_is_seen(
    tmp_path: Path,
) -> None:
    content = bytearray(40_000_000)
    before = fingerprint_weights(str(weights(tmp_path / "a", content)))
    assert fingerprint_weights(str(weights(tmp_path / "b", content))) == before
    for place in (0, 17_000_000, 39_000_000):
        changed = content.copy()
        changed[place : place + 1_000_000] = b"1" * 1_000_000
        assert fingerprint_weights(str(weights(tmp_path / "b", changed))) != before
    assert fingerprint_weights("owner/name") is None


def test_the_fingerprint_follows_the_content_and_what_is_read_of_it(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("a")
    before = fingerprint_files([file], None, None)
    assert fingerprint_files([file], None, None) == before
    assert fingerprint_files([file], None, 10) != before
    file.write_text("b")
    assert fingerprint_files([file], None, None) != before
