"""Personalized RewardBench: two answers to a question of somebody whose earlier posts are known.

Withheld: `rubric_aspects` and `narrative`, which are what the chosen answer was written for.
"""

from pathlib import Path
from typing import Final

from pgenrm.data.dataset import (
    TEST_UNSEEN,
    TRAIN,
    VALIDATION,
    Dataset,
    in_neutral_order,
    splits_of,
)
from pgenrm.data.hub import HubRow, open_repository, read_rows
from pgenrm.data.posts import Post, asker
from pgenrm.types import Comparison, Id, NonEmpty

REPO_ID: Final = "QiyaoMa/Personalized-RewardBench"
DOMAINS: Final = (
    "Art_and_Entertainment",
    "Lifestyle_and_Personal_Development",
    "Society_and_Culture",
)
"""The configurations, here and of LaMP-QA."""


class RewardBenchRow(HubRow):
    """The columns that are read."""

    id: Id
    question: NonEmpty
    profile: tuple[Post, ...]
    chosen: str
    rejected: str


def load_reward_bench(
    folder: Path | None = None, revision: str | None = None, seed: int = 0
) -> Dataset:
    """Load all three domains.

    Everybody asks one question, so there are no seen users. Rows of the hub's train and validation
    splits go to splits of these names, all others, or the only ones, to `test_unseen`.

    Args:
        folder: holds the repository.
        revision: a commit of the hub.
        seed: draws the posts that are shown.

    Raises:
        InputError: it cannot be had, or a row is wrong.
    """
    repository = open_repository(REPO_ID, folder=folder, revision=revision)
    named: list[tuple[str, Comparison]] = []
    for domain in DOMAINS:
        splits = read_rows(repository, RewardBenchRow, domain)
        for hub_split, rows in splits.items():
            is_learnt_from = len(splits) > 1 and hub_split in (TRAIN, VALIDATION)
            split = hub_split if is_learnt_from else TEST_UNSEEN
            named.extend((split, _comparison(domain, row, seed)) for row in rows)
    return Dataset("prbench", repository.revision, splits_of(named))


def _comparison(domain: str, row: RewardBenchRow, seed: int) -> Comparison:
    id_ = f"prbench-{domain}-{row.id}"
    return in_neutral_order(
        Comparison(
            id=id_,
            user=asker(id_, row.profile, seed),
            context=row.question,
            responses=(row.chosen, row.rejected),
            label=0,
        )
    )
