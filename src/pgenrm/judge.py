"""The judge: several chains per comparison, pooled into one verdict (paper, section 3.4, Ind-m).

Half of the chains see the responses in each presentation order (for more than two responses:
balanced rotations), and all are pooled *before* deciding. A tie and an unscored comparison are
outcomes, never guesses. Deliberately left out here: neighbours, calibration, early stopping.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet, Evaluator
from pgenrm.history import draw_history
from pgenrm.seeding import derive_seed, rng
from pgenrm.types import (
    Comparison,
    FailedChain,
    Failure,
    FailureKind,
    JudgedChain,
    Judgment,
    Outcome,
    ScoreSource,
)

TIE_TOLERANCE = 1e-9
"""Pooled scores closer than this are equal; it only absorbs floating-point noise."""

PRIOR_MARGIN_SD = 1.5
PRIOR_CHAINS = 2.0
"""Confidence starts from a spread of margins of 1.5 points, worth two chains [ours]."""

Order = tuple[int, ...]


class PGenRM:
    """Judges comparisons with the chains of one evaluator."""

    def __init__(
        self,
        evaluator: Evaluator,
        m: int = 8,
        *,
        n_history: int | None = None,
        score_source: ScoreSource = ScoreSource.RUBRIC,
        seed: int = 0,
        batch_size: int = 32,
        workers: int | None = None,
    ) -> None:
        """Set up a judge; nothing is loaded or sent yet.

        Args:
            evaluator: writes the chains.
            m: chains per comparison, over all presentation orders (Ind-m).
            n_history: past choices shown, drawn at random per comparison; None shows all. The
                paper uses 3.
            score_source: which total counts where a chain's own arithmetic disagrees.
            seed: with the comparison's id, fixes orders, drawn history and sampling.
            batch_size: comparisons handed to the evaluator at once; moves no result.
            workers: batches under way at once; None asks the evaluator. Moves no result.

        Raises:
            ValueError: a count is below its minimum.
        """
        if m < 1 or batch_size < 1 or (workers is not None and workers < 1):
            raise ValueError("m, batch_size and workers must be at least 1")
        if n_history is not None and n_history < 0:
            raise ValueError(f"n_history must be 0 or more, or None for all, not {n_history}")
        self.evaluator = evaluator
        self.m = m
        self.n_history = n_history
        self.score_source = score_source
        self.seed = seed
        self.batch_size = batch_size
        self.workers = workers or evaluator.workers

    def judge(self, comparisons: Iterable[Comparison]) -> Iterator[Judgment]:
        """Yield one judgment per comparison, in order, reading the input only as far as needed.

        Raises:
            EngineError: the evaluator cannot work at all. A lost chain is a failure inside its
                judgment, not an exception.
        """
        source = iter(comparisons)
        if self.workers == 1:
            while batch := list(islice(source, self.batch_size)):
                yield from self._judge_batch(batch)
            return
        executor = ThreadPoolExecutor(self.workers, thread_name_prefix="pgenrm-judge")
        under_way: deque[Future[list[Judgment]]] = deque()
        try:
            while True:
                while len(under_way) < 2 * self.workers and (
                    batch := list(islice(source, self.batch_size))
                ):
                    under_way.append(executor.submit(self._judge_batch, batch))
                if not under_way:
                    return
                yield from under_way.popleft().result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def judge_one(self, comparison: Comparison) -> Judgment:
        """Judge a single comparison."""
        return self._judge_batch([comparison])[0]

    def _judge_batch(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        if self.n_history is not None:
            comparisons = [draw_history(c, self.n_history, self.seed) for c in comparisons]
        plans = [
            presentation_orders(len(c.responses), self.m, (self.seed, c.id)) for c in comparisons
        ]
        requests = [
            self._request(comparison, order, n)
            for comparison, plan in zip(comparisons, plans, strict=True)
            for order, n in plan
        ]
        answers = iter(self.evaluator.evaluate(requests))
        judgments = []
        for comparison, plan in zip(comparisons, plans, strict=True):
            sets = [(order, next(answers)) for order, _ in plan]
            judgments.append(
                pool(comparison, sets, self.evaluator.name, self.seed, self.score_source)
            )
        return judgments

    def _request(self, comparison: Comparison, order: Order, n: int) -> ChainRequest:
        return ChainRequest(
            id=comparison.id,
            user=comparison.user,
            context=comparison.context,
            responses=tuple(comparison.responses[i] for i in order),
            n=n,
            seed=derive_seed(self.seed, comparison.id, *order),
        )


def presentation_orders(
    n_responses: int, m: int, seed_parts: tuple[object, ...]
) -> list[tuple[Order, int]]:
    """Spread m chains evenly over the rotations of a seeded permutation.

    Every response stands equally often in every position, up to one when m is not a multiple of
    `n_responses`; who gets the extra chain is random.

    >>> sorted(presentation_orders(2, 8, (0, "a")))
    [((0, 1), 4), ((1, 0), 4)]
    """
    first = rng("order", *seed_parts).permutation(n_responses).tolist()
    each, extra = divmod(m, n_responses)
    rotations = [tuple(first[r:] + first[:r]) for r in range(n_responses)]
    counts = [each + (r < extra) for r in range(n_responses)]
    return [(order, n) for order, n in zip(rotations, counts, strict=True) if n]


def pool(
    comparison: Comparison,
    sets: Sequence[tuple[Order, ChainSet]],
    evaluator: str,
    seed: int = 0,
    score_source: ScoreSource = ScoreSource.RUBRIC,
) -> Judgment:
    """Pool the chains of all presentation orders into a verdict.

    Args:
        comparison: what was judged.
        sets: for every presentation order, what the evaluator answered.
        evaluator: name to record.
        seed: seed to record.
        score_source: which total of a chain counts.
    """
    chains, failures = _by_response(sets, score_source)
    scores = np.array([c.scores for c in chains]).reshape(len(chains), len(comparison.responses))
    scores = _share_between_identical(scores, comparison.responses)
    choice, is_tie = _decide(scores)
    return Judgment(
        id=comparison.id,
        user_id=comparison.user.id,
        scores=_column_means(scores),
        standard_errors=_standard_errors(scores),
        choice=choice,
        is_tie=is_tie,
        label=comparison.label,
        outcome=_outcome(comparison, choice, is_tie),
        confidence=0.5 if is_tie else _confidence(scores, choice),
        order_consistency=_order_consistency(scores, [c.order for c in chains], choice),
        chains=tuple(chains),
        failures=tuple(failures),
        n_prompt_tokens=sum(s.n_prompt_tokens for _, s in sets),
        n_completion_tokens=sum(sample.n_tokens for _, s in sets for sample in s.samples),
        cuts=tuple(dict.fromkeys(cut for _, s in sets for cut in s.cuts)),
        evaluator=evaluator,
        prompt_version=", ".join(dict.fromkeys(s.prompt_version for _, s in sets)),
        seed=seed,
    )


def _by_response(
    sets: Sequence[tuple[Order, ChainSet]], score_source: ScoreSource
) -> tuple[list[JudgedChain], list[FailedChain]]:
    """Sort samples into chains, with scores moved from positions to responses, and failures."""
    chains: list[JudgedChain] = []
    failures: list[FailedChain] = []
    for order, chain_set in sets:
        for sample in chain_set.samples:
            if isinstance(sample, Failure):
                failures.append(FailedChain(order=order, failure=sample))
                continue
            by_position = sample.chain.scores(score_source)
            missing = [p for p, score in enumerate(by_position) if score is None]
            if missing or len(by_position) != len(order):
                failures.append(FailedChain(order=order, failure=_without_score(sample, missing)))
                continue
            by_response = dict(zip(order, by_position, strict=True))
            chains.append(
                JudgedChain(
                    order=order,
                    chain=sample.chain,
                    scores=tuple(by_response[i] for i in range(len(order))),
                    finish_reason=sample.finish_reason,
                    n_tokens=sample.n_tokens,
                )
            )
    return chains, failures


def _without_score(sample: ChainSample, missing: list[int]) -> Failure:
    names = ", ".join(f"response_{p + 1}" for p in missing) or "every response"
    return Failure(
        kind=FailureKind.FORMAT,
        reason=f"the chain gives no score for {names}",
        text=sample.chain.model_dump_json(),
        n_tokens=sample.n_tokens,
    )


def _share_between_identical(
    scores: NDArray[np.float64], responses: Sequence[str]
) -> NDArray[np.float64]:
    """Give identical texts the mean of their scores: they differ in position only."""
    if len(set(responses)) == len(responses):
        return scores
    shared = scores.copy()
    for text in set(responses):
        same = [i for i, response in enumerate(responses) if response == text]
        shared[:, same] = scores[:, same].mean(axis=1, keepdims=True)
    return shared


def _decide(scores: NDArray[np.float64]) -> tuple[int | None, bool]:
    """Return (choice, is_tie) for [n_chains, n_responses] scores."""
    n_chains, n_responses = scores.shape
    if n_chains == 0 or n_responses == 1:
        return None, False
    means = scores.mean(axis=0)
    best = np.flatnonzero(means >= means.max() - TIE_TOLERANCE)
    return (int(best[0]), False) if len(best) == 1 else (None, True)


def _outcome(comparison: Comparison, choice: int | None, is_tie: bool) -> Outcome | None:
    if comparison.label is None or len(comparison.responses) == 1:
        return None
    if is_tie:
        return Outcome.TIE
    if choice is None:
        return Outcome.UNSCORED
    return Outcome.CORRECT if choice == comparison.label else Outcome.WRONG


def _column_means(scores: NDArray[np.float64]) -> tuple[float | None, ...]:
    if len(scores) == 0:
        return (None,) * int(scores.shape[1])
    means: NDArray[np.float64] = scores.mean(axis=0).round(6)
    return tuple(float(mean) for mean in means)


def _standard_errors(scores: NDArray[np.float64]) -> tuple[float | None, ...]:
    n_chains, n_responses = scores.shape
    if n_chains < 2:
        return (None,) * int(n_responses)
    errors: NDArray[np.float64] = scores.std(axis=0, ddof=1) / np.sqrt(n_chains)
    return tuple(float(error) for error in errors.round(6))


def _confidence(scores: NDArray[np.float64], choice: int | None) -> float | None:
    """Probability that the expected margin over the runner-up is positive.

    The margins of single chains are taken as normal with unknown spread under a conjugate prior, so
    that one chain already gives a defined value; the mean margin then follows a Student t.
    """
    if choice is None:
        return None
    means = scores.mean(axis=0)
    means[choice] = -np.inf
    margins = scores[:, choice] - scores[:, int(means.argmax())]
    n_chains = len(margins)
    freedom = PRIOR_CHAINS + n_chains - 1
    spread = PRIOR_CHAINS * PRIOR_MARGIN_SD**2 + float(((margins - margins.mean()) ** 2).sum())
    t = float(margins.mean()) / np.sqrt(spread / freedom / n_chains)
    return round(float(stdtr(freedom, t)), 6)


def _order_consistency(
    scores: NDArray[np.float64], orders: Sequence[Order], choice: int | None
) -> float | None:
    shown = sorted(set(orders))
    if choice is None or len(shown) < 2:
        return None
    rows = [[i for i, o in enumerate(orders) if o == order] for order in shown]
    agree = [_decide(scores[r])[0] == choice for r in rows]
    return round(sum(agree) / len(agree), 6)
