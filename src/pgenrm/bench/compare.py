"""Two benches over the same comparisons: what became better or worse, paired."""

from pathlib import Path
from typing import Final

import numpy as np

from pgenrm.bench.counting import Runs
from pgenrm.bench.metrics import read_runs
from pgenrm.bench.plan import Item, read_items
from pgenrm.bench.ranking import by_domain, correlations, given_scores, true_scores
from pgenrm.bench.statistics import Estimate, Floats, estimate, mean_over_users
from pgenrm.data.reward_bench import DOMAINS
from pgenrm.errors import InputError
from pgenrm.types import Comparison, Outcome, User, Value

MEAN: Final = "mean"


class Change(Value):
    """What became of a method from one bench to another, on the comparisons that both have."""

    name: str
    n: int
    """Comparisons with a label."""
    n_users: int
    n_missing_before: int
    n_missing_after: int
    """Of these comparisons, those without a record, over all runs; they count as wrong."""
    before: float
    after: float
    """Accuracies in [0, 1]; ties, unscored and missing ones count as wrong."""
    by: Estimate
    """after - before."""
    n_gained: float
    n_lost: float
    """Comparisons that became right, and that no longer are; mean over runs."""


class RankingChange(Value):
    """What became of a method's ranking of policies, on the questions that it scored both times."""

    name: str
    domain: str
    """One of LaMP-QA's, or `mean` over all of them."""
    n: int
    """Questions."""
    before: Estimate | None
    after: Estimate | None
    """Spearman's correlation with the ranking by the hidden rubrics; None where there is none."""
    by: Estimate | None
    """after - before, questions resampled for both at once."""


def compare(before: Path, after: Path, seed: int = 0) -> list[Change]:
    """Compare the methods that two benches have in common.

    Args:
        before: directory of a bench.
        after: directory of another, on at least some of the same comparisons. What is known of the
            users may differ.
        seed: of the resampling of users.

    Raises:
        InputError: they share no labelled comparison or no method.
    """
    items, places = _shared(before, after)
    labelled = [i for i, at in enumerate(places[0]) if items[0][at].comparison.label is not None]
    if not labelled:
        raise InputError(
            f"no comparison that {before} and {after} have in common has a label, so none can be "
            "right; compare what `pgenrm report` writes of each"
        )
    rows = [np.array([side[i] for i in labelled]) for side in places]
    users = [items[0][at].comparison.user.id for at in rows[0]]
    return [_change(users, *both, rows, seed) for both in _runs_of_both(before, after, items)]


def compare_rankings(before: Path, after: Path, seed: int = 0) -> list[RankingChange]:
    """Compare how the methods of two benches rank policies; empty where none are ranked.

    Args:
        before: directory of a bench over LaMP-QA.
        after: directory of another, over at least some of the same answers, graded alike.
        seed: of the resampling of questions.

    Raises:
        InputError: they share no question or no method, or the answers were graded differently.
    """
    items, places = _shared(before, after)
    pairs = [
        (items[0][i], items[1][j])
        for i, j in zip(*places, strict=True)
        if items[0][i].answers or items[1][j].answers
    ]
    for was, is_now in pairs:
        if was.answers != is_now.answers:
            raise InputError(
                f"the answers to {was.comparison.id} were graded differently in {before} and "
                f"{after}, so that the rankings have different aims; run one of them again with "
                "the candidates of the other"
            )
    if not pairs:
        return []
    of_domain = by_domain(was for was, _ in pairs)
    return [
        change
        for both in _runs_of_both(before, after, items)
        for change in _ranking_changes(*both, of_domain, seed)
    ]


def _shared(before: Path, after: Path) -> tuple[list[list[Item]], list[list[int]]]:
    """Return the items of both benches, and where in each the comparisons stand that both have."""
    items = [read_items(before), read_items(after)]
    at = [{_key(item.comparison): i for i, item in enumerate(side)} for side in items]
    shared = [key for key in at[0] if key in at[1]]
    if not shared:
        raise InputError(
            f"{before} and {after} have no comparison in common (the first has "
            f"{items[0][0].comparison.id}, the second {items[1][0].comparison.id}); give two "
            "benches over the same data, see plan.json in each"
        )
    return items, [[side[key] for key in shared] for side in at]


def _runs_of_both(before: Path, after: Path, items: list[list[Item]]) -> list[tuple[Runs, Runs]]:
    """Return the records of the methods that both benches have, those of one method together."""
    runs = [
        {r.name: r for r in read_runs(*side)} for side in zip((before, after), items, strict=True)
    ]
    names = [name for name in runs[0] if name in runs[1]]
    if not names:
        raise InputError(
            f"{before} and {after} have no method in common: {', '.join(runs[0])} there, "
            f"{', '.join(runs[1])} here"
        )
    return [(runs[0][name], runs[1][name]) for name in names]


def _key(comparison: Comparison) -> str:
    """Name what is judged, whatever is known of the user."""
    return comparison.model_copy(update={"user": User(id=comparison.user.id)}).model_dump_json()


def _change(
    users: list[str], before: Runs, after: Runs, rows: list[np.ndarray], seed: int
) -> Change:
    was, is_now = (
        side.share_of(Outcome.CORRECT)[at] for side, at in zip((before, after), rows, strict=True)
    )
    by = mean_over_users(is_now - was, users, seed)
    return Change(
        name=before.name,
        n=len(users),
        n_users=len(set(users)),
        n_missing_before=before.n_missing(rows[0]),
        n_missing_after=after.n_missing(rows[1]),
        before=round(float(was.mean()), 6),
        after=round(float(is_now.mean()), 6),
        by=by,
        n_gained=round(float(np.clip(is_now - was, 0, None).sum()), 3),
        n_lost=round(float(np.clip(was - is_now, 0, None).sum()), 3),
    )


def _ranking_changes(
    before: Runs, after: Runs, of_domain: dict[str, list[Item]], seed: int
) -> list[RankingChange]:
    """Return the changes by domain, and that of their mean where all domains have a ranking."""
    found: dict[str, tuple[int, Floats, Floats]] = {}
    for domain, items in of_domain.items():
        given = [given_scores(runs, items) for runs in (before, after)]
        is_scored = ~np.isnan(np.concatenate(given, axis=1)).any(axis=1)
        if is_scored.any():
            true = true_scores(domain, items)[is_scored]
            was, is_now = (correlations(each[is_scored], true, domain, seed) for each in given)
            found[domain] = int(is_scored.sum()), was, is_now
    changes = [
        _ranking_change(before.name, domain, n, n, was, is_now)
        for domain, (n, was, is_now) in found.items()
    ]
    if set(found) != set(DOMAINS):
        return changes
    ns, *sides = zip(*found.values(), strict=True)
    was, is_now = (np.mean(side, axis=0) for side in sides)
    return [*changes, _ranking_change(before.name, MEAN, sum(ns), min(ns), was, is_now)]


def _ranking_change(
    name: str, domain: str, n: int, n_fewest: int, was: Floats, is_now: Floats
) -> RankingChange:
    return RankingChange(
        name=name,
        domain=domain,
        n=n,
        before=estimate(was, n_fewest),
        after=estimate(is_now, n_fewest),
        by=estimate(is_now - was, n_fewest),
    )
