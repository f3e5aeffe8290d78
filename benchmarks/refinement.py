"""Speed and memory of the refinement against a loop over samples of the same mathematics.

The loop takes one sample at a time, as a careful author would write it: the history of a sample is
one matrix, only its own prototype is scored, gradients add up over a batch, one optimiser step per
batch. It is timed on one batch and scaled to the epoch; the vectorised epoch is timed whole, with
drawing, assigning and means. Both take turns in one process and the quickest of `--repeats` counts
for each. The loop runs on one thread, because more only slow its small products down; the epoch is
given for `--threads`. Embeddings are random unit vectors, which cost what real ones do.

    python -m benchmarks.refinement [--json] [--samples 20000] [--dimension 1024] [--threads 2]
"""

import argparse
import json
import resource
import sys
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch.nn.functional import normalize, softplus

from pgenrm.prototypes.draws import draw_others
from pgenrm.prototypes.refine import Choices, Epoch, RefinementConfig, refine
from pgenrm.prototypes.scorer import PreferenceScorer
from pgenrm.seeding import rng

CHOICES_PER_USER = 10
RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


def unit_rows(generator: np.random.Generator, n: int, d: int) -> NDArray[np.float32]:
    rows = generator.standard_normal((n, d), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES / 2**20


def looped_batch(
    centroids: NDArray[np.float32],
    member: NDArray[np.float32],
    choices: Choices,
    config: RefinementConfig,
) -> float:
    """Return the seconds of one batch, its samples taken one at a time."""
    n = config.batch_size
    query = torch.from_numpy(choices.query)
    difference = torch.from_numpy(choices.chosen - choices.rejected)
    prototypes = torch.tensor(centroids, requires_grad=True)
    previous = torch.from_numpy(centroids)
    assignment = (torch.from_numpy(member[:n]) @ previous.T).argmax(dim=1).tolist()
    others, shown = draw_others(choices.user, config.n_history, rng("benchmark loop"))
    scorer = PreferenceScorer(centroids.shape[1], rho=config.rho)
    optimizer = torch.optim.AdamW([prototypes, *scorer.parameters()], fused=True)
    scale = centroids.shape[1] ** 0.5

    started = time.perf_counter()
    for t in range(n):
        a, q, delta = prototypes[assignment[t]], query[t], difference[t]
        past = others[t][shown[t]]
        o = torch.tanh(torch.cat([query[past], difference[past]], dim=1) @ scorer.W.T)
        alpha = torch.softmax((o @ q + scorer.rho * (o @ a)) / scale, dim=0)
        z = a + scorer.lambda_query * (scorer.W_q @ q)
        z = z + scorer.lambda_history * (scorer.W_s @ (alpha @ o))
        distance = (a - previous[assignment[t]]).square().sum()  # stands for both regularisers
        loss = softplus(-(z @ delta)) + (config.lambda_centre + config.lambda_trust) * distance
        (loss / n).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with torch.no_grad():
        prototypes.copy_(normalize(prototypes, dim=1))
    return time.perf_counter() - started


def measure(args: argparse.Namespace) -> dict[str, Any]:
    generator = rng("benchmark refinement")
    n, d = args.samples, args.dimension
    user = np.arange(n) // CHOICES_PER_USER
    query, chosen, rejected = (unit_rows(generator, n, d) for _ in range(3))
    choices = Choices(query, chosen, rejected, user)
    member = unit_rows(generator, user[-1] + 1, d)[user]
    centroids = unit_rows(generator, args.prototypes, d)
    config = RefinementConfig(
        n_history=args.history, max_epochs=args.repeats, batch_size=args.batch_size
    )
    data_mib = peak_mib()
    peaks: list[float] = []
    epoch_times: list[float] = []
    loop_times: list[float] = []
    torch.set_num_threads(args.threads)
    resumed = time.perf_counter()

    def after_epoch(epoch: Epoch) -> None:
        nonlocal resumed
        if epoch.epoch > 0:
            epoch_times.append(time.perf_counter() - resumed)
            peaks.append(peak_mib())
            torch.set_num_threads(1)
            loop_times.append(looped_batch(centroids, member, choices, config))
            torch.set_num_threads(args.threads)
        resumed = time.perf_counter()

    refine(centroids, member, choices, None, config, after_epoch)
    epoch_s, loop_s = min(epoch_times), min(loop_times) * n / config.batch_size
    return {
        "samples": n,
        "dimension": d,
        "prototypes": args.prototypes,
        "history": args.history,
        "batch_size": config.batch_size,
        "threads": args.threads,
        "vectorised_epoch_s": round(epoch_s, 2),
        "loop_epoch_s": round(loop_s, 1),
        "ratio": round(loop_s / epoch_s, 1),
        "mib_before_refining": round(data_mib),
        "mib_peak_while_refining": round(peaks[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--prototypes", type=int, default=50)
    parser.add_argument("--history", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=RefinementConfig.batch_size)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    result = measure(args)
    if args.json:
        print(json.dumps(result))
        return
    table = Table("what", "value", title="Refinement, one epoch")
    for name, value in result.items():
        table.add_row(name.replace("_", " "), str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
