"""Results as CSV."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from pgenrm.bench.results import BenchResult, MethodResult, Part, Ranking
from pgenrm.types import Outcome


def csv_table(result: BenchResult) -> str:
    """Write a line for every method and part of the comparisons; shares are in [0, 1].

    Where policies were ranked, a line for every method and domain.
    """
    rows = [_csv_row(method, name, part) for method, name, part in _parts(result)]
    rows = rows or [row for ranking in result.rankings for row in _ranking_rows(ranking)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["method"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _ranking_rows(ranking: Ranking) -> Iterator[dict[str, Any]]:
    for domain, found in (*ranking.by_domain.items(), ("mean", ranking.mean)):
        low, high = (found.interval if found else None) or (None, None)
        yield {
            "method": ranking.name,
            "domain": domain,
            "correlation": found.value if found else None,
            "correlation_low": low,
            "correlation_high": high,
            "n_questions": ranking.n_questions,
            "n_unscored": ranking.n_unscored,
        }


def _parts(result: BenchResult) -> Iterator[tuple[MethodResult, str, Part]]:
    for method in result.methods:
        for name, part in method.parts.items():
            yield method, name, part


def _csv_row(method: MethodResult, name: str, part: Part) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": method.name,
        "kind": method.kind,
        "part": name,
        "n": part.n,
        "n_users": part.n_users,
        "n_runs": len(method.seeds),
    }
    against = part.versus_best
    for column, found in (
        ("accuracy", part.accuracy),
        ("decided_accuracy", part.decided_accuracy),
        ("user_macro", part.user_macro),
        ("prototype_macro", part.prototype_macro),
        ("versus_best", against.by if against else None),
    ):
        low, high = (found.interval if found else None) or (None, None)
        row |= {
            column: found.value if found else None,
            f"{column}_low": low,
            f"{column}_high": high,
        }
    row |= {outcome.value: part.outcomes[outcome] for outcome in Outcome}
    return row | {
        "coverage": part.coverage,
        "best_baseline": against.to if against else None,
        "order_consistency": method.order_consistency,
        "expected_calibration_error": method.calibration.error if method.calibration else None,
        "is_calibrated": method.calibration.is_calibrated if method.calibration else None,
        "mean_of_runs": method.mean_of_runs,
        "error_of_runs": method.error_of_runs,
        "n_chains": method.cost.n_chains,
        "n_prompt_tokens": method.cost.n_prompt_tokens,
        "n_completion_tokens": method.cost.n_completion_tokens,
        "seconds": method.cost.seconds,
        "adapt_seconds": method.cost.adapt_seconds,
        "fit_seconds": method.cost.fit_seconds,
        "version": " ".join(method.versions),
    }
