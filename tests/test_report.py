import csv
import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from typer.testing import CliRunner

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.bench.metrics import ALL, evaluate
from pgenrm.bench.plan import note_command
from pgenrm.bench.results import BenchResult
from pgenrm.cli import app
from pgenrm.errors import InputError
from pgenrm.judge import PGenRM
from pgenrm.methods.protocol import Method, judgment_of
from pgenrm.report.card import FULL, card_fragment, eval_results, method_of_card
from pgenrm.report.page import page as html_of
from pgenrm.report.samples import Aspect, samples
from pgenrm.report.tables import markdown
from pgenrm.report.write import write_report
from pgenrm.types import Comparison, Judgment
from tests.bench_cases import HOSTILE, Chance, WithChains, dataset, run_bench, unanswered

CHROMIUM = Path("/usr/bin/chromium")
COMMAND = ["pgenrm", "bench", HOSTILE, "a|b", "`c`"]


class EveryOutcome(Chance):
    """Right, wrong, tied and unscored in turn."""

    def judgment(self, comparison: Comparison) -> Judgment:
        i = int(comparison.id[-1])
        if i == 1:
            return judgment_of(comparison, (1.0, 1.0), method=self.name)
        return unanswered(comparison, HOSTILE) if i == 2 else super().judgment(comparison)


class HostileChains(WithChains):
    """Writes chains whose every text tries to break out of the page."""

    def score(self, comparisons):  # type: ignore[no-untyped-def]
        return [_hostile(judgment) for judgment in super().score(comparisons)]


def _hostile(judgment: Judgment) -> Judgment:
    text = re.sub("Likes it short.|Brevity", HOSTILE.replace("'", ""), judgment.model_dump_json())
    return Judgment.model_validate_json(text.replace('"reason":""', '"reason":"\\"><b>bold</b>"'))


class ByAttributes(WithChains):
    """P-GenRM around the attribute evaluator."""

    def __init__(self, name: str, m: int) -> None:
        super().__init__(name, m)
        self._judge = PGenRM(AttributeEvaluator(), m)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench")
    methods: list[Method] = [
        Chance("judge-default", 0.6),
        EveryOutcome("judge-cot"),
        Chance("judge-stated-style", 0.6),
        Chance("gpo", 0.7, 0),
        Chance("gpo", 0.7, 1),
        HostileChains("pgenrm", 2),
        WithChains("pgenrm-ind8", 8),
        Chance("oracle", 0.95),
    ]
    data = dataset(40, 4)
    # what was never answered is stored, as with --accept-unanswered
    run_bench(out, methods, data, accept_unanswered=True)
    note_command(out, COMMAND)
    write_report(out)
    return out


@pytest.fixture(scope="module")
def result(bench: Path) -> BenchResult:
    return evaluate(bench)


def test_samples_show_every_outcome_and_the_most_confident_mistakes(bench: Path) -> None:
    drawn = samples(bench, n_each=2)
    of = {a: [s for s in drawn if s.method == "judge-cot" and s.aspect is a] for a in Aspect}
    assert {aspect: len(found) for aspect, found in of.items()} == dict.fromkeys(Aspect, 2)
    assert of[Aspect.UNSCORED][0].failures == ("connection refused",)
    mistakes = [s for s in drawn if s.method == "pgenrm-ind8" and s.aspect is Aspect.MISTAKE]
    assert all(s.rubric and s.preferences for s in mistakes)
    assert all(s.choice is not None and s.choice != s.comparison.label for s in mistakes)


def test_methods_show_the_same_comparisons_where_they_turned_out_alike(bench: Path) -> None:
    drawn = samples(bench)
    ids = [
        {s.comparison.id for s in drawn if s.method == name and s.aspect is Aspect.RIGHT}
        for name in ("pgenrm", "pgenrm-ind8")
    ]
    assert ids[0] == ids[1]


def test_a_rubric_is_shown_by_response_whatever_the_order_it_was_written_in(bench: Path) -> None:
    for sample in samples(bench):
        if sample.rubric and sample.choice is not None:
            scores = sample.rubric[0].scores
            assert scores[sample.choice] == max(s for s in scores if s is not None)


def test_the_csv_has_a_line_for_every_method_and_part(bench: Path, result: BenchResult) -> None:
    rows = list(csv.DictReader(io.StringIO((bench / "results.csv").read_text())))
    assert len(rows) == sum(len(m.parts) for m in result.methods)
    row = next(r for r in rows if r["method"] == "judge-cot" and r["part"] == ALL)
    part = result.method("judge-cot").parts[ALL]
    assert float(row["accuracy"]) == part.accuracy.value
    assert int(row["tie"]) == 40
    assert int(row["unscored"]) == 40


def test_the_json_is_what_was_counted(bench: Path, result: BenchResult) -> None:
    assert BenchResult.model_validate_json((bench / "results.json").read_text()) == result


def test_the_markdown_marks_published_numbers_and_names_the_command(bench: Path) -> None:
    text = (bench / "results.md").read_text()
    assert "*published*: PRISM 8B" in text
    assert "| P-GenRM | " in text
    assert "72.68 ± 1.85" in text
    assert "pgenrm bench" in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| LLM judge")}
    assert all(
        line.count(" | ") in widths for line in text.splitlines() if line.startswith("| P-GenRM")
    )


def test_the_model_card_is_read_by_the_hub(bench: Path, result: BenchResult) -> None:
    from huggingface_hub import ModelCard, parse_eval_result_entries

    method = method_of_card(result)
    assert method is not None
    assert method.name in {"pgenrm", "pgenrm-ind8"}
    card = ModelCard(card_fragment(result, method, "me/my-judge"))
    front_matter = yaml.safe_load(card.content.split("---")[1])
    found = front_matter["model-index"][0]["results"]
    assert {e["dataset"]["config"]: e["metrics"][0]["value"] for e in found} == {
        name: round(100 * part.accuracy.value, 2) for name, part in method.parts.items()
    }
    entries = parse_eval_result_entries(yaml.safe_load(eval_results(result, method, "2026-01-31")))
    assert [e.task_id for e in entries] == list(method.parts)
    assert {e.date for e in entries} == {"2026-01-31"}
    with pytest.raises(InputError, match="'vpl' is not among the methods: judge-default, "):
        method_of_card(result, "vpl")


def test_the_card_is_of_the_full_form_and_not_of_the_best(tmp_path: Path) -> None:
    forms = [Chance("pgenrm-ind8", 0.6), Chance("pgenrm-ind16-pro8", 0.95)]
    first = method_of_card(evaluate(run_bench(tmp_path / "some", forms)))
    full = method_of_card(evaluate(run_bench(tmp_path / "all", [*forms, Chance(FULL, 0.5)])))
    assert (first and first.name, full and full.name) == ("pgenrm-ind8", FULL)
    shown = CliRunner().invoke(app, ["report", "--help"], env={"COLUMNS": "200"}).output
    assert f"Default: {FULL}" in shown


def test_who_wrote_the_chains_stands_on_the_page_and_in_the_markdown(tmp_path: Path) -> None:
    methods: list[Method] = [WithChains("judge-cot", 2), ByAttributes("pgenrm", 2)]
    result = evaluate(run_bench(tmp_path, [Chance("gpo"), *methods], dataset(4, 1)))
    told = "by {} for judge-cot; by {}, the attribute evaluator and no language model, for pgenrm."
    assert told.format("known", "attributes") in html_of(result, [], [])
    assert told.format("`known`", "`attributes`") in markdown(result, [])
    none = result.model_copy(update={"methods": (result.method("gpo"),)})
    assert "Chains are written" not in html_of(none, [], []) + markdown(none, [])


def test_judgments_about_altered_users_are_counted_but_not_shown(tmp_path: Path) -> None:
    out = run_bench(tmp_path, [Chance("gpo"), Chance("gpo+shuffled")])
    assert len(evaluate(out).methods) == 2
    assert {sample.method for sample in samples(out)} == {"gpo"}


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} does not exist; Debian has it in the package chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, bench: Path) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    troubles: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((bench / "report.html").as_uri())
    yield page
    assert troubles == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    page.close()


def shown(page: Any) -> list[dict[str, str]]:
    return [
        json.loads(text)
        for text in page.locator(".sample:visible").evaluate_all(
            "found => found.map((e) => JSON.stringify({...e.dataset, text: e.textContent}))"
        )
    ]


def test_the_filters_work_alone_and_together(page: Any, bench: Path) -> None:
    drawn = samples(bench)
    page.select_option("[name=method]", "judge-cot")
    assert len(shown(page)) == min(12, sum(s.method == "judge-cot" for s in drawn))
    assert {s["method"] for s in shown(page)} == {"judge-cot"}
    page.select_option("[name=aspect]", "unscored")
    assert [s["aspect"] for s in shown(page)] == ["unscored"] * 3
    page.fill("[name=text]", "CONNECTION refused")
    assert len(shown(page)) == 3
    page.fill("[name=text]", "no such text")
    assert shown(page) == []
    assert page.locator("#n-shown").text_content() == "0"
    page.fill("[name=text]", "")
    page.select_option("[name=method]", "")
    page.select_option("[name=aspect]", "")
    page.select_option("[name=split]", "test_seen")
    assert {s["split"] for s in shown(page)} == {"test_seen"}


def test_more_judgments_come_on_demand(page: Any, bench: Path) -> None:
    n = len(samples(bench))
    for _ in range(n // 12):
        page.click("#more")
    assert len(shown(page)) == n
    assert not page.locator("#more").is_visible()


def test_hostile_text_stays_text(page: Any) -> None:
    page.select_option("[name=method]", "pgenrm")
    assert page.evaluate("window.broken") is None
    assert page.locator("#samples script, #samples img, #samples b b").count() == 0
    first = shown(page)[0]["text"]
    assert "</script><script>window.broken = 1</script>" in first
    assert "{{ 7*7 }}" in first
    assert "&amp;" in first


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_no_wider_than_the_screen(browser: Any, bench: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((bench / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    accuracy = page.locator("#accuracy tbody tr:has(td) td").first.bounding_box()
    assert accuracy["x"] + accuracy["width"] <= width
    page.close()


def test_everything_stands_in_print_too_and_no_wider_than_paper(page: Any) -> None:
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 less Chromium's margins
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not page.locator("#filters").is_visible()
    assert page.locator("details:not([open])").count() == 0
    widths = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert widths[0] <= widths[1] == 718


def test_reasons_and_earlier_turns_can_be_read_on_the_page(page: Any) -> None:
    page.select_option("[name=method]", "pgenrm")
    sample = page.locator(".sample:visible").first
    assert sample.locator(".rubric [title]").count() == 0
    assert 'response 2: "><b>bold</b>' in sample.locator(".rubric").text_content()
    assert "what came before" in sample.text_content()


def test_commands_can_be_pasted_and_do_not_break_markdown(page: Any, bench: Path) -> None:
    command = shlex.join(COMMAND)
    assert page.locator("code", has_text="pgenrm bench").inner_text() == command
    assert f": `` {command} `` (" in (bench / "results.md").read_text()


def test_the_study_of_prompts_stands_beside_ours(page: Any, bench: Path) -> None:
    assert page.locator("#accuracy tr", has_text="+ stated style").locator(
        "td.quoted"
    ).all_inner_texts() == ["-", "-", "-", "-", "64.24"]
    rows = (bench / "results.md").read_text().splitlines()
    assert any(row.startswith("| + stated style | ") and "| 64.24 |" in row for row in rows)


def test_the_table_holds_our_numbers_and_the_published_ones_apart(page: Any) -> None:
    row = page.locator("#accuracy tr", has_text="P-GenRM").nth(1)
    assert row.locator("td.quoted").all_inner_texts() == [
        "72.68 ± 1.85",
        "73.42 ± 1.74",
        "65.32 ± 0.56",
        "66.21 ± 0.76",
        "-",
    ]
    assert "published, not measured here" in page.locator("#accuracy thead").inner_text()
