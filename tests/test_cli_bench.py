import csv
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pgenrm.bench.methods import MAKERS
from pgenrm.bench.metrics import ALL, evaluate
from pgenrm.bench.rows import ROWS, Kind
from pgenrm.bench.run import read_times
from pgenrm.cli import app, main
from pgenrm.data.lampqa import CANDIDATES
from pgenrm.data.load import NAMES
from pgenrm.data.reward_bench import DOMAINS
from pgenrm.types import Outcome
from tests.bench_cases import dataset
from tests.server import Body, Reply, Script, refuses, says, serve

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


def test_methods_that_name_none_are_refused(data: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, ["bench", str(data), "--methods", ",", "--out", str(tmp_path)])
    assert result.exit_code != 0
    assert "names no method" in str(result.exception)


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
    assert f"{'|'.join(NAMES)}|PATH" in text.replace("\n", "")


def test_the_methods_are_listed_with_what_they_need() -> None:
    done = runner.invoke(app, ["bench", "methods"], env={"COLUMNS": "120"})
    assert done.exit_code == 0
    lines = [line.strip() for line in done.output.splitlines()]
    needs = {line.split()[0]: line for line in lines if line}
    assert set(MAKERS) <= set(needs)
    assert needs["judge-psi"].endswith("--model")
    assert needs["reward-model-personas"].endswith("--model, --reward-base, a train split")
    assert needs["oracle"].endswith("the truth (sim)")
    assert needs["attributes"].endswith("Attribute evaluator, Ind-8")


def test_all_methods_run_on_a_simulated_world_or_say_what_they_lack(tmp_path: Path) -> None:
    """With real components: MiniLM embeddings, fits of everything that learns, prototypes."""
    pytest.importorskip("torch")
    pytest.importorskip("sentence_transformers")
    world, out = tmp_path / "world", tmp_path / "bench"
    arguments = ["simulate", "--users", "40", "--seed", "3", "--out", str(world)]
    assert runner.invoke(app, arguments).exit_code == 0
    done = runner.invoke(
        app,
        [
            *("bench", "sim", "--folder", str(world), "--methods", "all", "--limit", "4"),
            *("--processes", "1", "--embed-dtype", "bfloat16", "--out", str(out)),
        ],
    )
    assert done.exit_code == 0, done.output
    left_out = set(re.findall(r"left out: (\S+)", done.output))
    assert left_out == {
        *(row.name for row in ROWS if row.kind is Kind.JUDGE),
        *("reward-model", "reward-model-personas"),
    }

    result = evaluate(out)
    assert {method.name for method in result.methods} == {row.name for row in ROWS} - left_out
    for method in result.methods:
        whole = method.parts[ALL]
        assert whole.n == 8
        assert whole.outcomes[Outcome.UNSCORED] == 0, method.name


HUB = Path(__file__).parent / "fixtures" / "hub"


def test_policies_are_graded_and_ranked(tmp_path: Path) -> None:
    """The whole way of LaMP-QA: answers -> a judge behind HTTP -> bench -> report."""
    pytest.importorskip("datasets")
    folder = tmp_path / "hub"
    shutil.copytree(HUB / "LaMP-QA", folder / "LaMP-QA")
    rows = [json.loads(line) for line in (HUB / CANDIDATES).read_text().splitlines()]
    (folder / CANDIDATES).write_text(
        "".join(json.dumps({**row, "scores": {}}) + "\n" for row in rows)
    )
    out = tmp_path / "bench"
    arguments = [
        "bench",
        "lampqa",
        "--folder",
        str(folder),
        "--methods",
        "longest",
        "--out",
        str(out),
    ]
    ungraded = runner.invoke(app, arguments)
    assert "has no score by any judge" in str(ungraded.exception)

    def grades(body: Body, _: int) -> Reply:
        text = body["messages"][-1]["content"]
        aspects = text.split("<aspects>")[1].split("</aspects>")[0]
        n_aspects = sum(line[:1].isdigit() for line in aspects.splitlines())
        answer = text.split("<answer>")[1]
        return says("\n".join(f"{i}: {len(answer) % 3}" for i in range(1, n_aspects + 1)))

    with serve(grades) as server:
        graded = runner.invoke(
            app,
            [
                *("bench", "grade", str(folder), "--model", "openai:judge"),
                *("--base-url", server.base_url, "--out", str(folder / CANDIDATES)),
            ],
        )
    assert graded.exit_code == 0, graded.output
    assert f"graded {len(rows)} of {len(rows)} answers" in graded.output
    ranked = runner.invoke(app, [*arguments, "--processes", "1"])
    assert ranked.exit_code == 0, (ranked.output, ranked.exception)
    (folder / CANDIDATES).rename(tmp_path / "answers.jsonl")
    apart = ["--candidates", str(tmp_path / "answers.jsonl"), "--processes", "1"]
    elsewhere = runner.invoke(app, [*arguments[:-1], str(tmp_path / "elsewhere"), *apart])
    assert elsewhere.exit_code == 0, (elsewhere.output, elsewhere.exception)
    assert evaluate(tmp_path / "elsewhere").rankings == evaluate(out).rankings
    (row,) = evaluate(out).rankings
    assert len(row.by_domain) == 3
    assert "correlation of rankings" in ranked.output
    assert row.n_unscored == 0
    assert runner.invoke(app, ["report", str(out)]).exit_code == 0
    assert "Ranking policies" in (out / "report.html").read_text()
    assert "P-GenRM-8B, Ind-8, Pro-4" in (out / "results.md").read_text()
    with (out / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert {row["domain"] for row in table} == {*DOMAINS, "mean"}
    assert all(row["method"] == "longest" for row in table)


def test_a_server_that_dies_half_way_leaves_a_bench_that_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    longest = set()

    def judge(body: Body, n_earlier: int) -> Reply:
        longest.add(body["max_tokens"])
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
        first = body["messages"][-1]["content"].find("Short.")
        second = body["messages"][-1]["content"].find("A longer")
        scores = (8, 2) if first < second else (2, 8)
        return says(json.dumps({"response_1": scores[0], "response_2": scores[1]}))

    def bench(script: Script, out: Path) -> int:
        with serve(script) as server:
            arguments = [
                *("pgenrm", "bench", str(data), "--methods", "judge-default", "--out", str(out)),
                *("--model", "openai:m", "--base-url", server.base_url),
                *("--max-retries", "0", "--processes", "1", "--max-tokens", "77"),
                *("--concurrency", "2", "--timeout", "60", "--context-window", "4000"),
                *("--extra-body", '{"chat_template_kwargs": {"enable_thinking": false}}'),
            ]
            monkeypatch.setattr(sys, "argv", arguments)
            try:
                main()
            except SystemExit as stopped:
                return int(stopped.code or 0)
        return 0

    out = tmp_path / "bench"
    records = out / "records" / "judge-default.seed0.jsonl"
    dies_at = 70  # of 96 requests: 48 comparisons in two orders
    assert bench(lambda b, n: judge(b, n) if n < dies_at else refuses(500, "out"), out) == 1
    said = capsys.readouterr().err
    assert "judge-default.seed0" in said
    assert "the same command goes on from there" in said.replace("\n", " ")
    kept = records.read_bytes()
    assert 0 < kept.count(b"\n") < 48
    assert bench(judge, out) == 0
    assert bench(judge, tmp_path / "whole") == 0
    assert longest == {77}
    whole = tmp_path / "whole" / "records" / "judge-default.seed0.jsonl"
    times = [t for t in read_times(whole.with_suffix(".times.jsonl")) if t.stage == "score"]
    assert (sum(t.n_asked for t in times), sum(t.n_cached for t in times)) == (96, 0)
    assert all(t.n_prompt_tokens > 0 and t.n_completion_tokens > 0 for t in times)
    assert records.read_bytes().startswith(kept)
    assert sorted(records.read_bytes().splitlines()) == sorted(whole.read_bytes().splitlines())
