"""A model that can learn by reward within seconds: each of its chains is a single token.

A prompt shows two words; `good` was chosen. Of the few tokens that the model knows, one is a chain
that prefers the first response, one prefers the second, and the rest cannot be read as chains.
"""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pgenrm.chain import format
from pgenrm.types import Criterion, EvaluationChain, Rating

WORDS = ("good", "bad", "which", "one", "the", "shown")
SPECIAL = ("<s>", "</s>", "<|pad|>", "<|role|>")
TEMPLATE = """
{% set version = "1" %}
{% block user %}{{ query }} {% for response in responses %}{{ response }} {% endfor %}{% endblock %}
"""
CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}{{ '<|role|> ' + message.content | trim }}{% endfor %}
{%- if add_generation_prompt %}{{ ' <|role|>' }}{% endif %}"""


def chain(
    first: float, second: float, criterion: str = "Short and to the point"
) -> EvaluationChain:
    return EvaluationChain(
        preferences="Wants what is good.",
        criteria=(Criterion(name=criterion, weight=100),),
        ratings=((Rating(score=first),), (Rating(score=second),)),
        stated_scores=(first, second),
    )


CHAINS = (format(chain(9, 2)), format(chain(2, 9)))
"""Prefers the first response, and prefers the second."""


def make_model(directory: Path, seed: int = 0) -> Path:
    """Write model, tokenizer and chat template, and return the directory."""
    names = [*SPECIAL, *WORDS]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "shown"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<|pad|>",
        extra_special_tokens=["<|role|>"],
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in CHAINS])
    tokenizer.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.05,  # with 0.02 it learns later, with 0.2 it settles on one answer
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "short.jinja").write_text(TEMPLATE)
    return directory


def write_comparisons(path: Path, n: int = 32, **more: Any) -> Path:
    rows = (
        {
            "id": f"c{i}",
            "user": {"id": f"u{i % 4}", "criteria": ["What is good."]},
            "context": "which one",
            "responses": ["good", "bad"],
            "label": 0,
            **more,
        }
        for i in range(n)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(model: Path, data: Path, **more: Any) -> dict[str, Any]:
    """A recipe that fits model and comparisons; `trl` settings are merged."""
    trl = {
        "max_steps": 6,
        "per_device_train_batch_size": 16,
        "num_generations": 4,
        "max_completion_length": 1,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_steps": 3,
        "report_to": [],
        **more.pop("trl", {}),
    }
    return {
        "model": {"path": str(model)},
        "data": {"path": str(data)},
        "template": str(model / "short.jinja"),
        "n_history": [0],
        "trl": trl,
        **more,
    }
