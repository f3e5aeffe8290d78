"""The engine protocol: chat prompts and sampling parameters in, completions or failures out.

An engine knows nothing of users, chains or verdicts. Anything with the members of `Engine` is one;
`tests/engine_conformity.py` is the contract in executable form.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol

from pgenrm.types import Failure, FinishReason, Message, Value


class StructuredOutput(StrEnum):
    """How a server is asked to keep the JSON tail of a chain well-formed."""

    OFF = "off"
    STRUCTURAL_TAG = "structural_tag"


class Sampling(Value):
    """How to sample; the same for all samples of a request."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 2048
    """Upper bound on the tokens of one completion."""
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    """Ask for the log-probability of every sampled token."""
    structured: StructuredOutput = StructuredOutput.OFF
    json_schema: dict[str, Any] | None = None
    """Schema of the JSON object between the chain's markers; used when `structured` is on."""


class ChatRequest(Value):
    """One chat prompt and how many completions of it are wanted."""

    messages: tuple[Message, ...]
    n: int = 1
    sampling: Sampling = Sampling()
    seed: int = 0
    """Sample i of a request uses a seed derived from (seed, i), where the engine can be seeded."""
    first: int = 0
    """Number of the first sample; asked of engines with `has_numbered_samples` only."""
    prompt_version: str = ""
    """Version of the template that rendered the messages; part of the cache key."""


class Completion(Value):
    """One sampled text."""

    text: str
    finish_reason: FinishReason
    n_tokens: int | None = None
    """None where the engine does not count."""
    logprobs: tuple[tuple[str, float], ...] | None = None
    """(token, natural log-probability) in order, when asked for and supported."""


class Answer(Value):
    """What became of a request: exactly `n` samples, each a completion or a failure."""

    samples: tuple[Completion | Failure, ...]
    n_prompt_tokens: int | None = None


class Engine(Protocol):
    """Writes completions. `complete` may be called from several threads at once.

    An engine may also have a `cache_identity: str`: whatever its completions depend on beside model
    and request, such as address, adapter or revision. `CachedEngine` makes it part of the key. One
    that holds weights itself may have a `weights_identity: str`, a digest of them, by which records
    of others are refused.

    An engine states by a true `has_numbered_samples: bool` that sample i depends on the request and
    i alone, and that it writes those from number `ChatRequest.first` on.
    """

    name: str
    """Kind of engine: `openai`, `local`, `scripted`."""
    model: str
    workers: int
    """How many batches may usefully be under way at once."""

    @property
    def context_window(self) -> int | None:
        """Tokens of prompt and completion together; None when unknown.

        A plain attribute will do.
        """
        ...

    def complete(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        """Return one answer per request, in order.

        A request that finally fails is a `Failure` in its answer, never an empty string and never
        an exception; `EngineError` is raised only where no request could ever succeed.
        """
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Count the prompt tokens of the messages, or estimate them from above."""
        ...

    def close(self) -> None:
        """Release connections and memory; calling it twice is harmless."""
        ...
