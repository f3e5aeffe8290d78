"""The language-model evaluator: render the prompt, ask an engine for n completions, parse each.

Deliberately left out: presentation orders, pooling and retries of unreadable chains. The first two
are the judge's, and a retry would hide how often a model fails.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pgenrm.budget import FittedPrompt, fit_prompt
from pgenrm.chain import parse
from pgenrm.engines.protocol import (
    Answer,
    ChatRequest,
    Completion,
    Engine,
    Sampling,
    StructuredOutput,
)
from pgenrm.errors import FormatError, InputError, PromptTooLongError
from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet
from pgenrm.prompts import Template, default_template
from pgenrm.types import Failure, FailureKind, FinishReason

T = TypeVar("T")


class LanguageModelEvaluator:
    """Writes evaluation chains with a language model."""

    def __init__(
        self, engine: Engine, template: Template | None = None, sampling: Sampling | None = None
    ) -> None:
        """Set up the evaluator.

        Args:
            engine: writes the completions; closed together with the evaluator.
            template: the prompt; None chooses per user between `chain_signals`, where anything
                but bare choices is known, and `chain_history`.
            sampling: how to sample, None for the defaults. `json_schema` is filled in where
                `structured` is on.

        Raises:
            InputError: `sampling.max_tokens` leaves no room for a prompt.
        """
        self.engine = engine
        self.template = template
        self.sampling = sampling or Sampling()
        self.name = f"{engine.name}:{engine.model}"
        self.workers = engine.workers
        self.budget_tokens = budget_tokens(engine, self.sampling)

    def evaluate(self, requests: Sequence[ChainRequest]) -> list[ChainSet]:
        """Return one chain set per request, in order; see `pgenrm.evaluator.Evaluator`."""
        prompts = [self._fit(request) for request in requests]
        asked = [
            (request, prompt)
            for request, prompt in zip(requests, prompts, strict=True)
            if isinstance(prompt, FittedPrompt)
        ]
        answers = self.engine.complete([self._chat(*pair) for pair in asked])
        written = iter([self._written(*p, a) for p, a in zip(asked, answers, strict=True)])
        return [
            next(written)
            if isinstance(prompt, FittedPrompt)
            else ChainSet(
                samples=(prompt,) * request.n, prompt_version=self._template(request).version
            )
            for request, prompt in zip(requests, prompts, strict=True)
        ]

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _template(self, request: ChainRequest) -> Template:
        return self.template or default_template(request.user)

    def _fit(self, request: ChainRequest) -> FittedPrompt | Failure:
        try:
            return fit_prompt(
                self._template(request),
                request.user,
                request.context,
                request.responses,
                count_tokens=self.engine.count_tokens,
                budget_tokens=self.budget_tokens,
            )
        except PromptTooLongError as error:
            return Failure(kind=FailureKind.TOO_LONG, reason=str(error))

    def _chat(self, request: ChainRequest, prompt: FittedPrompt) -> ChatRequest:
        sampling = self.sampling
        if sampling.structured is not StructuredOutput.OFF:
            schema = tail_schema(len(request.responses))
            sampling = sampling.model_copy(update={"json_schema": schema})
        return ChatRequest(
            messages=prompt.messages,
            n=request.n,
            sampling=sampling,
            seed=request.seed,
            prompt_version=prompt.version,
        )

    def _written(self, request: ChainRequest, prompt: FittedPrompt, answer: Answer) -> ChainSet:
        n_prompt_tokens = answer.n_prompt_tokens
        if n_prompt_tokens is None:
            n_prompt_tokens = self.engine.count_tokens(prompt.messages)
        return ChainSet(
            samples=tuple(_chain_sample(s, len(request.responses)) for s in answer.samples),
            n_prompt_tokens=n_prompt_tokens,
            cuts=prompt.cuts,
            prompt_version=prompt.version,
        )


def budget_tokens(engine: Engine, sampling: Sampling) -> int | None:
    """Return how many tokens a prompt may have; None where the engine's window is unknown.

    Raises:
        InputError: the completion alone fills the window.
    """
    if engine.context_window is None:
        return None
    if sampling.max_tokens >= engine.context_window:
        raise InputError(
            f"max_tokens is {sampling.max_tokens}, but {engine.name}:{engine.model} has a context "
            f"window of {engine.context_window} tokens for prompt and completion together; lower "
            "max_tokens"
        )
    return engine.context_window - sampling.max_tokens


def tail_schema(n_responses: int) -> dict[str, Any]:
    """Return the JSON schema of the object between a chain's markers."""
    keys = [f"response_{i}" for i in range(1, n_responses + 1)]
    score = {"type": "number", "minimum": 1, "maximum": 10}
    scores = {
        "type": "object",
        "properties": dict.fromkeys(keys, score),
        "required": keys,
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"rationale": {"type": "string"}, "better_response": scores},
        "required": ["rationale", "better_response"],
        "additionalProperties": False,
    }


def read_completion(completion: Completion, read: Callable[[str], T]) -> T | Failure:
    """Read a completion with a parser; what it cannot read is a failure that keeps the text."""
    try:
        return read(completion.text)
    except FormatError as error:
        is_truncated = completion.finish_reason is FinishReason.LENGTH
        return Failure(
            kind=FailureKind.TRUNCATED if is_truncated else FailureKind.FORMAT,
            reason=str(error),
            text=completion.text,
            n_tokens=completion.n_tokens or 0,
        )


def _chain_sample(sample: Completion | Failure, n_responses: int) -> ChainSample | Failure:
    if isinstance(sample, Failure):
        return sample
    chain = read_completion(sample, lambda text: parse(text, n_responses))
    if isinstance(chain, Failure):
        return chain
    return ChainSample(
        chain=chain, finish_reason=sample.finish_reason, n_tokens=sample.n_tokens or 0
    )
