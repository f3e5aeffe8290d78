"""Which judgments of a bench are shown: of every method a few of each kind.

None of a method with altered users: what it says of a user is about somebody else.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from pgenrm.bench.plan import Item, read_items
from pgenrm.bench.records import Record, find_tasks, read_judgments_at, read_records
from pgenrm.bench.rows import Kind, place_of, row_of
from pgenrm.seeding import derive_seed
from pgenrm.types import Comparison, JudgedChain, Judgment, Outcome, Value
from pgenrm.verdict import typical_chain


class Aspect(StrEnum):
    """Why a judgment is shown."""

    RIGHT = "right"
    WRONG = "wrong"
    TIED = "tied"
    UNSCORED = "unscored"
    MISTAKE = "most confident mistake"


OF_OUTCOME = {
    Outcome.CORRECT: Aspect.RIGHT,
    Outcome.WRONG: Aspect.WRONG,
    Outcome.TIE: Aspect.TIED,
    Outcome.UNSCORED: Aspect.UNSCORED,
}


class Line(Value):
    """A criterion of a rubric with what each response got."""

    share: float
    """Of the weights, in [0, 1]."""
    name: str
    description: str
    scores: tuple[float | None, ...]
    """By response of the comparison."""
    reasons: tuple[str, ...]


class Sample(Value):
    """A judgment as it is shown."""

    method: str
    label: str
    aspect: Aspect
    split: str
    is_hard: bool
    comparison: Comparison
    scores: tuple[float | None, ...]
    choice: int | None
    confidence: float | None
    is_calibrated: bool
    n_chains: int
    preferences: str | None
    """Of the most typical chain; None where there is none."""
    rationale: str | None
    rubric: tuple[Line, ...]
    failures: tuple[str, ...]
    """Distinct reasons."""


def samples(out: Path, n_each: int = 3) -> list[Sample]:
    """Draw judgments by the hash of their comparison, so that methods show the same ones.

    Args:
        out: directory of a bench.
        n_each: of every method and aspect.
    """
    items = {item.comparison.id: item for item in read_items(out)}
    first_runs: dict[str, Path] = {}
    for task, path in find_tasks(out).items():
        if row_of(task.method).kind is not Kind.ALTERED:
            first_runs.setdefault(task.method, path)
    found: list[Sample] = []
    for name in sorted(first_runs, key=_shown_first):
        path = first_runs[name]
        chosen = choose(read_records(path), n_each)
        judgments = read_judgments_at(path, {r.line for rows in chosen.values() for r in rows})
        found += [
            _sample(name, aspect, items[record.id], judgments[record.line])
            for aspect, records in chosen.items()
            for record in records
        ]
    return found


def _shown_first(name: str) -> tuple[bool, tuple[int, int, str]]:
    """Put the methods first whose reasons are the point."""
    return row_of(name).kind is not Kind.OURS, place_of(name)


def choose(records: Iterable[Record], n_each: int) -> Mapping[Aspect, Sequence[Record]]:
    """Choose records for every aspect; a most confident mistake is no other wrong one."""
    by_aspect: dict[Aspect, list[Record]] = {aspect: [] for aspect in Aspect}
    for record in records:
        if record.outcome is not None:
            by_aspect[OF_OUTCOME[record.outcome]].append(record)
    wrong = sorted(by_aspect[Aspect.WRONG], key=_certainty, reverse=True)
    by_aspect[Aspect.MISTAKE] = wrong[:n_each]
    by_aspect[Aspect.WRONG] = wrong[n_each:]
    for aspect in OF_OUTCOME.values():
        by_aspect[aspect].sort(key=lambda record: derive_seed("sample", record.id))
    return {aspect: chosen[:n_each] for aspect, chosen in by_aspect.items()}


def _certainty(record: Record) -> tuple[float, float]:
    """Return confidence, then margin: many methods have no confidence."""
    scores = sorted(score for score in record.scores if score is not None)
    return record.confidence or 0.0, scores[-1] - scores[-2] if len(scores) > 1 else 0.0


def _sample(method: str, aspect: Aspect, item: Item, judgment: Judgment) -> Sample:
    shown = typical_chain(judgment) if judgment.chains else None
    return Sample(
        method=method,
        label=row_of(method).label,
        aspect=aspect,
        split=item.split,
        is_hard=bool(item.is_hard),
        comparison=item.comparison,
        scores=judgment.scores,
        choice=judgment.choice,
        confidence=judgment.confidence,
        is_calibrated=judgment.is_calibrated,
        n_chains=len(judgment.chains),
        preferences=shown.chain.preferences if shown else None,
        rationale=shown.chain.rationale if shown else None,
        rubric=_rubric(shown) if shown else (),
        failures=tuple(dict.fromkeys(failed.failure.reason for failed in judgment.failures)),
    )


def _rubric(judged: JudgedChain) -> tuple[Line, ...]:
    """Return the rubric of a chain, heaviest criterion first, by response instead of position."""
    chain, positions = judged.chain, _positions(judged.order)
    total = sum(criterion.weight for criterion in chain.criteria) or 1.0
    lines = []
    for i, criterion in enumerate(chain.criteria):
        given = [chain.ratings[p][i] if chain.ratings else None for p in positions]
        lines.append(
            Line(
                share=criterion.weight / total,
                name=criterion.name,
                description=criterion.description,
                scores=tuple(rating.score if rating else None for rating in given),
                reasons=tuple(rating.reason if rating else "" for rating in given),
            )
        )
    return tuple(sorted(lines, key=lambda line: -line.share))


def _positions(order: Sequence[int]) -> list[int]:
    """Return at which position each response was shown."""
    return [order.index(response) for response in range(len(order))]
