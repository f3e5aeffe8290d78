import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pgenrm.bench.statistics import Estimate
from pgenrm.cli import app, main
from pgenrm.cli.bench import points
from tests.bench_cases import dataset

runner = CliRunner()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, split in dataset(24, 2).splits.items():
        (folder / f"{name}.jsonl").write_text("".join(c.model_dump_json() + "\n" for c in split))
    return folder


def test_a_bench_runs_goes_on_reports_and_compares(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bench"
    arguments = [
        *("bench", str(data), "--methods", "longest,random,attributes", "--out", str(out)),
        *("--processes", "1", "--history", "2"),
    ]
    monkeypatch.setattr(sys, "argv", ["pgenrm", *arguments])
    first = runner.invoke(app, arguments)
    assert first.exit_code == 0, first.output
    assert "longest.seed0: 48 of 48 judged" in first.output
    assert re.search(r"longest +\d+\.\d% \[", first.output)
    stored = {p.name: p.read_bytes() for p in (out / "records").glob("*.seed0.jsonl")}
    assert len(stored) == 3
    rows = [json.loads(line) for line in stored["attributes.seed0.jsonl"].splitlines()]
    assert {row["n_history"] for row in rows} == {2}

    again = runner.invoke(app, [*arguments[:3], "shortest,longest", *arguments[4:]])
    assert again.exit_code == 0, again.output
    assert (out / "records" / "longest.seed0.jsonl").read_bytes() == stored["longest.seed0.jsonl"]

    report = runner.invoke(app, ["report", str(out), "--out", str(tmp_path / "report")])
    assert report.exit_code == 0, report.output
    page = (tmp_path / "report" / "report.html").read_text()
    assert "pgenrm bench" in page
    assert f"--out {out}" in page

    compared = runner.invoke(app, ["bench", "compare", str(out), str(out)])
    assert compared.exit_code == 0, compared.output
    assert re.search(r"longest +48 .* \+0\.0 \[\+0\.0, \+0\.0\]", compared.output)


def test_an_unknown_method_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    result = runner.invoke(app, ["bench", "nowhere", "--methods", "gpo,gp", "--out", str(tmp_path)])
    assert "there is no method 'gp'" in str(result.exception)


def test_a_method_that_cannot_be_run_leaves_the_others_and_ends_with_an_error(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bench"
    arguments = ["bench", str(data), "--methods", "oracle,longest", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["pgenrm", *arguments, "--processes", "1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "1 of 2 runs did not end" in said
    assert "oracle needs the truth" in said
    assert (out / "records" / "longest.seed0.jsonl").read_bytes().count(b"\n") == 48


def test_help_names_both_ways_to_call_it() -> None:
    text = runner.invoke(app, ["bench", "--help"]).output
    assert "compare" in text
    assert "sim|prism|arena|lampqa|PATH" in text.replace("\n", "")


def test_a_difference_without_interval_is_written_without() -> None:
    assert points(Estimate(value=0.05, interval=None)) == "+5.0"
