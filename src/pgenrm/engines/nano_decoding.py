"""Write completions with the small network, several prompts at once, in one or more threads.

A request goes in as soon as there is room for its samples, so that steps stay full. Samples of a
prompt that are the same so far are one row: chains of a judge mostly differ from where they guess.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pgenrm.engines.drafts import Draft, Sample
from pgenrm.engines.nano_network import Array, Network, Writing
from pgenrm.engines.protocol import Sampling
from pgenrm.seeding import rng

MeetsStop = Callable[[Sequence[int], Sampling], bool]

MAX_SAMPLES: Final = 64
"""Under way in a thread, to bound memory: about 3 MB each for chains of 450 tokens."""


@dataclass(frozen=True)
class _Sample:
    """A sample that is being written."""

    asked: Sample
    draft: Draft
    generator: np.random.Generator


_Rows = list[list[_Sample]]
"""Per row of a writing the samples that are the same so far."""


class _Queue:
    """Jobs for several threads, in order: each of one prompt, of `MAX_SAMPLES` at most."""

    def __init__(self, jobs: Iterable[list[_Sample]]) -> None:
        self._jobs = deque(jobs)
        self._lock = Lock()

    def take(self, room: int) -> list[_Sample]:
        """Return the samples of the next job; none where they do not fit, or no job is left."""
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
    samples = [[_Sample(s, Draft(), rng(s.seed)) for s in own] for own in requests]
    jobs = [own[i : i + MAX_SAMPLES] for own in samples for i in range(0, len(own), MAX_SAMPLES)]
    if n_useful := min(n_threads, len(jobs)):
        queue = _Queue(jobs)
        with ThreadPoolExecutor(n_useful) as threads:
            work = [
                threads.submit(_work, network, prompts, queue, meets_stop) for _ in range(n_useful)
            ]
            for done in work:
                done.result()
    return [[sample.draft for sample in own] for own in samples]


def _work(
    network: Network, prompts: Mapping[int, Sequence[int]], queue: _Queue, meets_stop: MeetsStop
) -> None:
    """Write jobs from the queue until none is left."""
    active: list[tuple[_Rows, Writing]] = []

    def go_on(rows: _Rows, writing: Writing, logits: Array) -> None:
        if unfinished := _extend(rows, writing, logits, network.eos_ids, meets_stop):
            active.append((unfinished, writing))

    while True:
        while samples := queue.take(MAX_SAMPLES - sum(len(s) for rows, _ in active for s in rows)):
            longest = max(sample.asked.sampling.max_tokens for sample in samples)
            go_on([samples], *network.read(prompts[samples[0].asked.prompt], longest))
        if not active:
            return
        stepped, active = active, []
        for (rows, writing), logits in zip(
            stepped, network.step([writing for _, writing in stepped]), strict=True
        ):
            go_on(rows, writing, logits)


def _extend(
    rows: _Rows,
    writing: Writing,
    logits: Array,
    eos_ids: frozenset[int],
    meets_stop: MeetsStop,
) -> _Rows:
    """Draw the next token of every sample; return what is not finished by it, row by row."""
    samples = [(row, sample) for row, same in enumerate(rows) for sample in same]
    tokens, logprobs = draw(
        logits[[row for row, _ in samples]],
        [sample.asked.sampling.temperature for _, sample in samples],
        [sample.asked.sampling.top_p for _, sample in samples],
        [sample.generator.random() for _, sample in samples],
    )
    same: dict[tuple[int, int], list[_Sample]] = {}
    for (row, sample), token, logprob in zip(samples, tokens, logprobs, strict=True):
        sample.draft.extend(token, logprob, sample.asked.sampling, eos_ids, meets_stop)
        if sample.draft.finish_reason is None:
            same.setdefault((row, token), []).append(sample)
    if same:
        writing.go_on(*zip(*same, strict=True))
    return list(same.values())


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
