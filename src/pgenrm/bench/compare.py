"""Two benches over the same comparisons: what became better or worse, paired by user."""

from pathlib import Path

import numpy as np

from pgenrm.bench.counting import Runs
from pgenrm.bench.metrics import read_runs
from pgenrm.bench.plan import read_items
from pgenrm.bench.statistics import Estimate, mean_over_users
from pgenrm.errors import InputError
from pgenrm.types import Comparison, Outcome, User, Value


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
    items = [read_items(before), read_items(after)]
    keys = [[_key(item.comparison) for item in side] for side in items]
    places = [{key: i for i, key in enumerate(side)} for side in keys]
    shared = [key for key in keys[0] if key in places[1]]
    if not shared:
        raise InputError(
            f"{before} and {after} have no comparison in common (the first has "
            f"{items[0][0].comparison.id}, the second {items[1][0].comparison.id}); give two "
            "benches over the same data, see plan.json in each"
        )
    comparisons = {key: items[0][places[0][key]].comparison for key in shared}
    shared = [key for key in shared if comparisons[key].label is not None]
    if not shared:
        raise InputError(
            f"no comparison that {before} and {after} have in common has a label, so none can be "
            "right; compare what `pgenrm report` writes of each"
        )
    users = [comparisons[key].user.id for key in shared]
    runs = [
        {r.name: r for r in read_runs(*side)} for side in zip((before, after), items, strict=True)
    ]
    names = [name for name in runs[0] if name in runs[1]]
    if not names:
        raise InputError(
            f"{before} and {after} have no method in common: {', '.join(runs[0])} there, "
            f"{', '.join(runs[1])} here"
        )
    rows = [np.array([side[key] for key in shared]) for side in places]
    return [_change(users, runs[0][name], runs[1][name], rows, seed) for name in names]


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
