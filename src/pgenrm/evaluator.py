"""The evaluator protocols: whoever can write evaluation chains for a user, or rate by a rubric.

A language model behind an engine is one (`pgenrm.llm`), the attribute model another
(`pgenrm.attributes`). A request carries no label and no presentation order: the judge permutes the
responses before asking, so neither can leak.
"""

from collections.abc import Sequence
from typing import Annotated, Protocol

from pydantic import AfterValidator, Field

from pgenrm.types import Context, Criterion, EvaluationChain, Failure, FinishReason, User, Value


class ChainRequest(Value):
    """Ask for `n` chains for one user facing these responses in this order."""

    id: str
    """Id of the comparison; only for seeding and messages."""
    user: User
    context: Context
    responses: tuple[str, ...]
    n: int = 1
    seed: int = 0
    first: int = 0
    """Number of the first sample: later chains of a request that was asked before. An evaluator
    with seeds of its own gives the samples `first` to `first + n` of one long request."""


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


def _weighted(criteria: tuple[Criterion, ...]) -> tuple[Criterion, ...]:
    if not any(criterion.weight for criterion in criteria):
        raise ValueError("a rubric needs a criterion with a weight above 0")
    return criteria


class RubricRequest(Value):
    """Ask for the scores of these responses, in this order, by a rubric that is given."""

    id: str
    """Only for seeding and messages."""
    criteria: Annotated[tuple[Criterion, ...], AfterValidator(_weighted)]
    """Of a chain, as it states them; their weights need not sum to 100."""
    context: Context
    responses: Annotated[tuple[str, ...], Field(min_length=1)]
    seed: int = 0


class RubricScorer(Protocol):
    """Rates responses by a given rubric. May be called from several threads at once."""

    def score_rubrics(self, requests: Sequence[RubricRequest]) -> list[tuple[float, ...] | Failure]:
        """Return the weighted totals of each request, by response, from 0 to 10, or a failure.

        The result of a request does not depend on the others in the batch.
        """
        ...
