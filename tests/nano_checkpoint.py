"""A checkpoint of the bundled judge's kind with random weights and its real tokenizer.

Deliberately left out: anything trained, so it writes noise.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pgenrm.nano.tokenizer import CONTEXT_TOKENS, build


def make_nano_checkpoint(directory: Path, seed: int = 0, **config: Any) -> Path:
    """Write a Llama of 0.3 M parameters, and return the directory."""
    tokenizer = build()
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CONTEXT_TOKENS,
        "tie_word_embeddings": True,
        "initializer_range": 0.15,  # with the usual 0.02 every next token would be equally likely
    }
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(vocab_size=len(tokenizer), bos_token_id=None, **ids, **sizes | config)
        )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
