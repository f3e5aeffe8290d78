"""A method that learns on frozen embeddings: what GPO, VPL, PAL and LoRe have in common.

What is known of a user comes from the history that he is adapted with and from nothing else, for
users of the training set too. So a user without history is everybody's, and one with another's
history gets the other's judgments. (The published PAL is the exception, see `pgenrm.methods.pal`.)
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from pgenrm.errors import InputError
from pgenrm.history import gather_users
from pgenrm.methods.embeddings import Candidates, Histories, Space
from pgenrm.methods.kept import fingerprint, keep, restore
from pgenrm.methods.protocol import bradley_terry, judgment_of
from pgenrm.methods.recipe import MethodRecipe, Variant
from pgenrm.methods.training import labelled_choices, on_one_thread, preference_loss, seeded
from pgenrm.types import Comparison, Judgment, User

CODE_VERSION: Final = 4
"""Of this module and of the models: part of every version, so that old records are not reused."""
N_AT_ONCE: Final = 512
"""Comparisons scored together, which bounds memory."""


@dataclass(frozen=True)
class Validation:
    """Labelled comparisons as a test would give them: row i of both belongs to comparison i."""

    histories: Histories
    """What is known of the user when comparison i is judged."""
    candidates: Candidates
    """[n, 2]; the preferred response first."""

    def loss(self, model: "PreferenceModel") -> float:
        """Return the mean of -log P(the preferred response) for the model as it is."""
        rewards = rewards_of(model, model.know(self.histories), self.candidates)
        return float(preference_loss(rewards).mean())


class PreferenceModel(Protocol):
    """Learns from histories how to reward responses for whoever has a history."""

    @property
    def network_(self) -> nn.Module:
        """Everything that is learnt: what is kept of the model is its state."""
        ...

    def set_up(self, train: Histories) -> None:
        """Make a network for users like these, who each have at least one pair."""
        ...

    def fit(self, train: Histories, validation: Validation, seed: int) -> None:
        """Train the network that was set up for the same users."""
        ...

    def know(self, histories: Histories) -> list[Tensor]:
        """Return what is known of each user, whatever the other users; also without any pair."""
        ...

    def reward(self, known: Sequence[Tensor], candidates: Candidates) -> Tensor:
        """Return rewards [n, n_responses]; `known` is of the user of each of the n comparisons."""
        ...


def rewards_of(model: PreferenceModel, known: Sequence[Tensor], candidates: Candidates) -> Tensor:
    """Return `model.reward`, a part at a time: [n, n_responses]."""
    parts = [slice(i, i + N_AT_ONCE) for i in range(0, len(known), N_AT_ONCE)]
    with torch.no_grad():
        return torch.cat([model.reward(known[part], candidates.some(part)) for part in parts])


class FrozenMethod:
    """A preference model as a `Method`.

    Attributes:
        kept_in: file for what was learnt. `fit` reads it in place of learning the same from the
            same data with the same seed once more; None keeps nothing.
    """

    is_trained = True
    kept_in: Path | None = None

    def __init__(
        self,
        kind: str,
        model: PreferenceModel,
        space: Space,
        *,
        variant: Variant,
        recipe: MethodRecipe,
        seed: int,
    ) -> None:
        """Put a method together; see `gpo`, `vpl`, `pal` and `lore` for those that exist.

        Args:
            kind: of the model, e.g. `gpo`.
            model: not yet fitted.
            space: where texts lie for it.
            variant: of the model.
            recipe: of the model; its digest is part of the version.
            seed: of everything random.
        """
        self.name = kind if variant is Variant.CORRECTED else f"{kind}-{variant}"
        self.version = f"{CODE_VERSION}:{recipe.digest}:{space.embedder.name}"
        self.model = model
        self.space = space
        self.seed = seed

    @on_one_thread()
    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        """Learn from all choices in the training comparisons, histories included.

        Raises:
            InputError: there is no choice to learn from, or no labelled validation comparison.
            TrainingError: a loss is not finite.
        """
        users = [user for user in gather_users(train) if user.history]
        if not users:
            raise InputError(f"{self.name} has nothing to learn from: no labelled comparison")
        asked = labelled_choices(validation)
        if not asked:
            raise InputError(
                f"{self.name} stops early on validation comparisons, but none is labelled; "
                "hold some out of the training comparisons"
            )
        owners, contexts, responses = zip(*asked, strict=True)
        histories = self.space.fit(users)
        checks = Validation(
            self.space.histories(owners), self.space.candidates(contexts, responses)
        )
        with seeded(self.name, self.seed):
            self.model.set_up(histories)
            self._learn(histories, checks)
        self._known: dict[str, tuple[Tensor, int]] = {}
        (self._stranger,) = self._read([User(id="stranger")])

    @on_one_thread()
    def adapt(self, users: Sequence[User]) -> None:
        """Read what the histories tell of these users."""
        for user, known in zip(users, self._read(users), strict=True):
            n_pairs = sum(pair.is_informative for pair in user.history)
            self._known[user.id] = (known, n_pairs)

    @on_one_thread()
    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Judge comparisons; users never adapted to are judged as without history."""
        by_size: dict[int, list[int]] = defaultdict(list)
        for i, comparison in enumerate(comparisons):
            by_size[len(comparison.responses)].append(i)
        judgments: dict[int, Judgment] = {}
        for rows in by_size.values():
            some = [comparisons[i] for i in rows]
            known = [self._known.get(c.user.id, (self._stranger, 0)) for c in some]
            candidates = self.space.candidates(
                [c.context for c in some], [c.responses for c in some]
            )
            rewards = rewards_of(self.model, [tensor for tensor, _ in known], candidates)
            for i, scores, (_, n_history) in zip(rows, rewards.tolist(), known, strict=True):
                judgments[i] = judgment_of(
                    comparisons[i],
                    scores,
                    method=self.name,
                    seed=self.seed,
                    confidence=bradley_terry(scores),
                    n_history=n_history,
                )
        return [judgments[i] for i in range(len(comparisons))]

    def _learn(self, histories: Histories, checks: Validation) -> None:
        """Train the model, or restore it where it was kept."""
        if self.kept_in is None:
            self.model.fit(histories, checks, self.seed)
            return
        learnt_from = fingerprint(self.name, self.version, self.seed, histories, checks)
        if not restore(self.model.network_, self.kept_in, learnt_from):
            self.model.fit(histories, checks, self.seed)
            keep(self.model.network_, self.kept_in, learnt_from)

    def _read(self, users: Sequence[User]) -> list[Tensor]:
        with torch.no_grad():
            return self.model.know(self.space.histories(users))
