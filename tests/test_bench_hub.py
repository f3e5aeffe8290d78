"""Whole benches over data in the hub's schemas, with real components, and their reports.

Texts are embedded by MiniLM, a reward model is fine-tuned, and judges are asked over HTTP: a server
whose model reads its prompts (`tests.reading_engine`).
"""

import csv
import json
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from pgenrm.bench.metrics import ALL, evaluate
from pgenrm.bench.plan import read_plan
from pgenrm.bench.records import find_tasks, read_settings
from pgenrm.bench.results import BenchResult
from pgenrm.bench.run import Task
from pgenrm.cli import app
from pgenrm.data.reward_bench import DOMAINS
from pgenrm.types import Message, Outcome
from tests import hub_fixture
from tests.reading_engine import answer
from tests.rewrite_hub_fixture import HUB
from tests.server import Body, Reply, chat, choice, serve

JUDGES = (
    *("judge-default", "judge-cot", "judge-demographics", "judge-self-description"),
    *("judge-stated-style", "judge-choice-attributes", "judge-history", "judge-psi"),
    "synthesize-me",
)
COMMITS = ("1" * 40, "2" * 40)


def bench(data: str, methods: str, out: Path, *more: object) -> Result:
    """Run a bench with one process."""
    arguments = ["bench", data, "--methods", methods, "--out", out, "--processes", 1, *more]
    return CliRunner().invoke(app, list(map(str, arguments)))


def counted(out: Path, methods: str, n: int) -> BenchResult:
    """Return what a bench counts, where all of its methods have scored all comparisons."""
    result = evaluate(out)
    assert {method.name for method in result.methods} == set(methods.split(","))
    for method in result.methods:
        assert method.parts[ALL].n == n
        assert method.parts[ALL].outcomes[Outcome.UNSCORED] == 0, method.name
    return result


def reads(body: Body, _: int) -> Reply:
    text = answer([Message(**message) for message in body["messages"]])
    return chat(*[choice(text, i) for i in range(body.get("n") or 1)])


def test_prism_is_judged_over_http_and_reported(tmp_path: Path) -> None:
    methods = ",".join((*JUDGES, "pgenrm", "longest"))
    with serve(reads) as server:
        model = ("--model", "openai:reader", "--base-url", server.base_url)
        done = bench("prism", methods, tmp_path, "--folder", HUB, *model)
        assert done.exit_code == 0, (done.output, done.exception)
    result = counted(tmp_path, methods, 19)
    assert result.plan.n_items == {"test_seen": 9, "test_unseen": 10}
    accuracy = {method.name: method.parts[ALL].accuracy.value for method in result.methods}
    assert accuracy["judge-psi"] > accuracy["judge-default"], "past choices tell what users like"
    asked = json.dumps(server.calls)
    assert hub_fixture.SECRET not in asked
    for told in ("stay polite", "small shop", "25-34 years old", "what_mattered"):
        assert told in asked

    report = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert report.exit_code == 0, report.output
    page = (tmp_path / "report.html").read_text("utf-8")
    assert result.plan.revision in page
    assert hub_fixture.SECRET not in page
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["part"]) for row in rows} == {
        (method, part) for method in accuracy for part in (ALL, "test_seen", "test_unseen")
    }


@pytest.fixture
def cached_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in a cache as a download of its tag v1 leaves it; worker processes see it too."""
    from tests.tiny_llama import make_tiny_llama

    stored = tmp_path / "cache" / "models--owner--tiny"
    for seed, commit in enumerate(COMMITS):
        make_tiny_llama(stored / "snapshots" / commit, seed)
    (stored / "refs").mkdir()
    (stored / "refs" / "v1").write_text(COMMITS[0])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return stored


@pytest.mark.local
@pytest.mark.slow
def test_arena_is_learnt_from_by_everything_that_learns_and_reported(
    tmp_path: Path, cached_model: Path
) -> None:
    methods = "reward-model,lore,pgenrm-ind8-pro4,attributes+flipped"
    out = tmp_path / "bench"

    def again(base: str) -> Result:
        return bench("arena", methods, out, "--folder", HUB, "--reward-base", base)

    done = again("owner/tiny@v1")
    assert done.exit_code == 0, (done.output, done.exception)
    result = counted(out, methods, 18)
    (version,) = result.method("reward-model").versions
    assert version.endswith(f"owner/tiny@{COMMITS[0]}")
    records = find_tasks(out)[Task("reward-model", 0)]
    assert read_settings(records).version == version

    (cached_model / "refs" / "v1").write_text(COMMITS[1])  # the hub has moved on
    moved = again("owner/tiny@v1")
    assert moved.exit_code == 1
    said = " ".join(str(moved.exception).split())
    assert f"owner/tiny@{COMMITS[0]}' -> " in said
    assert f"owner/tiny@{COMMITS[1]}'" in said
    judged = records.read_bytes()
    assert again(f"owner/tiny@{COMMITS[0]}").exit_code == 0
    assert records.read_bytes() == judged

    report = CliRunner().invoke(app, ["report", str(out)])
    assert report.exit_code == 0, report.output
    assert version in (out / "report.html").read_text("utf-8")


@pytest.mark.local
def test_a_reward_model_that_is_nowhere_is_refused_before_anything_is_run(
    tmp_path: Path, cached_model: Path
) -> None:
    for name in ("owner/tiny", "owner/none", f"owner/tiny@{'9' * 40}"):
        done = bench("arena", "reward-model", tmp_path, "--folder", HUB, "--reward-base", name)
        assert f"the model {name} is no directory and cannot be had" in str(done.exception)
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.local
@pytest.mark.slow
def test_policies_are_ranked_by_what_was_learnt_on_other_data(tmp_path: Path) -> None:
    """LaMP-QA has nothing to learn from: methods are fitted on PRISM, two benches compared."""
    hub = ("--folder", HUB)
    alone = bench("lampqa", "lore,longest", tmp_path / "alone", *hub)
    assert "lore has nothing to learn from in lampqa" in str(alone.exception)

    out = tmp_path / "bench"
    methods = "lore,pgenrm-ind8-pro4,longest"
    done = bench("lampqa", methods, out, *hub, "--fit-on", "prism")
    assert done.exit_code == 0, (done.output, done.exception)
    rankings = {ranking.name: ranking for ranking in evaluate(out).rankings}
    assert set(rankings) == set(methods.split(","))
    assert all(ranking.n_unscored == 0 for ranking in rankings.values())
    assert set(rankings["lore"].by_domain) == set(DOMAINS)
    plan = read_plan(out)
    assert plan.n_train == 11
    assert "prism_personalized_0125@files:" in plan.revision
    assert any("learn from another data set, prism: 11 train" in note for note in plan.notes)
    other = bench("lampqa", methods, out, *hub, "--fit-on", "arena")
    assert "begun over other data" in str(other.exception)

    same = CliRunner().invoke(app, ["bench", "compare", str(tmp_path / "alone"), str(out)])
    assert same.exit_code == 0, (same.output, same.exception)
    lines = [line.split() for line in same.output.splitlines()]
    assert [line[-1] for line in lines if line[:2] == ["longest", "mean"]] == ["+.000"]
