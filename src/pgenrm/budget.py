"""Make a prompt fit a context window: history gives way first, a response never does."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pgenrm.errors import PromptTooLongError
from pgenrm.prompts import Template
from pgenrm.types import Message, Preference, User

HISTORY_TEXT_BOUNDS = (2000, 500)
"""Characters that a text of a past choice may keep when space is short, tried in this order."""


class FittedPrompt(NamedTuple):
    """A prompt that fits."""

    messages: tuple[Message, ...]
    version: str
    """Of the template."""
    cuts: tuple[str, ...]
    """What was left out, in words."""


class _Cut(NamedTuple):
    text_bound: int | None = None
    n_pairs: int = 0
    n_turns: int = 0


def fit_prompt(
    template: Template,
    user: User,
    context: Sequence[Message] = (),
    responses: Sequence[str] = (),
    *,
    count_tokens: Callable[[Sequence[Message]], int],
    budget_tokens: int | None = None,
    min_pairs: int = 0,
) -> FittedPrompt:
    """Render a prompt of at most `budget_tokens`, cutting as little as needed in a fixed order.

    1. Long texts in past choices are shortened in the middle, to 2,000 and then 500 characters.
    2. Past choices are left out, oldest (first in the history) first, down to `min_pairs`.
    3. Turns between the first user turn and the query are left out, oldest first.

    Past choices whose two responses are equal say nothing and are always left out. No budget means
    no limit. Tokens are counted once when all fits, O(log n) times for n past choices and turns
    when it does not.

    Raises:
        PromptTooLongError: instructions, profile, first turn, query and responses exceed it.
    """
    user, empty_cuts = _without_equal_pairs(user)
    n_first = 1 + next((i for i, m in enumerate(context) if m.role == "user"), 0)
    cuts = _cuts(
        bounds=HISTORY_TEXT_BOUNDS if user.history else (),
        n_pairs=max(0, len(user.history) - min_pairs),
        n_turns=max(0, len(context) - n_first - 1),
    )

    def render(index: int) -> FittedPrompt:
        cut = cuts[index]
        shown_user, history_words = _cut_history(user, cut)
        shown_context, context_words = _cut_turns(context, n_first, cut.n_turns)
        messages = template.render(shown_user, shown_context, responses)
        return FittedPrompt(messages, template.version, empty_cuts + history_words + context_words)

    whole = render(0)
    if budget_tokens is None or count_tokens(whole.messages) <= budget_tokens:
        return whole

    # Each cut leaves less than the one before, so that the first that fits can be bisected.
    index = bisect_left(
        range(len(cuts) - 1), True, key=lambda i: count_tokens(render(i).messages) <= budget_tokens
    )
    fitted = render(index)
    n_tokens = count_tokens(fitted.messages)
    if n_tokens > budget_tokens:
        raise PromptTooLongError(
            f"the prompt needs {n_tokens} tokens with history and middle turns cut as far as they "
            f"may be, but only {budget_tokens} are free; shorten the query or the "
            "responses, lower max_tokens, or use a model with a longer context window"
        )
    return fitted


def _cuts(bounds: Sequence[int], n_pairs: int, n_turns: int) -> list[_Cut]:
    """List all cuts, from none to the deepest."""
    bound = bounds[-1] if bounds else None
    return [
        _Cut(),
        *(_Cut(b) for b in bounds),
        *(_Cut(bound, n) for n in range(1, n_pairs + 1)),
        *(_Cut(bound, n_pairs, n) for n in range(1, n_turns + 1)),
    ]


def _without_equal_pairs(user: User) -> tuple[User, tuple[str, ...]]:
    words = tuple(
        f"history: pair {number} left out: its two responses are the same text"
        for number, pair in enumerate(user.history, start=1)
        if not pair.is_informative
    )
    kept = tuple(pair for pair in user.history if pair.is_informative)
    return user.model_copy(update={"history": kept}), words


def _cut_history(user: User, cut: _Cut) -> tuple[User, tuple[str, ...]]:
    words = []
    kept = user.history[cut.n_pairs :]
    if cut.n_pairs:
        words.append(f"history: oldest pairs left out: {cut.n_pairs} of {len(user.history)}")
    if cut.text_bound is not None:
        n_long = sum(len(text) > cut.text_bound for pair in kept for text in _texts(pair))
        kept = tuple(_shortened_pair(pair, cut.text_bound) for pair in kept)
        if n_long:
            words.append(f"history: texts shortened to {cut.text_bound} characters: {n_long}")
    return user.model_copy(update={"history": kept}), tuple(words)


def _cut_turns(
    context: Sequence[Message], n_first: int, n_left_out: int
) -> tuple[Sequence[Message], tuple[str, ...]]:
    if not n_left_out:
        return context, ()
    note = Message(role="system", content=f"(turns left out here: {n_left_out})")
    words = f"conversation: turns after the first user turn left out: {n_left_out}"
    return (*context[:n_first], note, *context[n_first + n_left_out :]), (words,)


def _texts(pair: Preference) -> tuple[str, ...]:
    return (*(m.content for m in pair.context), pair.chosen, pair.rejected)


def _shortened_pair(pair: Preference, bound: int) -> Preference:
    return pair.model_copy(
        update={
            "context": tuple(
                m.model_copy(update={"content": _shortened(m.content, bound)}) for m in pair.context
            ),
            "chosen": _shortened(pair.chosen, bound),
            "rejected": _shortened(pair.rejected, bound),
        }
    )


def _shortened(text: str, bound: int) -> str:
    """Keep the beginning and, half as long, the end."""
    if len(text) <= bound:
        return text
    n_kept = bound - len(" (12,345,678 characters left out) ")
    n_end = n_kept // 3
    note = f" ({len(text) - n_kept:,} characters left out) "
    return text[: n_kept - n_end] + note + text[-n_end:]
