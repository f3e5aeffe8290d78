"""The evaluator protocol: whoever can write evaluation chains for a user.

A language model behind an engine is one (`pgenrm.llm`), the attribute model another
(`pgenrm.attributes`). A request carries no label and no presentation order: the judge permutes the
responses before asking, so neither can leak.
"""

from collections.abc import Sequence
from typing import Protocol

from pgenrm.types import Context, EvaluationChain, Failure, FinishReason, User, Value


class ChainRequest(Value):
    """Ask for `n` chains for one user facing these responses in this order."""

    id: str
    """Id of the comparison; only for seeding and messages."""
    user: User
    context: Context
    responses: tuple[str, ...]
    n: int = 1
    seed: int = 0


class ChainSample(Value):
    """A readable chain."""

    chain: EvaluationChain
    finish_reason: FinishReason = FinishReason.STOP
    n_tokens: int = 0


class ChainSet(Value):
    """What became of a request: exactly `n` samples, each a chain or a failure."""

    samples: tuple[ChainSample | Failure, ...]
    n_prompt_tokens: int = 0
    cuts: tuple[str, ...] = ()
    prompt_version: str = ""


class Evaluator(Protocol):
    """Writes evaluation chains. `evaluate` may be called from several threads at once."""

    name: str
    """Kind and model, as recorded in every judgment, e.g. `openai:Qwen3-8B`."""
    workers: int
    """How many batches may usefully be under way at once."""

    def evaluate(self, requests: Sequence[ChainRequest]) -> list[ChainSet]:
        """Return one chain set per request, in order.

        The result of a request does not depend on the others in the batch.
        """
        ...

    def close(self) -> None:
        """Release what the evaluator holds; calling it twice is harmless."""
        ...
