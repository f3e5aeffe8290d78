import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from pgenrm.cli import main
from pgenrm.runs import read_judgments
from pgenrm.types import Judgment
from tests.cases import comparison
from tests.doc_blocks import ROOT

EXAMPLES = [str(path) for path in sorted((ROOT / "examples").glob("*.json"))]


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Terminal:
    """Runs the command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capsys = capsys
        monkeypatch.setenv("COLUMNS", "200")

    def __call__(self, *args: object, stdin: str = "") -> Done:
        self.monkeypatch.setattr("sys.argv", ["pgenrm", *map(str, args)])
        self.monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        try:
            main()
            code = 0
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 0
        out, err = self.capsys.readouterr()
        return Done(code, out, err)


@pytest.fixture
def pgenrm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)


def rows(n: int) -> str:
    return "".join(
        comparison(
            f"c{i}", responses=("Short.", "Longer, with a list:\n- a\n- b")
        ).model_dump_json()
        + "\n"
        for i in range(n)
    )


def test_the_examples_give_opposite_choices_for_opposite_users(pgenrm: Terminal) -> None:
    done = pgenrm("judge", *EXAMPLES, "--json")
    assert done.code == 0
    judgments = {j.user_id: j for j in map(Judgment.model_validate_json, done.out.splitlines())}
    assert judgments["ana"].choice == 0
    assert judgments["ben"].choice == 1
    assert judgments["carla"].choice == 0
    for line in done.out.splitlines():
        record = json.loads(line)
        assert set(record) >= {"id", "scores", "choice", "outcome", "confidence", "chains"}
        assert record["outcome"] == "correct"
        assert record["failures"] == []
        assert len(record["chains"]) == 8


def test_a_terminal_shows_persona_rubric_scores_and_verdict(pgenrm: Terminal) -> None:
    done = pgenrm("judge", EXAMPLES[0])
    for part in ("Persona", "Rubric", "█", "%", "Verdict", "confidence", "[correct]"):
        assert part in done.out
    assert "accuracy 100.0% on 1 labelled comparisons of 1 users" in done.err


def test_markup_in_texts_is_shown_as_it_is(pgenrm: Terminal) -> None:
    row = comparison("[red]c[/]", responses=("[bold]x[/bold]", "[/]")).model_dump_json()
    assert "[bold]x[/bold]" in pgenrm("judge", "-", stdin=row).out


def test_standard_input_is_judged(pgenrm: Terminal) -> None:
    done = pgenrm("judge", "-", "--json", "-m", 2, stdin=rows(3))
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == ["c0", "c1", "c2"]


def test_a_bad_row_ends_with_its_place_and_code_2(pgenrm: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(rows(1) + "{}\n")
    done = pgenrm("judge", path, "--json")
    assert done.code == 2
    assert f"{path}:2: 'user' is missing" in done.err


def test_bad_rows_can_be_skipped_and_are_kept_with_reasons(
    pgenrm: Terminal, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(rows(2) + '{"id": 3}\n' + rows(1))
    done = pgenrm("judge", path, "--skip-bad", "--out", tmp_path / "out.jsonl")
    assert done.code == 0
    assert [j.id for j in read_judgments(tmp_path / "out.jsonl")] == ["c0", "c1"]
    rejected = [
        json.loads(x) for x in (tmp_path / "out.jsonl.rejected.jsonl").read_text().splitlines()
    ]
    assert [r["place"] for r in rejected] == [f"{path}:3", f"{path}:4"]
    assert rejected[0]["row"] == '{"id": 3}'
    assert "already used" in rejected[1]["reason"]
    assert "2 bad rows left out" in done.err


def test_rejected_rows_never_overwrite_an_input(pgenrm: Terminal, tmp_path: Path) -> None:
    paths = [tmp_path / "x.jsonl", tmp_path / "x.jsonl.rejected.jsonl"]
    for path in paths:
        path.write_text(rows(1))
    done = pgenrm("judge", *paths, "--skip-bad")
    assert done.code == 2
    assert "would overwrite the input" in done.err
    assert paths[1].read_text() == rows(1)


def test_an_empty_and_a_huge_response_are_judged(pgenrm: Terminal) -> None:
    texts = ("", "word " * 200_000)
    row = comparison(responses=texts).model_dump_json()
    done = pgenrm("judge", "-", "--json", "-m", 2, stdin=row)
    assert done.code == 0
    assert json.loads(done.out)["outcome"] in {"correct", "wrong"}


def test_control_signs_do_not_reach_the_terminal(pgenrm: Terminal) -> None:
    row = comparison("a\x1b[2J", responses=("x\x1b]52;c;aGk=\x07", "y\u202e\x9b")).model_dump_json()
    out = pgenrm("judge", "-", stdin=row).out
    assert not set(out) & set("\x1b\x07\x9b\u202e")


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
def test_an_output_that_is_no_file_is_refused(pgenrm: Terminal, device: str) -> None:
    done = pgenrm("judge", "-", "--out", device, stdin=rows(1))
    assert done.code == 2
    assert "is not a file" in done.err


def test_a_full_disk_is_one_line_and_code_1(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(rows(50))
    command = [sys.executable, "-m", "pgenrm", "judge", str(tmp_path / "in.jsonl"), "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_that_lacks_signs_is_no_error(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "pgenrm", "judge", EXAMPLES[0]]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0
    assert "Verdict" in done.stdout


def test_a_run_goes_on_and_other_settings_are_refused(pgenrm: Terminal, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    pgenrm("judge", "-", "--out", out, "-m", 2, stdin=rows(2))
    before = out.read_bytes()
    done = pgenrm("judge", "-", "--out", out, "-m", 2, stdin=rows(4))
    assert out.read_bytes().startswith(before)
    assert [j.id for j in read_judgments(out)] == ["c0", "c1", "c2", "c3"]
    assert "judged 4" in done.err
    refused = pgenrm("judge", "-", "--out", out, "-m", 3, stdin=rows(4))
    assert refused.code == 2
    assert "m: 2 -> 3" in refused.err


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text(rows(5000))
    command = [sys.executable, "-m", "pgenrm", "judge", str(path), "-m", "2", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not out.exists() or out.stat().st_size == 0:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "run the same command again to continue" in err
    n_before = sum(1 for _ in read_judgments(out))
    assert 0 < n_before < 5000
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert [j.id for j in read_judgments(out)] == [f"c{i}" for i in range(5000)]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--model", "openai:"], "needs the name of a model"),
        (["--base-url", "http://localhost"], "--base-url has no effect on --model attributes"),
        (["--template", "x.jinja"], "it needs openai:NAME or PATH"),
        (["--model", "openai:m", "--device", "cpu"], "--device has no effect on --model openai:m"),
        (["--model", "openai:m", "--extra-body", "[1]"], "--extra-body must be a JSON object"),
        (["--temperature", "0.5"], "--temperature has no effect on --model attributes"),
        (["-"], "standard input can be read once only"),
        (["--model", "attributes:none.json"], "none.json cannot be read"),
        (["--retry-unscored"], "--retry-unscored needs --out"),
        (["-m", "-1"], "Invalid value for '-m'"),
        (["none.jsonl"], "none.jsonl cannot be read"),
    ],
)
def test_options_that_do_not_go_together_say_so(
    pgenrm: Terminal, args: list[str], reason: str
) -> None:
    done = pgenrm("judge", "-", *args, stdin=rows(1))
    assert done.code == 2
    assert reason in done.err


def test_simulated_comparisons_can_be_judged(pgenrm: Terminal, tmp_path: Path) -> None:
    done = pgenrm("simulate", "--users", 8, "--seed", 3, "--out", tmp_path / "world")
    assert done.code == 0
    assert "oracle" in done.out
    files = {path.name for path in (tmp_path / "world").iterdir()}
    splits = {"train", "validation", "test_seen", "test_unseen", "truth"}
    assert files == {f"{name}.jsonl" for name in splits} | {"card.json", "card.md"}
    judged = pgenrm("judge", tmp_path / "world/test_unseen.jsonl", "--json", "--history", 3)
    assert judged.code == 0
    assert len(judged.out.splitlines()) == 8
    assert "on 8 labelled comparisons of 2 users" in judged.err


def test_settings_of_a_world_are_read_and_checked(pgenrm: Terminal, tmp_path: Path) -> None:
    settings = tmp_path / "config.json"
    settings.write_text('{"n_test": 1}')
    args = ("simulate", "--users", 4, "--config", settings, "--out", tmp_path / "w")
    assert pgenrm(*args).code == 0
    assert len((tmp_path / "w/test_unseen.jsonl").read_text().splitlines()) == 1
    settings.write_text('{"n_tests": 1}')
    wrong = pgenrm(*args)
    assert wrong.code == 2
    assert "'n_tests' is not a known field" in wrong.err


@pytest.mark.slow
def test_the_demo_shows_users_and_the_ladder(pgenrm: Terminal) -> None:
    done = pgenrm("demo")
    assert done.code == 0
    for part in ("ana-sourdough", "ben-sourdough", "m = 8", "Bayes observer", "oracle"):
        assert part in done.out
    assert "Leans to: depth" in done.out  # a chain of the bundled judge
    assert "nano:final" in done.out


def test_help_and_version(pgenrm: Terminal) -> None:
    assert "judge" in pgenrm("--help").out
    help_text = pgenrm("judge", "--help").out
    for option in ("--model", "--base-url", "--json", "--out", "--skip-bad", "--history"):
        assert option in help_text
    assert pgenrm("--version").out.startswith("pgenrm 0.")
