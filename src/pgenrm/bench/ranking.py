"""LaMP-QA: how well a method ranks policy models, by domain (paper, table 5)."""

from collections.abc import Sequence

import numpy as np

from pgenrm.bench.counting import Runs
from pgenrm.bench.plan import Item
from pgenrm.bench.results import Ranking
from pgenrm.bench.rows import place_of, row_of
from pgenrm.bench.statistics import Floats, estimate, rank_correlations
from pgenrm.data.reward_bench import DOMAINS
from pgenrm.errors import InputError
from pgenrm.seeding import derive_seed


def rankings(items: Sequence[Item], runs: Sequence[Runs], seed: int = 0) -> tuple[Ranking, ...]:
    """Compare the methods' rankings of policies with those by the hidden rubrics.

    A policy's place is its mean score over the questions of a domain; scores of a method are its
    mean over runs. A question that a method could not score in full leaves its ranking, and is
    counted.

    Args:
        items: comparisons; those without graded answers are left out.
        runs: of all methods.
        seed: of the resampling of questions.

    Raises:
        InputError: the questions of a domain were not answered by the same policies.
    """
    at: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        if item.answers is not None:
            at.setdefault(item.answers.domain, []).append(i)
    true = {domain: _true(domain, [items[i] for i in rows]) for domain, rows in at.items()}
    return tuple(
        _ranking(run, items, at, true, seed)
        for run in sorted(runs, key=lambda run: place_of(run.name))
        if at
    )


def _true(domain: str, items: Sequence[Item]) -> Floats:
    """Return the graders' scores, [n_questions, n_policies], policies by name."""
    answers = [item.answers for item in items if item.answers]
    policies = sorted(answers[0].models)
    for item, answer in zip(items, answers, strict=True):
        if sorted(answer.models) != policies:
            raise InputError(
                f"{item.comparison.id} was answered by {', '.join(sorted(answer.models))}, other "
                f"questions of {domain} by {', '.join(policies)}; give answers of all to all"
            )
    return np.array([_by_policy(item, item.answers.scores) for item in items if item.answers])


def _by_policy(item: Item, scores: Sequence[float | None]) -> list[float]:
    """Order scores by the policies' names; nan where there is none."""
    assert item.answers is not None
    pairs = sorted(zip(item.answers.models, scores, strict=True), key=lambda pair: pair[0])
    return [np.nan if score is None else score for _, score in pairs]


def _ranking(
    run: Runs,
    items: Sequence[Item],
    at: dict[str, list[int]],
    true: dict[str, Floats],
    seed: int,
) -> Ranking:
    given: dict[str, list[list[float]]] = {}
    by_id = {item.comparison.id: item for item in items}
    for record in run.records:
        given.setdefault(record.id, []).append(_by_policy(by_id[record.id], record.scores))
    found: dict[str, Floats] = {}
    n_scored: dict[str, int] = {}
    for domain, rows in at.items():
        n_policies = true[domain].shape[1]
        missing = [[np.nan] * n_policies]
        scores = np.array(
            [np.mean(given.get(items[i].comparison.id, missing), axis=0) for i in rows]
        )
        is_scored = ~np.isnan(scores).any(axis=1)
        n_scored[domain] = int(is_scored.sum())
        if is_scored.any():
            found[domain] = rank_correlations(
                scores[is_scored], true[domain][is_scored], derive_seed("ranking", seed, domain)
            )
    n_questions = sum(map(len, at.values()))
    is_whole = all(domain in found for domain in DOMAINS)
    return Ranking(
        name=run.name,
        label=row_of(run.name).label,
        by_domain={domain: estimate(found[domain], n_scored[domain]) for domain in found},
        mean=estimate(np.mean(list(found.values()), axis=0), min(n_scored.values()))
        if is_whole
        else None,
        n_questions=n_questions,
        n_unscored=n_questions - sum(n_scored.values()),
    )
