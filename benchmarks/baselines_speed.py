"""How long the baselines on frozen embeddings take to fit, with shipped recipes.

Users of a simulated kind: each embedding is a random unit vector, each user prefers by one of a few
hidden directions. The vectors cost nothing here, as they would from a cache. Fitting time depends
on early stopping, so the whole of a run is given beside what an epoch costs at most.

    python -m benchmarks.baselines_speed [--json] [--pairs 20000] [--dimension 384] [--threads 2]
        [--methods gpo,vpl,...]
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pgenrm.methods.frozen import FrozenMethod
from pgenrm.methods.gpo import gpo
from pgenrm.methods.lore import lore
from pgenrm.methods.pal import pal
from pgenrm.methods.vpl import vpl
from pgenrm.seeding import rng
from pgenrm.types import Comparison, Message, Preference, User

PAIRS_PER_USER = 12
SHOWN_PAIRS = 6
N_KINDS = 8

METHODS: dict[str, Callable[..., FrozenMethod]] = {
    "lore": lore,
    "lore-published": partial(lore, variant="published"),
    "pal-a": partial(pal, form="a"),
    "pal-a-published": partial(pal, form="a", variant="published"),
    "pal-b": partial(pal, form="b"),
    "gpo": gpo,
    "gpo-published": partial(gpo, variant="published"),
    "vpl": vpl,
    "vpl-published": partial(vpl, variant="published"),
}


class Drawn:
    """Gives every text a random unit vector, told by the number that the text begins with."""

    name = "drawn"

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = vectors
        self.dimension = vectors.shape[1]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.vectors[[int(text.split()[1]) for text in texts]]


def world(n_pairs: int, dimension: int) -> tuple[Drawn, list[Comparison], list[Comparison]]:
    """Return embeddings, training and validation comparisons."""
    generator = rng("baselines speed")
    n_users = n_pairs // PAIRS_PER_USER
    vectors = generator.standard_normal((2 * n_users * (PAIRS_PER_USER + 1), dimension), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kinds = generator.standard_normal((N_KINDS, dimension), np.float32)
    rows = iter(range(0, len(vectors), 2))
    train, validation = [], []
    for index in range(n_users):
        taste = kinds[index % N_KINDS]
        choices = []
        for _ in range(PAIRS_PER_USER + 1):
            row = next(rows)
            first_wins = vectors[row] @ taste > vectors[row + 1] @ taste
            better, worse = (row, row + 1) if first_wins else (row + 1, row)
            context = (Message(role="user", content=f"{row} asks"),)
            choices.append(Preference(context=context, chosen=f"{better} x", rejected=f"{worse} x"))
        *history, held_out = choices
        user = User(id=str(index), history=tuple(history))
        train.append(comparison(user, history[0]))
        shown = user.model_copy(update={"history": tuple(history[:SHOWN_PAIRS])})
        validation.append(comparison(shown, held_out))
    return Drawn(vectors), train, validation


def comparison(user: User, choice: Preference) -> Comparison:
    return Comparison(
        id=f"{user.id}-{choice.chosen}",
        user=user,
        context=choice.context,
        responses=(choice.chosen, choice.rejected),
        label=0,
    )


def measure(names: Sequence[str], n_pairs: int, dimension: int) -> dict[str, Any]:
    embedder, train, validation = world(n_pairs, dimension)
    load = os.getloadavg()[0]
    seconds = {}
    for name in names:
        method = METHODS[name](embedder)
        start, start_cpu = time.perf_counter(), time.process_time()
        method.fit(train, validation)
        wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        seconds[name] = {"wall_s": round(wall, 1), "processor_s": round(cpu, 1)}
    return {
        "n_pairs": sum(len(c.user.history) for c in train),
        "n_validation": len(validation),
        "dimension": dimension,
        "n_threads": torch.get_num_threads(),
        "load_before": round(load, 1),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", default=",".join(METHODS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = measure(args.methods.split(","), args.pairs, args.dimension)
    if args.json:
        print(json.dumps(found))
        return
    table = Table("method", "seconds", "of processor time", title="Fitting from cached embeddings")
    for name, each in found["seconds"].items():
        table.add_row(name, str(each["wall_s"]), str(each["processor_s"]))
    Console().print(
        f"{found['n_pairs']} pairs, {found['n_validation']} validation comparisons, "
        f"{found['dimension']} dimensions, {found['n_threads']} threads, "
        f"load before {found['load_before']}"
    )
    Console().print(table)


if __name__ == "__main__":
    main()
