"""Rows of a batch by length, so that little is computed for padding.

TRL pads all rows of a block to the longest prompt and the longest completion. With prompts of one
to six past choices, a third of all positions hold nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pgenrm.errors import MissingExtraError

try:
    import torch
except ImportError as error:
    raise MissingExtraError("train", "training") from error

N_ROWS: Final = 16
"""Rows computed at once: enough to be fast, few enough to be of similar length."""
MULTIPLE: Final = 32
"""Columns are cut in such steps: few shapes, or memory grows with each new one."""


@dataclass(frozen=True)
class Part:
    """Some rows of a batch, and the columns outside of which they are padding alone."""

    rows: torch.Tensor
    """[n]; their numbers."""
    first: int
    end: int


def parts_by_length(attention_mask: torch.Tensor, n_completion: int) -> Iterator[Part]:
    """Share out rows, the shortest first.

    Args:
        attention_mask: [n_rows, n_columns]; prompts are padded on the left, completions on the
            right.
        n_completion: the last so many columns are completions'.
    """
    n_columns = attention_mask.shape[1]
    order = attention_mask.sum(dim=1).argsort(stable=True)
    for i in range(0, len(order), N_ROWS):
        rows = order[i : i + N_ROWS]
        columns = attention_mask[rows].any(dim=0).nonzero()
        first = int(columns[0]) // MULTIPLE * MULTIPLE
        end = min(n_columns, -(-(int(columns[-1]) + 1) // MULTIPLE) * MULTIPLE)
        # A prompt keeps its last column, from which the first token of a completion is told.
        start = n_columns - n_completion
        yield Part(rows, min(first, start - 1), max(end, start + 1))
