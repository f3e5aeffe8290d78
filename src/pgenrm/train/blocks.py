"""Which prompts a step trains on: a sampler that a resumed run repeats exactly.

TRL generates for a block of prompts at once: `n_prompts` of them, each `num_generations` times in a
row, and the whole block again for every step and iteration that uses its completions. What stands
in block b is a function of b alone, and all blocks of a run are one pass over the data: a trainer
that resumes skips the first blocks and meets the same ones as before. (TRL's own sampler draws the
permutations of later epochs from a generator whose state is not saved.)

The trainer reads one batch ahead. Whoever lets what has happened so far decide about a block must
not do so for the one that `first_free_block` leaves out.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import Sampler

from pgenrm.seeding import rng

Draw = Callable[[int], Sequence[int]]
"""Number of a block, from 0 -> indices of its prompts in the data set."""


class BlockSampler(Sampler[int]):
    """Yields the indices of all blocks of a run, as TRL reads them."""

    def __init__(
        self, draw: Draw, n_blocks: int, *, n_prompts: int, n_generations: int, n_repeats: int
    ) -> None:
        """Set up the sampler.

        Args:
            draw: asked for a block when its first batch is read, and only then.
            n_blocks: of the whole run.
            n_prompts: of a block.
            n_generations: completions per prompt, one after the other.
            n_repeats: how often each block is read: steps per generation x iterations.
        """
        self._draw = draw
        self._n_blocks = n_blocks
        self._n_generations = n_generations
        self._n_repeats = n_repeats
        self._n_prompts = n_prompts

    def __iter__(self) -> Iterator[int]:
        for block in range(self._n_blocks):
            indices = self._draw(block)
            for _ in range(self._n_repeats):
                for index in indices:
                    yield from [index] * self._n_generations

    def __len__(self) -> int:
        return self._n_blocks * self._n_repeats * self._n_prompts * self._n_generations


def uniform_draw(n_rows: int, n_prompts: int, seed: int) -> Draw:
    """Draw every row once per epoch, in an order of its own for each.

    An epoch begins wherever the last one ended, in the midst of a block if need be.
    """

    def draw(block: int) -> list[int]:
        places = range(block * n_prompts, (block + 1) * n_prompts)
        orders = {epoch: _order(n_rows, seed, epoch) for epoch in {p // n_rows for p in places}}
        return [orders[place // n_rows][place % n_rows] for place in places]

    return draw


def first_free_block(n_steps_done: int, args: Any) -> int:
    """Return the first block that nothing has been read of after so many optimiser steps.

    Args:
        n_steps_done: optimiser steps.
        args: the run's `GRPOConfig`.
    """
    n_batches_read = n_steps_done * args.gradient_accumulation_steps + 1  # one ahead
    n_repeats = args.steps_per_generation * args.num_iterations
    return -(-n_batches_read // n_repeats) if n_steps_done else 0


def n_blocks(args: Any) -> int:
    """Return how many blocks the `max_steps` of a `GRPOConfig` take."""
    n_repeats = args.steps_per_generation * args.num_iterations
    return int(-(-args.max_steps * args.gradient_accumulation_steps // n_repeats))


def _order(n_rows: int, seed: int, epoch: int) -> list[int]:
    order: list[int] = rng("epoch", seed, epoch).permutation(n_rows).tolist()
    return order
