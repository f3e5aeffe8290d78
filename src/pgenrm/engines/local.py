"""The `local` engine: a transformers model in this process.

Deliberately left out: constrained output and serving. For a large model on large GPUs, a server
behind the `openai` engine is faster.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from pgenrm.engines.control_tokens import control_tokens, token_breaker
from pgenrm.engines.drafts import Draft, Sample, meets_stop, read_draft, too_long
from pgenrm.engines.protocol import Answer, ChatRequest, Completion, Sampling, StructuredOutput
from pgenrm.errors import EngineError, MissingExtraError
from pgenrm.seeding import derive_seed
from pgenrm.types import Failure, FailureKind, Message

try:
    import torch
    from jinja2 import TemplateError

    from pgenrm.engines.checkpoint import load_checkpoint
    from pgenrm.engines.decoding import write
except ImportError as error:
    raise MissingExtraError("local", "the local engine") from error

logger = logging.getLogger(__name__)


class LocalEngine:
    """Completions from a model directory or hub id, in batches of similar length.

    Of the checkpoint's generation config only the end tokens count. Sample i of a request is seeded
    by (request.seed, i) alone; in 16-bit dtypes rounding can still tell batches apart.
    Log-probabilities are the model's own, before temperature and top_p, and include the end token.

    Attributes:
        template_file: the checkpoint's own prompt template, `pgenrm_prompt.jinja`; None without.
        cache_identity: what completions depend on beside model and request: files and dtype.
        weights_identity: the same.
    """

    name = "local"
    has_numbered_samples = True
    workers = 1

    def __init__(
        self,
        model: str | Path,
        adapter: str | Path | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 32,
        max_batch_tokens: int = 65_536,
        trust_remote_code: bool = False,
    ) -> None:
        """Load the model.

        Args:
            model: directory or hub id of a model, or of a LoRA adapter, which brings its base.
            adapter: directory or hub id of a LoRA adapter on top of `model`.
            device: `cuda`, `cuda:1`, `mps`, `cpu`, or `auto` to spread over all GPUs; None takes
                CUDA, else MPS, else CPU.
            dtype: `float32`, `bfloat16` or `float16`; None chooses, see
                `pgenrm.engines.checkpoint.default_dtype`.
            batch_size: samples written at once; less from when the memory does not suffice.
            max_batch_tokens: bound on the tokens of a batch, `max_tokens` of every sample included.
                An 8B Llama keeps 128 KiB per token in 16 bits: 8 GiB for the default.
            trust_remote_code: run code that comes with the checkpoint.

        Raises:
            EngineError: the checkpoint cannot be loaded, or has no chat template.
            InputError: the dtype is unknown.
            MissingExtraError: (on import) the extra `local` is not installed.
        """
        checkpoint = load_checkpoint(
            str(model),
            adapter=None if adapter is None else str(adapter),
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )
        self.model = str(model)
        self.context_window = checkpoint.context_window
        self.template_file = checkpoint.template_file
        self.cache_identity = self.weights_identity = checkpoint.identity
        self._network: Any = checkpoint.model
        self._tokenizer = checkpoint.tokenizer
        self._eos_ids = checkpoint.eos_ids
        self._break_tokens = token_breaker(control_tokens(checkpoint.tokenizer))
        self._batch_size = batch_size
        self._max_batch_tokens = max_batch_tokens
        self._network_lock = Lock()
        self._tokenizer_lock = Lock()  # its own: tokens are counted while a batch is written

    def complete(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        """Return one answer per request, in order.

        Raises:
            EngineError: constrained output is asked for, or the engine is closed.
        """
        encoded = [self._encode(request) for request in requests]
        prompts = {i: ids for i, ids in enumerate(encoded) if not isinstance(ids, Failure)}
        written: dict[int, list[Completion | Failure]] = {i: [] for i in prompts}
        samples = [
            [Sample(i, r.sampling, derive_seed(r.seed, k)) for k in range(r.first, r.first + r.n)]
            for i, r in enumerate(requests)
            if i in prompts
        ]
        with self._network_lock:
            if self._network is None:
                raise EngineError("this engine is closed; make a new one")
            for batch in self._batches(samples, prompts):
                for sample, result in zip(batch, self._write(prompts, batch), strict=True):
                    written[sample.prompt].append(result)
        return [
            Answer(samples=(ids,) * request.n, n_prompt_tokens=0)
            if isinstance(ids, Failure)
            else Answer(samples=tuple(written[i]), n_prompt_tokens=len(ids))
            for i, (request, ids) in enumerate(zip(requests, encoded, strict=True))
        ]

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Count the prompt tokens of the messages, those of the chat template included.

        Raises:
            EngineError: the chat template refuses them.
        """
        try:
            return len(self._prompt(messages))
        except TemplateError as error:
            raise EngineError(self._refusal(error)) from error

    def close(self) -> None:
        """Release the model."""
        with self._network_lock:
            self._network = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        chat = [{"role": m.role, "content": self._harmless(m.content)} for m in messages]
        with self._tokenizer_lock:
            ids: list[int] = self._tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, tokenize=True, return_dict=False
            )
        return ids

    def _harmless(self, text: str) -> str:
        return self._break_tokens(text.encode("utf-8", "replace").decode())  # lone surrogates

    def _encode(self, request: ChatRequest) -> list[int] | Failure:
        if request.sampling.structured is not StructuredOutput.OFF:
            raise EngineError(
                "the local engine cannot constrain its output; switch structured output off, or "
                "use a server behind the openai engine"
            )
        try:
            ids = self._prompt(request.messages)
        except TemplateError as error:
            return Failure(kind=FailureKind.REQUEST, reason=self._refusal(error))
        n_tokens = len(ids) + request.sampling.max_tokens
        if self.context_window is not None and n_tokens > self.context_window:
            return too_long(len(ids), request.sampling.max_tokens, self.context_window)
        return ids

    def _refusal(self, error: TemplateError) -> str:
        return (
            f"the chat template of {self.model} refuses the messages: {error}; use a prompt "
            "template with the roles that it takes"
        )

    def _batches(
        self, samples: Iterable[list[Sample]], prompts: Mapping[int, Sequence[int]]
    ) -> Iterator[list[Sample]]:
        """Group whole requests, longest first, so that what does not fit shows at once.

        Only a request that alone exceeds a batch is split, and its prompt encoded once for each.
        """

        def cost(request: list[Sample]) -> int:
            return len(prompts[request[0].prompt]) + request[0].sampling.max_tokens

        batch: list[Sample] = []
        room = 0
        for request in sorted(filter(None, samples), key=cost, reverse=True):
            if len(batch) + len(request) > room:
                if batch:
                    yield batch
                batch = []
                room = max(1, min(self._batch_size, self._max_batch_tokens // cost(request)))
            while len(request) > room:
                yield request[:room]
                request = request[room:]
            batch += request
        if batch:
            yield batch

    def _write(
        self, prompts: Mapping[int, Sequence[int]], batch: Sequence[Sample]
    ) -> list[Completion | Failure]:
        try:
            drafts = write(self._network, prompts, batch, self._eos_ids, self._meets_stop)
            return [self._read(draft, s.sampling) for draft, s in zip(drafts, batch, strict=True)]
        except torch.OutOfMemoryError as error:
            reason = f"no memory for a single sample; lower max_tokens or free some ({error})"
        # Out here, as the exception held on to the tensors.
        torch.cuda.empty_cache()
        if len(batch) == 1:
            return [Failure(kind=FailureKind.REQUEST, reason=reason)]
        half = self._batch_size = len(batch) // 2  # of the batches to come, too
        logger.warning("out of memory; batches of at most %d samples from here on", half)
        return self._write(prompts, batch[:half]) + self._write(prompts, batch[half:])

    def _meets_stop(self, token_ids: Sequence[int], sampling: Sampling) -> bool:
        return meets_stop(token_ids, sampling, self._decode)

    def _read(self, draft: Draft, sampling: Sampling) -> Completion | Failure:
        return read_draft(draft, sampling, self._eos_ids, self._decode, self._words)

    def _decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))

    def _words(self, token_ids: Sequence[int]) -> list[str]:
        return [self._tokenizer.decode([token]) for token in token_ids]
