"""PersonalRewardBench, Chatbot Arena: 131 people and what they chose; nothing is said of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pgenrm.data.dataset import Dataset
from pgenrm.data.hub import Repository, open_repository
from pgenrm.data.pairs import PairRow, Placed, pairs_dataset, read_pairs
from pgenrm.types import Preference, User

REPO_ID: Final = "MichaelR207/chatbot_arena_personalized_0125"


def load_arena(folder: Path | None = None, revision: str | None = None) -> Dataset:
    """Load Chatbot Arena.

    Raises:
        InputError: it cannot be had, or a row is wrong.
    """
    repository = open_repository(REPO_ID, folder=folder, revision=revision)
    return arena_dataset(repository, read_pairs(repository))


def arena_dataset(repository: Repository, rows: Sequence[Placed]) -> Dataset:
    """Put rows that were read together."""
    return pairs_dataset(
        "arena",
        repository.revision,
        rows,
        user_of=lambda user_id: User(id=user_id),
        past_choice=_past_choice,
    )


def _past_choice(row: PairRow) -> Preference:
    return Preference(context=row.context, chosen=row.chosen, rejected=row.rejected)
