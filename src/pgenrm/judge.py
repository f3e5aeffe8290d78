"""The judge: several chains per comparison, pooled into one verdict (paper, section 3.4, Ind-m).

Half of the chains see the responses in each presentation order (for more than two responses:
balanced rotations), and all are pooled *before* deciding, the orders counting alike. A tie and an
unscored comparison are outcomes, never guesses. Deliberately left out here: neighbours,
calibration, early stopping.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from pgenrm.errors import EngineError
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
Floats = NDArray[np.float64]


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
        batches = _batches(comparisons, self.batch_size)
        if self.workers == 1:
            for comparisons_at_once in batches:
                yield from self._judge_batch(comparisons_at_once)
            return
        executor = ThreadPoolExecutor(self.workers, thread_name_prefix="pgenrm-judge")
        under_way: deque[Future[list[Judgment]]] = deque()
        bad_row: Exception | None = None
        try:
            while True:
                batch: list[Comparison] | None = None
                if len(under_way) < 2 * self.workers and bad_row is None:
                    try:
                        batch = next(batches, None)
                    except Exception as error:  # what is under way is paid for: it comes first
                        bad_row = error
                if batch:
                    under_way.append(executor.submit(self._judge_batch, batch))
                elif under_way:
                    yield from under_way.popleft().result()
                elif bad_row:
                    raise bad_row
                else:
                    return
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def judge_one(self, comparison: Comparison) -> Judgment:
        """Judge a single comparison."""
        return self._judge_batch([comparison])[0]

    def _judge_batch(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        plans = [
            presentation_orders(len(c.responses), self.m, (self.seed, c.id)) for c in comparisons
        ]
        requests = [
            self._request(seen, order, n)
            for seen, plan in zip(map(self._seen, comparisons), plans, strict=True)
            for order, n in plan
        ]
        answers = iter(self._ask(requests))
        judgments = []
        for comparison, plan in zip(comparisons, plans, strict=True):
            sets = [(order, next(answers)) for order, _ in plan]
            judgments.append(
                pool(comparison, sets, self.evaluator.name, self.seed, self.score_source)
            )
        return judgments

    def _ask(self, requests: list[ChainRequest]) -> list[ChainSet]:
        sets = self.evaluator.evaluate(requests)
        asked, answered = [r.n for r in requests], [len(s.samples) for s in sets]
        if asked != answered:
            raise EngineError(
                f"evaluator {self.evaluator.name} broke its contract: asked for {asked} chains, it "
                f"answered with {answered}"
            )
        return sets

    def _seen(self, comparison: Comparison) -> Comparison:
        if self.n_history is None:
            return comparison
        return draw_history(comparison, self.n_history, self.seed)

    def _request(self, comparison: Comparison, order: Order, n: int) -> ChainRequest:
        return ChainRequest(
            id=comparison.id,
            user=comparison.user,
            context=comparison.context,
            responses=tuple(comparison.responses[i] for i in order),
            n=n,
            seed=derive_seed(self.seed, comparison.id, *order),
        )


def _batches(comparisons: Iterable[Comparison], size: int) -> Iterator[list[Comparison]]:
    """Yield lists of up to `size`; when reading fails, what was read before comes first."""
    batch: list[Comparison] = []
    try:
        for comparison in comparisons:
            batch.append(comparison)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


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
    by_order = _split([c.order for c in chains], scores)
    choice, is_tie = _decide(by_order, len(comparison.responses))
    return Judgment(
        id=comparison.id,
        user_id=comparison.user.id,
        comparison_digest=digest(comparison),
        scores=_optional(_pooled(by_order), len(comparison.responses)),
        standard_errors=_optional(_standard_errors(by_order), len(comparison.responses)),
        choice=choice,
        is_tie=is_tie,
        label=comparison.label,
        outcome=_outcome(comparison, choice, is_tie),
        confidence=_confidence(by_order, choice, n_orders_asked=len(sets)),
        order_consistency=_order_consistency(by_order, choice),
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
    names = ", ".join(f"response_{p + 1}" for p in missing)
    return Failure(
        kind=FailureKind.FORMAT,
        reason=f"the chain gives no score for {names}"
        if missing
        else f"the chain scores {sample.chain.n_responses} responses, another number was shown",
        text=sample.chain.model_dump_json(),
        n_tokens=sample.n_tokens,
    )


def _share_between_identical(scores: Floats, responses: Sequence[str]) -> Floats:
    """Give identical texts the mean of their scores: they differ in position only."""
    if len(set(responses)) == len(responses):
        return scores
    shared = scores.copy()
    for text in set(responses):
        same = [i for i, response in enumerate(responses) if response == text]
        shared[:, same] = scores[:, same].mean(axis=1, keepdims=True)
    return shared


def _split(orders: Sequence[Order], scores: Floats) -> list[Floats]:
    """Return the scores of every presentation order that was read: [n_chains, n_responses] each."""
    rows: dict[Order, list[int]] = {}
    for i, order in enumerate(orders):
        rows.setdefault(order, []).append(i)
    return [scores[rows[order]] for order in sorted(rows)]


def _pooled(by_order: Sequence[Floats]) -> Floats | None:
    """Return the mean over orders of the mean over chains.

    Orders count alike, however many of their chains were lost, so that a preference for a position
    cancels.
    """
    if not by_order:
        return None
    means: Floats = np.mean([scores.mean(axis=0) for scores in by_order], axis=0)
    return means


def _standard_errors(by_order: Sequence[Floats]) -> Floats | None:
    """Return the standard errors of the pooled scores; None with fewer than two chains.

    The spread is taken within orders, where an order has several chains.
    """
    n_chains = sum(map(len, by_order))
    if n_chains < 2:
        return None
    strata = by_order if n_chains > len(by_order) else [np.concatenate(by_order)]
    squares = np.sum([((s - s.mean(axis=0)) ** 2).sum(axis=0) for s in strata], axis=0)
    variance = squares / (n_chains - len(strata))
    errors: Floats = np.sqrt(variance * sum(1 / len(s) for s in by_order)) / len(by_order)
    return errors


def _decide(by_order: Sequence[Floats], n_responses: int) -> tuple[int | None, bool]:
    """Return (choice, is_tie)."""
    means = _pooled(by_order)
    if means is None or n_responses == 1:
        return None, False
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


def _optional(values: Floats | None, n_responses: int) -> tuple[float | None, ...]:
    if values is None:
        return (None,) * n_responses
    return tuple(float(value) for value in values.round(6))


def _confidence(
    by_order: Sequence[Floats], choice: int | None, n_orders_asked: int
) -> float | None:
    """Probability that the expected scores of all chains put the choice first.

    The margins of single chains are taken as normal with unknown spread under a conjugate prior, so
    that one chain already gives a defined value; a mean margin then follows a Student t. With more
    than two responses the chances of being overtaken by each of the others are added up. Where
    orders were asked for but not read, all chains together count as one: they share what they owe
    to the positions.
    """
    means = _pooled(by_order)
    if means is None or len(means) == 1:
        return None
    if choice is None:  # a tie
        return 1 / len(means)
    n_chains = sum(map(len, by_order)) if len(by_order) == n_orders_asked else 1
    freedom = PRIOR_CHAINS + n_chains - 1
    p_overtaken = 0.0
    for other in range(len(means)):
        if other == choice:
            continue
        margins = [scores[:, choice] - scores[:, other] for scores in by_order]
        squares = sum(float(((m - m.mean()) ** 2).sum()) for m in margins) if n_chains > 1 else 0.0
        spread = PRIOR_CHAINS * PRIOR_MARGIN_SD**2 + squares
        t = (means[choice] - means[other]) / np.sqrt(spread / freedom / n_chains)
        p_overtaken += float(stdtr(freedom, -t))
    return round(max(1 - p_overtaken, 1 / len(means)), 6)


def _order_consistency(by_order: Sequence[Floats], choice: int | None) -> float | None:
    if choice is None or len(by_order) < 2:
        return None
    agree = [_decide([scores], scores.shape[1])[0] == choice for scores in by_order]
    return round(sum(agree) / len(agree), 6)


def digest(comparison: Comparison) -> str:
    """Fingerprint a comparison, so that a changed one is not taken for judged."""
    return blake2b(comparison.model_dump_json().encode(), digest_size=8).hexdigest()
