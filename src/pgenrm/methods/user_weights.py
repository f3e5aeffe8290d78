"""Fitting users' weights over a fixed set of parts, which is how PAL and LoRe adapt to a user."""

from collections.abc import Callable

import torch
from torch import Tensor


def fit_user_weights(
    centre: Tensor,
    n_users: int,
    losses: Callable[[Tensor], Tensor],
    *,
    n_steps: int,
    learning_rate: float,
    precision: float,
) -> Tensor:
    """Fit each user's logits to his choices, drawn towards the population's.

    Adam moves every number by its own gradient only, so that the others in the batch do not matter;
    a user without choices stays at the centre.

    Args:
        centre: [k] logits of the population, where everybody starts.
        n_users: how many users.
        losses: given logits [n_users, k], returns the loss of each user's choices, [n_users].
        n_steps: of Adam.
        learning_rate: of Adam.
        precision: of the normal prior around the centre; 0 for none.

    Returns:
        Logits [n_users, k].
    """
    logits = centre.detach().repeat(n_users, 1).requires_grad_()
    optimizer = torch.optim.Adam([logits], learning_rate)
    for _ in range(n_steps):
        with torch.enable_grad():
            strayed = (logits - centre.detach()).square().sum(dim=1)
            total = (losses(logits) + 0.5 * precision * strayed).sum()
        (logits.grad,) = torch.autograd.grad(total, [logits])
        optimizer.step()
    return logits.detach()
