"""The study of `make bench`: what it would run, and that its pages say what the records hold."""

import re
from pathlib import Path

import pytest
from benchmarks.bench_study import paper, tables
from benchmarks.bench_study.page import write
from benchmarks.bench_study.steps import (
    HISTORY_SIZES,
    NOT_RUN,
    TINY,
    WORLD_CONFIG,
    Sizes,
    benches,
    simulate,
)
from typer.testing import CliRunner

from pgenrm.bench.methods import check_names
from pgenrm.bench.plan import DataSource, note_command, open_plan
from pgenrm.bench.published import published
from pgenrm.bench.run import Task, run_method
from pgenrm.bench.statistics import Estimate
from pgenrm.cli import app
from pgenrm.cli.simulate import read_config
from pgenrm.data.simulated import world_dataset
from pgenrm.methods.protocol import judgment_of
from pgenrm.seeding import rng
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.world import World
from pgenrm.types import Comparison, FailedChain, Failure, FailureKind, Judgment
from tests.bench_cases import Chance

ALL_STEPS = list(benches(Sizes(), "nano", "base"))


def test_every_row_of_the_paper_is_run_or_the_reason_is_given() -> None:
    run = {name for step in ALL_STEPS for name in step.methods}
    check_names(run)
    assert set(published().table_1) <= run | set(NOT_RUN)
    assert not run & set(NOT_RUN)


def test_without_a_language_model_everything_else_is_run() -> None:
    kept = [step.name for step in benches(Sizes(), None, None)]
    assert kept == ["all", *(f"history-{n}" for n in HISTORY_SIZES)]


@pytest.mark.parametrize("step", ALL_STEPS, ids=lambda step: step.name)
def test_every_step_is_a_command_that_pgenrm_knows(step, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    arguments = step.command(tmp_path, TINY)
    options = {a for a in arguments if a.startswith("--")}
    known = CliRunner().invoke(app, ["bench", "run", "--help"], env={"COLUMNS": "200"}).output
    assert options <= set(re.findall(r"--[a-z-]+", known))


def test_the_world_has_300_unseen_users_and_3000_comparisons() -> None:
    world = World(read_config(WORLD_CONFIG))
    n_users = Sizes().n_users
    assert sum(not world.person(i).is_seen for i in range(n_users)) == 300
    assert n_users * world.config.n_test == 3000
    assert str(n_users) in simulate(Path("out"), Sizes())


class Knowing(Chance):
    """Knows the labels, and uses them with a chance."""

    def __init__(self, name: str, p: float, seed: int, labels: dict[str, int | None]) -> None:
        super().__init__(name, p, seed, is_trained=True)
        self.labels = labels

    def judgment(self, comparison: Comparison) -> Judgment:
        is_right = rng(self.name, self.seed, comparison.id).random() < self.p
        scores = [float((i == self.labels[comparison.id]) == is_right) for i in range(2)]
        found = judgment_of(comparison, scores, method=self.name, seed=self.seed)
        if self.name != "pgenrm":
            return found
        lost = FailedChain(order=(0, 1), failure=Failure(kind=FailureKind.FORMAT, reason="none"))
        unfitted = {"confidence": 0.5, "evaluator": "attributes", "failures": (lost,)}
        return found.model_copy(update=unfitted)


CHANCES = {
    "gpo": 0.8,
    "gpo+shuffled": 0.5,
    "gpo-published": 0.6,
    "lore": 0.5,
    "lore+shuffled": 0.5,
    "lore-published": 0.8,
    "pgenrm": 0.9,
    "oracle": 0.95,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of a made-up study without a language model."""
    out = tmp_path_factory.mktemp("study")
    data = world_dataset("sim", World(WorldConfig(n_train=2), seed=1), 40)
    for name, chances, n_seeds in (("all", CHANCES, 2), ("history-0", {"gpo": 0.5}, 1)):
        items = open_plan(out / name, DataSource(target="sim"), data)
        note_command(out / name, ["pgenrm", "bench"])
        comparisons = [item.comparison for item in items]
        labels = {c.id: c.label for c in comparisons}
        for method, p in chances.items():
            for seed in range(n_seeds):
                judge = Knowing(method, p, seed, labels)
                run_method(judge, Task(method, seed), data, comparisons, out / name)
    (out / "steps.tsv").write_text("all\t12.5\t0\n")
    return out


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-0.09, -0.01), "falls"),
        ((-0.019, 0.015), "does not fall (within 2 points)"),
        ((-0.07, 0.01), "cannot tell"),
        (None, "cannot tell"),
    ],
)
def test_a_loss_that_is_not_measured_well_says_nothing(
    interval: tuple[float, float] | None, verdict: str
) -> None:
    assert tables.verdict_on(Estimate(value=-0.01, interval=interval)) == verdict


@pytest.mark.parametrize(
    ("interval", "level"),
    [
        ((-0.05, 0.019), "to the population's level or below"),
        ((0.01, 0.05), "stays above the population's level"),
        ((-0.01, 0.05), "how far cannot be told"),
        (None, ""),
    ],
)
def test_a_fall_is_measured_against_what_is_known_of_nobody(
    interval: tuple[float, float] | None, level: str
) -> None:
    assert tables.level_of(Estimate(value=0.02, interval=interval)) == level


def test_differences_are_over_the_seeds_that_both_were_run_with(study: Path) -> None:
    every, nobody = tables.Bench(study / "all"), tables.Bench(study / "history-0")
    shuffled, without = every.right["gpo+shuffled"], nobody.right["gpo"]
    assert (set(shuffled), set(without)) == ({0, 1}, {0})
    found = every.difference("gpo+shuffled", "gpo", nobody)
    assert found is not None
    assert found.value == pytest.approx((shuffled[0] - without[0]).mean())
    assert (shuffled[0] - shuffled[1]).mean() != 0  # so that the mean of both would be another


def test_a_form_is_ahead_only_if_it_is_with_every_seed(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = tables.Bench(study / "all")
    rows = {row[0]: is_ahead for row, is_ahead in tables.variant_rows(bench)}
    assert rows == {"GPO": True, "LoRe": False}
    bench.right["gpo"][1] = bench.right["gpo-published"][1] - 0.01  # behind with one seed
    row, is_ahead = next(r for r in tables.variant_rows(bench) if r[0][0] == "GPO")
    assert bench.difference("gpo", "gpo-published").interval[0] > 0  # type: ignore[union-attr, index]
    assert not is_ahead
    assert row[-1].endswith(", -1.0")


def test_the_pages_say_what_the_records_hold(study: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "paper.md").write_text(f"Before.\n{paper.BEGIN}\nas it was\n{paper.END}\nAfter.\n")
    steps = list(benches(TINY, None, None))
    write(study, docs, TINY, steps, "no weights", ["--tiny"])
    page = (docs / "results.md").read_text()
    found = tables.Bench(study / "all").methods["gpo"]
    assert f"{100 * found.parts['all'].accuracy.value:.1f} [" in page
    assert "Rows are missing" in page
    assert "no weights" in page
    assert re.search(r"\| GPO \|.*\| falls; [^|]+ \|", page)
    assert re.search(r"\| LoRe \|.*\| cannot tell \|", page)
    assert "- LoRe:" in page
    assert re.search(r"\| P-GenRM \|.*\| \(\d+\.\d\) \|", page)
    assert "Those in brackets are of confidences that were not fitted" in page
    assert "by `attributes`, the attribute evaluator and no language model, for pgenrm." in page
    assert "- GPO:" not in page
    assert "## Commands" in page
    assert (docs / "report-all.html").read_text().startswith("<!doctype html>")
    told = (docs / "paper.md").read_text()
    assert "as it was" not in told
    assert told.startswith("Before.")
    assert told.rstrip().endswith("After.")
    assert "57.87" in told  # as published
    before = (docs / "results.md").read_text()
    write(study, docs, TINY, steps, "no weights", ["--tiny"])
    assert (docs / "results.md").read_text() == before
