"""A small Llama in numpy: read a prompt once, then write token by token for all its samples.

At this size a step of a general runtime is mostly overhead, and none of them lets samples of one
prompt share its keys and values, nor what they wrote alike: `benchmarks/nano_engines.py` compares.
Deliberately left out: everything that the bundled judge lacks, such as biases and shared key-value
heads.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pgenrm.errors import EngineError, MissingExtraError

try:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
except ImportError as error:
    raise MissingExtraError("nano", "the nano engine") from error

Array = NDArray[np.float32]

ROWS: Final = 32
"""Rows of every matrix product of a step, the last one filled up: a row's result depends on the
number of rows (by rounding), and so a sample would on who shares its step."""
PROMPT_ROWS: Final = 8
"""The same of a prompt's keys and values, which only rows of its own look at."""

_EXPECTED: Final[dict[str, Any]] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
}


@dataclass(frozen=True)
class _Layer:
    """Weights of a layer, transposed for `rows @ weights`; norms and scales are folded in."""

    query_key_value: Array
    output: Array
    gate_up: Array
    down: Array


@dataclass(frozen=True)
class _Cache:
    """What a layer keeps of a prompt and of the tokens that were written since."""

    prompt_keys: Array
    """[n_heads, n_prompt_tokens, head_dim]."""
    prompt_values: Array
    """As the keys."""
    own: Array
    """[2, n_heads, n_rows, max_tokens, head_dim]; keys, then values."""


@dataclass
class Writing:
    """What is being written for one prompt: a row for all samples that are the same so far."""

    n_prompt_tokens: int
    caches: list[_Cache]
    n_written: int = 0
    """Tokens whose keys and values are kept, of every row."""
    last: list[int] = field(default_factory=list)
    """[n_rows]; the newest token of each."""

    def go_on(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Go on with some rows, in this order; one that is given twice parts here.

        Args:
            rows: [n_rows], of those so far.
            tokens: [n_rows]; the newest of each.
        """
        if list(rows) != list(range(self.caches[0].own.shape[2])):
            self.caches = [
                _Cache(c.prompt_keys, c.prompt_values, _taken(c.own, rows, self.n_written))
                for c in self.caches
            ]
        self.last = list(tokens)


class Network:
    """The weights, and what is computed with them. Its functions may run in several threads.

    Attributes:
        context_window: tokens of prompt and completion together.
        eos_ids: tokens that end a completion.
    """

    def __init__(
        self, config: Mapping[str, Any], stored: Mapping[str, NDArray[Any]], source: str
    ) -> None:
        """Arrange the weights; what is given is left as it is.

        Args:
            config: a model's, as transformers writes it.
            stored: its weights by transformers' names.
            source: where they are from, for messages.

        Raises:
            EngineError: this is no Llama of the bundled kind, or weights are missing or no numbers.
        """
        check_shape(config, source)
        self.context_window = int(config["max_position_embeddings"])
        end = config["eos_token_id"]
        self.eos_ids = frozenset(end if isinstance(end, list) else [end])
        self._n_heads = n_heads = int(config["num_attention_heads"])
        self._epsilon = np.float32(config["rms_norm_eps"])
        weights = {name: tensor.astype(np.float32) for name, tensor in stored.items()}
        if not all(np.isfinite(tensor).all() for tensor in weights.values()):
            raise EngineError(f"{source} holds weights that are no numbers; train it again")

        def of(name: str) -> Array:
            if name not in weights:
                raise EngineError(f"{source} lacks the weights {name}; save it again")
            return weights[name]

        self._embeddings = of("model.embed_tokens.weight")
        head = self._embeddings if config["tie_word_embeddings"] else of("lm_head.weight")
        self._head = _transposed(head * of("model.norm.weight"))
        width = self._embeddings.shape[1]
        self._head_dim = head_dim = width // n_heads
        # Halves that are rotated together stand next to each other, so that a pair is a complex
        # number and its rotation a product. Scores do not change: queries and keys move alike.
        pairs = np.arange(width).reshape(n_heads, 2, head_dim // 2).swapaxes(1, 2).ravel()
        scale = np.float32(head_dim**-0.5)
        self._layers = []
        for i in range(int(config["num_hidden_layers"])):
            at = f"model.layers.{i}."
            query, key, value = (of(f"{at}self_attn.{kind}_proj.weight") for kind in "qkv")
            gate, up = (of(f"{at}mlp.{kind}_proj.weight") for kind in ("gate", "up"))
            before_attention = of(f"{at}input_layernorm.weight")
            before_mlp = of(f"{at}post_attention_layernorm.weight")
            attended = np.concatenate([query[pairs] * scale, key[pairs], value])
            self._layers.append(
                _Layer(
                    query_key_value=_transposed(attended * before_attention),
                    output=_transposed(of(f"{at}self_attn.o_proj.weight")),
                    gate_up=_transposed(np.concatenate([gate, up]) * before_mlp),
                    down=_transposed(of(f"{at}mlp.down_proj.weight")),
                )
            )
        speeds = float(config["rope_parameters"]["rope_theta"]) ** (
            -np.arange(0, head_dim, 2) / head_dim
        )
        angles = np.arange(self.context_window)[:, None] * speeds
        self._turns = np.exp(1j * angles).astype(np.complex64)[:, None]

    @classmethod
    def load(cls, directory: Path) -> "Network":
        """Load `config.json` and `model.safetensors` of a transformers checkpoint.

        Raises:
            EngineError: a file is missing or damaged, or as for `Network`.
        """
        try:
            config = json.loads((directory / "config.json").read_text("utf-8"))
            stored = load_file(directory / "model.safetensors")
        except (OSError, ValueError, TypeError, SafetensorError) as error:  # numpy lacks bfloat16
            raise EngineError(
                f"cannot load {directory} ({error}); give a directory with config.json and "
                "model.safetensors in float32 or float16"
            ) from error
        return cls(config, stored, str(directory))

    def read(self, prompt: Sequence[int], max_tokens: int) -> tuple[Writing, Array]:
        """Read a prompt.

        Args:
            prompt: its token ids, one at least.
            max_tokens: that will be written, at most.

        Returns:
            A writing of one row, and the logits of its first token [1, n_tokens].
        """
        n = len(prompt)
        x = self._embeddings[list(prompt)]
        future = np.triu(np.full((n, n), -np.inf, np.float32), 1)
        caches = []
        for layer in self._layers:
            query, key, value = (
                np.ascontiguousarray(part.swapaxes(0, 1))
                for part in self._projected(x, layer, self._turns[:n])
            )
            own = np.empty((2, self._n_heads, 1, max_tokens, self._head_dim), np.float32)
            caches.append(_Cache(key, value, own))
            shares = _exponentials(query @ key.swapaxes(1, 2) + future)
            seen = (shares @ value) / shares.sum(-1, keepdims=True)
            x += seen.swapaxes(0, 1).reshape(n, -1) @ layer.output
            x += self._mlp(x, layer)
        return Writing(n, caches), self._normed(x[-1:]) @ self._head

    def step(self, writings: Sequence[Writing]) -> list[Array]:
        """Compute the logits of the next token of every row.

        Args:
            writings: one at least; their newest tokens are read.

        Returns:
            Per writing its logits [n_rows, n_tokens].
        """
        ends = np.cumsum([len(writing.last) for writing in writings])
        slices = [slice(end - len(w.last), end) for w, end in zip(writings, ends, strict=True)]
        n = -(-int(ends[-1]) // ROWS) * ROWS
        tokens, positions = np.zeros(n, int), np.zeros(n, int)
        for writing, rows in zip(writings, slices, strict=True):
            tokens[rows] = writing.last
            positions[rows] = writing.n_prompt_tokens + writing.n_written
        x = self._embeddings[tokens].reshape(n // ROWS, ROWS, -1)
        turns = self._turns[positions]
        seen = np.zeros((n, self._n_heads, self._head_dim), np.float32)
        for i, layer in enumerate(self._layers):
            query, key, value = self._projected(x, layer, turns)
            for writing, rows in zip(writings, slices, strict=True):
                seen[rows] = _attend(
                    writing.caches[i], writing.n_written, query[rows], key[rows], value[rows]
                )
            x += seen.reshape(x.shape) @ layer.output
            x += self._mlp(x, layer)
        for writing in writings:
            writing.n_written += 1
        logits = (self._normed(x) @ self._head).reshape(n, -1)
        return [logits[rows] for rows in slices]

    def _projected(
        self, x: Array, layer: _Layer, turns: NDArray[np.complex64]
    ) -> tuple[Array, Array, Array]:
        """Return turned queries, turned keys, and values, each [n_rows, n_heads, head_dim].

        Args:
            x: [..., width]; a product for each block of rows.
            layer: whose weights project.
            turns: [n_rows, 1, head_dim / 2]; by position.
        """
        n = self._n_heads
        heads = (self._normed(x) @ layer.query_key_value).reshape(-1, 3 * n, self._head_dim)
        as_pairs = heads.view(np.complex64)
        as_pairs[:, : 2 * n] *= turns
        return heads[:, :n], heads[:, n : 2 * n], heads[:, 2 * n :]

    def _mlp(self, x: Array, layer: _Layer) -> Array:
        gated = self._normed(x) @ layer.gate_up
        gate, up = gated[..., : len(layer.down)], gated[..., len(layer.down) :]
        with np.errstate(over="ignore"):  # a gate far below zero is shut: x / inf
            up *= gate / (1 + np.exp(-gate))
        product: Array = np.matmul(up, layer.down)
        return product

    def _normed(self, x: Array) -> Array:
        squares = np.einsum("...d,...d->...", x, x) / np.float32(x.shape[-1])
        normed: Array = x * (1 / np.sqrt(squares + self._epsilon))[..., None]
        return normed


def _attend(cache: _Cache, n_written: int, query: Array, key: Array, value: Array) -> Array:
    """Keep key and value, and mix the values of prompt and own tokens.

    Args:
        cache: of the layer; written to at `n_written`.
        n_written: own tokens before this one.
        query: [n_rows, n_heads, head_dim].
        key: as the query.
        value: as the query.

    Returns:
        [n_rows, n_heads, head_dim].
    """
    now, n = n_written + 1, len(query)
    cache.own[0, :, :, n_written] = key.swapaxes(0, 1)
    cache.own[1, :, :, n_written] = value.swapaxes(0, 1)
    own_keys, own_values = cache.own[:, :, :, :now]
    n_heads, n_prompt, head_dim = cache.prompt_keys.shape
    n_blocks = -(-n // PROMPT_ROWS)
    filled = np.zeros((n_heads, n_blocks * PROMPT_ROWS, head_dim), np.float32)
    filled[:, :n] = query.swapaxes(0, 1)
    blocks = filled.reshape(n_heads, n_blocks, PROMPT_ROWS, head_dim)
    scores = np.zeros((*filled.shape[:2], n_prompt + now), np.float32)
    # Keys first, as they come from memory in that order.
    by_prompt = cache.prompt_keys[:, None] @ blocks.swapaxes(2, 3)
    scores[..., :n_prompt] = by_prompt.swapaxes(2, 3).reshape(*filled.shape[:2], n_prompt)
    scores[:, :n, n_prompt:] = (own_keys @ filled[:, :n, :, None])[..., 0]
    shares = _exponentials(scores)
    of_prompt = shares[..., :n_prompt].reshape(n_heads, n_blocks, PROMPT_ROWS, n_prompt)
    seen = (of_prompt @ cache.prompt_values[:, None]).reshape(filled.shape)[:, :n]
    seen += (shares[:, :n, None, n_prompt:] @ own_values)[..., 0, :]
    seen /= shares[:, :n].sum(-1, keepdims=True)
    return seen.swapaxes(0, 1)


def _exponentials(scores: Array) -> Array:
    """Exponentiate in place, the largest of each row to 1."""
    scores -= scores.max(-1, keepdims=True)
    return np.exp(scores, out=scores)


def _taken(own: Array, rows: Sequence[int], n_written: int) -> Array:
    taken = np.empty((*own.shape[:2], len(rows), *own.shape[3:]), np.float32)
    taken[..., :n_written, :] = own[:, :, list(rows), :n_written]
    return taken


def _transposed(weights: Array) -> Array:
    return np.ascontiguousarray(weights.T)


def check_shape(config: Mapping[str, Any], source: str) -> None:
    """See that a model is a Llama of the bundled kind.

    Args:
        config: the model's, as transformers writes it.
        source: where it is from, for the message.

    Raises:
        EngineError: it is not.
    """
    found = {name: config.get(name) for name in _EXPECTED}
    found["num_key_value_heads"] = config.get("num_key_value_heads")
    found["rope_type"] = (config.get("rope_parameters") or {}).get("rope_type")
    expected = _EXPECTED | {
        "num_key_value_heads": config.get("num_attention_heads"),
        "rope_type": "default",
    }
    for name, value in expected.items():
        if found[name] != value:
            raise EngineError(
                f"{source}: {name} is {found[name]!r}, and the nano engine runs {value!r} only; "
                "use the local engine, which runs any model"
            )
