"""Small values that many tests need, and an evaluator whose chains are known in advance."""

from collections.abc import Callable, Sequence

from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet
from pgenrm.types import (
    Comparison,
    Criterion,
    EvaluationChain,
    Failure,
    FailureKind,
    Message,
    Preference,
    Rating,
    User,
)

QUERY = (Message(role="user", content="How do I fix a flat tyre?"),)


def preference(i: int = 0) -> Preference:
    return Preference(context=QUERY, chosen=f"chosen {i}", rejected=f"rejected {i}")


def comparison(
    id: str = "c0",
    responses: Sequence[str] = ("Short answer.", "A much longer and warmer answer."),
    label: int | None = 0,
    user: User | None = None,
) -> Comparison:
    return Comparison(
        id=id,
        user=user or User(id="u0", history=(preference(),)),
        context=QUERY,
        responses=tuple(responses),
        label=label,
    )


def chain(scores: Sequence[float]) -> EvaluationChain:
    return EvaluationChain(
        preferences="Likes it short.",
        criteria=(Criterion(name="Brevity", weight=100),),
        ratings=tuple((Rating(score=s),) for s in scores),
        stated_scores=tuple(scores),
    )


Scorer = Callable[[ChainRequest, int], Sequence[float] | Failure]


class KnownEvaluator:
    """Scores every sample by a function of the request and the sample's number."""

    name = "known"

    def __init__(self, scorer: Scorer, workers: int = 1) -> None:
        self.scorer = scorer
        self.workers = workers
        self.requests: list[ChainRequest] = []

    def evaluate(self, requests: Sequence[ChainRequest]) -> list[ChainSet]:
        self.requests.extend(requests)
        return [
            ChainSet(
                samples=tuple(self._sample(request, i) for i in range(request.n)),
                n_prompt_tokens=10,
                prompt_version="known@1",
            )
            for request in requests
        ]

    def _sample(self, request: ChainRequest, i: int) -> ChainSample | Failure:
        scores = self.scorer(request, i)
        if isinstance(scores, Failure):
            return scores
        return ChainSample(chain=chain(scores), n_tokens=5)

    def close(self) -> None:
        pass


def shorter_is_better(request: ChainRequest, i: int) -> Sequence[float]:
    """Score by length, with a little noise that depends on nothing but the request's seed."""
    noise = (request.seed + i) % 7 / 100
    return [max(0.0, 9 - len(r) / 10) + noise for r in request.responses]


def lost(_: ChainRequest, __: int) -> Failure:
    return Failure(kind=FailureKind.REQUEST, reason="server down")
