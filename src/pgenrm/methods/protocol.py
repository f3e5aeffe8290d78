"""The method protocol: fit on other people's choices, adapt to users, score comparisons.

Whatever decides between responses is a method: language-model judges, trained reward models,
P-GenRM itself, and controls. All give judgments, so that one report counts them alike.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.special import softmax

from pgenrm.types import Comparison, Judgment, Outcome, User
from pgenrm.verdict import digest


class Method(Protocol):
    """Decides between responses for one user."""

    name: str
    """As in a table, e.g. `gpo`; also what `--methods` calls it."""
    version: str
    """Changes with whatever the judgments depend on: prompts, weights, hyper-parameters. Records of
    another version are never reused."""
    is_trained: bool
    """Whether `fit` learns something, so that runs with several seeds differ."""

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        """Learn from labelled comparisons; `validation` is for early stopping and calibration.

        A method that learns nothing returns at once.
        """
        ...

    def adapt(self, users: Sequence[User]) -> None:
        """Learn what can be learnt about these users from their history, before scoring.

        Calling it again for a user replaces what was learnt. Comparisons of users who were never
        adapted to are scored as of a user without history.
        """
        ...

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Judge comparisons, in order; labels are copied into judgments and otherwise not read."""
        ...


def bradley_terry(rewards: Sequence[float]) -> float:
    """Return the probability that the best response is preferred to the others.

    Of two it is the logistic function of the margin, which a preference loss fits.

    Args:
        rewards: [n_responses].

    >>> round(bradley_terry([1.0, 3.0]), 3), bradley_terry([2.0, 2.0])
    (0.881, 0.5)
    """
    return float(softmax(rewards).max())


def judgment_of(
    comparison: Comparison,
    scores: Sequence[float] | None,
    *,
    method: str,
    seed: int = 0,
    confidence: float | None = None,
    order_consistency: float | None = None,
    n_history: int = 0,
) -> Judgment:
    """Return the judgment that plain scores amount to.

    Args:
        comparison: what was judged.
        scores: [n_responses], the higher the better; None where there are none. Equal best scores
            are a tie.
        method: who gave them.
        seed: of the method.
        confidence: probability that the user prefers the choice, where the scores tell; see
            `bradley_terry`. Of a single response it says nothing.
        order_consistency: share of pairs of presentation orders with the same choice, where
            several were asked.
        n_history: past choices that the scores rest on.

    Raises:
        ValueError: the number of scores is not that of the responses, or a score is not finite.
    """
    n = len(comparison.responses)
    choice, is_tie = None, False
    confidence = None if confidence is None or n == 1 else round(float(confidence), 6)
    if scores is not None:
        values = np.asarray(scores, dtype=float)
        if values.shape != (n,) or not np.isfinite(values).all():
            raise ValueError(f"{method} gave scores {list(scores)} for {n} responses")
        best = np.flatnonzero(values == values.max())
        is_tie = n > 1 and len(best) > 1
        choice = int(best[0]) if n > 1 and len(best) == 1 else None
    outcome = None
    if comparison.label is not None and n > 1:
        if scores is None:
            outcome = Outcome.UNSCORED
        elif is_tie:
            outcome = Outcome.TIE
        else:
            outcome = Outcome.CORRECT if choice == comparison.label else Outcome.WRONG
    return Judgment(
        id=comparison.id,
        user_id=comparison.user.id,
        comparison_digest=digest(comparison),
        scores=(None,) * n if scores is None else tuple(float(s) for s in scores),
        standard_errors=(None,) * n,
        choice=choice,
        is_tie=is_tie,
        label=comparison.label,
        outcome=outcome,
        confidence=confidence,
        is_calibrated=confidence is not None,
        order_consistency=order_consistency,
        chains=(),
        failures=(),
        n_prompt_tokens=0,
        n_completion_tokens=0,
        cuts=(),
        evaluator=method,
        prompt_version="",
        seed=seed,
        n_history=n_history,
    )
