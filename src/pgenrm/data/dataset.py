"""What every loader returns: comparisons by split, and the guards that hold for all of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pgenrm.errors import InputError
from pgenrm.history import gather_users
from pgenrm.seeding import derive_seed
from pgenrm.sim.world import World
from pgenrm.types import Comparison, User

TRAIN: Final = "train"
VALIDATION: Final = "validation"
TEST_SEEN: Final = "test_seen"
TEST_UNSEEN: Final = "test_unseen"
SPLITS: Final = (TRAIN, VALIDATION, TEST_SEEN, TEST_UNSEEN)
LEARNT_FROM: Final = (TRAIN, VALIDATION)
TESTS: Final = (TEST_SEEN, TEST_UNSEEN)


@dataclass(frozen=True)
class Dataset:
    """Comparisons by split; nothing in them that a judge must not see but their labels.

    A comparison's `user.history` are the past choices that may be shown for it: all of them, so
    that a bench draws its own number (`pgenrm.history.draw_history`).

    Attributes:
        name: as it was asked for.
        revision: what exactly was read: commits of hub repositories, or digests of local files.
        splits: of `SPLITS`, those that are not empty. `train` and `validation` may be learnt from;
            users of `test_seen` have comparisons in `train`, those of `test_unseen` in neither.
        notes: what was left out and why, in sentences with counts.
        truth: how the comparisons were made, where that is known.

    Raises:
        InputError: two comparisons share an id, or a user of `test_unseen` is learnt from.
    """

    name: str
    revision: str
    splits: Mapping[str, Sequence[Comparison]]
    notes: tuple[str, ...] = ()
    truth: World | None = None

    def __post_init__(self) -> None:
        counts = Counter(c.id for split in self.splits.values() for c in split)
        if repeated := [id_ for id_, n in counts.items() if n > 1]:
            raise InputError(f"{self.name}: id {repeated[0]!r} is used twice; give each its own")
        learnt_from = {c.user.id for name in LEARNT_FROM for c in self.splits.get(name, ())}
        for comparison in self.splits.get(TEST_UNSEEN, ()):
            if comparison.user.id in learnt_from:
                raise InputError(
                    f"{self.name}: user {comparison.user.id!r} is in test_unseen and in train or "
                    "validation; put the comparisons of seen users into test_seen"
                )

    def users(self, split: str) -> list[User]:
        """Return everybody in a split once, with all past choices that his comparisons may show.

        Labels are not among them, so this is what a method adapts to before it is tested.
        """
        return gather_users(
            comparison.model_copy(update={"label": None})
            for comparison in self.splits.get(split, ())
        )

    def limited(self, n: int, seed: int = 0) -> "Dataset":
        """Keep at most n comparisons of each test split; what is learnt from stays whole."""
        kept = {
            name: draw(split, n, seed) if name in TESTS else split
            for name, split in self.splits.items()
        }
        return replace(self, splits=kept)

    def fitted_on(self, other: "Dataset") -> "Dataset":
        """Take what is learnt from out of another data set, where this one has only tests.

        Raises:
            InputError: this one has something to learn from, the other has no train split, or they
                share a user or the id of a comparison.
        """
        own = [name for name in LEARNT_FROM if self.splits.get(name)]
        if own:
            raise InputError(
                f"{self.name} has comparisons to learn from itself ({' and '.join(own)}); methods "
                "are fitted on another data set only where there are none"
            )
        if not other.splits.get(TRAIN):
            raise InputError(f"{other.name} has no train split, so nothing can be fitted on it")
        splits = {name: other.splits[name] for name in LEARNT_FROM if other.splits.get(name)}
        n_learnt_from = " and ".join(f"{len(split)} {name}" for name, split in splits.items())
        return replace(
            self,
            revision=f"{self.revision},{other.revision}",
            splits={**splits, **self.splits},
            notes=(
                *self.notes,
                f"methods learn from another data set, {other.name}: {n_learnt_from} comparisons",
                *(f"{other.name}: {note}" for note in other.notes),
            ),
        )


def draw(comparisons: Sequence[Comparison], n: int, seed: int = 0) -> list[Comparison]:
    """Draw n comparisons by (seed, id), in their order; the draw for n is part of that for n + 1.

    Raises:
        InputError: n is not positive.
    """
    if n < 1:
        raise InputError(f"cannot draw {n} comparisons; give a limit of at least 1")
    ranked = sorted(comparisons, key=lambda c: derive_seed("limit", seed, c.id))
    kept = {comparison.id for comparison in ranked[:n]}
    return [comparison for comparison in comparisons if comparison.id in kept]


def neutral_order(id_: str, responses: Sequence[str]) -> list[int]:
    """Return the indices of the responses ordered by a hash of id and text.

    Which of them was chosen moves none: a row with chosen and rejected swapped is shown alike.
    """
    return sorted(range(len(responses)), key=lambda i: derive_seed("order", id_, responses[i]))


def in_neutral_order(comparison: Comparison) -> Comparison:
    """Put the responses into an order that says nothing of the label; see `neutral_order`."""
    order = neutral_order(comparison.id, comparison.responses)
    label = comparison.label
    return comparison.model_copy(
        update={
            "responses": tuple(comparison.responses[i] for i in order),
            "label": None if label is None else order.index(label),
        }
    )


def splits_of(named: Iterable[tuple[str, Comparison]]) -> dict[str, list[Comparison]]:
    """Sort (split, comparison) pairs into splits, in the order of `SPLITS`, empty ones absent."""
    found: dict[str, list[Comparison]] = {name: [] for name in SPLITS}
    for name, comparison in named:
        found[name].append(comparison)
    return {name: split for name, split in found.items() if split}
