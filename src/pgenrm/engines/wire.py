"""The chat protocol of OpenAI and of the servers that speak it: bodies out, samples in.

Pure functions; the network is in `pgenrm.engines.calls`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from pydantic import BaseModel, ValidationError

from pgenrm.engines.protocol import ChatRequest, Completion, StructuredOutput
from pgenrm.seeding import derive_seed
from pgenrm.types import Failure, FailureKind, FinishReason

JSON_MARKERS = ("<JSON_START>", "<JSON_END>")
"""What stands around the JSON object of an evaluation chain."""

N_BYTES_SHOWN = 120
"""How much of an unreadable body a failure quotes."""


# ---------------------------------------------------------------- bodies out


@dataclass(frozen=True)
class Dialect:
    """Which optional parameters a server was found to take."""

    max_tokens_field: str = "max_tokens"
    """Newer models of OpenAI want `max_completion_tokens`."""
    takes_seed: bool = True
    takes_logprobs: bool = True

    def narrowed(self, complaint: str) -> "Dialect | None":
        """Leave out or rename what the complaint names; None when it names nothing of the kind.

        >>> Dialect().narrowed("Unsupported parameter: 'seed'")
        Dialect(max_tokens_field='max_tokens', takes_seed=False, takes_logprobs=True)
        """
        named = set(re.findall(r"\w+", complaint))
        if "max_completion_tokens" in named and self.max_tokens_field == "max_tokens":
            return replace(self, max_tokens_field="max_completion_tokens")
        if "seed" in named and self.takes_seed:
            return replace(self, takes_seed=False)
        if "logprobs" in named and self.takes_logprobs:
            return replace(self, takes_logprobs=False)
        return None


def body(
    model: str,
    request: ChatRequest,
    dialect: Dialect,
    first: int,
    n: int,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the JSON body of one call for samples `first` to `first + n - 1` of a request.

    The seed of the call derives from (request.seed, first), cut to 31 bits: some servers hand it
    to generators that take no more. `extra` is added last and wins.
    """
    sampling = request.sampling
    fields: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        dialect.max_tokens_field: sampling.max_tokens,
    }
    if n > 1:
        fields["n"] = n
    if dialect.takes_seed:
        fields["seed"] = derive_seed(request.seed, first) >> 32
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.logprobs and dialect.takes_logprobs:
        fields["logprobs"] = True
    if sampling.structured is StructuredOutput.STRUCTURAL_TAG:
        fields["response_format"] = _structural_tag(sampling.json_schema)
    return fields | dict(extra)


def _structural_tag(json_schema: dict[str, Any] | None) -> dict[str, Any]:
    """Free text in which everything between the markers follows the schema.

    This is the form with `format`, which vLLM (0.11 and later) and SGLang (0.5.3 and later) take.
    """
    begin, end = JSON_MARKERS
    content = {"type": "json_schema", "json_schema": json_schema or {"type": "object"}}
    tags = {
        "type": "triggered_tags",
        "triggers": [begin],
        "tags": [{"type": "tag", "begin": begin, "content": content, "end": end}],
    }
    return {"type": "structural_tag", "format": tags}


# ---------------------------------------------------------------- samples in


@dataclass(frozen=True)
class Reply:
    """What one call brought: at least one sample, and what its prompt cost."""

    samples: tuple[Completion | Failure, ...]
    n_prompt_tokens: int | None


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Token(BaseModel):
    token: str
    logprob: float


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Choice(BaseModel):
    index: int = 0
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0


class _ChatCompletion(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.FILTERED,
}


def read_reply(content: bytes) -> Reply | Failure:
    """Read the body of a 200 answer; anything but a chat completion is a failure.

    A server reports one sum of completion tokens per call. Where several choices came, each gets
    its share by length, so that sums stay exact.
    """
    try:
        completion = _ChatCompletion.model_validate_json(content)
    except ValidationError:
        return lost(f"status 200, but no chat completion: {shown(content)}")
    choices = sorted(completion.choices, key=lambda choice: choice.index)
    if not choices:
        return lost("status 200 with an empty list of choices")
    usage = completion.usage
    shares = _shares(usage.completion_tokens, [_length(c) for c in choices]) if usage else None
    return Reply(
        samples=tuple(
            _sample(choice, shares[i] if shares else None) for i, choice in enumerate(choices)
        ),
        n_prompt_tokens=usage.prompt_tokens if usage else None,
    )


def _length(choice: _Choice) -> int:
    return len(choice.message.content or "") + len(_reasoning(choice))


def _reasoning(choice: _Choice) -> str:
    return choice.message.reasoning_content or choice.message.reasoning or ""


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """Split a total in proportion to the weights, to whole numbers that sum to it."""
    reached = list(accumulate(weights if any(weights) else [1] * len(weights)))
    ends = [round(total * r / reached[-1]) for r in reached]
    return [end - start for start, end in pairwise([0, *ends])]


def _sample(choice: _Choice, n_tokens: int | None) -> Completion | Failure:
    text = choice.message.content or ""
    if not text.strip():
        reason = f"no content (finish_reason {choice.finish_reason})"
        if reasoning := _reasoning(choice):
            reason += f", only {len(reasoning)} characters of reasoning; raise max_tokens"
        is_cut = choice.finish_reason == "length"
        kind = FailureKind.TRUNCATED if is_cut else FailureKind.FORMAT
        return Failure(kind=kind, reason=reason, n_tokens=n_tokens or 0)
    tokens = choice.logprobs.content if choice.logprobs else None
    return Completion(
        text=text,
        finish_reason=_FINISH_REASONS.get(choice.finish_reason or "", FinishReason.OTHER),
        n_tokens=n_tokens,
        logprobs=None if tokens is None else tuple((t.token, t.logprob) for t in tokens),
    )


def lost(reason: str) -> Failure:
    """Return the failure of a sample that the server did not give."""
    return Failure(kind=FailureKind.REQUEST, reason=reason)


def shown(content: bytes | str) -> str:
    """Quote the beginning of a body on one line."""
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
    line = " ".join(text.split())
    return repr(line if len(line) <= N_BYTES_SHOWN else line[:N_BYTES_SHOWN] + "...")


# ---------------------------------------------------------------- what a server says of itself


def served_models(listing: object) -> list[str]:
    """Name the models in the answer to GET /v1/models."""
    return [str(entry["id"]) for entry in _entries(listing) if "id" in entry]


def served_window(listing: object, model: str) -> int | None:
    """Find the context window of a model in the answer to GET /v1/models; None where none stands.

    vLLM and SGLang give `max_model_len`, OpenRouter `context_length`, llama.cpp `meta.n_ctx` (its
    `n_ctx_train` is what the model could take, not what is served).
    """
    entries = _entries(listing)
    if len(entries) > 1:
        entries = [entry for entry in entries if entry.get("id") == model]
    for entry in entries[:1]:
        meta = entry.get("meta")
        for value in (
            entry.get("max_model_len"),
            entry.get("context_length"),
            meta.get("n_ctx") if isinstance(meta, dict) else None,
        ):
            if isinstance(value, int) and value > 0:
                return value
    return None


def _entries(listing: object) -> list[dict[str, Any]]:
    data = listing.get("data") if isinstance(listing, dict) else None
    return [e for e in data if isinstance(e, dict)] if isinstance(data, list) else []
