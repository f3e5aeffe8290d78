"""Write completions with a causal language model, each prompt encoded once for all its samples.

A loop of our own, and not `generate`, because that encodes a prompt once per sample, takes one set
of sampling parameters and one random state for a whole batch, keeps finished rows in it to the end,
and applies whatever the checkpoint's generation config sets.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from pgenrm.engines.drafts import Draft, Sample
from pgenrm.engines.protocol import Sampling
from pgenrm.seeding import rng


@torch.inference_mode()
def write(
    model: Any,
    prompts: Mapping[int, Sequence[int]],
    samples: Sequence[Sample],
    eos_ids: frozenset[int],
    meets_stop: Callable[[Sequence[int], Sampling], bool],
) -> list[Draft]:
    """Write all samples in one batch, in order.

    Random numbers come from each sample's own generator, one per token, so that a sample depends
    on the rest of the batch through rounding only.

    Args:
        model: a causal language model of `transformers`.
        prompts: token ids by number of the prompt; those that no sample names are left out.
        samples: at least one.
        eos_ids: tokens that end a completion.
        meets_stop: whether these token ids end with a stop sequence.

    Raises:
        torch.OutOfMemoryError: the batch is too large for the device.
    """
    cache: Any = DynamicCache(config=model.config)

    def forward(ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        # Sampling needs float64, which MPS lacks.
        return (logits.cpu() if logits.device.type == "mps" else logits).float()

    used = sorted({sample.prompt for sample in samples})
    ids, mask = _left_padded([prompts[i] for i in used], model.device)
    logits = forward(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0))

    copies = torch.tensor([used.index(sample.prompt) for sample in samples])
    cache.reorder_cache(copies)  # takes any rows, also repeated ones, in all kinds of layers
    mask, logits = mask[copies], logits[copies]

    drafts = [Draft() for _ in samples]
    generators = [rng(sample.seed) for sample in samples]
    active = list(range(len(samples)))
    while True:
        tokens, logprobs = draw(
            logits,
            temperature=[samples[i].sampling.temperature for i in active],
            top_p=[samples[i].sampling.top_p for i in active],
            uniform=[generators[i].random() for i in active],
        )
        for i, token, logprob in zip(active, tokens, logprobs, strict=True):
            drafts[i].extend(token, logprob, samples[i].sampling, eos_ids, meets_stop)

        rows = [row for row, i in enumerate(active) if drafts[i].finish_reason is None]
        if not rows:
            return drafts
        if len(rows) < len(active):
            kept = torch.tensor(rows)
            cache.reorder_cache(kept)
            mask = mask[kept]
            active = [active[row] for row in rows]
        positions = mask.sum(-1, keepdim=True)
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        last = [[drafts[i].token_ids[-1]] for i in active]
        logits = forward(torch.tensor(last, device=mask.device), mask, positions)


def draw(
    logits: torch.Tensor,
    temperature: Sequence[float],
    top_p: Sequence[float],
    uniform: Sequence[float],
) -> tuple[list[int], list[float]]:
    """Draw one token per row by inverting the cumulative distribution.

    Args:
        logits: [n_rows, n_tokens], float32.
        temperature: [n_rows]; 0 takes the likeliest token.
        top_p: [n_rows]; the likeliest tokens up to this mass remain, one at least.
        uniform: [n_rows], in [0, 1).

    Returns:
        Tokens [n_rows], and their log-probabilities [n_rows] before temperature and top_p: NaN
        where the logits are NaN or infinite, and then the token means nothing.
    """
    device = logits.device
    heat = torch.tensor(temperature, device=device)[:, None]
    likeliest = logits.amax(-1, keepdim=True)  # its distance cannot overflow at low temperatures
    probs = ((logits - likeliest) / torch.where(heat > 0, heat, 1)).softmax(-1)
    if min(top_p) < 1:
        mass = torch.tensor([p if p < 1 else math.inf for p in top_p], device=device)[:, None]
        ordered, index = probs.sort(dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill((before >= mass) & (before > 0), 0)
        probs = torch.zeros_like(probs).scatter(-1, index, ordered)
    reached = probs.cumsum(-1, dtype=torch.float64)
    goal = torch.tensor(uniform, dtype=torch.float64, device=device)[:, None] * reached[:, -1:]
    sampled = torch.searchsorted(reached, goal, right=True).clamp(max=logits.shape[-1] - 1)
    tokens = torch.where(heat > 0, sampled, logits.argmax(-1, keepdim=True))
    total = logits.logsumexp(-1, keepdim=True)
    logprobs = torch.where(total.isfinite(), logits.gather(-1, tokens) - total, torch.nan)
    return tokens[:, 0].tolist(), logprobs[:, 0].tolist()


def _left_padded(
    prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask, both [n_prompts, length of the longest]."""
    length = max(map(len, prompts))
    pads = [length - len(prompt) for prompt in prompts]
    # Any id does for padding, as the mask hides it.
    ids = [[0] * n + list(prompt) for n, prompt in zip(pads, prompts, strict=True)]
    mask = [[0] * n + [1] * (length - n) for n in pads]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
