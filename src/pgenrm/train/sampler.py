"""In which order rows are learned: drawn from (seed, epoch) alone.

So a resumed run goes on in the order in which it would have gone on, and any number of processes
takes the same rows in the same step. TRL's own samplers draw from global state in an epoch.
"""

from collections.abc import Iterator, Sequence

from pgenrm.errors import MissingExtraError
from pgenrm.seeding import rng

try:
    from torch.utils.data import Sampler
except ImportError as error:
    raise MissingExtraError("train", "training") from error

N_BATCHES_SORTED = 50
"""Batches that are sorted by length together: more waste less padding, and mix less."""


class EpochSampler(Sampler[int]):
    """Indices of an epoch in random order, or in batches of similar length."""

    def __init__(self, n_rows: int, seed: int, *, lengths: Sequence[int] | None, n_batch: int):
        """Prepare the order of epoch 0.

        Args:
            n_rows: number of rows.
            seed: the run's.
            lengths: [n_rows] tokens, to group by; None for a plain random order.
            n_batch: rows of one optimiser step, over all processes.
        """
        self._n_rows = n_rows
        self._seed = seed
        self._lengths = lengths
        self._n_batch = n_batch
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, whose order comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._n_rows

    def __iter__(self) -> Iterator[int]:
        draw = rng(self._seed, "order", self._epoch)
        order: list[int] = draw.permutation(self._n_rows).tolist()
        if self._lengths is None:
            return iter(order)
        n_sorted = self._n_batch * N_BATCHES_SORTED
        by_length = [
            i
            for start in range(0, self._n_rows, n_sorted)
            for i in sorted(order[start : start + n_sorted], key=self._lengths.__getitem__)
        ]
        batches = [
            by_length[start : start + self._n_batch]
            for start in range(0, self._n_rows, self._n_batch)
        ]
        n_whole = self._n_rows // self._n_batch  # what is left over stays last
        chosen = [*draw.permutation(n_whole).tolist(), *range(n_whole, len(batches))]
        return (i for batch in chosen for i in batches[batch])
