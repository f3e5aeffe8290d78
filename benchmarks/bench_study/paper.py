"""The tables of the paper in docs/paper.md, row by row: the command and our number.

What stands between the markers there is written here; the numbers come from the study's records.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.bench_study.steps import HISTORY_SIZES, NOT_RUN
from benchmarks.bench_study.tables import NOTHING, Bench, Row, accuracy, markdown

from pgenrm.bench.metrics import ALL
from pgenrm.bench.published import published
from pgenrm.report.tables import percent, quoted, seconds

BEGIN: Final = "<!-- tables, by make bench -->"
END: Final = "<!-- end of tables -->"
NO_HUB: Final = "not run here: the data set cannot be had without the hub"
NOT_YET: Final = "not run in full yet"
NO_GPU: Final = "not run here: trains policies of 8 billion weights"
ELSEWHERE: Final = (
    ("2: ladder of Ind-m and Pro-n", "`make scaling-study`", "[scaling.md](scaling.md)"),
    ("3: ablation of the stages", "`make ablation`", NOT_YET),
    ("5: LaMP-QA, cold start", "`pgenrm bench lampqa` ([bench.md](bench.md#lamp-qa))", NO_HUB),
    ("7: weights of the rewards", "`make ablation`", NOT_YET),
    ("13: number of prototypes", "`make scaling-study`", "[scaling.md](scaling.md)"),
    ("policies trained with the judge", "`pgenrm train rl`", NO_GPU),
    ("figure: spectrum and accuracy by k", "`make scaling-study`", "[scaling.md](scaling.md)"),
    ("figure: map of prototypes", "`make scaling-study`", "[scaling.md](scaling.md)"),
)
"""What other commands repeat: what, command, where our numbers stand or why there are none."""


def rewrite(page: Path, found: Mapping[str, Bench], why_no_model: str) -> None:
    """Replace the tables in docs/paper.md.

    Args:
        page: the file; left alone where it is missing.
        found: benches of the study by name.
        why_no_model: why the language model could not be loaded, or nothing.

    Raises:
        SystemExit: the page has no place for the tables.
    """
    if not page.exists():
        return
    text = page.read_text("utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{page} has no place for the tables; put {BEGIN} and {END} into it")
    tables = "\n\n".join([_table_1(found, why_no_model), _table_12(found), _others(found)])
    between = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    page.write_text(between.sub(lambda _: f"{BEGIN}\n\n{tables}\n\n{END}", text), "utf-8")


def _table_1(found: Mapping[str, Bench], why_no_model: str) -> str:
    rows = [
        [
            row.label,
            quoted(row, "arena_8b"),
            quoted(row, "prism_8b"),
            f"`--methods {name}`",
            _accuracy(found.get("all"), name),
            _of_model(found, name, why_no_model),
        ]
        for name, row in published().table_1.items()
    ]
    head = ("table 1", "Arena 8B", "PRISM 8B", "`make bench`, or `pgenrm bench sim` with")
    return markdown((*head, "ours, no language model", "ours, with the model"), rows)


def _of_model(found: Mapping[str, Bench], name: str, why_no_model: str) -> str:
    if name in NOT_RUN:
        return f"not run: {NOT_RUN[name]}"
    if "model" not in found:
        return f"not run: {why_no_model}" if why_no_model else NOTHING
    for bench in ("model", "model-judges", "model-synthesize-me"):
        if (figure := _accuracy(found.get(bench), name)) != NOTHING:
            return f"{figure} ({len(found[bench].items):,} comparisons)"
    return NOTHING


def _accuracy(bench: Bench | None, name: str) -> str:
    if bench is None or name not in bench.methods:
        return NOTHING
    return accuracy(bench.methods[name])


def _table_12(found: Mapping[str, Bench]) -> str:
    rows = [
        [
            str(n),
            f"{published().table_12[n]:.2f}" if n in published().table_12 else NOTHING,
            f"`--methods pgenrm --history {n}`",
            _accuracy(found.get(f"history-{n}"), "pgenrm"),
            _accuracy(found.get(f"model-history-{n}"), "pgenrm"),
        ]
        for n in HISTORY_SIZES
    ]
    head = ("table 12: past choices", "Arena 8B", "`make bench`, or `pgenrm bench sim` with")
    return markdown((*head, "ours, no language model", "ours, with the model"), rows)


def _others(found: Mapping[str, Bench]) -> str:
    rows: list[Row] = [list(row) for row in ELSEWHERE]
    rows.insert(2, ["4: persona or signals of the user", "`make bench`", _personas(found)])
    rows.insert(5, ["10: mean over prototypes", "`make bench`", _over_prototypes(found)])
    rows.append(["time on a test set", "`make bench`", _time(found)])
    return markdown(("the paper's other tables", "command", "ours"), rows)


def _personas(found: Mapping[str, Bench]) -> str:
    names = ("judge-cot", "synthesize-me", "judge-psi")
    figures = {n: _of_model(found, n, "") for n in names}
    if set(figures.values()) == {NOTHING}:
        return "not run here: no language model"
    return ", ".join(f"{name} {figure}" for name, figure in figures.items())


def _over_prototypes(found: Mapping[str, Bench]) -> str:
    names = ("gpo", "vpl", "pal-a", "lore", "pgenrm-ind8", "pgenrm-ind8-pro4")
    shown = (
        f"{name} {percent(found['all'].methods[name].parts[ALL].prototype_macro)}"
        for name in names
        if name in found["all"].methods
    )
    return ", ".join(shown) + "; by prototype: [report](report-all.html)"


def _time(found: Mapping[str, Bench]) -> str:
    bench = found.get("model")
    if bench is None:
        return "not run here: no language model"
    names = ("judge-psi", "pgenrm", "pgenrm-ind8", "pgenrm-ind16-pro8")
    return ", ".join(
        f"{name} {seconds(bench.methods[name].cost.seconds)} s a comparison"
        for name in names
        if name in bench.methods and not bench.methods[name].cost.cached_share
    )
