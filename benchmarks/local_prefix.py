"""What it saves to encode a prompt once for its n samples.

A Llama with random weights on the CPU writes n samples of fixed length for one prompt, with the
local engine's decoding loop and with `generate(num_return_sequences=n)`, which encodes the prompt n
times. Both in turns, in one run; the ratio of their median times is the result.

    python -m benchmarks.local_prefix [--json]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from pgenrm.engines.decoding import write
from pgenrm.engines.drafts import Sample
from pgenrm.engines.protocol import Sampling

N_SAMPLES = 8
N_REPEATS = 3
N_PROMPT_TOKENS = 1500


@dataclass(frozen=True)
class Measured:
    """Median times for one length of the samples."""

    n_new_tokens: int
    encoded_once_s: float
    encoded_n_fold_s: float
    ratio: float


def make_model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    return LlamaForCausalLM(config).eval()  # type: ignore[no-untyped-call]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(model: Any, n_new_tokens: int) -> Measured:
    prompt = torch.randint(3, 32_000, (1, N_PROMPT_TOKENS))
    samples = [Sample(0, Sampling(max_tokens=n_new_tokens), seed) for seed in range(N_SAMPLES)]

    def once() -> None:
        write(model, {0: prompt[0].tolist()}, samples, frozenset(), lambda ids, sampling: False)

    def n_fold() -> None:
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            num_return_sequences=N_SAMPLES,
            do_sample=True,
            top_k=0,
            min_new_tokens=n_new_tokens,
            max_new_tokens=n_new_tokens,
            pad_token_id=0,
        )

    times_s = [(seconds(once), seconds(n_fold)) for _ in range(N_REPEATS)]
    once_s, n_fold_s = (statistics.median(column) for column in zip(*times_s, strict=True))
    return Measured(n_new_tokens, round(once_s, 3), round(n_fold_s, 3), round(n_fold_s / once_s, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    model = make_model()
    rows = [measure(model, n_new_tokens) for n_new_tokens in (1, 128)]
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
        return
    table = Table(
        title=f"{N_SAMPLES} samples, {N_PROMPT_TOKENS} prompt tokens, "
        f"{model.num_parameters() / 1e6:.0f} M weights"
    )
    for name in asdict(rows[0]):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*[str(value) for value in asdict(row).values()])
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
