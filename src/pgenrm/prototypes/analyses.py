"""Preference analyses: what is embedded to find similar users (paper, section 3.3).

A user's analysis in a scenario is the preference-modelling part P of a chain that is written for
him there. Any evaluator writes it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

from pgenrm.attributes.scenario import Scenario, classify
from pgenrm.errors import InputError
from pgenrm.evaluator import ChainRequest, ChainSample, Evaluator
from pgenrm.history import draw_pairs
from pgenrm.seeding import derive_seed, rng
from pgenrm.types import Failure, FailureKind, Preference, User, Value

logger = logging.getLogger(__name__)


class Analysis(Value):
    """Who a user is in a scenario, in words."""

    user_id: str
    scenario: str
    """As `pgenrm.attributes.scenario.classify` names it."""
    text: str
    """P of the chain; never blank."""


class LostAnalysis(Value):
    """An analysis that could not be had."""

    user_id: str
    scenario: str
    failure: Failure


def analyses_of(
    users: Sequence[User],
    evaluator: Evaluator,
    *,
    n_history: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
    on_failure: Callable[[LostAnalysis], None] | None = None,
) -> Iterator[Analysis]:
    """Yield an analysis of every user in every scenario of his history, users in order.

    Each is taken from one chain about his latest choice there: its context and its two responses,
    in an order drawn by the seed. A user's analyses do not depend on the other users, so the work
    can be split or taken up again at any of them.

    Args:
        users: a user without history has no analysis.
        evaluator: writes the chains.
        n_history: past choices shown to the writer, drawn by (seed, user id), the same in all of
            the user's scenarios; None shows all.
        seed: fixes the drawn choices, the orders and the sampling.
        batch_size: users handed to the evaluator at once; moves no result.
        progress: called with (users done, users in all).
        on_failure: called with every analysis that could not be had. How many there were is also
            logged as a warning at the end.

    Raises:
        EngineError: the evaluator cannot work at all.
        InputError: `batch_size` or `n_history` is too small.
    """
    if batch_size < 1 or (n_history is not None and n_history < 0):
        raise InputError(
            f"batch_size is {batch_size} and n_history {n_history}; use at least 1, and 0 or more "
            "or None for all"
        )
    n_asked = 0
    lost: list[LostAnalysis] = []
    for start in range(0, len(users), batch_size):
        batch = users[start : start + batch_size]
        cases = [case for user in batch for case in _cases(user, n_history, seed)]
        sets = evaluator.evaluate([request for _, request in cases])
        for (scenario, request), chain_set in zip(cases, sets, strict=True):
            n_asked += 1
            (sample,) = chain_set.samples
            text = _text(sample)
            if isinstance(text, str):
                yield Analysis(user_id=request.user.id, scenario=scenario, text=text)
                continue
            lost.append(LostAnalysis(user_id=request.user.id, scenario=scenario, failure=text))
            if on_failure:
                on_failure(lost[-1])
        if progress:
            progress(min(start + batch_size, len(users)), len(users))
    if lost:
        logger.warning(
            "%d of %d analyses could not be had, the first of user %s (%s): %s",
            len(lost),
            n_asked,
            lost[0].user_id,
            lost[0].scenario,
            lost[0].failure.reason,
        )


def _cases(user: User, n_history: int | None, seed: int) -> list[tuple[Scenario, ChainRequest]]:
    """Ask for one chain in every scenario of a user, in order of first appearance."""
    shown = user if n_history is None else draw_pairs(user, n_history, seed, user.id)
    latest = {classify(pair.context): pair for pair in user.history}
    return [(scenario, _request(shown, scenario, pair, seed)) for scenario, pair in latest.items()]


def _request(shown: User, scenario: Scenario, pair: Preference, seed: int) -> ChainRequest:
    item = ("analysis", seed, shown.id, scenario)
    is_swapped = rng("order", *item).random() < 0.5
    responses = (pair.chosen, pair.rejected)
    return ChainRequest(
        id=f"{shown.id}/{scenario}",
        user=shown,
        context=pair.context,
        responses=responses[::-1] if is_swapped else responses,
        seed=derive_seed(*item),
    )


def _text(sample: ChainSample | Failure) -> str | Failure:
    if isinstance(sample, Failure):
        return sample
    if sample.chain.preferences.strip():
        return sample.chain.preferences
    return Failure(
        kind=FailureKind.FORMAT,
        reason="the chain says nothing about the user's preferences",
        text=sample.chain.model_dump_json(),
        n_tokens=sample.n_tokens,
    )
