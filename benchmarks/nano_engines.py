"""What runs the bundled judge fastest: numpy (the engine `nano`), or a general runtime.

Each runtime loads the same checkpoint in a process of its own with the same number of threads,
writes a greedy chain for some prompts of the simulated world, which must be the same text
everywhere, and then 8 chains for each of the prompts at temperature 1. In several rounds, one after
another, the best of which counts, as a busy machine disturbs all of them. Load time is from the
import on.

- numpy: `pgenrm.engines.nano`; the prompt is encoded once, samples share its keys and values.
- transformers: `pgenrm.engines.local` in float32; the prompt is encoded once.
- ctranslate2, ctranslate2-int8: its generator; 8 hypotheses of a prompt, 4 prompts at once.
- onnxruntime: the graph and the loop of onnxruntime-genai; 8 copies of one prompt at once.

    python -m benchmarks.nano_engines CHECKPOINT [--prompts 16] [--threads 2] [--rounds 3] [--json]

Needs `pip install ctranslate2 onnxruntime-genai onnx onnx-ir` beside the extra `dev`.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

N_SAMPLES = 8
N_PAST_CHOICES = 3
MAX_TOKENS = 640
SEED = 7


@dataclass(frozen=True)
class Prompt:
    """A prompt as messages and as token ids."""

    messages: list[dict[str, str]]
    token_ids: list[int]


@dataclass(frozen=True)
class Measured:
    """What a runtime did."""

    runtime: str
    load_s: float
    greedy: list[str]
    """One text per prompt."""
    n_tokens: float
    """Per sampled chain, on average."""
    chains_per_s: float
    chains_per_cpu_s: float
    """Per second of processor time: what other work on the machine does not count in."""


Write = Callable[[Sequence[Prompt], int, bool, int], list[str]]
"""(prompts, samples of each, greedy, seed) -> texts, sample by sample within prompt by prompt."""
Load = Callable[[Path, Path, int], Write]
"""(checkpoint, exported graph, threads) -> what writes."""


# ---------------------------------------------------------------- runtimes


def _of_engine(engine: Any) -> Write:
    from pgenrm.engines.protocol import ChatRequest, Sampling
    from pgenrm.types import Message

    def write(prompts: Sequence[Prompt], n: int, greedy: bool, seed: int) -> list[str]:
        sampling = Sampling(temperature=0.0 if greedy else 1.0, max_tokens=MAX_TOKENS)
        answers = engine.complete(
            [
                ChatRequest(
                    messages=tuple(Message(**message) for message in prompt.messages),
                    n=n,
                    sampling=sampling,
                    seed=seed + i,
                )
                for i, prompt in enumerate(prompts)
            ]
        )
        return [sample.text for answer in answers for sample in answer.samples]

    return write


def load_numpy(checkpoint: Path, exported: Path, n_threads: int) -> Write:
    from pgenrm.engines.nano import NanoEngine

    return _of_engine(NanoEngine(checkpoint, n_threads=n_threads))


def load_transformers(checkpoint: Path, exported: Path, n_threads: int) -> Write:
    import torch

    from pgenrm.engines.local import LocalEngine

    torch.set_num_threads(n_threads)
    return _of_engine(LocalEngine(checkpoint, device="cpu", dtype="float32"))


def load_ctranslate2(
    checkpoint: Path, exported: Path, n_threads: int, compute_type: str = "float32"
) -> Write:
    import ctranslate2
    from tokenizers import Tokenizer

    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    tokenizer: Any = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    pieces = [tokenizer.id_to_token(i) for i in range(config["vocab_size"])]
    with tempfile.TemporaryDirectory() as directory:
        _ctranslate2_spec(checkpoint, config, pieces).save(directory)
        files = {path.name: path.read_bytes() for path in Path(directory).iterdir()}
    generator = ctranslate2.Generator(
        "nano",
        files=files,
        compute_type=compute_type,
        inter_threads=n_threads,
        intra_threads=1,
    )

    def write(prompts: Sequence[Prompt], n: int, greedy: bool, seed: int) -> list[str]:
        results = generator.generate_batch(
            [[pieces[i] for i in prompt.token_ids] for prompt in prompts],
            max_batch_size=4,
            num_hypotheses=n,
            sampling_topk=1 if greedy else 0,
            max_length=MAX_TOKENS,
            include_prompt_in_result=False,
            end_token=[config["eos_token_id"]],
        )
        return [tokenizer.decode(ids) for result in results for ids in result.sequences_ids]

    return write


def load_ctranslate2_int8(checkpoint: Path, exported: Path, n_threads: int) -> Write:
    return load_ctranslate2(checkpoint, exported, n_threads, "int8")


def _ctranslate2_spec(checkpoint: Path, config: dict[str, Any], pieces: list[str]) -> Any:
    from ctranslate2.specs import common_spec, transformer_spec
    from safetensors.numpy import load_file

    weights = load_file(checkpoint / "model.safetensors")

    def of(name: str) -> Any:
        return weights[f"model.{name}.weight"].astype(np.float32)

    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        config["num_hidden_layers"],
        config["num_attention_heads"],
        activation=common_spec.Activation.SWISH,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=False,
        rotary_base=config["rope_parameters"]["rope_theta"],
        quant_type=common_spec.Quantization.CT2,
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = of("embed_tokens")
    decoder.layer_norm.gamma = of("norm")
    for i, layer in enumerate(decoder.layer):
        at = f"layers.{i}"
        layer.self_attention.layer_norm.gamma = of(f"{at}.input_layernorm")
        layer.self_attention.linear[0].weight = np.concatenate(
            [of(f"{at}.self_attn.{kind}_proj") for kind in "qkv"]
        )
        layer.self_attention.linear[1].weight = of(f"{at}.self_attn.o_proj")
        layer.ffn.layer_norm.gamma = of(f"{at}.post_attention_layernorm")
        layer.ffn.linear_0.weight = of(f"{at}.mlp.gate_proj")
        layer.ffn.linear_0_noact.weight = of(f"{at}.mlp.up_proj")
        layer.ffn.linear_1.weight = of(f"{at}.mlp.down_proj")
    spec.register_vocabulary(pieces)
    end = pieces[config["eos_token_id"]]
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = end
    spec.config.layer_norm_epsilon = config["rms_norm_eps"]
    spec.validate()
    spec.optimize()
    return spec


def load_onnxruntime(checkpoint: Path, exported: Path, n_threads: int) -> Write:
    import onnxruntime_genai as og
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    model = og.Model(str(exported))
    end = json.loads((checkpoint / "config.json").read_text("utf-8"))["eos_token_id"]

    def write_one(prompt: Prompt, n: int, greedy: bool, seed: int) -> list[str]:
        parameters = og.GeneratorParams(model)
        n_prompt = len(prompt.token_ids)
        parameters.set_search_options(
            batch_size=n,
            do_sample=not greedy,
            top_k=0,
            temperature=1.0,
            random_seed=seed,
            max_length=n_prompt + MAX_TOKENS,
        )
        generator = og.Generator(model, parameters)
        generator.append_tokens(np.array([prompt.token_ids] * n, np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        written = [generator.get_sequence(i).tolist()[n_prompt:] for i in range(n)]
        return [tokenizer.decode(ids[: ids.index(end)] if end in ids else ids) for ids in written]

    def write(prompts: Sequence[Prompt], n: int, greedy: bool, seed: int) -> list[str]:
        with ThreadPoolExecutor(n_threads) as threads:
            texts = threads.map(lambda p: write_one(p, n, greedy, seed), prompts)
            return [text for some in texts for text in some]

    return write


RUNTIMES: dict[str, Load] = {
    "numpy": load_numpy,
    "transformers": load_transformers,
    "ctranslate2": load_ctranslate2,
    "ctranslate2-int8": load_ctranslate2_int8,
    "onnxruntime": load_onnxruntime,
}


# ---------------------------------------------------------------- measuring


def export(checkpoint: Path, target: Path) -> None:
    """Export to ONNX with a key-value cache, one thread per session."""
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-p", "fp32", "-e", "cpu"]
    subprocess.run(
        [*builder, "-i", str(checkpoint), "-o", str(target)], check=True, capture_output=True
    )
    path = target / "genai_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = 1
    path.write_text(json.dumps(config), "utf-8")


def make_prompts(checkpoint: Path, n: int) -> list[Prompt]:
    from transformers import AutoTokenizer

    from pgenrm.history import draw_pairs
    from pgenrm.prompts import default_template
    from pgenrm.sim.config import WorldConfig
    from pgenrm.sim.world import World

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    prompts = []
    for one in World(WorldConfig()).comparisons("test_unseen", n):
        user = draw_pairs(one.user, N_PAST_CHOICES, SEED, one.id)
        rendered = default_template(user).render(user, one.context, one.responses)
        messages = [{"role": m.role, "content": m.content} for m in rendered]
        ids: Any = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        prompts.append(Prompt(messages, ids))
    return prompts


def measure(
    runtime: str, checkpoint: Path, exported: Path, prompts: list[Prompt], n_threads: int, seed: int
) -> Measured:
    """Measure a runtime; the process must be fresh."""
    start = time.perf_counter()
    write = RUNTIMES[runtime](checkpoint, exported, n_threads)
    load_s = time.perf_counter() - start
    greedy = write(prompts, 1, True, seed)
    start, start_cpu = time.perf_counter(), time.process_time()
    texts = write(prompts, N_SAMPLES, False, seed)
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    return Measured(
        runtime=runtime,
        load_s=load_s,
        greedy=greedy,
        n_tokens=float(np.mean([len(e.ids) for e in tokenizer.encode_batch(texts)])),
        chains_per_s=len(texts) / wall_s,
        chains_per_cpu_s=len(texts) / cpu_s,
    )


def best_of(rounds: Sequence[Measured]) -> Measured:
    """Return the best figures of one runtime."""
    return Measured(
        runtime=rounds[0].runtime,
        load_s=min(one.load_s for one in rounds),
        greedy=rounds[0].greedy,
        n_tokens=float(np.mean([one.n_tokens for one in rounds])),
        chains_per_s=max(one.chains_per_s for one in rounds),
        chains_per_cpu_s=max(one.chains_per_cpu_s for one in rounds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    # One thread inside each product; the runtimes' own threads work side by side.
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    prompts = make_prompts(args.checkpoint, args.prompts)
    measured: dict[str, list[Measured]] = {name: [] for name in args.runtimes}
    with tempfile.TemporaryDirectory() as exported:
        if "onnxruntime" in args.runtimes:
            export(args.checkpoint, Path(exported))
        for i in range(args.rounds):
            for name in args.runtimes:
                task = (name, args.checkpoint, Path(exported), prompts, args.threads, SEED + i)
                with multiprocessing.get_context("spawn").Pool(1) as fresh:
                    measured[name].append(fresh.apply(measure, task))
    best = [best_of(rounds) for rounds in measured.values()]
    load = os.getloadavg()[1]

    def agreement(one: Measured) -> float:
        pairs = zip(one.greedy, best[0].greedy, strict=True)
        return float(np.mean([a == b for a, b in pairs]))

    if args.json:
        rows = [asdict(one) | {"greedy": agreement(one)} for one in best]
        print(json.dumps({"load_average": load, "threads": args.threads, "runtimes": rows}))
        return
    table = Table(title=f"{args.threads} threads, m = {N_SAMPLES}; load average {load:.1f}")
    for column in ("runtime", "load s", "tokens", "chains/s", "chains/processor s"):
        table.add_column(column, justify="left" if column == "runtime" else "right")
    table.add_column(f"greedy as {best[0].runtime}", justify="right")
    for one in best:
        table.add_row(
            one.runtime,
            f"{one.load_s:.2f}",
            f"{one.n_tokens:.0f}",
            f"{one.chains_per_s:.1f}",
            f"{one.chains_per_cpu_s:.1f}",
            f"{agreement(one):.0%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
