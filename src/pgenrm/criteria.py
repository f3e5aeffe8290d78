"""Criteria synthesis: what a user looks for, written out from past choices (paper, section 3.2).

Training uses the criteria of users who stated none as supervision, never as input.
"""

import re
from collections.abc import Sequence

from pgenrm.budget import FittedPrompt, fit_prompt
from pgenrm.engines.protocol import ChatRequest, Completion, Engine, Sampling
from pgenrm.errors import FormatError, InputError, PromptTooLongError
from pgenrm.llm import budget_tokens, read_completion
from pgenrm.prompts import Template
from pgenrm.seeding import derive_seed
from pgenrm.types import Failure, FailureKind, FinishReason, User
from pgenrm.untrusted import without_thoughts

CRITERIA_SAMPLING = Sampling(temperature=0.0, max_tokens=512)

_ITEM = re.compile(r"^[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]+(?P<text>\S.*)$", re.MULTILINE)


def synthesise_criteria(
    engine: Engine,
    users: Sequence[User],
    *,
    template: Template | None = None,
    sampling: Sampling = CRITERIA_SAMPLING,
    seed: int = 0,
) -> list[tuple[str, ...] | Failure]:
    """Return, for each user, criteria derived from the history, or why there are none.

    Raises:
        InputError: a user has no past choice whose two responses differ.
    """
    template = template or Template.load("criteria")
    budget = budget_tokens(engine, sampling)
    prompts = [_fit(engine, template, user, budget) for user in users]
    requests = [
        ChatRequest(
            messages=prompt.messages,
            sampling=sampling,
            seed=derive_seed("criteria", seed, user.id),
            prompt_version=prompt.version,
        )
        for user, prompt in zip(users, prompts, strict=True)
        if isinstance(prompt, FittedPrompt)
    ]
    answers = engine.complete(requests)
    written = iter([_criteria(answer.samples[0]) for answer in answers])
    return [next(written) if isinstance(p, FittedPrompt) else p for p in prompts]


def parse_criteria(text: str) -> tuple[str, ...]:
    r"""Read a list with one criterion per line.

    >>> parse_criteria("Here they are:\n- **Short** answers.\n2) No jargon.")
    ('Short answers.', 'No jargon.')

    Raises:
        FormatError: the text has no list item.
    """
    items = [match["text"] for match in _ITEM.finditer(without_thoughts(text))]
    criteria = [item.replace("**", "").strip() for item in items]
    if not criteria:
        raise FormatError("no criterion: expected lines that begin with '- '", ("criteria",))
    return tuple(dict.fromkeys(criteria))


def _fit(
    engine: Engine, template: Template, user: User, budget: int | None
) -> FittedPrompt | Failure:
    if not any(pair.is_informative for pair in user.history):
        raise InputError(
            f"user {user.id!r} has no past choice between different responses; criteria can only "
            "be synthesised from a history"
        )
    try:
        return fit_prompt(
            template, user, count_tokens=engine.count_tokens, budget_tokens=budget, min_pairs=1
        )
    except PromptTooLongError as error:
        return Failure(kind=FailureKind.TOO_LONG, reason=str(error))


def _criteria(sample: Completion | Failure) -> tuple[str, ...] | Failure:
    if isinstance(sample, Failure):
        return sample
    # At the token limit the last line may be half a criterion.
    is_cut = sample.finish_reason is FinishReason.LENGTH
    return read_completion(
        sample, lambda text: parse_criteria(text.rpartition("\n")[0] if is_cut else text)
    )
