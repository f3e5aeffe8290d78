from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pgenrm.bench.compare import compare, compare_rankings
from pgenrm.bench.counting import Runs
from pgenrm.bench.metrics import ALL, HARD, evaluate
from pgenrm.bench.plan import Answers, Item, Plan, open_plan, read_items
from pgenrm.bench.published import published
from pgenrm.bench.ranking import rankings
from pgenrm.bench.records import find_tasks, read_records
from pgenrm.bench.results import BenchResult
from pgenrm.bench.rows import Kind, place_of, row_of
from pgenrm.bench.run import (
    PREPARED,
    Task,
    Timing,
    note_timing,
    read_times,
    records_path,
    run_method,
    times_path,
)
from pgenrm.cli import app
from pgenrm.data.dataset import Dataset
from pgenrm.data.reward_bench import DOMAINS
from pgenrm.data.simulated import world_dataset
from pgenrm.errors import InputError, RowError
from pgenrm.methods.controls import Fixed, Oracle
from pgenrm.methods.protocol import Method, judgment_of
from pgenrm.report.page import page
from pgenrm.report.tables import costs_of, markdown
from pgenrm.seeding import rng
from pgenrm.sim.world import World
from pgenrm.types import Comparison, Judgment, Outcome
from tests.bench_cases import SOURCE, Chance, WithChains, dataset, run_bench


class Scripted(Chance):
    """Gets every user's first comparison right, ties on the second, says nothing of the third."""

    def judgment(self, comparison: Comparison) -> Judgment:
        i = int(comparison.id[-1])
        right = super().judgment(comparison)
        if i == 0:
            return right
        return judgment_of(comparison, (1.0, 1.0) if i == 1 else None, method=self.name)


def test_ties_and_unscored_count_as_wrong_and_are_told_apart(tmp_path: Path) -> None:
    result = evaluate(run_bench(tmp_path, [Scripted("judge-default", 1.0)]))
    part = result.method("judge-default").parts[ALL]
    assert (part.n, part.n_users) == (72, 24)
    assert part.outcomes == {
        Outcome.CORRECT: 24,
        Outcome.WRONG: 0,
        Outcome.TIE: 24,
        Outcome.UNSCORED: 24,
    }
    assert part.accuracy.value == pytest.approx(1 / 3, abs=1e-6)
    assert part.coverage == pytest.approx(2 / 3, abs=1e-6)
    assert part.decided_accuracy is not None
    assert part.decided_accuracy.value == 1
    assert part.user_macro.value == pytest.approx(1 / 3, abs=1e-6)


def test_parts_add_up(tmp_path: Path) -> None:
    result = evaluate(
        run_bench(tmp_path, [Chance("judge-default"), Chance("gpo"), Chance("longest", 0.2)])
    )
    for method in result.methods:
        whole, seen, unseen = (method.parts[n] for n in (ALL, "test_seen", "test_unseen"))
        assert whole.n == seen.n + unseen.n
        for outcome in Outcome:
            both = seen.outcomes[outcome] + unseen.outcomes[outcome]
            assert whole.outcomes[outcome] == both
        assert sum(whole.outcomes.values()) == whole.n


def test_a_missing_record_counts_as_unscored_and_is_told(tmp_path: Path) -> None:
    out = run_bench(tmp_path, [Chance("judge-default", 1.0), Chance("gpo", 0.1)])
    path = records_path(out, Task("judge-default", 0))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-10]) + lines[-1][:40])
    result = evaluate(out)
    method = result.method("judge-default")
    assert method.n_missing == 10
    assert method.parts[ALL].outcomes[Outcome.UNSCORED] == 10
    assert method.parts[ALL].accuracy.value == pytest.approx(62 / 72, abs=1e-6)
    assert result.best_baseline == "gpo"  # the other one is not complete


def test_runs_with_several_seeds_have_a_mean_and_an_error(tmp_path: Path) -> None:
    out = run_bench(tmp_path, [Chance("gpo", 0.7, seed) for seed in range(3)])
    method = evaluate(out).method("gpo")
    assert method.seeds == (0, 1, 2)
    assert len(set(method.accuracy_of_runs)) == 3
    assert method.error_of_runs is not None
    assert method.error_of_runs > 0
    assert method.mean_of_runs == pytest.approx(method.parts[ALL].accuracy.value, abs=1e-5)
    assert method.parts[ALL].n == 72
    assert sum(method.parts[ALL].outcomes.values()) == 3 * 72


def test_differences_are_to_the_best_baseline_and_never_to_a_control(tmp_path: Path) -> None:
    methods = [
        Chance("judge-default", 0.6),
        Chance("gpo", 0.8),
        Chance("oracle", 0.99),
        Chance("pgenrm", 0.9),
    ]
    result = evaluate(run_bench(tmp_path, methods))
    assert result.best_baseline == "gpo"
    assert result.method("gpo").parts[ALL].versus_best is None
    ours = result.method("pgenrm").parts[ALL]
    assert ours.versus_best is not None
    assert ours.versus_best.to == "gpo"
    expected = ours.accuracy.value - result.method("gpo").parts[ALL].accuracy.value
    assert ours.versus_best.by.value == pytest.approx(expected, abs=2e-6)
    low, high = ours.versus_best.by.interval or (0, 0)
    assert low < ours.versus_best.by.value < high


def test_chains_tokens_and_confidence_are_counted(tmp_path: Path) -> None:
    method = evaluate(run_bench(tmp_path, [WithChains("pgenrm", 4)], dataset(40, 4))).method(
        "pgenrm"
    )
    assert method.cost.n_chains == 4
    assert method.cost.n_prompt_tokens == 20
    assert method.cost.n_completion_tokens == 20
    assert method.cost.seconds is not None
    assert method.calibration is not None
    assert not method.calibration.is_calibrated
    assert method.order_consistency == 1
    assert method.prompt_versions == ("known@1",)


def test_what_learning_asked_of_a_model_is_told_apart_from_what_a_cache_knew(
    tmp_path: Path,
) -> None:
    run_bench(tmp_path, [Chance("judge-default", 0.6), Chance("synthesize-me", 0.6)])
    times = times_path(tmp_path, Task("synthesize-me", 0))
    note_timing(times, Timing("fit", 10, 2.0, 1, 3, 1_000, 234))
    note_timing(times, Timing("adapt", 23, 4.8, 0, 4, 4_000, 800))
    note_timing(tmp_path / PREPARED, Timing("prepare", 72, 30.0))
    note_timing(tmp_path / PREPARED, Timing("prepare", 72, 0.5))
    result = evaluate(tmp_path)
    assert result.prepare_seconds == 30.5
    assert "took 30 seconds" in markdown(result, [])
    assert "took 30 seconds" in page(result, [], [])
    cost = result.method("synthesize-me").cost
    n_adapted = sum(t.n for t in read_times(times) if t.stage == "adapt")
    assert (cost.fit_tokens, cost.cached_share) == (1_234, 1 / 8)
    assert cost.adapt_tokens == pytest.approx(4_800 / n_adapted, abs=1e-6)
    shown = costs_of(result.method("synthesize-me"))
    assert (shown[-2], shown[-1]) == ("1,234", "12.5")
    assert costs_of(result.method("judge-default"))[-2:] == ("-", "-")


def test_a_judge_that_goes_by_position_has_no_consistent_orders(tmp_path: Path) -> None:
    judge = WithChains("pgenrm", 4, lambda request, i: (8, 3))
    assert evaluate(run_bench(tmp_path, [judge])).method("pgenrm").order_consistency == 0


def test_prototypes_and_hard_pairs_come_from_the_truth(tmp_path: Path) -> None:
    world = World(seed=3)
    data = world_dataset("sim", world, 60)
    items = open_plan(tmp_path, SOURCE, data)
    comparisons = [item.comparison for item in items]
    for method in (Fixed("longest"), Oracle(world)):
        run_method(method, Task(method.name, 0), data, comparisons, tmp_path)
    result = evaluate(tmp_path)
    oracle = result.method("oracle")
    true = {i.comparison.user.id: world.person_of(i.comparison.user.id).prototype for i in items}
    assert {g.prototype: g.n_users for g in oracle.groups} == {
        p: list(true.values()).count(p) for p in set(true.values())
    }
    assert sum(g.n for g in oracle.groups) == len(items)
    assert oracle.parts[HARD].n == sum(bool(i.is_hard) for i in items)
    macro = oracle.parts[ALL].prototype_macro
    assert macro is not None
    mean = sum(g.accuracy.value for g in oracle.groups) / len(oracle.groups)
    assert macro.value == pytest.approx(mean, abs=1e-5)
    assert [m.name for m in result.methods] == ["longest", "oracle"]
    assert result.best_baseline is None


class WithPrototype(Chance):
    """Says that every user is of prototype `self.prototype`."""

    def __init__(self, name: str, prototype: int, seed: int = 0) -> None:
        super().__init__(name, seed=seed)
        self.prototype = prototype

    def judgment(self, comparison: Comparison) -> Judgment:
        return super().judgment(comparison).model_copy(update={"prototype": self.prototype})


def test_prototypes_of_unknown_users_are_those_of_one_unaltered_run(tmp_path: Path) -> None:
    methods: list[Method] = [
        WithPrototype("pgenrm-ind8-pro4", 1),
        WithPrototype("pgenrm-ind8-pro4", 2, seed=1),
        WithPrototype("pgenrm-ind16-pro8", 3),
        WithPrototype("pgenrm-ind8-pro4+shuffled", 4),
        Chance("gpo"),
    ]
    result = evaluate(run_bench(tmp_path, methods))
    assert result.prototypes_of == "pgenrm-ind8-pro4, seed 0"
    for method in result.methods:
        assert [group.prototype for group in method.groups] == [1]


def test_a_damaged_record_names_its_line(tmp_path: Path) -> None:
    out = run_bench(tmp_path, [Chance("judge-default")])
    path = records_path(out, Task("judge-default", 0))
    path.write_bytes(b'{"id": 1}\n' + path.read_bytes())
    with pytest.raises(RowError, match=r"judge-default\.seed0\.jsonl:1: not a judgment"):
        evaluate(out)


def test_a_bench_without_records_says_what_to_do(tmp_path: Path) -> None:
    open_plan(tmp_path, SOURCE, dataset())
    with pytest.raises(InputError, match="run pgenrm bench first"):
        evaluate(tmp_path)


# ---------------------------------------------------------------- two runs


def test_two_runs_are_compared_on_what_both_have(tmp_path: Path) -> None:
    before = run_bench(
        tmp_path / "a", [Chance("judge-default", 0.3), Chance("gpo")], dataset(24, 3)
    )
    after = run_bench(tmp_path / "b", [Chance("judge-default", 0.9), Chance("vpl")], dataset(24, 2))
    (change,) = compare(before, after)
    assert (change.name, change.n, change.n_users) == ("judge-default", 48, 24)
    assert change.by.value == pytest.approx(change.after - change.before, abs=2e-6)
    assert change.by.value == pytest.approx((change.n_gained - change.n_lost) / 48, abs=1e-4)
    assert change.by.interval is not None
    assert change.by.interval[0] > 0


def test_a_run_compared_with_itself_has_not_changed(tmp_path: Path) -> None:
    out = run_bench(tmp_path, [Chance("judge-default")])
    (change,) = compare(out, out)
    assert (change.n_gained, change.n_lost, change.by.interval) == (0, 0, (0, 0))


def test_runs_with_nothing_in_common_are_refused(tmp_path: Path) -> None:
    one = run_bench(tmp_path / "a", [Chance("judge-default")])
    other = run_bench(tmp_path / "b", [Chance("gpo")])
    with pytest.raises(InputError, match="no method in common"):
        compare(one, other)


def altered(change: Callable[[Comparison], Comparison]) -> Dataset:
    data = dataset()
    return replace(data, splits={s: list(map(change, cs)) for s, cs in data.splits.items()})


def test_what_is_known_of_the_users_may_differ_between_two_runs(tmp_path: Path) -> None:
    def knowing_more(comparison: Comparison) -> Comparison:
        update = {"criteria": ("be brief",), "demographics": {"age": "40"}}
        return comparison.model_copy(update={"user": comparison.user.model_copy(update=update)})

    before = run_bench(tmp_path / "a", [Chance("gpo")])
    after = run_bench(tmp_path / "b", [Chance("gpo")], altered(knowing_more))
    (change,) = compare(before, after)
    assert (change.n, change.n_gained, change.n_lost) == (72, 0, 0)


def test_what_was_not_judged_is_marked_in_a_comparison_of_runs(tmp_path: Path) -> None:
    before, after = (run_bench(tmp_path / name, [Chance("gpo")]) for name in "ab")
    path = records_path(after, Task("gpo", 0))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-10]))
    (change,) = compare(before, after)
    assert (change.n_missing_before, change.n_missing_after) == (0, 10)
    shown = CliRunner().invoke(app, ["bench", "compare", str(before), str(after)])
    assert "gpo is incomplete: 0 missing before, 10 after" in " ".join(shown.output.split())


def test_only_labelled_comparisons_change(tmp_path: Path) -> None:
    def some_labelled(comparison: Comparison) -> Comparison:
        keeps = comparison.id.endswith("0")
        return comparison if keeps else comparison.model_copy(update={"label": None})

    out = run_bench(tmp_path / "a", [Chance("gpo", 1.0)], altered(some_labelled))
    (change,) = compare(out, out)
    assert (change.n, change.before) == (24, 1.0)

    without = run_bench(
        tmp_path / "b",
        [Chance("gpo")],
        altered(lambda comparison: comparison.model_copy(update={"label": None})),
    )
    with pytest.raises(InputError, match=r"has a label.*pgenrm report"):
        compare(without, without)


def test_runs_over_other_data_are_refused_with_what_to_do(tmp_path: Path) -> None:
    before = run_bench(tmp_path / "a", [Chance("gpo")])
    renamed = altered(lambda c: c.model_copy(update={"id": f"other-{c.id}"}))
    after = run_bench(tmp_path / "b", [Chance("gpo")], renamed)
    with pytest.raises(InputError, match=r"no comparison in common .* give two benches"):
        compare(before, after)


# ---------------------------------------------------------------- rankings of policies


def ranked_items(n: int, domains: Sequence[str] = DOMAINS) -> list[Item]:
    models = ("b", "a", "c", "d")  # not in the order of their names, nor of their quality
    return [
        Item(
            split="test_unseen",
            comparison=Comparison(
                id=f"q{i}",
                user={"id": f"asker{i}"},
                context=f"question {i}",
                responses=[f"answer of {m}" for m in models],
            ),
            answers=Answers(domain=domains[i % len(domains)], models=models, scores=(3, 9, 5, 1)),
        )
        for i in range(n)
    ]


def test_policies_are_ranked_by_domain_whatever_their_order(tmp_path: Path) -> None:
    items = ranked_items(12)
    quality = {"answer of a": 9, "answer of b": 3, "answer of c": 5, "answer of d": 1}
    rows = []
    for item in items[:-1]:
        scores = [quality[r] for r in item.comparison.responses]
        if item.comparison.id == "q1":
            scores = scores[::-1]  # one of its four questions the wrong way round
        rows.append(judgment_of(item.comparison, scores, method="m"))
    rows.append(judgment_of(items[-1].comparison, None, method="m"))
    path = tmp_path / "m.seed0.jsonl"
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    (found,) = rankings(items, [Runs("m", {Task("m", 0): path}, items)])
    assert found.n_questions == 12
    assert found.n_unscored == 1
    assert {d: e and e.value for d, e in found.by_domain.items()} == dict.fromkeys(DOMAINS, 1)
    assert found.mean is not None
    assert found.mean.value == 1


def ranked_bench(out: Path, noise: float, items: Sequence[Item]) -> Path:
    """Write a bench whose only method has the true scores with noise."""
    out.mkdir(exist_ok=True)
    (out / "items.jsonl").write_text("".join(item.model_dump_json() + "\n" for item in items))
    rows = []
    for item in items:
        assert item.answers is not None
        drawn = rng("ranked", noise, item.comparison.id).normal(0, noise or 1e-9, 4)
        scores = [s + d for s, d in zip(item.answers.scores, drawn, strict=True)]
        rows.append(judgment_of(item.comparison, scores, method="m"))
    path = records_path(out, Task("m", 0))
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return out


def test_two_rankings_are_compared_by_domain_on_the_same_questions(tmp_path: Path) -> None:
    items = ranked_items(90)
    before = ranked_bench(tmp_path / "a", 60, items)
    after = ranked_bench(tmp_path / "b", 0, items[:-30])
    *domains, mean = compare_rankings(before, after)
    assert [change.domain for change in domains] == list(DOMAINS)
    assert [change.n for change in (*domains, mean)] == [20, 20, 20, 60]
    shared = [items[i] for i in range(60) if items[i].answers]
    records = {Task("m", 0): records_path(before, Task("m", 0))}
    (alone,) = rankings(shared, [Runs("m", records, items)])
    for change in domains:
        assert change.before == alone.by_domain[change.domain]
        assert change.after is not None
        assert (change.after.value, change.after.interval) == (1, (1, 1))
        assert change.by is not None
        assert change.before is not None
        assert change.by.value == pytest.approx(1 - change.before.value)
        # all of the after are 1, so the difference moves as the before does
        assert change.by.interval is not None
        assert change.before.interval is not None
        assert change.by.interval == pytest.approx(
            tuple(1 - x for x in change.before.interval[::-1])
        )
    assert (mean.domain, mean.before) == ("mean", alone.mean)
    assert [change.by and change.by.interval for change in compare_rankings(before, before)] == [
        (0, 0)
    ] * 4


def test_rankings_are_compared_on_what_both_have_scored_in_full(tmp_path: Path) -> None:
    items = ranked_items(12)
    before, after = (ranked_bench(tmp_path / name, 1, items) for name in "ab")
    path = records_path(after, Task("m", 0))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[3:]))
    assert [change.n for change in compare_rankings(before, after)] == [3, 3, 3, 9]
    shown = CliRunner().invoke(app, ["bench", "compare", str(before), str(after)])
    table = [line.split() for line in shown.output.splitlines()]
    assert [line[-4] for line in table if line[:1] == ["m"]] == ["3", "3", "3", "9"]
    path.write_text("".join(lines[0::3]))  # nothing but the first domain
    assert [change.domain for change in compare_rankings(before, after)] == [DOMAINS[0]]


def test_rankings_by_other_grades_are_not_compared(tmp_path: Path) -> None:
    items = ranked_items(12)
    before = ranked_bench(tmp_path / "a", 1, items)
    answers = items[4].answers
    assert answers is not None
    items[4] = items[4].model_copy(
        update={"answers": answers.model_copy(update={"scores": (3, 9, 5, 2)})}
    )
    after = ranked_bench(tmp_path / "b", 1, items)
    with pytest.raises(InputError, match=r"q4 were graded differently .* with the candidates of"):
        compare_rankings(before, after)


def test_published_rankings_stand_under_their_domains_and_no_mean_leaves_one_out(
    tmp_path: Path,
) -> None:
    items = ranked_items(60, DOMAINS[2:0:-1])  # two domains, the later one first
    judgments = [judgment_of(item.comparison, (3, 9, 5, 1), method="m") for item in items[:-1]]
    path = tmp_path / "m.seed0.jsonl"
    path.write_text("".join(judgment.model_dump_json() + "\n" for judgment in judgments))
    found = rankings(items, [Runs("m", {Task("m", 0): path}, items)])
    assert found[0].mean is None
    plan = Plan(
        source=SOURCE,
        dataset="lampqa",
        revision="1",
        notes=(),
        n_items={"test_unseen": 60},
        n_train=0,
        items_digest="",
    )
    result = BenchResult(plan=plan, best_baseline=None, methods=(), rankings=found)
    lines = markdown(result, []).splitlines()
    assert (
        "| ranking of policies (Spearman) | Art and Entertainment | Lifestyle and Personal "
        "Development | Society and Culture | mean | questions left out |"
    ) in lines
    assert "| m | - | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | - | 1 of 60 |" in lines
    assert "| *published*: Qwen3-8B | .486 | .543 | .600 | .543 | - |" in lines
    cells = page(result, [], []).split("<td")
    assert sum(">.486</td>" in cell for cell in cells) == 3  # as often as table 5 has it
    assert sum(">1 of 60</td>" in cell for cell in cells) == 1


def test_a_policy_that_is_missing_somewhere_is_named(tmp_path: Path) -> None:
    items = ranked_items(6)
    answers = items[5].answers
    assert answers is not None
    changed = answers.model_copy(update={"models": ("b", "a", "c", "x")})
    items[5] = items[5].model_copy(update={"answers": changed})
    path = tmp_path / "m.seed0.jsonl"
    path.touch()
    with pytest.raises(InputError, match="q5 was answered by a, b, c, x"):
        rankings(items, [Runs("m", {Task("m", 0): path}, items)])


# ---------------------------------------------------------------- rows and published numbers


def test_every_published_row_has_a_row_of_ours() -> None:
    for name, row in published().table_1.items():
        assert row_of(name).kind is not Kind.OTHER, name
        assert any(getattr(row, c) for c in ("arena_8b", "prism_8b"))
    assert set(published().prompt_study_prism) <= set(published().table_1) | {
        "judge-self-description",
        "judge-stated-style",
        "judge-choice-attributes",
    }


def test_published_numbers_stand_as_in_the_paper() -> None:
    table = published().table_1
    assert table["pgenrm"].arena_8b == (72.68, 1.85)
    assert table["pgenrm-ind16-pro8"].prism_8b == (68.06, 0.69)
    assert table["judge-demographics"].arena_8b is None
    assert len(table) == 14
    assert published().table_12[3] == 72.68


def test_an_unknown_method_is_a_row_of_its_own_name() -> None:
    assert row_of("mine") == ("mine", Kind.OTHER, "mine")
    assert row_of("gpo+shuffled").label == "GPO, users shuffled"
    names = ["oracle", "mine", "gpo+shuffled", "pgenrm", "gpo", "judge-default"]
    assert sorted(names, key=place_of) == [
        "judge-default",
        "gpo",
        "pgenrm",
        "mine",
        "gpo+shuffled",
        "oracle",
    ]


def test_records_name_where_they_stand(tmp_path: Path) -> None:
    out = run_bench(tmp_path, [Chance("judge-default")])
    records = list(read_records(find_tasks(out)[Task("judge-default", 0)]))
    assert [r.line for r in records] == list(range(1, len(read_items(out)) + 1))
