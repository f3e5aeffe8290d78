"""LaMP-QA: how well a method ranks policy models, by domain (paper, table 5)."""

from collections.abc import Iterable, Sequence

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
    of_domain = by_domain(items)
    true = {domain: true_scores(domain, asked) for domain, asked in of_domain.items()}
    return tuple(
        _ranking(run, of_domain, true, seed)
        for run in sorted(runs, key=lambda run: place_of(run.name))
        if of_domain
    )


def by_domain(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Sort items by the domain of their answers; those without answers are left out."""
    found: dict[str, list[Item]] = {}
    for item in items:
        if item.answers is not None:
            found.setdefault(item.answers.domain, []).append(item)
    return found


def true_scores(domain: str, items: Sequence[Item]) -> Floats:
    """Return the graders' scores, [n_questions, n_policies], policies by name.

    Raises:
        InputError: not all questions were answered by the same policies.
    """
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


def given_scores(run: Runs, items: Sequence[Item]) -> Floats:
    """Return a method's scores, [n_questions, n_policies], policies by name; mean over its runs.

    A question that it could not score in full has a nan.
    """
    found: dict[str, list[tuple[float | None, ...]]] = {}
    for record in run.records:
        found.setdefault(record.id, []).append(record.scores)
    rows = []
    for item in items:
        nothing = (None,) * len(item.comparison.responses)
        scores = [_by_policy(item, one) for one in found.get(item.comparison.id, [nothing])]
        rows.append(np.mean(scores, axis=0))
    return np.array(rows)


def correlations(given: Floats, true: Floats, domain: str, seed: int = 0) -> Floats:
    """Return Spearman's correlation of two rankings in a domain, and its resamples.

    Whatever the method, the same questions are drawn from as many.
    """
    return rank_correlations(given, true, derive_seed("ranking", seed, domain))


def _ranking(
    run: Runs, of_domain: dict[str, list[Item]], true: dict[str, Floats], seed: int
) -> Ranking:
    found: dict[str, Floats] = {}
    n_scored: dict[str, int] = {}
    for domain, items in of_domain.items():
        given = given_scores(run, items)
        is_scored = ~np.isnan(given).any(axis=1)
        n_scored[domain] = int(is_scored.sum())
        if is_scored.any():
            found[domain] = correlations(given[is_scored], true[domain][is_scored], domain, seed)
    n_questions = sum(map(len, of_domain.values()))
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
