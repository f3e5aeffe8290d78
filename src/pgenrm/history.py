"""Which past choices a judgment sees (paper, section 3.1: h of them, drawn at random)."""

from pgenrm.seeding import rng
from pgenrm.types import Comparison


def draw_history(comparison: Comparison, n_pairs: int, seed: int = 0) -> Comparison:
    """Keep `n_pairs` of the user's past choices, drawn at random by (seed, comparison id).

    The drawn pairs keep their order. The same seed draws nested sets: the pairs drawn for h are
    among those drawn for h + 1, so that a study over h compares like with like.
    """
    history = comparison.user.history
    if len(history) <= n_pairs:
        return comparison
    shuffled = rng("history", seed, comparison.id).permutation(len(history))
    kept = tuple(history[i] for i in sorted(shuffled[:n_pairs].tolist()))
    user = comparison.user.model_copy(update={"history": kept})
    return comparison.model_copy(update={"user": user})
