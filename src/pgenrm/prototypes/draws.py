"""Which past choices stand beside a choice while prototypes are refined (paper, section 3.3)."""

import numpy as np
from numpy.typing import NDArray


def draw_others(
    user: NDArray[np.int64], n_history: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw up to `n_history` other choices of the same user for every choice, without repeats.

    Args:
        user: [n], whose choice it is.
        n_history: how many are wanted.
        generator: source of chance.

    Returns:
        Indices [n, n_history] of choices, and which of them are shown. Where a user has too few
        other choices the rest is padded with the choice itself, not shown.
    """
    n = len(user)
    by_user = np.argsort(user, kind="stable")
    _, first, size = np.unique(user[by_user], return_index=True, return_counts=True)
    first, n_others = np.repeat(first, size), np.repeat(size, size) - 1
    own = np.arange(n) - first
    n_shown = np.minimum(n_others, n_history)
    drawn = np.full((n, n_history), -1)
    # Floyd's sampling without replacement, one step for all choices at once.
    for i in range(n_history):
        last = n_others - n_shown + i
        pick = (generator.random(n) * (last + 1)).astype(np.int64)
        is_taken = (drawn[:, :i] == pick[:, None]).any(axis=1)
        drawn[:, i] = np.where(is_taken, last, pick)
    drawn += drawn >= own[:, None]  # of n_others + 1 places, leave out his own
    is_shown = np.arange(n_history) < n_shown[:, None]
    others, shown = np.empty_like(drawn), np.empty_like(is_shown)
    others[by_user] = by_user[np.where(is_shown, first[:, None] + drawn, np.arange(n)[:, None])]
    shown[by_user] = is_shown
    return others, shown
