"""Learnt weights on disk, so that what was fitted once is not fitted again.

A bench that goes on, and the same method under an altered view of its users, then start from the
weights that are there. A file is read only where it was learnt from the very same numbers.
"""

import hashlib
import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn


def fingerprint(*parts: object) -> str:
    """Return a digest of everything that weights depend on.

    Args:
        parts: texts, numbers, tensors, and tuples or dataclasses of these.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        _add(digest, part)
    return digest.hexdigest()


def _add(digest: "hashlib.blake2b", part: object) -> None:
    if isinstance(part, Tensor):
        digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
        digest.update(part.contiguous().numpy().data)
    elif is_dataclass(part):
        for field in fields(part):
            _add(digest, getattr(part, field.name))
    else:
        digest.update(repr(part).encode())


def keep(network: nn.Module, path: Path, learnt_from: str) -> None:
    """Write the weights of a network; a file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    torch.save({"learnt_from": learnt_from, "weights": network.state_dict()}, partial)
    partial.replace(path)


def restore(network: nn.Module, path: Path, learnt_from: str) -> bool:
    """Give a network the kept weights, in eval mode; return whether there were any for it."""
    try:
        kept = torch.load(path, weights_only=True)
    except (FileNotFoundError, RuntimeError, EOFError, UnpicklingError):  # none, or damaged
        return False
    if kept.get("learnt_from") != learnt_from:
        return False
    network.load_state_dict(kept["weights"])
    network.eval()
    return True
