"""Write completions with the small network, several prompts at once, in one or more threads.

A request goes in as soon as there is room for its samples, so that steps stay full.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pgenrm.engines.drafts import Draft, Sample
from pgenrm.engines.nano_network import ROWS, Array, Network, Writing
from pgenrm.engines.protocol import Sampling
from pgenrm.seeding import rng

MeetsStop = Callable[[Sequence[int], Sampling], bool]


@dataclass(frozen=True)
class _Row:
    """A sample that is being written."""

    sample: Sample
    draft: Draft
    generator: np.random.Generator


class _Queue:
    """Jobs for several threads, in order: each the rows of one prompt, `ROWS` at most."""

    def __init__(self, jobs: Iterable[list[_Row]]) -> None:
        self._jobs = deque(jobs)
        self._lock = Lock()

    def take(self, room: int) -> list[_Row]:
        """Return the rows of the next job; none where they do not fit, or no job is left."""
        with self._lock:
            fits = self._jobs and len(self._jobs[0]) <= room
            return self._jobs.popleft() if fits else []


def write(
    network: Network,
    prompts: Mapping[int, Sequence[int]],
    requests: Sequence[Sequence[Sample]],
    meets_stop: MeetsStop,
    n_threads: int,
) -> list[list[Draft]]:
    """Write all samples, and return their drafts as they were asked for.

    Random numbers come from each sample's own generator, one per token; what is computed for a
    request does not depend on the others.

    Args:
        network: computes the logits.
        prompts: token ids by number of the prompt.
        requests: the samples of each request, all of one prompt.
        meets_stop: whether these token ids end with a stop sequence.
        n_threads: at most so many work at once.
    """
    rows = [[_Row(s, Draft(), rng(s.seed)) for s in samples] for samples in requests]
    queue = _Queue(own[i : i + ROWS] for own in rows for i in range(0, len(own), ROWS))
    n_useful = min(n_threads, -(-sum(map(len, rows)) // ROWS))
    if n_useful:
        with ThreadPoolExecutor(n_useful) as threads:
            work = [
                threads.submit(_work, network, prompts, queue, meets_stop) for _ in range(n_useful)
            ]
            for done in work:
                done.result()
    return [[row.draft for row in own] for own in rows]


def _work(
    network: Network, prompts: Mapping[int, Sequence[int]], queue: _Queue, meets_stop: MeetsStop
) -> None:
    """Write jobs from the queue until none is left."""
    active: list[tuple[list[_Row], Writing]] = []

    def go_on(rows: list[_Row], writing: Writing, logits: Array) -> None:
        if unfinished := _extend(rows, writing, logits, network.eos_ids, meets_stop):
            active.append((unfinished, writing))

    while True:
        while rows := queue.take(ROWS - sum(len(rows) for rows, _ in active)):
            longest = max(row.sample.sampling.max_tokens for row in rows)
            writing, logits = network.read(prompts[rows[0].sample.prompt], len(rows), longest)
            go_on(rows, writing, np.repeat(logits[None], len(rows), axis=0))
        if not active:
            return
        stepped, active = active, []
        for (rows, writing), logits in zip(
            stepped, network.step([writing for _, writing in stepped]), strict=True
        ):
            go_on(rows, writing, logits)


def _extend(
    rows: list[_Row],
    writing: Writing,
    logits: Array,
    eos_ids: frozenset[int],
    meets_stop: MeetsStop,
) -> list[_Row]:
    """Draw the next token of every sample; return the rows that are not finished by it."""
    writing.last, logprobs = draw(
        logits,
        [row.sample.sampling.temperature for row in rows],
        [row.sample.sampling.top_p for row in rows],
        [row.generator.random() for row in rows],
    )
    for row, token, logprob in zip(rows, writing.last, logprobs, strict=True):
        row.draft.extend(token, logprob, row.sample.sampling, eos_ids, meets_stop)
    kept = [i for i, row in enumerate(rows) if row.draft.finish_reason is None]
    if kept and len(kept) < len(rows):
        writing.keep(kept)
    return [rows[i] for i in kept]


def draw(
    logits: Array, temperature: Sequence[float], top_p: Sequence[float], uniform: Sequence[float]
) -> tuple[list[int], list[float]]:
    """Draw one token per row by inverting the cumulative distribution.

    Args:
        logits: [n_rows, n_tokens].
        temperature: [n_rows]; 0 takes the likeliest token.
        top_p: [n_rows]; the likeliest tokens up to this mass remain, one at least.
        uniform: [n_rows], in [0, 1).

    Returns:
        Tokens [n_rows], and their log-probabilities [n_rows] before temperature and top_p.
    """
    rows = np.arange(len(logits))
    logits = logits - logits.max(axis=-1, keepdims=True)
    weights = np.exp(logits)
    totals = np.log(weights.sum(axis=-1))
    heat = np.array(temperature, np.float32)
    if (heat != 1).any():
        with np.errstate(over="ignore"):  # all but the likeliest at low temperatures: exp(-inf)
            weights = np.exp(logits / np.where(heat > 0, heat, 1)[:, None])
    if min(top_p) < 1:
        weights = np.where(_in_nucleus(weights, top_p), weights, 0)
    reached = weights.cumsum(axis=-1, dtype=np.float64)
    goal = np.array(uniform)[:, None] * reached[:, -1:]
    goal = np.minimum(goal, np.nextafter(reached[:, -1:], 0))  # rounding may have met the end
    sampled = (reached <= goal).sum(axis=-1)
    tokens = np.where(heat > 0, sampled, logits.argmax(axis=-1))
    return tokens.tolist(), (logits[rows, tokens] - totals).tolist()


def _in_nucleus(weights: Array, top_p: Sequence[float]) -> NDArray[np.bool_]:
    """Tell which tokens [n_rows, n_tokens] remain."""
    order = np.argsort(-weights, axis=-1, kind="stable")
    ordered = np.take_along_axis(weights, order, axis=-1).astype(float)
    before = ordered.cumsum(axis=-1) - ordered
    mass = np.where(np.array(top_p) < 1, top_p, np.inf)[:, None] * ordered.sum(-1, keepdims=True)
    remains = np.empty(weights.shape, bool)
    np.put_along_axis(remains, order, (before < mass) | (before == 0), axis=-1)
    return remains
