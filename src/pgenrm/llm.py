"""The language-model evaluator: render the prompt, ask an engine for n completions, parse each.

Deliberately left out: presentation orders, pooling and retries of unreadable chains. The first two
are the caller's, and a retry would hide how often a model fails.
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
from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet, RubricRequest
from pgenrm.prompts import Template, default_template
from pgenrm.seeding import derive_seed
from pgenrm.types import (
    Criterion,
    EvaluationChain,
    Failure,
    FailureKind,
    FinishReason,
    User,
)

T = TypeVar("T")
ChainReader = Callable[[str, int], EvaluationChain]
"""Reads a completion about so many responses, or raises a `FormatError`."""


class LanguageModelEvaluator:
    """Writes evaluation chains, and rates by given rubrics, with a language model."""

    def __init__(
        self,
        engine: Engine,
        template: Template | None = None,
        sampling: Sampling | None = None,
        *,
        read: ChainReader | None = None,
    ) -> None:
        """Set up the evaluator.

        Args:
            engine: writes the completions; closed together with the evaluator.
            template: the prompt of chains; None chooses per user between `chain_signals`, where
                anything but bare choices is known, and `chain_history`.
            sampling: how to sample, None for the defaults. `json_schema` is filled in where
                `structured` is on.
            read: reads a completion; None reads the chains that our templates ask for.

        Raises:
            InputError: `sampling.max_tokens` leaves no room for a prompt.
        """
        self.engine = engine
        self.template = template
        self.sampling = sampling or Sampling()
        self.read = read or parse
        self.name = f"{engine.name}:{engine.model}"
        self.workers = engine.workers
        self.budget_tokens = budget_tokens(engine, self.sampling)

    def evaluate(self, requests: Sequence[ChainRequest]) -> list[ChainSet]:
        """Return one chain set per request, in order; see `pgenrm.evaluator.Evaluator`."""
        prompts = [self._fit(self._template(r), r.user, r) for r in requests]
        asked = [
            (request, prompt)
            for request, prompt in zip(requests, prompts, strict=True)
            if isinstance(prompt, FittedPrompt)
        ]
        answers = self.engine.complete(
            [self._chat(prompt, len(r.responses), _seed(r), r.n) for r, prompt in asked]
        )
        written = iter([self._written(*p, a) for p, a in zip(asked, answers, strict=True)])
        return [
            next(written)
            if isinstance(prompt, FittedPrompt)
            else ChainSet(
                samples=(prompt,) * request.n, prompt_version=self._template(request).version
            )
            for request, prompt in zip(requests, prompts, strict=True)
        ]

    def score_rubrics(self, requests: Sequence[RubricRequest]) -> list[tuple[float, ...] | Failure]:
        """Rate by given rubrics, one completion each; see `pgenrm.evaluator.RubricScorer`.

        All requests go to the engine in one batch. Totals are recomputed with the given weights
        where the completion rates exactly the given criteria, and taken as stated elsewhere. Turns
        in the middle of a long conversation give way as in the prompt of a chain.
        """
        template = Template.load("rubric")
        # To the template, whoever wants what the rubric says is a user who states nothing else.
        prompts = [
            self._fit(template, User(id=r.id, criteria=_rubric(r.criteria)), r) for r in requests
        ]
        asked = [
            (request, prompt)
            for request, prompt in zip(requests, prompts, strict=True)
            if isinstance(prompt, FittedPrompt)
        ]
        answers = self.engine.complete(
            [self._chat(prompt, len(r.responses), r.seed) for r, prompt in asked]
        )
        rated = iter([_totals(r, a.samples[0]) for (r, _), a in zip(asked, answers, strict=True)])
        return [next(rated) if isinstance(p, FittedPrompt) else p for p in prompts]

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _template(self, request: ChainRequest) -> Template:
        return self.template or default_template(request.user)

    def _fit(
        self, template: Template, user: User, request: ChainRequest | RubricRequest
    ) -> FittedPrompt | Failure:
        try:
            return fit_prompt(
                template,
                user,
                request.context,
                request.responses,
                count_tokens=self.engine.count_tokens,
                budget_tokens=self.budget_tokens,
            )
        except PromptTooLongError as error:
            return Failure(kind=FailureKind.TOO_LONG, reason=str(error))

    def _chat(self, prompt: FittedPrompt, n_responses: int, seed: int, n: int = 1) -> ChatRequest:
        sampling = self.sampling
        if sampling.structured is not StructuredOutput.OFF:
            schema = tail_schema(n_responses)
            sampling = sampling.model_copy(update={"json_schema": schema})
        return ChatRequest(
            messages=prompt.messages,
            n=n,
            sampling=sampling,
            seed=seed,
            prompt_version=prompt.version,
        )

    def _written(self, request: ChainRequest, prompt: FittedPrompt, answer: Answer) -> ChainSet:
        n_prompt_tokens = answer.n_prompt_tokens
        if n_prompt_tokens is None:
            n_prompt_tokens = self.engine.count_tokens(prompt.messages)
        return ChainSet(
            samples=tuple(self._sample(s, len(request.responses)) for s in answer.samples),
            n_prompt_tokens=n_prompt_tokens,
            cuts=prompt.cuts,
            prompt_version=prompt.version,
        )

    def _sample(self, sample: Completion | Failure, n_responses: int) -> ChainSample | Failure:
        if isinstance(sample, Failure):
            return sample
        chain = read_completion(sample, lambda text: self.read(text, n_responses))
        if isinstance(chain, Failure):
            return chain
        return ChainSample(
            chain=chain, finish_reason=sample.finish_reason, n_tokens=sample.n_tokens or 0
        )


def _seed(request: ChainRequest) -> int:
    return derive_seed(request.seed, "from", request.first) if request.first else request.seed


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


def _rubric(criteria: Sequence[Criterion]) -> tuple[str, ...]:
    return tuple(
        f"{c.name} ({c.weight:g}%)" + (f": {c.description}" if c.description else "")
        for c in criteria
    )


def _totals(request: RubricRequest, sample: Completion | Failure) -> tuple[float, ...] | Failure:
    if isinstance(sample, Failure):
        return sample
    return read_completion(sample, lambda text: _read_totals(text, request))


def _read_totals(text: str, request: RubricRequest) -> tuple[float, ...]:
    """Read the totals by the given weights.

    Raises:
        FormatError: the text states no total by this rubric for some response.
    """
    chain = parse(text, len(request.responses))
    given = {c.name.lower(): c for c in request.criteria}
    rated = [given[c.name.lower()] for c in chain.criteria if c.name.lower() in given]
    if len(rated) == len(chain.criteria) == len(request.criteria):
        totals = chain.model_copy(update={"criteria": tuple(rated)}).scores()
    else:
        totals = chain.stated_scores
    stated = tuple(total for total in totals if total is not None)
    if len(stated) < len(totals):
        raise FormatError("the breakdown is by other criteria, and no total is stated", ("total",))
    return stated
