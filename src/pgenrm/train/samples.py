"""What a model in training writes for a few prompts, read as the rewards read it."""

from collections.abc import Callable
from typing import Any

from pgenrm.errors import MissingExtraError
from pgenrm.seeding import rng
from pgenrm.train.recipe import SampleSpec
from pgenrm.train.rewards import margin, read_chain
from pgenrm.train.rows import row_name

try:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase
except ImportError as error:
    raise MissingExtraError("train", "training") from error


def chain_writer(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Dataset, spec: SampleSpec, seed: int
) -> Callable[[int], list[dict[str, Any]]]:
    """Choose prompts by the seed, and return a function that lets the model write for them.

    It decodes greedily, so that it draws no random numbers from the run. Of a row with `label` and
    `order`, it says whether the chain can be read, and by how many points it puts the chosen
    response ahead.
    """
    n = min(spec.n, len(rows))
    chosen = [rows[int(i)] for i in sorted(rng(seed, "samples").permutation(len(rows))[:n])]

    def write(step: int) -> list[dict[str, Any]]:
        was_training = model.training
        model.eval()
        texts = [_greedy(model, tokenizer, row, spec.max_tokens) for row in chosen]
        model.train(was_training)
        return [
            {"row": row_name(row, i), "text": text, **_rewards(row, text)}
            for i, (row, text) in enumerate(zip(chosen, texts, strict=True))
        ]

    return write


@torch.no_grad()
def _greedy(
    model: Any, tokenizer: PreTrainedTokenizerBase, row: dict[str, Any], max_tokens: int
) -> str:
    prompt, is_plain = row["prompt"], isinstance(row["prompt"], str)
    if not is_plain:
        how = row.get("chat_template_kwargs") or {}
        prompt = tokenizer.apply_chat_template(
            prompt, tokenize=False, add_generation_prompt=True, **how
        )
    encoded = tokenizer(prompt, add_special_tokens=is_plain, return_tensors="pt").to(model.device)
    written = model.generate(
        **encoded,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        max_new_tokens=max_tokens,
        use_cache=True,
    )
    n_prompt = encoded["input_ids"].shape[1]
    return str(tokenizer.decode(written[0, n_prompt:], skip_special_tokens=True))


def _rewards(row: dict[str, Any], text: str) -> dict[str, Any]:
    if row.get("label") is None or row.get("order") is None:
        return {}
    chain = read_chain(text, len(row["order"]))
    return {"is_readable": chain is not None, "margin": chain and margin(chain, row["label"])}
