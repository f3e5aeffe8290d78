"""A tiny Llama checkpoint made from nothing: for tests of whatever loads a model directory.

The weights are random, so it writes noise. Deliberately left out: anything trained.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

CONTEXT_WINDOW = 16_384

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|role|>' + message.role + '\n' + message.content | trim + '</s>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|role|>assistant\n' }}{% endif %}"""

TEXT = [
    "The user asked for a short answer, and the first response gives one without a list.",
    "A kind reply that names the feeling comes before any advice in this conversation.",
    "Scores and weights: clarity 40, warmth 35, brevity 25; the better response is the second.",
    "def add(a, b):\n    return a + b\n",
]


def make_tiny_llama(directory: Path, seed: int = 0) -> Path:
    """Write a tiny LlamaForCausalLM with tokenizer and chat template, and return the directory.

    About 0.1 M parameters, a byte-level BPE of 340 tokens and a window of 16,384 tokens. Its
    generation config turns sampling on, which `transformers serve` needs to heed a temperature.
    """
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_WINDOW,
        initializer_range=0.15,  # with the usual 0.02 every next token would be equally likely
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True,
        temperature=1.0,
        top_k=0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<s>", "</s>", "<|pad|>", "<|role|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXT, trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<|pad|>",
        extra_special_tokens=["<|role|>"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
