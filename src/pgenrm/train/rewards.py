"""The rewards of a chain: plain functions that use the package's own parser and scores.

Paper, section 3.2: R = alpha * process + beta * outcome, and -0.1 for a chain that cannot be read,
which then earns neither of the two. Each function takes the completions and columns of a batch and
returns one reward per completion, as TRL calls it. None stands for a reward that could not be had;
an unreadable chain is no such case, it has earned nothing.

How a chain covers what a user wants is rated by a `CoverageJudge`: a language model
(`process_judge`), or in the simulated world one that knows the user (`coverage`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

from pgenrm.chain import parse
from pgenrm.errors import FormatError
from pgenrm.types import Comparison, EvaluationChain, Failure, Value

FORMAT_ERROR: Final = -0.1
"""Paper, section 3.2."""

Completions = Sequence[Sequence[dict[str, str]]]
"""[n] of one assistant message each."""


class CoverageRequest(Value):
    """Ask how far a chain covers what its user wants."""

    id: str
    """Of the comparison."""
    user_id: str
    query: str
    responses: tuple[str, ...]
    """In the order in which the chain's writer saw them."""
    criteria: tuple[str, ...]
    """Stated by the user, or synthesised; empty where neither could be had."""
    chain: EvaluationChain


Criteria = Mapping[str, tuple[str, ...] | Failure]
"""User id -> what he wants, or why it is not known."""


class CoverageJudge(Protocol):
    """Rates how far chains cover what their users want: the process reward."""

    def criteria(self, comparisons: Sequence[Comparison]) -> Criteria:
        """Return what the users of some comparisons want, as far as the judge has to be told.

        They come back to it with every request. A user without any is left out.
        """
        ...

    def rate(self, requests: Sequence[CoverageRequest]) -> list[float | Failure]:
        """Return for each request a number in [0, 1], or why there is none."""
        ...

    def close(self) -> None:
        """Release what the judge holds; calling it twice is harmless."""
        ...


@lru_cache(maxsize=4096)
def read_chain(text: str, n_responses: int) -> EvaluationChain | None:
    """Parse a completion, once for all rewards; None where it is no readable chain."""
    try:
        return parse(text, n_responses)
    except FormatError:
        return None


def margin(chain: EvaluationChain, label: int) -> float:
    """Return the score of the chosen response minus the best of the others, in points.

    >>> margin(EvaluationChain(preferences="", stated_scores=(7, 4.5)), label=1)
    -2.5
    """
    scores = [score for score in chain.scores() if score is not None]  # the parser saw to all
    chosen = scores.pop(label)
    return chosen - max(scores)


def outcome(
    completions: Completions, label: Sequence[int], order: Sequence[Sequence[int]], **_: Any
) -> list[float | None]:
    """Give 1 where the chosen response scores strictly higher than every other, else 0.

    Args:
        completions: of the batch.
        label: [n] position of the chosen response among those shown.
        order: [n][n_responses] presentation order; only its length counts here.
    """
    chains = _chains(completions, order)
    return [
        float(chain is not None and margin(chain, chosen) > 0)
        for chain, chosen in zip(chains, label, strict=True)
    ]


def format_error(
    completions: Completions, order: Sequence[Sequence[int]], **_: Any
) -> list[float | None]:
    """Give `FORMAT_ERROR` to chains that cannot be read, 0 to the others."""
    return [FORMAT_ERROR if chain is None else 0.0 for chain in _chains(completions, order)]


def process_reward(judge: CoverageJudge) -> Callable[..., Awaitable[list[float | None]]]:
    """Return the process reward by a judge, as the asynchronous function that TRL takes."""

    async def process(
        completions: Completions,
        id: Sequence[str],
        user_id: Sequence[str],
        query: Sequence[str],
        responses: Sequence[Sequence[str]],
        order: Sequence[Sequence[int]],
        criteria: Sequence[Sequence[str]],
        **_: Any,
    ) -> list[float | None]:
        """Rate the readable chains in one batch; None where the judge failed."""
        chains = _chains(completions, order)
        readable = [i for i, chain in enumerate(chains) if chain is not None]
        requests = [
            CoverageRequest.model_validate(
                {
                    "id": id[i],
                    "user_id": user_id[i],
                    "query": query[i],
                    "responses": responses[i],
                    "criteria": criteria[i],
                    "chain": chains[i],
                }
            )
            for i in readable
        ]
        rated = await asyncio.to_thread(judge.rate, requests)
        rewards: list[float | None] = [0.0] * len(chains)
        for i, rating in zip(readable, rated, strict=True):
            rewards[i] = None if isinstance(rating, Failure) else rating
        return rewards

    return process


def _chains(
    completions: Completions, order: Sequence[Sequence[int]]
) -> list[EvaluationChain | None]:
    return [
        read_chain(completion[0]["content"], len(shown))
        for completion, shown in zip(completions, order, strict=True)
    ]
