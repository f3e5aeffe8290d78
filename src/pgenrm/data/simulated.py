"""Simulated users, over texts of the world's own or over given responses, as a data set."""

from math import ceil
from pathlib import Path
from typing import Final

from pgenrm.data.dataset import SPLITS, Dataset, splits_of
from pgenrm.errors import InputError
from pgenrm.rows import load_value, read_comparisons
from pgenrm.sim import Card, GivenResponses, Split, World, WorldConfig

N_USERS: Final = 1200
"""By default: 300 unseen users with 1,200 comparisons, 900 seen ones with 3,600 and 10,800 more to
train on."""
CARD: Final = "card.json"


def load_simulated(
    folder: Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Dataset:
    """Load a world that `pgenrm simulate` wrote, or make one.

    Args:
        folder: as `simulate` wrote it; its users and seed are its own.
        limit: at most so many comparisons of each test split. A world that is made is made smaller.
        seed: of the world, and of what a limit keeps.

    Raises:
        InputError: the folder cannot be read.
    """
    if folder is not None:
        dataset = _stored(folder)
        return dataset if limit is None else dataset.limited(limit, seed)
    return world_dataset("sim", World(seed=seed), limit=limit)


def load_given(responses: Path, *, limit: int | None = None, seed: int = 0) -> Dataset:
    """Make simulated users over given responses, as `pgenrm.sim.GivenResponses` reads them.

    Raises:
        InputError: the file cannot be read or has too few instructions.
    """
    return world_dataset(
        "sim-real", World(seed=seed, source=GivenResponses(responses)), limit=limit
    )


def world_dataset(
    name: str, world: World, n_users: int = N_USERS, *, limit: int | None = None
) -> Dataset:
    """Make the comparisons of the first users of a world.

    Args:
        name: of the data set.
        world: becomes the data set's truth.
        n_users: seen and unseen together.
        limit: at most so many comparisons of each test split, of no more users than that takes.
    """
    if limit is not None:
        n_users = min(n_users, _n_users_for(limit, world.config))
    named = [
        (split.value, comparison)
        for index in range(n_users)
        for split, _, comparison in world.of_user(world.person(index), Split)
    ]
    revision = f"{world.source.version}, seed {world.seed}, {n_users} users"
    dataset = Dataset(name, revision, splits_of(named), truth=world)
    return dataset if limit is None else dataset.limited(limit, world.seed)


def _n_users_for(limit: int, config: WorldConfig) -> int:
    """Return how many users it takes until both test splits hold so many comparisons."""
    shares = [share for share in (config.unseen_share, 1 - config.unseen_share) if share]
    return max(ceil(ceil(limit / max(1, config.n_test)) / share) for share in shares)


def _stored(folder: Path) -> Dataset:
    card = load_value(folder / CARD, Card)
    named = [
        (split, comparison)
        for split in SPLITS
        for comparison in read_comparisons([folder / f"{split}.jsonl"])
    ]
    world = World(card.config, card.seed)
    is_known = world.source.version == card.source
    if not is_known and not card.source.startswith("given"):
        raise InputError(
            f"{folder} was made with {card.source}, this version has {world.source.version}; "
            "simulate it again"
        )
    return Dataset(
        name="sim",
        revision=f"{card.source}, seed {card.seed}, {card.n_users} users",
        splits=splits_of(named),
        notes=() if is_known else (f"the truth is not known: the texts are {card.source}",),
        truth=world if is_known else None,
    )
