"""Frozen embeddings of what users chose between, as tensors.

A text is embedded by an `Embedder`, whose cache keeps its vector on disk; nothing here learns but
the scale of the coordinates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pgenrm.prototypes.embedder import Embedder
from pgenrm.types import Context, Message, User


class View(StrEnum):
    """What of a conversation is embedded with a response."""

    WHOLE = "whole"
    """All turns."""
    LAST_TURN = "last_turn"
    """The query only."""
    RESPONSE = "response"
    """Nothing."""

    def text(self, context: Context, response: str) -> str:
        r"""Return the text to embed for a response.

        >>> View.WHOLE.text((Message(role="user", content="Hi"),), "Hello")
        'assistant: Hello\n\nuser: Hi'
        """
        shown = {View.WHOLE: context, View.LAST_TURN: context[-1:], View.RESPONSE: ()}[self]
        return backwards([*shown, Message(role="assistant", content=response)])


def backwards(messages: Sequence[Message]) -> str:
    """Write a conversation, the newest turn first.

    An embedder with a short window then loses the oldest turns, never the response.
    """
    return "\n\n".join(f"{m.role}: {m.content}" for m in reversed(messages))


@dataclass(frozen=True)
class Histories:
    """Past choices of users, padded to the longest history."""

    user_ids: tuple[str, ...]
    vectors: Tensor
    """[n_texts, d]; the distinct responses."""
    pairs: Tensor
    """[n_users, n_pairs, 2] rows of `vectors`, the chosen response first; 0 where padded."""
    contexts: Tensor
    """[n_users, n_pairs]; equal numbers stand for equal contexts; 0 where padded."""
    conversations: Tensor
    """[n_users, n_pairs]; equal numbers stand for contexts that begin with the same message."""
    present: Tensor
    """[n_users, n_pairs] bool; False where padded."""
    prompt_vectors: Tensor | None
    """[n_contexts, d]; None unless the space embeds contexts apart."""

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    def some(self, rows: Tensor) -> Self:
        """Return the histories of some users, cut to the longest of theirs."""
        present = self.present[rows]
        longest = int(present.sum(dim=1).max()) if len(rows) else 0
        return replace(
            self,
            user_ids=tuple(self.user_ids[i] for i in rows.tolist()),
            pairs=self.pairs[rows, :longest],
            contexts=self.contexts[rows, :longest],
            conversations=self.conversations[rows, :longest],
            present=present[:, :longest],
        )

    def responses(self) -> Tensor:
        """Return the vectors of all pairs: [n_users, n_pairs, 2, d]."""
        return self.vectors[self.pairs]

    def prompts(self) -> Tensor | None:
        """Return the vectors of all contexts, [n_users, n_pairs, d], where there are any."""
        return None if self.prompt_vectors is None else self.prompt_vectors[self.contexts]

    def draw_per_conversation(self, generator: np.random.Generator) -> Tensor:
        """Draw a number in [0, 1) for each pair, the same for a user's pairs of one conversation.

        A threshold on it splits pairs into known and asked ones, such that no known pair is from
        the conversation of an asked one: a later turn would tell. [n_users, n_pairs] float32.
        """
        draws = torch.from_numpy(generator.random(self.conversations.shape, dtype=np.float32))
        is_same = self.conversations[:, :, None] == self.conversations[:, None, :]
        first = is_same.int().argmax(dim=2)  # of the pairs of this conversation
        return draws.gather(1, first)


@dataclass(frozen=True)
class Candidates:
    """Responses to choose between."""

    vectors: Tensor
    """[n, n_responses, d]."""
    prompts: Tensor | None
    """[n, d]; None unless the space embeds contexts apart."""

    def some(self, rows: slice) -> "Candidates":
        """Return some of them."""
        return Candidates(self.vectors[rows], None if self.prompts is None else self.prompts[rows])


class Space:
    """The space that a method works in: an embedder, what it is shown, and the scale.

    Args:
        embedder: frozen; give it a cache file, so that a text is embedded once for all methods.
        view: what of the conversation is embedded with a response.
        has_prompts: whether contexts are embedded apart, too.
        is_standardised: whether every coordinate is brought to mean 0 and standard deviation 1 over
            the training texts. Embeddings share large components, which otherwise drown the rest.
    """

    def __init__(
        self,
        embedder: Embedder,
        view: View = View.WHOLE,
        *,
        has_prompts: bool = False,
        is_standardised: bool = True,
    ) -> None:
        self.embedder = embedder
        self.view = view
        self.has_prompts = has_prompts
        self.is_standardised = is_standardised
        self._scale = self._prompt_scale = _Scale(torch.zeros(1), torch.ones(1))

    def fit(self, users: Sequence[User]) -> Histories:
        """Learn the scale from users' histories, and return these."""
        self._scale = self._prompt_scale = _Scale(torch.zeros(1), torch.ones(1))
        raw = self.histories(users)
        if not self.is_standardised:
            return raw
        self._scale = _Scale.of(raw.vectors)
        if raw.prompt_vectors is None:
            return replace(raw, vectors=self._scale(raw.vectors))
        self._prompt_scale = _Scale.of(raw.prompt_vectors)
        return replace(
            raw,
            vectors=self._scale(raw.vectors),
            prompt_vectors=self._prompt_scale(raw.prompt_vectors),
        )

    def histories(self, users: Sequence[User]) -> Histories:
        """Embed users' past choices; those between identical texts are left out."""
        known = [[p for p in user.history if p.is_informative] for user in users]
        shape = len(users), max(map(len, known), default=0)
        pairs = np.zeros((*shape, 2), np.int64)
        contexts = np.zeros(shape, np.int64)
        conversations = np.zeros(shape, np.int64)
        present = np.zeros(shape, np.bool_)
        texts: dict[str, int] = {}
        seen: dict[Context, int] = {}
        begun: dict[Message, int] = {}
        for i, history in enumerate(known):
            for j, pair in enumerate(history):
                present[i, j] = True
                contexts[i, j] = seen.setdefault(pair.context, len(seen))
                conversations[i, j] = begun.setdefault(pair.context[0], len(begun))
                for k, response in enumerate((pair.chosen, pair.rejected)):
                    text = self.view.text(pair.context, response)
                    pairs[i, j, k] = texts.setdefault(text, len(texts))
        return Histories(
            user_ids=tuple(user.id for user in users),
            vectors=self._scale(self._embed(list(texts))),
            pairs=torch.from_numpy(pairs),
            contexts=torch.from_numpy(contexts),
            conversations=torch.from_numpy(conversations),
            present=torch.from_numpy(present),
            prompt_vectors=self._prompts(list(seen)),
        )

    def candidates(
        self, contexts: Sequence[Context], responses: Sequence[Sequence[str]]
    ) -> Candidates:
        """Embed responses, the same number to every context."""
        texts = [
            self.view.text(context, response)
            for context, some in zip(contexts, responses, strict=True)
            for response in some
        ]
        vectors = self._scale(self._embed(texts))
        return Candidates(
            vectors=vectors.view(len(contexts), -1, vectors.shape[1]),
            prompts=self._prompts(contexts),
        )

    def _prompts(self, contexts: Sequence[Context]) -> Tensor | None:
        if not self.has_prompts:
            return None
        return self._prompt_scale(self._embed([backwards(context) for context in contexts]))

    def _embed(self, texts: Sequence[str]) -> Tensor:
        return torch.from_numpy(self.embedder.embed(texts))


@dataclass(frozen=True)
class _Scale:
    mean: Tensor
    sd: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> Self:
        sd = vectors.std(dim=0, correction=0)
        return cls(vectors.mean(dim=0), torch.where(sd > 0, sd, 1.0))  # a constant one says nothing

    def __call__(self, vectors: Tensor) -> Tensor:
        return (vectors - self.mean) / self.sd
