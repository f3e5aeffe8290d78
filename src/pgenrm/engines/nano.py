"""The `nano` engine: the small judge that comes with the package, on the processor.

It knows the simulated world alone (docs/training.md); on other texts it says so once.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Final

from jinja2.sandbox import ImmutableSandboxedEnvironment

from pgenrm.engines.control_tokens import token_breaker
from pgenrm.engines.drafts import Draft, Sample, meets_stop, read_draft, too_long
from pgenrm.engines.protocol import Answer, ChatRequest, Completion, Sampling, StructuredOutput
from pgenrm.errors import EngineError, MissingExtraError
from pgenrm.seeding import derive_seed
from pgenrm.types import Failure, Message

try:
    from threadpoolctl import ThreadpoolController
    from tokenizers import Tokenizer

    from pgenrm.engines.nano_decoding import write
    from pgenrm.engines.nano_network import Network
except ImportError as error:
    raise MissingExtraError("nano", "the nano engine") from error

logger = logging.getLogger(__name__)

WEIGHTS: Final = Path(__file__).parent / "nano_weights"
"""A directory for each of `NAMES`."""
NAMES: Final = ("final", "base", "plain")
"""What judges by chains, what it began as, and what judges without chains; docs/training.md."""
FILES: Final = ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja")
"""Of a checkpoint, as transformers saves it."""
MAX_THREADS: Final = 4
"""More wait for the interpreter's lock."""
UNFAMILIAR_SHARE: Final = 0.22
"""Of a prompt's characters that no longer piece of the vocabulary covers, last lines of messages
apart, which hold instructions; above it the texts are not of the simulated world. Prompts for
chains had up to 0.02 of them and those of other judges up to 0.21; of 600 from answers of large
models all but one had 0.42 or more."""
UNFAMILIAR: Final = (
    "the bundled judge knows the texts of the simulated world only, and these are others: its "
    "verdicts mean nothing here; choose another model"
)


class NanoEngine:
    """Completions of the bundled judge.

    Sample i of a request is seeded by (request.seed, i) alone, and what is computed for a request
    does not depend on others in the batch or on the number of threads. Log-probabilities are the
    model's own, before temperature and top_p, and include the end token.

    Attributes:
        cache_identity: digest of the files.
        weights_identity: the same.
    """

    name = "nano"
    has_numbered_samples = True
    workers = 2  # one is written while another's chains are read

    def __init__(
        self,
        model: str | Path = "final",
        *,
        n_threads: int | None = None,
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        """Load the model.

        Args:
            model: one of `NAMES`, or a directory with a Llama checkpoint of this kind.
            n_threads: that write; None is one per processor, at most `MAX_THREADS`.
            warn: told once when texts are not of the simulated world.

        Raises:
            EngineError: the checkpoint cannot be loaded.
            MissingExtraError: (on import) the extra `nano` is not installed.
        """
        directory = WEIGHTS / str(model) if str(model) in NAMES else Path(model)
        if str(model) in NAMES and not directory.is_dir():
            raise EngineError(
                f"this version comes without the weights {model} of the bundled judge; make them "
                "with python -m pgenrm.train.bundled (hours), and judge with --model nano:DIRECTORY"
            )
        contents = [_content(directory / name) for name in FILES]
        self.model = str(model)
        self.cache_identity = self.weights_identity = hashlib.blake2b(
            b"".join(contents), digest_size=16
        ).hexdigest()
        self._network: Network | None = Network.load(directory)
        self.context_window = self._network.context_window
        self._eos_ids = self._network.eos_ids
        self._tokenizer = Tokenizer.from_str(contents[2].decode())
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string(contents[3].decode())
        special = self._tokenizer.get_added_tokens_decoder().values()
        self._break_tokens = token_breaker(token.content for token in special)
        self._short_ids = _short_ids(self._tokenizer)
        self._n_threads = n_threads or min(os.cpu_count() or 1, MAX_THREADS)
        self._blas = ThreadpoolController()
        self._lock = Lock()
        self._unused_warnings = iter((warn,))  # an iterator, as threads cannot take from it twice

    def complete(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        """Return one answer per request, in order.

        Raises:
            EngineError: constrained output is asked for, or the engine is closed.
        """
        encoded = [self._encode(request) for request in requests]
        prompts = {i: ids for i, ids in enumerate(encoded) if not isinstance(ids, Failure)}
        samples = [
            [Sample(i, r.sampling, derive_seed(r.seed, k)) for k in range(r.first, r.first + r.n)]
            for i, r in ((i, requests[i]) for i in prompts)
        ]
        # Threads of its own at every small product would stand in each other's way.
        with self._lock, self._blas.limit(limits=1, user_api="blas"):
            if self._network is None:
                raise EngineError("this engine is closed; make a new one")
            drafts = write(self._network, prompts, samples, self._meets_stop, self._n_threads)
        written = dict(zip(prompts, drafts, strict=True))
        return [
            Answer(samples=(ids,) * request.n, n_prompt_tokens=0)
            if isinstance(ids, Failure)
            else Answer(
                samples=tuple(self._read(draft, request.sampling) for draft in written[i]),
                n_prompt_tokens=len(ids),
            )
            for i, (request, ids) in enumerate(zip(requests, encoded, strict=True))
        ]

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Count the prompt tokens of the messages, those of the chat template included."""
        return len(self._prompt(messages))

    def close(self) -> None:
        """Release the model."""
        with self._lock:
            self._network = None

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        chat = [{"role": m.role, "content": self._harmless(m.content)} for m in messages]
        text = self._template.render(messages=chat, add_generation_prompt=True)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if self._is_unfamiliar(messages):
            for warn in self._unused_warnings:
                warn(UNFAMILIAR)
        return ids

    def _is_unfamiliar(self, messages: Sequence[Message]) -> bool:
        shown = (m.content for m in messages if m.role != "system")  # the judge is not shown it
        text = "\n".join(content.rpartition("\n")[0] or content for content in shown)
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return sum(i in self._short_ids for i in ids) > UNFAMILIAR_SHARE * len(text)

    def _harmless(self, text: str) -> str:
        return self._break_tokens(text.encode("utf-8", "replace").decode())  # lone surrogates

    def _encode(self, request: ChatRequest) -> list[int] | Failure:
        if request.sampling.structured is not StructuredOutput.OFF:
            raise EngineError(
                "the nano engine cannot constrain its output; switch structured output off"
            )
        ids = self._prompt(request.messages)
        if len(ids) + request.sampling.max_tokens > self.context_window:
            return too_long(len(ids), request.sampling.max_tokens, self.context_window)
        return ids

    def _meets_stop(self, token_ids: Sequence[int], sampling: Sampling) -> bool:
        return meets_stop(token_ids, sampling, self._decode)

    def _read(self, draft: Draft, sampling: Sampling) -> Completion | Failure:
        return read_draft(draft, sampling, self._eos_ids, self._decode, self._words)

    def _decode(self, token_ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text

    def _words(self, token_ids: Sequence[int]) -> list[str]:
        return [self._tokenizer.decode([token], skip_special_tokens=False) for token in token_ids]


def _short_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the pieces of one character or byte: what stands where no phrase fits."""
    vocabulary = tokenizer.get_vocab()
    return frozenset(
        i for piece, i in vocabulary.items() if len(piece) == 1 or piece.startswith("<0x")
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineError(
            f"{path} cannot be read ({error.strerror}); the models of the package are "
            f"{', '.join(NAMES)}, and any other name is a directory with {', '.join(FILES)}"
        ) from error
