"""One HTML page about a bench: everything in one file, nothing to load from elsewhere.

Every text of a user or a model is escaped by the template; the page's script handles no text, it
only hides and shows what the template wrote.
"""

from collections.abc import Sequence
from importlib.resources import files
from shlex import join

import jinja2

from pgenrm.bench.metrics import ALL, HARD
from pgenrm.bench.plan import Command
from pgenrm.bench.published import published
from pgenrm.bench.results import BenchResult, MethodResult
from pgenrm.bench.rows import Kind
from pgenrm.data.reward_bench import DOMAINS
from pgenrm.report.drawing import bar, curve, ladder, scale_of
from pgenrm.report.samples import Aspect, Sample
from pgenrm.report.tables import (
    COSTS,
    PARTS,
    PUBLISHED,
    about_errors,
    calibration_error,
    chain_writers,
    correlation,
    costs_of,
    decimal,
    percent,
    points,
    prepared,
    quoted_of,
    share,
    share_of,
)
from pgenrm.types import Outcome


def page(result: BenchResult, commands: Sequence[Command], samples: Sequence[Sample]) -> str:
    """Write the page as HTML.

    Args:
        result: of the bench.
        commands: that wrote to it.
        samples: judgments to browse.
    """
    counted = [method for method in result.methods if ALL in method.parts]
    source = files("pgenrm.report").joinpath("page.html.jinja").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "calibration_error": calibration_error,
        "percent": percent,
        "points": points,
        "costs_of": costs_of,
        "prepared": prepared,
        "share": share,
        "correlation": correlation,
        "decimal": decimal,
    }
    return environment.from_string(source).render(
        result=result,
        plan=result.plan,
        commands=commands,
        costs=COSTS,
        methods=counted,
        kinds=[kind for kind in Kind if any(m.kind is kind for m in counted)],
        parts={name: title for name, title in PARTS.items() if _has(counted, name)},
        ALL=ALL,
        HARD=HARD,
        scale=scale_of([method.parts[ALL].accuracy for method in counted]),
        bar=bar,
        curve=curve,
        ladder=ladder(result),
        calibrated=[m for m in counted if m.calibration and m.kind is not Kind.ALTERED],
        about_errors=about_errors(counted),
        chain_writers=chain_writers(result),
        grouped=[m for m in counted if m.groups and _is_shown_by_prototype(m, result)],
        scale_of=scale_of,
        published=published(),
        columns=PUBLISHED,
        quoted_of=quoted_of,
        share_of=share_of,
        outcomes=Outcome,
        shell_line=join,
        domains=DOMAINS,
        samples=samples,
        sampled={s.method: s.label for s in samples},
        aspects=[aspect for aspect in Aspect if any(s.aspect is aspect for s in samples)],
    )


def _has(methods: Sequence[MethodResult], part: str) -> bool:
    return any(part in method.parts for method in methods)


def _is_shown_by_prototype(method: MethodResult, result: BenchResult) -> bool:
    return method.kind is Kind.OURS or method.name == result.best_baseline
