"""Training a small network in epochs, with early stopping, the same for every method on embeddings.

Randomness: initial weights and noise come from torch's generator, which `seeded` sets and puts back
afterwards; which users form a batch comes from `pgenrm.seeding`.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pgenrm.errors import TrainingError
from pgenrm.seeding import derive_seed
from pgenrm.types import Comparison, Context, User


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Seed torch's own generator by the parts for a while."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(*parts))
        yield


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Let torch compute on one thread for a while: sums then do not depend on how many cores."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def batches(n: int, size: int, generator: np.random.Generator) -> Iterator[Tensor]:
    """Yield the numbers below n in random order, `size` at a time."""
    yield from torch.split(torch.from_numpy(generator.permutation(n)), size)


def labelled_choices(
    comparisons: Iterable[Comparison],
) -> list[tuple[User, Context, tuple[str, str]]]:
    """Return (user, context, (preferred, other)) for what the labels state, histories apart."""
    return [
        (c.user, c.context, (c.responses[c.label], other))
        for c in comparisons
        if c.label is not None
        for i, other in enumerate(c.responses)
        if i != c.label
    ]


def preference_loss(rewards: Tensor) -> Tensor:
    """Return -log P(the first is preferred) under Bradley-Terry; rewards are [..., 2]."""
    return softplus(rewards[..., 1] - rewards[..., 0])


@dataclass(frozen=True)
class Schedule:
    """How long to train, and when to stop.

    Attributes:
        n_epochs: at most.
        patience: epochs without a better validation loss after which training ends; None trains to
            the end and keeps the last weights.
    """

    n_epochs: int
    patience: int | None


def train(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Callable[[int], Iterator[Tensor]],
    validation_loss: Callable[[], float],
    schedule: Schedule,
    *,
    name: str,
    after_step: Callable[[], None] | None = None,
    accumulates: bool = False,
) -> None:
    """Train a network in place and leave it with the weights of its best epoch, in eval mode.

    Args:
        network: what is trained.
        optimizer: of its parameters.
        losses: given the number of an epoch, yields one loss per step; the weights move in between.
        validation_loss: of the network as it is, without gradients.
        schedule: when to stop.
        name: of the method, for messages.
        after_step: called after each step, e.g. to change the learning rate.
        accumulates: whether gradients are zeroed once per epoch only, as the published GPO does.

    Raises:
        TrainingError: a loss is not finite.
    """
    best, best_weights, n_worse = math.inf, None, 0
    for epoch in range(schedule.n_epochs):
        network.train()
        optimizer.zero_grad()
        for loss in losses(epoch):
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"{name}: the loss is {loss.item()} in epoch {epoch}; use a lower learning rate"
                )
            if not accumulates:
                optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if after_step:
                after_step()
        network.eval()
        if schedule.patience is None:
            continue
        with torch.no_grad():
            now = validation_loss()
        if now < best:
            best, best_weights, n_worse = now, copy.deepcopy(network.state_dict()), 0
        else:
            n_worse += 1
            if n_worse >= schedule.patience:
                break
    if best_weights is not None:
        network.load_state_dict(best_weights)
