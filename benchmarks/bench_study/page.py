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
from pgenrm.report.tables import about_errors, chain_writers, code, seconds
from pgenrm.report.write import PAGE, write_report

HEAD: Final = (
    *("", "accuracy", "coverage", "seen users", "unseen users", "hard pairs"),
    *("against the best baseline", "mean ± error of runs", "calibration error"),
    *("*published: Arena 8B*", "*published: PRISM 8B*"),
)
READ: Final = 0.2
"""Coverage below which a model is said not to understand a prompt."""
DIFFERENCES: Final = {
    "GPO": "it sums gradients over an epoch instead of taking a step for each batch of users.",
    "VPL": "it draws contexts from random users, so that it is a plain reward model of 512 units; "
    "the corrected form learns a latent vector of the user, and pays for drawing it.",
    "PAL (A)": "unseen users share one mean of the weights, so that it is a plain reward model; "
    "the corrected form fits every user's weights over five ideal points.",
    "LoRe": "it has no prior on users' weights and takes steps of 0.5; the corrected form has one.",
}
"""What sets published forms apart; told where they are not behind."""


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
        f"others were run with {sizes.n_seeds} seeds where a table gives the error of runs, and "
        f"once everywhere else, as all other methods. {versions}; {last.machine}.",
        "Accuracy in percent: correct / all comparisons, so that ties and unscored ones count as "
        "wrong. In brackets the 95 % bootstrap interval over users. Differences are paired. "
        "*Published* figures are those of the paper's table 1, with its own data and models of "
        "8B: they stand beside ours for the layout, not for comparison.",
    ]
    if why_no_model:
        lines.append(
            f"**Rows are missing**: every row of a language-model judge, and P-GenRM's with chains "
            f"of a language model ({why_no_model})."
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
    why = "needs a language model: see below" if "model" in found else "needs a language model"
    parts = [
        "## Table 1",
        "### All comparisons",
        f"{chain_writers(every.result, code)} The [attribute evaluator](attributes.md) knows no "
        "population. P-GenRM alone is two chains, one in each order; own and neighbours' chains "
        "are blended by the shrinkage that was calibrated on validation users, not by the paper's "
        "mean. The fine-tuned reward model starts from the bundled judge before it was taught to "
        "judge: 2.3 million weights, not 8 billion. P-GenRM, the attribute evaluator and "
        "language-model judges see three past choices of the eight that all other methods see, "
        f"SynthesizeMe among them. Best baseline: `{every.result.best_baseline}`.",
        *_main_table(every, names, why),
    ]
    if of_model := found.get("model"):
        run = [name for name in names if name in of_model.methods]
        parts += [
            "### With the language model",
            f"{_n_of(of_model)}; best baseline: `{of_model.result.best_baseline}`. Methods without "
            "a language model are those above, on these comparisons. "
            f"{chain_writers(of_model.result, code)}",
            *_main_table(of_model, run, ""),
        ]
    parts += _judges(found)
    return "\n\n".join(parts)


def _main_table(bench: tables.Bench, names: Sequence[str], elsewhere: str) -> list[str]:
    table = tables.markdown(HEAD, tables.main_rows(bench, names, elsewhere))
    errors = about_errors(bench.methods[name] for name in names if name in bench.methods)
    return [table, *filter(None, [errors])]


def _judges(found: dict[str, tables.Bench]) -> list[str]:
    """Return what is said of the rows with prompts of their own."""
    benches = [found[name] for name in ("model-judges", "model-synthesize-me") if name in found]
    if not benches:
        return []
    unread = [
        method.label
        for bench in benches
        for method in bench.methods.values()
        if method.parts[ALL].coverage < READ
    ]
    parts = [
        "### Judges with the language model",
        "Judges under prompts of their own, and SynthesizeMe. In this world demographics say "
        "nothing about tastes and nobody names choice attributes, so that these two rows see no "
        "more of the user than the default.",
    ]
    if unread:
        parts.append(
            f"The model gives hardly any readable answer to {', '.join(unread)}; the bundled "
            "judge was taught the prompts of evaluation chains and no others."
        )
    for bench in benches:
        parts += [
            f"{_n_of(bench)}, differences within this table:",
            *_main_table(bench, list(bench.methods), ""),
        ]
    return parts


def _n_of(bench: tables.Bench) -> str:
    """Say how much was judged."""
    n_users = len({item.comparison.user.id for item in bench.items})
    return f"{len(bench.items):,} comparisons of {n_users} users"


def _shuffled(every: tables.Bench, found: dict[str, tables.Bench]) -> str:
    head = ("", "as is", "users shuffled", "difference", "shuffled against none", "")
    rows = tables.altered_rows(every, "shuffled", found.get("history-0"))
    parts = [
        "## What methods owe to their users",
        "Every user is judged as somebody else, with his history and statements. *Falls*: the "
        "interval of the difference lies below 0; a method that does not fall uses nothing of what "
        'it is shown of its users. "Shuffled against none": against the same method '
        "shown no past choice of anybody, which is the population's level, over the seeds of both; "
        "statements are the user's own there, and Pro-4 has no such form. Left out "
        "are P-GenRM's other numbers of chains and aggregators, SynthesizeMe, and methods that see "
        "nothing of a user.",
        tables.markdown(head, rows),
        "Past choices turned round, chosen for rejected:",
        tables.markdown(
            ("", "as is", "turned round", "difference", "turned round against none", ""),
            tables.altered_rows(every, "flipped", found.get("history-0")),
        ),
    ]
    if of_model := found.get("model"):
        rows = tables.altered_rows(of_model, "shuffled", found.get("model-history-0"))
        parts += ["With the language model:", tables.markdown(head, rows)]
    return "\n\n".join(parts)


def _variants(every: tables.Bench) -> str:
    rows = tables.variant_rows(every)
    apart = [f"- {row[0]}: {DIFFERENCES[row[0]]}" for row, is_ahead in rows if not is_ahead]
    parts = [
        "## Corrected against published",
        "PAL (B) has no published form that could be run: the public script draws an untrained "
        "layer at every call.",
        tables.markdown(
            ("", "corrected", "published", "difference", "by seed"), [row for row, _ in rows]
        ),
    ]
    if apart:
        parts += [
            "Where the corrected form is not ahead with every seed, this is what the published one "
            "does otherwise; which of it decides was not taken apart:",
            "\n".join(apart),
            "What a form can learn of a user hangs on what its embeddings say of a text: "
            "`python -m benchmarks.frozen_reasons` fits all of them where a text is what it truly "
            "has, and there the corrected forms learn users ([log](log.md)).",
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
            parts += [f"{n_items:,} comparisons, {what}; one seed.", tables.markdown(head, rows)]
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
    head = (
        *("", "chains", "tokens", "seconds for 1,000 comparisons", "% from the cache"),
        "seconds to fit",
    )
    parts = [
        "## What it costs",
        "Two methods at a time, one core each; embedding all texts before, once for all methods "
        f"on embeddings, took {seconds(every.result.prepare_seconds)} s on two cores.",
        tables.markdown(head, tables.cost_rows(every, names)),
    ]
    if by_model:
        asking = [n for n in names if n in by_model.methods and by_model.methods[n].cost.n_chains]
        parts += [
            "With the language model, one method at a time on two cores. Seconds are those of what "
            "was not in the cache.",
            tables.markdown(head, tables.cost_rows(by_model, asking)),
        ]
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
