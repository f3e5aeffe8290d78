"""Rows for reinforcement learning: prompts without statements, and what the rewards need beside.

Paper, section 3.2: the prompt holds query, responses and a few past choices; criteria are
supervision, not input.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pgenrm.budget import fit_prompt
from pgenrm.errors import InputError, PgenrmWarning, PromptTooLongError
from pgenrm.history import draw_pairs, tells_label
from pgenrm.prompts import Template
from pgenrm.seeding import rng
from pgenrm.types import Comparison, Failure, Message, Preference, User

if TYPE_CHECKING:
    from datasets import Dataset

EQUAL = "another response is the same text as the chosen one"


def prompt_rows(
    comparisons: Iterable[Comparison],
    *,
    template: Template | None = None,
    n_history: Sequence[int] = (3,),
    seed: int = 0,
    count_tokens: Callable[[Sequence[Message]], int] = len,
    budget_tokens: int | None = None,
    drops_long: bool = False,
) -> "Dataset":
    """Make a data set of prompts, one per comparison.

    Columns: `prompt` (messages), `id`, `user_id`, `query`, `responses` (as shown), `order`
    (position p shows response `order[p]`), `label` (position of the chosen response), `n_history`
    (past choices drawn) and `cuts` (what was then left out, in words). Order, number and choice of
    past choices are drawn by (seed, comparison id). A comparison whose chosen response stands there
    twice cannot be won and is left out with a warning.

    Args:
        comparisons: labelled.
        template: the prompt; None takes `chain_history`.
        n_history: numbers of past choices, one of which is drawn for each prompt.
        seed: of all that is drawn.
        count_tokens: of a prompt; needed with a budget.
        budget_tokens: what a prompt may have. Past choices give way as in judging.
        drops_long: leave out, with a warning, what does not fit even so.

    Raises:
        InputError: a comparison has no label or a single response, there is none at all, or its
            query and responses alone exceed the budget.
    """
    from datasets import Dataset

    template = template or Template.load("chain_history")
    rows: list[dict[str, Any]] = []
    n_equal = n_long = 0
    for comparison in comparisons:
        if comparison.label is None or len(comparison.responses) < 2:
            raise InputError(
                f"comparison {comparison.id!r} has no label or a single response; rewards need "
                "two responses or more, and which of them was chosen"
            )
        if comparison.responses.count(comparison.responses[comparison.label]) > 1:
            n_equal += 1
            continue
        generator = rng("rl", seed, comparison.id)
        order = generator.permutation(len(comparison.responses)).tolist()
        n_pairs = n_history[int(generator.integers(len(n_history)))]
        user = draw_pairs(_choices_alone(comparison), n_pairs, seed, comparison.id)
        shown = [comparison.responses[i] for i in order]
        try:
            prompt = fit_prompt(
                template,
                user,
                comparison.context,
                shown,
                count_tokens=count_tokens,
                budget_tokens=budget_tokens,
            )
        except PromptTooLongError as error:
            if drops_long:
                n_long += 1
                continue
            raise InputError(f"comparison {comparison.id!r}: {error}") from error
        rows.append(
            {
                "prompt": [message.model_dump() for message in prompt.messages],
                "id": comparison.id,
                "user_id": user.id,
                "query": comparison.context[-1].content,
                "responses": shown,
                "order": order,
                "label": order.index(comparison.label),
                "n_history": len(user.history),
                "cuts": list(prompt.cuts),
            }
        )
    for n, why in ((n_equal, EQUAL), (n_long, f"longer than {budget_tokens} tokens")):
        if n:
            warnings.warn(f"{n} comparisons left out: {why}", PgenrmWarning, stacklevel=2)
    if not rows:
        raise InputError("there is no comparison to learn from")
    return Dataset.from_list(rows)


def with_criteria(rows: "Dataset", criteria: Mapping[str, tuple[str, ...] | Failure]) -> "Dataset":
    """Add the column `criteria`, supervision: what each user wants; empty where nobody knows."""
    found = [criteria.get(user_id, ()) for user_id in rows["user_id"]]
    return rows.add_column("criteria", [[] if isinstance(c, Failure) else list(c) for c in found])


def _choices_alone(comparison: Comparison) -> User:
    """Hide what the user states, ratings too, and choices that tell the label."""
    user = comparison.user
    return User(
        id=user.id,
        history=tuple(
            Preference(context=pair.context, chosen=pair.chosen, rejected=pair.rejected)
            for pair in user.history
            if pair.is_informative and not tells_label(pair, comparison)
        ),
    )
