"""Results as Markdown, and how numbers are written everywhere."""

import re
from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from shlex import join
from typing import Final

from pgenrm.bench.metrics import ALL
from pgenrm.bench.plan import Command
from pgenrm.bench.published import MeanAndError, PublishedRow, published
from pgenrm.bench.results import BenchResult, MethodResult, Part
from pgenrm.bench.statistics import Estimate
from pgenrm.data.reward_bench import DOMAINS
from pgenrm.scaling.reliability import N_BINS
from pgenrm.types import Outcome

STUDY: Final = "prompt_study_prism"
PUBLISHED = {
    "arena_8b": "Arena 8B",
    "arena_70b": "Arena 70B",
    "prism_8b": "PRISM 8B",
    "prism_70b": "PRISM 70B",
    STUDY: "PRISM o3, 15 % sample",
}
"""Columns of table 1, and the study of prompts, which has no errors."""
PARTS = {ALL: "all", "test_seen": "seen users", "test_unseen": "unseen users", "hard": "hard pairs"}


def percent(found: Estimate | None) -> str:
    """Write a share in percent with its interval, without the sign.

    >>> percent(Estimate(value=0.755, interval=(0.71, 0.8)))
    '75.5 [71.0, 80.0]'
    """
    if found is None:
        return "-"
    if found.interval is None:
        return f"{100 * found.value:.1f}"
    return f"{100 * found.value:.1f} [{100 * found.interval[0]:.1f}, {100 * found.interval[1]:.1f}]"


def points(found: Estimate | None) -> str:
    """Write a difference of shares in points.

    >>> points(Estimate(value=-0.02, interval=(-0.05, 0.01)))
    '-2.0 [-5.0, +1.0]'
    """
    if found is None:
        return "-"
    if found.interval is None:
        return f"{100 * found.value:+.1f}"
    low, high = found.interval
    return f"{100 * found.value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def correlation(found: Estimate | None) -> str:
    """Write a correlation with its interval.

    >>> correlation(Estimate(value=0.6, interval=(0.2, 0.94)))
    '.600 [.200, .940]'
    """
    if found is None:
        return "-"
    value, *interval = map(decimal, (found.value, *(found.interval or ())))
    return f"{value} [{', '.join(interval)}]" if interval else value


def decimal(value: float) -> str:
    """Write a number in [-1, 1] without its leading zero.

    >>> decimal(0.543), decimal(-0.2), decimal(1)
    ('.543', '-.200', '1.000')
    """
    return f"{value:.3f}".replace("0.", ".", 1)


def quoted(row: PublishedRow | None, column: str) -> str:
    """Write a published number: mean ± standard error in percent."""
    found: MeanAndError | None = getattr(row, column) if row else None
    return f"{found[0]:.2f} ± {found[1]:.2f}" if found else "-"


def quoted_of(method: str, column: str) -> str:
    """Write what stands in one of the columns `PUBLISHED` for a method.

    >>> quoted_of("judge-psi", "prism_8b"), quoted_of("judge-psi", STUDY), quoted_of("lore", STUDY)
    ('58.33 ± 0.51', '66.17', '-')
    """
    if column != STUDY:
        return quoted(published().table_1.get(method), column)
    value = published().prompt_study_prism.get(method)
    return "-" if value is None else f"{value:.2f}"


def share_of(part: Part, outcome: Outcome) -> float:
    """Return the share of the comparisons, over all runs, with this outcome."""
    return part.outcomes[outcome] / sum(part.outcomes.values())


def markdown(result: BenchResult, commands: Sequence[Command]) -> str:
    """Write the tables and how they came about."""
    plan = result.plan
    lines = [
        f"# Results on {plan.dataset}",
        "",
        f"{sum(plan.n_items.values()):,} comparisons "
        f"({', '.join(f'{n:,} {PARTS.get(s, s)}' for s, n in plan.n_items.items())}), "
        f"{plan.n_train:,} to train on. Data: {plan.revision}.",
        "",
        "Accuracy in percent: correct / all comparisons, so that ties and unscored ones count as "
        "wrong. In brackets the 95 % bootstrap interval over users.",
    ]
    if result.best_baseline:
        lines.append(
            f"Differences are paired, against the best baseline here, `{result.best_baseline}`."
        )
    if writers := chain_writers(result, code):
        lines += ["", writers]
    if result.rankings:
        lines += ["", *_ranking_table(result)]
    lines += ["", *_main_table(result), "", *_detail_table(result)]
    if errors := about_errors(result.methods):
        lines += ["", errors]
    lines += ["", *_cost_table(result)]
    if result.prepare_seconds is not None:
        lines += ["", prepared(result.prepare_seconds)]
    lines += ["", "## Commands", ""]
    lines += [f"- {c.started_at}: {code(join(c.command))} ({_versions(c)})" for c in commands]
    return "\n".join(lines) + "\n"


def _main_table(result: BenchResult) -> list[str]:
    rows = []
    for method in result.methods:
        if part := method.parts.get(ALL):
            against = part.versus_best
            rows.append(
                [
                    _name(method),
                    percent(part.accuracy),
                    points(against.by) if against else "-",
                    *(quoted_of(method.name, column) for column in PUBLISHED),
                ]
            )
    head = ["method", "accuracy", "against the best baseline"]
    return markdown_table([*head, *(f"*published*: {name}" for name in PUBLISHED.values())], rows)


def _detail_table(result: BenchResult) -> list[str]:
    names = [name for name in PARTS if any(name in m.parts for m in result.methods)][1:]
    rows = []
    for method in result.methods:
        if part := method.parts.get(ALL):
            runs = (
                "-"
                if method.error_of_runs is None
                else (
                    f"{share(method.mean_of_runs)} ± {share(method.error_of_runs)} "
                    f"({len(method.seeds)})"
                )
            )
            rows.append(
                [
                    _name(method),
                    *(
                        percent(method.parts[n].accuracy) if n in method.parts else "-"
                        for n in names
                    ),
                    percent(part.user_macro),
                    percent(part.prototype_macro),
                    percent(part.decided_accuracy),
                    f"{100 * part.coverage:.1f}",
                    f"{100 * share_of(part, Outcome.TIE):.1f}",
                    share(method.order_consistency),
                    calibration_error(method),
                    runs,
                ]
            )
    return markdown_table(
        [
            "method",
            *(PARTS[name] for name in names),
            *("mean over users", "mean over prototypes", "without ties and unscored", "coverage"),
            *("ties", "orders agree", "calibration error", "mean ± error of runs"),
        ],
        rows,
    )


def share(value: float | None) -> str:
    """Write a share in percent.

    >>> share(0.755), share(None)
    ('75.5', '-')
    """
    return "-" if value is None else f"{100 * value:.1f}"


def chain_writers(result: BenchResult, quote: Callable[[str], str] = str) -> str:
    """Say who wrote the chains of which methods, or nothing where no method asks for chains."""
    methods: dict[str, dict[str, None]] = {}
    for method in result.methods:
        for evaluator in method.evaluators if method.cost.n_chains else ():
            methods.setdefault(evaluator, {})[method.name.partition("+")[0]] = None
    parts = [
        f"by {quote(evaluator)}{ATTRIBUTES if evaluator.partition(':')[0] == 'attributes' else ''} "
        f"for {', '.join(names)}"
        for evaluator, names in methods.items()
    ]
    return f"Chains are written {'; '.join(parts)}." if parts else ""


ATTRIBUTES: Final = ", the attribute evaluator and no language model,"


def calibration_error(method: MethodResult) -> str:
    """Write the expected calibration error, where it is known; see `about_errors`."""
    found = method.calibration
    if found is None:
        return "-"
    return share(found.error) if found.is_calibrated else f"({share(found.error)})"


def about_errors(methods: Iterable[MethodResult]) -> str:
    """Say how the calibration errors of these methods are read, or nothing where there are none."""
    found = {m.calibration.is_calibrated: m.parts[ALL].n for m in methods if m.calibration}
    if not found:
        return ""
    n = max(found.values())
    by_chance = (
        f"On {n:,} comparisons, a method that is right exactly as often as it says would by chance "
        f"show a calibration error of about {share(error_by_chance(n))}."
    )
    in_brackets = (
        "Those in brackets are of confidences that were not fitted to what people preferred: they "
        "say how sure it is that more chains would not change the verdict."
    )
    return by_chance if False not in found else f"{by_chance} {in_brackets}"


def error_by_chance(n: int) -> float:
    """Return the mean calibration error, in ten bins, of confidences that are exactly right.

    In a bin the share of right verdicts strays by 0.8 standard deviations on average, and at
    confidences from 0.5 to 0.7 a verdict has one of 0.49. Users are not considered.
    """
    return 0.8 * 0.49 * sqrt(N_BINS / n)


def _cost_table(result: BenchResult) -> list[str]:
    rows = [[_name(method), *costs_of(method)] for method in result.methods]
    return markdown_table(["method", *COSTS], rows)


def prepared(value: float) -> str:
    """Say how long embedding took."""
    return (
        f"Embedding, once for all methods on embeddings, took {seconds(value)} seconds, which is "
        "in no row."
    )


COSTS: Final = (
    "chains",
    "prompt tokens",
    "completion tokens",
    "seconds",
    "seconds to adapt to a user",
    "tokens",
    "seconds to fit",
    "tokens",
    "answers from a cache, %",
)
"""Per comparison, but where they say otherwise."""


def costs_of(method: MethodResult) -> tuple[str, ...]:
    """Write what a method costs, in the order of `COSTS`; a cached answer took no seconds."""
    cost = method.cost
    return (
        f"{cost.n_chains:.1f}" if cost.n_chains else "-",
        count(cost.n_prompt_tokens or None),
        count(cost.n_completion_tokens or None),
        seconds(cost.seconds),
        seconds(cost.adapt_seconds),
        count(cost.adapt_tokens),
        seconds(cost.fit_seconds),
        count(cost.fit_tokens),
        share(cost.cached_share),
    )


def count(value: float | None) -> str:
    """Write how many.

    >>> count(1234.5), count(None)
    ('1,234', '-')
    """
    return "-" if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """Write a duration; below ten seconds with two digits, none below a millisecond.

    >>> seconds(1234.5), seconds(0.01234), seconds(0.0002), seconds(None)
    ('1,234', '0.012', '<0.001', '-')
    """
    if value is None:
        return "-"
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.2g}" if value >= 0.001 else "<0.001"


def _ranking_table(result: BenchResult) -> list[str]:
    rows = [
        [
            ranking.label,
            *(correlation(ranking.by_domain.get(domain)) for domain in DOMAINS),
            correlation(ranking.mean),
            f"{ranking.n_unscored} of {ranking.n_questions}",
        ]
        for ranking in result.rankings
    ]
    rows += [
        [f"*published*: {system}", *map(decimal, row), "-"]
        for system, row in published().table_5.items()
    ]
    names = (domain.replace("_", " ") for domain in DOMAINS)
    return markdown_table(
        ["ranking of policies (Spearman)", *names, "mean", "questions left out"], rows
    )


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a table line by line; all columns but the first are aligned to the right."""
    marks = ["---"] + ["---:"] * (len(head) - 1)
    return ["| " + " | ".join(row) + " |" for row in (head, marks, *rows)]


def code(text: str) -> str:
    """Write code in Markdown; the fence is longer than any run of backticks in the text."""
    text = " ".join(text.split("\n"))  # a code span is one line
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def _name(method: MethodResult) -> str:
    label = method.label.replace("|", "\\|")
    return label + (f" (incomplete: {method.n_missing} missing)" if method.n_missing else "")


def _versions(command: Command) -> str:
    return ", ".join(f"{name} {version}" for name, version in command.versions.items())
