"""Write docs/results.md and the reports: sentences from here, numbers from the records."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.bench_study import paper, tables
from benchmarks.bench_study.steps import HISTORY_SIZES, Sizes
from benchmarks.bench_study.steps import Bench as Step

from pgenrm.bench.metrics import ALL, HARD
from pgenrm.bench.plan import read_commands
from pgenrm.bench.results import MethodResult
from pgenrm.bench.rows import ROWS, Kind
from pgenrm.data.dataset import TEST_UNSEEN
from pgenrm.report.write import PAGE, write_report

HEAD: Final = (
    *("", "accuracy", "coverage", "seen users", "unseen users", "hard pairs"),
    *("against the best baseline", "mean ± error of runs", "calibration error"),
    *("*published: Arena 8B*", "*published: PRISM 8B*"),
)
READ: Final = 0.2
"""Coverage below which a model is said not to understand a prompt."""
REASONS: Final = {
    "GPO": "The published form sees the same choices, and its gradients, summed over an epoch, "
    "amount to a larger step.",
    "VPL": "Latent vectors from three choices of random users are noise, so that the published "
    "form is a plain reward model, whose 512 units and small steps learn the population as well; "
    "the corrected form pays for what it draws.",
    "PAL (A)": "Weights that are the same for all unseen users make the published form a plain "
    "reward model; five ideal points in one space are a poor fit for the tastes of this world.",
    "LoRe": "The published form has no prior and steps of 0.5, and can fit directions of any "
    "length; with enough choices per user that costs it little.",
}
"""What may be why a corrected form does not win; none of it is tested."""


def write(
    out: Path,
    docs: Path,
    sizes: Sizes,
    steps: Sequence[Step],
    why_no_model: str,
    arguments: Sequence[str],
) -> None:
    """Count everything and write the pages.

    Args:
        out: of the study.
        docs: directory of the pages.
        sizes: of the study.
        steps: that were run.
        why_no_model: why the language model could not be loaded, or nothing.
        arguments: of the command line.
    """
    every = tables.Bench(out / "all")
    found = {s.name: tables.Bench(out / s.name) for s in steps if tables.is_there(out / s.name)}
    by_model = found.get("model")
    parts = [
        _opening(out, every, sizes, steps, why_no_model, arguments),
        _table_1(every, found, why_no_model),
        _shuffled(every, found),
        _variants(every),
        _histories(found),
        _hard(every, by_model),
        _costs(every, by_model),
        _commands(out, sizes, steps),
    ]
    docs.mkdir(parents=True, exist_ok=True)
    paper.rewrite(docs / "paper.md", found, why_no_model)
    (docs / "results.md").write_text("\n\n".join(part for part in parts if part) + "\n", "utf-8")
    for name in ("all", "model"):
        if name in found:
            write_report(out / name, out / "reports" / name, n_samples=1)
            shutil.copy(out / "reports" / name / PAGE, docs / f"report-{name}.html")


def _opening(
    out: Path,
    every: tables.Bench,
    sizes: Sizes,
    steps: Sequence[Step],
    why_no_model: str,
    arguments: Sequence[str],
) -> str:
    plan = every.result.plan
    last = read_commands(out / "all")[-1]
    unseen = _any(every).parts[TEST_UNSEEN]
    command = " ".join(["python -m benchmarks.bench_study", *arguments])
    models = sorted({step.model for step in steps if step.model})
    versions = ", ".join(f"{name} {version}" for name, version in last.versions.items())
    lines = [
        "# Results on the simulated world",
        f"By `make bench` (`{command}`), {last.started_at[:10]}; this page and the reports beside "
        "it are written by that command from the records that it keeps. "
        f"Reports: [all methods](report-all.html)"
        + (", [with the language model](report-model.html)." if models else "."),
        f"{sum(plan.n_items.values()):,} comparisons, {unseen.n:,} of them of {unseen.n_users} "
        f"unseen users; {plan.n_train:,} to train on; {plan.revision}. Methods that learn from "
        f"others were run with {sizes.n_seeds} seeds. {versions}; {last.machine}.",
        "Accuracy in percent: correct / all comparisons, so that ties and unscored ones count as "
        "wrong. In brackets the 95 % bootstrap interval over users. Differences are paired. "
        "*Published* figures are those of the paper's table 1, with its own data and models of "
        "8B: they stand beside ours for the layout, not for comparison.",
    ]
    if why_no_model:
        lines.append(
            f"**Rows are missing**: every row of a language-model judge, and P-GenRM's with chains "
            f"of a language model, since the model could not be loaded ({why_no_model})."
        )
    if models:
        lines.append(
            f"Language model: `{', '.join(models)}`. It judges fewer comparisons, as the tables "
            "say: a chain takes it as long as whole methods without one take for all of them."
        )
    return "\n\n".join(lines)


def _any(bench: tables.Bench) -> MethodResult:
    """Return some method: all have judged the same."""
    return next(iter(bench.methods.values()))


def _table_1(every: tables.Bench, found: dict[str, tables.Bench], why_no_model: str) -> str:
    references = [row.name for row in ROWS if row.kind in {Kind.CONTROL, Kind.REFERENCE}]
    names = [*tables.table_1_names(), *references]
    why = "needs a language model, see the next table"
    parts = [
        "## Table 1",
        "### All comparisons",
        "P-GenRM's chains are written by the [attribute evaluator](attributes.md), which knows no "
        "population. P-GenRM alone is two chains, one in each order; own and neighbours' chains "
        "are blended by the shrinkage that was calibrated on validation users, not by the paper's "
        "mean. P-GenRM and language-model judges see three past choices of the eight that all "
        f"other methods see. Best baseline: `{every.result.best_baseline}`.",
        tables.markdown(HEAD, tables.main_rows(every, names, why_no_model or why)),
    ]
    if of_model := found.get("model"):
        n = sum(of_model.result.plan.n_items.values())
        parts += [
            "### With the language model",
            f"{n} comparisons, all by the same methods; best baseline: "
            f"`{of_model.result.best_baseline}`.",
            tables.markdown(HEAD, tables.main_rows(of_model, names, "see the table above")),
        ]
    parts += _judges(found)
    return "\n\n".join(parts)


def _judges(found: dict[str, tables.Bench]) -> list[str]:
    """Return what is said of the rows with prompts of their own."""
    benches = [found[name] for name in ("model-judges", "model-synthesize-me") if name in found]
    if not benches:
        return []
    rows = [row for bench in benches for row in tables.main_rows(bench, list(bench.methods), "")]
    counts = " and ".join(str(sum(b.result.plan.n_items.values())) for b in benches)
    said = f"{counts} comparisons: judges under prompts of their own, and SynthesizeMe."
    unread = [
        method.label
        for bench in benches
        for method in bench.methods.values()
        if method.parts[ALL].coverage < READ
    ]
    if unread:
        said += (
            f" The model gives hardly any readable answer to {', '.join(unread)}; the bundled "
            "judge was taught the prompts of evaluation chains and no others."
        )
    return ["### Judges with the language model", said, tables.markdown(HEAD, rows)]


def _shuffled(every: tables.Bench, found: dict[str, tables.Bench]) -> str:
    head = ("", "as is", "users shuffled", "difference", "shuffled against none", "")
    rows = tables.shuffled_rows(every, found.get("history-0"))
    parts = [
        "## What methods owe to their users",
        "Every user is judged as somebody else, with his history and statements. *Falls*: the "
        "interval of the difference lies below 0; a method that does not fall uses nothing of its "
        'users. "Shuffled against none": against the same method '
        "shown no past choice of anybody, which is the population's level; statements are the "
        "user's own there.",
        tables.markdown(head, rows),
    ]
    if of_model := found.get("model"):
        rows = tables.shuffled_rows(of_model, found.get("model-history-0"))
        parts += ["With the language model:", tables.markdown(head, rows)]
    return "\n\n".join(parts)


def _variants(every: tables.Bench) -> str:
    rows = tables.variant_rows(every)
    reasons = [f"- {row[0]}: {REASONS[row[0]]}" for row, gain in rows if not tables.is_above(gain)]
    parts = [
        "## Corrected against published",
        "PAL (B) has no published form that could be run: the public script draws an untrained "
        "layer at every call.",
        tables.markdown(("", "corrected", "published", "difference"), [row for row, _ in rows]),
    ]
    if reasons:
        parts += [
            "Where the corrected form is not clearly ahead, this may be why (not tested):",
            "\n".join(reasons),
        ]
    return "\n\n".join(parts)


def _histories(found: dict[str, tables.Bench]) -> str:
    parts = ["## Number of past choices (table 12)"]
    head = ("past choices", *map(str, HISTORY_SIZES))
    for prefix, what in (("", "without a language model"), ("model-", "with the language model")):
        names = {n: f"{prefix}history-{n}" for n in HISTORY_SIZES}
        benches = {n: found[name] for n, name in names.items() if name in found}
        if benches:
            plan = next(iter(benches.values())).result.plan
            n_items = sum(plan.n_items.values())
            rows = tables.history_rows(benches, is_published=True)
            parts += [f"{n_items:,} comparisons, {what}.", tables.markdown(head, rows)]
    return "\n\n".join(parts)


def _hard(every: tables.Bench, by_model: tables.Bench | None) -> str:
    names = [row.name for row in ROWS]
    part = _any(every).parts[HARD]
    parts = [
        "## Hard negatives",
        f"Pairs without a flawed response that most prototypes hardly tell apart and this user "
        f"does: {part.n} of all comparisons.",
        tables.markdown(("", "all", "hard pairs"), tables.hard_rows(every, names)),
    ]
    if by_model and HARD in _any(by_model).parts:
        n = _any(by_model).parts[HARD].n
        rows = tables.hard_rows(by_model, names)
        parts += [
            f"With the language model, {n} hard pairs:",
            tables.markdown(("", "all", "hard pairs"), rows),
        ]
    return "\n\n".join(parts)


def _costs(every: tables.Bench, by_model: tables.Bench | None) -> str:
    names = [row.name for row in ROWS]
    head = ("", "chains", "tokens", "seconds for 1,000 comparisons", "seconds to fit")
    parts = ["## What it costs", tables.markdown(head, tables.cost_rows(every, names))]
    if by_model:
        rows = tables.cost_rows(by_model, names)
        parts += ["With the language model:", tables.markdown(head, rows)]
    return "\n\n".join(parts)


def _commands(out: Path, sizes: Sizes, steps: Sequence[Step]) -> str:
    took: dict[str, float] = {}
    for line in (out / "steps.tsv").read_text().splitlines():
        name, seconds, _ = line.split("\t")
        took[name] = took.get(name, 0.0) + float(seconds)
    lines = [
        f"- `pgenrm {' '.join(step.command(Path('OUT'), sizes))}`: {took.get(step.name, 0):,.0f} s"
        for step in steps
    ]
    total = f"The commands, {sum(took.values()) / 60:.0f} minutes together:"
    return "\n\n".join(["## Commands", total, "\n".join(lines)])
