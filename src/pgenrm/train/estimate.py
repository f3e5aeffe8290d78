"""What a run needs, by arithmetic: memory of a card, hours, money. No model is loaded.

Memory counts what is held at the worst moment, a row of `trl.max_length` tokens; time counts the
arithmetic of a pass and the share of its peak that a card reaches. Deliberately left out: writing
completions, in which reinforcement learning spends most of its time.
"""

from typing import Final, Literal

from pgenrm.train.recipe import StageRecipe
from pgenrm.types import Value

GIB: Final = 2**30
NF4_BYTES: Final = 4.127 / 8
"""A weight and its share of the quantisation constants, themselves quantised (QLoRA paper)."""
OVERHEAD_GIB: Final = 2.0
"""CUDA, its libraries and NCCL's buffers; ours."""
FRAGMENTATION: Final = 1.1
"""What the allocator holds for each byte in use; ours."""
OPTIMISER_BYTES: Final = {"adamw_torch_fused": 8, "paged_adamw_8bit": 2}
"""Of AdamW's two moments, per trained weight."""
LOGITS_AT_ONCE: Final = 32_768
"""Words of the vocabulary that TRL's output layer scores together, in float32."""
ROW_TOKENS: Final = 2_700
"""A usual row: a prompt of 2,000 tokens with three past choices, a chain of 700; ours."""


class Shape(Value):
    """A decoder of the Llama kind."""

    n_layers: int
    width: int
    n_heads: int
    n_kv_heads: int
    head_width: int
    ffn_width: int
    vocabulary: int

    @property
    def n_layer_parameters(self) -> int:
        """Weights of the linear layers of one block."""
        attention = 2 * self.width * self.head_width * (self.n_heads + self.n_kv_heads)
        return attention + 3 * self.width * self.ffn_width

    @property
    def n_embedding_parameters(self) -> int:
        """Weights of embedding and output layer together."""
        return 2 * self.vocabulary * self.width

    @property
    def n_parameters(self) -> int:
        """All weights, but for those of the norms: less than one in 10,000."""
        return self.n_layers * self.n_layer_parameters + self.n_embedding_parameters

    def n_lora_parameters(self, rank: int) -> int:
        """Weights of adapters on all linear layers."""
        q, kv = self.n_heads * self.head_width, self.n_kv_heads * self.head_width
        sides = 2 * (self.width + q) + 2 * (self.width + kv) + 3 * (self.width + self.ffn_width)
        return self.n_layers * rank * sides


class Card(Value):
    """A graphics card."""

    name: str
    memory_gib: float
    tflops: float
    """Peak of dense bfloat16, as its maker states it."""
    usd_per_hour: float
    """A round figure of what renting one costs; put your own."""


class Need(Value):
    """What a run needs."""

    n_trained: int
    weights_gib: float
    gradients_gib: float
    optimiser_gib: float
    gathered_gib: float
    """Whole weights and gradients of what is being computed, where they are sharded otherwise."""
    activations_gib: float
    hours: float
    usd: float

    @property
    def card_gib(self) -> float:
        """Everything that one card holds at the worst moment."""
        parts = self.weights_gib + self.gradients_gib + self.optimiser_gib
        return (parts + self.gathered_gib + self.activations_gib) * FRAGMENTATION + OVERHEAD_GIB


SHAPES: Final = {
    "meta-llama/Llama-3.1-8B-Instruct": Shape(
        n_layers=32,
        width=4096,
        n_heads=32,
        n_kv_heads=8,
        head_width=128,
        ffn_width=14336,
        vocabulary=128256,
    ),
    "meta-llama/Llama-3.1-70B-Instruct": Shape(
        n_layers=80,
        width=8192,
        n_heads=64,
        n_kv_heads=8,
        head_width=128,
        ffn_width=28672,
        vocabulary=128256,
    ),
    "Qwen/Qwen3-8B": Shape(
        n_layers=36,
        width=4096,
        n_heads=32,
        n_kv_heads=8,
        head_width=128,
        ffn_width=12288,
        vocabulary=151936,
    ),
}
A100: Final = Card(name="A100 80GB", memory_gib=80, tflops=312, usd_per_hour=2)
H100: Final = Card(name="H100 80GB", memory_gib=80, tflops=989, usd_per_hour=3)
RTX_4090: Final = Card(name="RTX 4090 24GB", memory_gib=24, tflops=165, usd_per_hour=0.5)
REACHED: Final[dict[Literal["full", "lora", "qlora"], float]] = {
    "full": 0.35,
    "lora": 0.30,
    "qlora": 0.20,
}
"""Share of a card's peak that training reaches: small batches and sharding, then adapters, then
weights that are unpacked at every use. Ours; a measured run replaces it."""


def estimate(recipe: StageRecipe, shape: Shape, card: Card, *, n_cards: int, n_rows: int) -> Need:
    """Estimate a supervised run.

    Args:
        recipe: how it is trained.
        shape: of its model.
        card: the cards.
        n_cards: how many; everything is sharded over them.
        n_rows: rows of the data set, of `ROW_TOKENS` each.
    """
    lora = recipe.model.lora
    is_packed = recipe.model.quantisation == "nf4"
    n_trained = shape.n_lora_parameters(lora.rank) if lora else shape.n_parameters
    n_frozen = shape.n_parameters if lora else 0
    own_bytes = 4 if recipe.model.dtype == "float32" else 2
    n_packed = shape.n_layers * shape.n_layer_parameters if is_packed else 0
    weights = (
        n_packed * NF4_BYTES + (n_frozen - n_packed) * own_bytes + n_trained * 4  # float32
        if lora
        else n_trained * own_bytes
    )
    n_tokens = recipe.trl["per_device_train_batch_size"] * recipe.trl["max_length"]
    optimiser = OPTIMISER_BYTES[recipe.trl.get("optim", "adamw_torch_fused")]
    gathered = 0.0
    if n_cards > 1:  # two blocks (one is fetched ahead) in 2 bytes, embedding and output as stored
        n_gathered = 2 * shape.n_layer_parameters * 2 + shape.n_embedding_parameters * own_bytes
        gathered = n_gathered * (1 if lora else 2)  # and their gradients
    # Kept: every block's input. Within the block that is computed anew: what its backward needs.
    within = 8 * shape.width + 4 * shape.ffn_width
    activations = n_tokens * 2 * (shape.n_layers * shape.width + within)
    activations += n_tokens * LOGITS_AT_ONCE * 4 * 2  # and their gradients
    # Forward, forward anew and backward; frozen weights need no gradients of their own.
    per_weight = 2 + 2 + (2 if lora else 4)
    n_learned = n_rows * ROW_TOKENS * recipe.trl["num_train_epochs"]
    method: Literal["full", "lora", "qlora"] = "qlora" if is_packed else "lora" if lora else "full"
    attention = 8 * shape.n_layers * shape.width * ROW_TOKENS  # causal: half of all pairs
    flops = n_learned * (per_weight * shape.n_parameters + attention)
    hours = flops / (n_cards * card.tflops * 1e12 * REACHED[method]) / 3600
    return Need(
        n_trained=n_trained,
        weights_gib=weights / n_cards / GIB,
        gradients_gib=n_trained * 4 / n_cards / GIB,
        optimiser_gib=n_trained * optimiser / n_cards / GIB,
        gathered_gib=gathered / GIB,
        activations_gib=activations / GIB,
        hours=hours,
        usd=hours * n_cards * card.usd_per_hour,
    )
