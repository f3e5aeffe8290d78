"""Completions as they are being written, token by token, whatever computes the tokens."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pgenrm.engines.protocol import Completion, Sampling
from pgenrm.types import Failure, FailureKind, FinishReason

Decode = Callable[[Sequence[int]], str]
"""Token ids to text, without special tokens."""


@dataclass(frozen=True)
class Sample:
    """A completion to be written."""

    prompt: int
    """Number of its prompt."""
    sampling: Sampling
    seed: int


@dataclass
class Draft:
    """A completion as it is being written."""

    token_ids: list[int] = field(default_factory=list)
    """Including the token that ended it."""
    logprobs: list[float] = field(default_factory=list)
    """Of these tokens, natural, before temperature and top_p."""
    finish_reason: FinishReason | None = None
    """None while it is being written; OTHER when the model gave logits that are no numbers."""

    def extend(
        self,
        token: int,
        logprob: float,
        sampling: Sampling,
        eos_ids: frozenset[int],
        meets_stop: Callable[[Sequence[int], Sampling], bool],
    ) -> None:
        """Add a token, and say whether it was the last.

        Args:
            token: its id.
            logprob: its log-probability; NaN where the logits are no numbers.
            sampling: bounds the length.
            eos_ids: tokens that end a completion.
            meets_stop: whether these token ids end with a stop sequence.
        """
        if math.isnan(logprob):
            self.finish_reason = FinishReason.OTHER
            return
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        if token in eos_ids or meets_stop(self.token_ids, sampling):
            self.finish_reason = FinishReason.STOP
        elif len(self.token_ids) >= sampling.max_tokens:
            self.finish_reason = FinishReason.LENGTH


def meets_stop(token_ids: Sequence[int], sampling: Sampling, decode: Decode) -> bool:
    """Tell whether the token ids end with a stop sequence."""
    if not sampling.stop:
        return False
    # A token adds a byte at least, but for control tokens and a blank lost at the beginning.
    n_tokens = max(len(stop.encode()) for stop in sampling.stop) + 4
    tail = decode(token_ids[-n_tokens:])
    return any(stop in tail for stop in sampling.stop)


def read_draft(
    draft: Draft,
    sampling: Sampling,
    eos_ids: frozenset[int],
    decode: Decode,
    words: Callable[[Sequence[int]], Sequence[str]],
) -> Completion | Failure:
    """Turn a finished draft into a completion; one without a text is a failure.

    Args:
        draft: what was written.
        sampling: as it was asked for.
        eos_ids: tokens that end a completion.
        decode: token ids to text.
        words: token ids to the text of each, special tokens included.
    """
    ids, n_tokens = draft.token_ids, len(draft.token_ids)
    ended = bool(ids) and ids[-1] in eos_ids
    text = decode(ids[:-1] if ended else ids)
    text = text[: min((text.find(s) for s in sampling.stop if s in text), default=None)]
    if draft.finish_reason is FinishReason.OTHER or not text.strip():
        reason = "the model ended without a text"
        if draft.finish_reason is FinishReason.OTHER:
            reason = f"logits are no numbers after {n_tokens} tokens; try dtype='float32'"
        return Failure(kind=FailureKind.REQUEST, reason=reason, text=text, n_tokens=n_tokens)
    logprobs = None
    if sampling.logprobs:
        logprobs = tuple(zip(words(ids), draft.logprobs, strict=True))
    return Completion(
        text=text,
        finish_reason=draft.finish_reason or FinishReason.OTHER,
        n_tokens=n_tokens,
        logprobs=logprobs,
    )


def too_long(n_prompt_tokens: int, max_tokens: int, context_window: int) -> Failure:
    """Return the failure of a request that does not fit the context window."""
    return Failure(
        kind=FailureKind.TOO_LONG,
        reason=f"{n_prompt_tokens} prompt tokens and max_tokens {max_tokens} exceed the context "
        f"window of {context_window} tokens; shorten the prompt or lower max_tokens",
    )
