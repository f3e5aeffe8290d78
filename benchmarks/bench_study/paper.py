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
LAMPQA: Final = "`pgenrm bench lampqa` ([bench.md](bench.md#lamp-qa))"
WITH: Final = "`make bench`, or `pgenrm bench sim --folder runs/bench-study/world --seed 511` with"
NO_GPU: Final = "not run here: trains policies of 8 billion weights"
SCALING: Final = "`make scaling-study`"
LADDER: Final = "[scaling.md](scaling.md#1-the-ladder)"
PROTOTYPES: Final = "[scaling.md](scaling.md#4-prototypes)"
ABLATION: Final = "`make ablation`"
ELSEWHERE: Final = (
    ("policies trained with the judge", NOTHING, NO_GPU),
    ("figure: spectrum and accuracy by k", SCALING, PROTOTYPES),
    ("figure: map of prototypes", SCALING, PROTOTYPES),
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
    tables = "\n\n".join(
        [
            _table_1(found, why_no_model),
            _table_12(found),
            _by_accuracy(page.parent, found),
            _rankings(),
            _others(found),
        ]
    )
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
    head = ("table 1", "Arena 8B", "PRISM 8B", WITH)
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
    head = ("table 12: past choices", "Arena 8B", WITH)
    return markdown((*head, "ours, no language model", "ours, with the model"), rows)


def _by_accuracy(docs: Path, found: Mapping[str, Bench]) -> str:
    """Write the tables that other studies repeat, row by row."""
    ours = published()
    ablation = "[ablation.md](ablation.md)" if (docs / "ablation.md").exists() else NOT_YET
    rungs = {_rung(r.m, r.n): (r.arena, r.prism) for r in ours.table_2}
    rows: list[Row] = []
    for number, table, command, where in (
        ("2", rungs, SCALING, LADDER),
        ("3", ours.table_3, ABLATION, ablation),
        ("4", ours.table_4, "`make bench`", None),
        ("7", ours.table_7, ABLATION, ablation),
        ("13", ours.table_13, SCALING, PROTOTYPES),
    ):
        rows += [
            [number, row, f"{arena:.2f}", f"{prism:.2f}", command, where or _persona(row, found)]
            for row, (arena, prism) in table.items()
        ]
    return markdown(("table", "row", "Arena 8B", "PRISM 8B", "command", "ours"), rows)


def _rung(m: int, n: int) -> str:
    return f"Ind-{m}" + (f", Pro-{n}" if n else "")


def _rankings() -> str:
    rows = [
        [system, *(f"{value:.3f}" for value in values), LAMPQA, NO_HUB]
        for system, values in published().table_5.items()
    ]
    head = ("table 5: Spearman", "arts", "personal development", "society", "mean")
    return markdown((*head, "command", "ours"), rows)


def _others(found: Mapping[str, Bench]) -> str:
    quotes = ", ".join(f"{name} {value:.2f}" for name, value in published().table_10.items())
    rows: list[Row] = [
        [f"10: mean over prototypes (PRISM: {quotes})", "`make bench`", _over_prototypes(found)],
        *(list(row) for row in ELSEWHERE),
        ["time on a test set", "`make bench`", _time(found)],
    ]
    return markdown(("what else the paper has", "command", "ours"), rows)


def _persona(row: str, found: Mapping[str, Bench]) -> str:
    """Return our figure for a row of table 4, whatever model its judge is."""
    names = {"SynthesizeMe": "synthesize-me", "PSI": "judge-psi"}
    name = names.get(row.rpartition("+ ")[2], "judge-cot")
    figure = _of_model(found, name, "")
    return "not run here: no language model" if figure == NOTHING else f"{name} {figure}"


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
