"""What a run of reinforcement learning needs, by arithmetic: a step's seconds, hours, money.

Beside learning, which `estimate` counts, the model writes every chain that it learns from. Writing
a token takes as long as reading all weights and the attended keys and values from memory once, for
all chains that a card writes at the same time. Deliberately left out: the judge of the process
reward, which works beside, and the sending of new weights to whoever writes.
"""

from typing import Final

from pgenrm.train.estimate import FRAGMENTATION, GIB, NF4_BYTES, ROW_TOKENS, Card, Shape, estimate
from pgenrm.train.rl_recipe import GrpoRecipe
from pgenrm.types import Value

CHAIN_TOKENS: Final = 700
"""Of the tokens of a usual row; ours."""
LONGEST: Final = 1.5
"""The longest chain of a batch, which all wait for, against a usual one; ours."""
TB_PER_S: Final = {"A100 80GB": 2.0, "H100 80GB": 3.35, "RTX 4090 24GB": 1.0}
"""Of a card's memory, as its maker states it."""
MEMORY_REACHED: Final = {"vllm": 0.6, "transformers": 0.1}
"""Share of it that writing reaches: vLLM's graphs, or Python between all kernels. Ours."""


class RlNeed(Value):
    """What a run of reinforcement learning needs."""

    card_gib: float
    """What a card that learns holds at the worst moment, without vLLM, which sleeps then."""
    writing_s: float
    """Of a step."""
    learning_s: float
    """Of a step."""
    hours: float
    usd: float


def estimate_rl(
    recipe: GrpoRecipe, shape: Shape, card: Card, *, n_learning: int, n_writing: int | None = None
) -> RlNeed:
    """Estimate a run of stage 2 or 3; the first estimate of hardness comes on top in the latter.

    Args:
        recipe: how it is trained.
        shape: of its model.
        card: the cards.
        n_learning: cards that learn.
        n_writing: cards of a server that writes with all of them at once; None: those that learn
            write, too, each for itself.
    """
    trl = recipe.trl
    n_chains = trl["per_device_train_batch_size"] * trl["gradient_accumulation_steps"] * n_learning
    as_sft = {**trl, "max_length": recipe.max_tokens, "num_train_epochs": 1}
    learned = estimate(
        recipe.model_copy(update={"trl": as_sft}),
        shape,
        card,
        n_cards=n_learning,
        n_rows=n_chains,
    )
    lora = recipe.model.lora

    # Beside the passes of learning: the old policy's probabilities, and the reference's.
    per_weight = 6 if lora else 8
    n_more = 2 * (bool(trl.get("use_vllm")) + bool(trl["beta"]))
    learning_s = learned.hours * 3600 * (1 + n_more / per_weight)
    reference_gib = 0 if lora or not trl["beta"] else shape.n_parameters * 4 / n_learning / GIB

    bytes_a_weight = NF4_BYTES if recipe.model.quantisation == "nf4" else 2
    kv_bytes = 2 * shape.n_layers * shape.n_kv_heads * shape.head_width * 2  # of a token
    n_together = n_writing or 1
    n_at_once = n_chains / (1 if n_writing else n_learning)
    n_rounds = 1.0
    if "steps_per_generation" in trl:
        n_rounds = trl["gradient_accumulation_steps"] / trl["steps_per_generation"]
        n_at_once /= n_rounds
    read = shape.n_parameters * bytes_a_weight + n_at_once * ROW_TOKENS * kv_bytes
    reached = MEMORY_REACHED["vllm" if trl.get("use_vllm") else "transformers"]
    token_s = read / (n_together * TB_PER_S[card.name] * 1e12 * reached)
    writing_s = token_s * CHAIN_TOKENS * LONGEST * n_rounds
    hours = trl["max_steps"] * (writing_s + learning_s) / 3600
    return RlNeed(
        card_gib=learned.card_gib + reference_gib * FRAGMENTATION,
        writing_s=writing_s,
        learning_s=learning_s,
        hours=hours,
        usd=hours * (n_learning + (n_writing or 0)) * card.usd_per_hour,
    )
