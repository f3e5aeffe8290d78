"""What the tests of trained methods share: a feature map that needs no model, and a small world."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgenrm.attributes.measure import N_ATTRIBUTES, measure
from pgenrm.history import gather_users
from pgenrm.methods.protocol import Method
from pgenrm.sim import Split, World, WorldConfig
from pgenrm.types import Comparison, Outcome, User


class MeasuredEmbedder:
    """Embeds by the measured attributes of a text: a real feature map, in microseconds."""

    name = "measured"
    dimension = N_ATTRIBUTES + 1

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.array([[*measure(text), 1.0] for text in texts])
        rows = rows.reshape(-1, self.dimension)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


class Data(NamedTuple):
    train: list[Comparison]
    validation: list[Comparison]
    test: list[Comparison]
    """Of users who are not in the other two."""

    @property
    def users(self) -> list[User]:
        """The users of the test with all their history, and without their test choices."""
        return gather_users(c.model_copy(update={"label": None}) for c in self.test)


@cache
def small_world(n_users: int = 200, seed: int = 0) -> Data:
    """Return a world of four kinds of people, so that little data shows who somebody is."""
    config = WorldConfig(
        n_prototypes=4, primary=3.0, n_history=8, swap=0.0, quirk_share=0.0, narrow_share=0.0
    )
    world = World(config, seed)
    found: dict[Split, list[Comparison]] = {split: [] for split in Split}
    for index in range(n_users):
        for split, _, comparison in world.of_user(world.person(index), Split):
            found[split].append(comparison)
    return Data(found[Split.TRAIN], found[Split.VALIDATION], found[Split.TEST_UNSEEN])


def accuracy(method: Method, comparisons: Sequence[Comparison]) -> float:
    judgments = method.score(comparisons)
    return float(np.mean([j.outcome is Outcome.CORRECT for j in judgments]))


def shuffled(users: Sequence[User]) -> list[User]:
    """Give every user the history of the next."""
    histories = [user.history for user in users]
    moved = [*histories[1:], histories[0]]
    return [
        user.model_copy(update={"history": history})
        for user, history in zip(users, moved, strict=True)
    ]


def flipped(users: Sequence[User]) -> list[User]:
    """Let every user have chosen what he rejected."""
    return [
        user.model_copy(
            update={
                "history": tuple(
                    p.model_copy(update={"chosen": p.rejected, "rejected": p.chosen})
                    for p in user.history
                )
            }
        )
        for user in users
    ]


def scores(method: Method, comparisons: Sequence[Comparison]) -> list[tuple[float, ...]]:
    return [tuple(s for s in j.scores if s is not None) for j in method.score(comparisons)]
