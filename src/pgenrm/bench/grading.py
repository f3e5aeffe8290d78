"""LaMP-QA: answers graded against what only graders know, by a language model (paper, table 5).

For every answer the judge sees question, the asker's explanation and the aspects of the rubric, and
grades each aspect 0, 1 or 2; the score is the mean share of the best grade. With several judges
their scores add up to the true ranking of the policies.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from pgenrm.budget import fit_prompt
from pgenrm.data.lampqa import Candidate, LampItem
from pgenrm.engines.protocol import ChatRequest, Completion, Engine, Sampling
from pgenrm.errors import FormatError, InputError, PromptTooLongError
from pgenrm.llm import budget_tokens, read_completion
from pgenrm.prompts import Template
from pgenrm.seeding import derive_seed
from pgenrm.types import Failure, FailureKind, Message, User
from pgenrm.untrusted import without_thoughts

BEST: Final = 2
SAMPLING: Final = Sampling(temperature=0.0, max_tokens=512)
TEMPLATE: Final = Path(__file__).with_name("aspects.jinja")

_GRADE = re.compile(r"^\W*(\d{1,2})[\s*]*[:.)=-][\s*]*([0-2])\W*$", re.MULTILINE)


class Ungraded(NamedTuple):
    """An answer without a grade."""

    question: str
    model: str
    failure: Failure


def grade_answers(
    engine: Engine, items: Iterable[LampItem], *, seed: int = 0, sampling: Sampling = SAMPLING
) -> tuple[list[Candidate], list[Ungraded]]:
    """Grade every answer; scores by other judges stay.

    Args:
        engine: grades; its model's name becomes the judge's.
        items: questions with answers.
        seed: of the sampling.
        sampling: how to sample.

    Returns:
        All answers in the form of the file they came from, those that could be graded with the
        judge's score in [0, 1]; and those that could not.

    Raises:
        InputError: a question has no aspects.
    """
    asked = [(item, i) for item in items for i in range(len(item.models))]
    template, budget = Template.load(TEMPLATE), budget_tokens(engine, sampling)
    prompts = [_prompt(engine, template, budget, item, i) for item, i in asked]
    answers = engine.complete(
        [
            ChatRequest(
                messages=messages,
                sampling=sampling,
                seed=derive_seed("aspects", seed, item.comparison.id, item.models[i]),
                prompt_version=template.version,
            )
            for (item, i), messages in zip(asked, prompts, strict=True)
            if not isinstance(messages, Failure)
        ]
    )
    samples = iter(answer.samples[0] for answer in answers)
    graded, lost = [], []
    for (item, i), messages in zip(asked, prompts, strict=True):
        sample = messages if isinstance(messages, Failure) else next(samples)
        score = _read(sample, len(item.rubric.rubric_aspects))
        scores = dict(item.scores[i])
        if isinstance(score, Failure):
            lost.append(Ungraded(item.rubric.id, item.models[i], score))
        else:
            scores[engine.model] = score
        graded.append(
            Candidate(
                id=item.rubric.id,
                model=item.models[i],
                response=item.comparison.responses[i],
                scores=scores,
            )
        )
    return graded, lost


def parse_grades(text: str, n_aspects: int) -> tuple[int, ...]:
    r"""Read one grade per aspect, in order; what a model thinks before is dropped.

    >>> parse_grades("1: 2\n**2**: 0", 2)
    (2, 0)

    Raises:
        FormatError: an aspect has no grade or two different ones, or there is one too many.
    """
    found: dict[int, int] = {}
    for number, grade in _GRADE.findall(without_thoughts(text)):
        if found.setdefault(int(number), int(grade)) != int(grade):
            raise FormatError(f"aspect {number} has two grades", (f"aspect {number}",))
    wanted = range(1, n_aspects + 1)
    if set(found) != set(wanted):
        missing = tuple(f"aspect {i}" for i in wanted if i not in found)
        raise FormatError(
            f"grades are given for {sorted(found)}, not for 1 to {n_aspects}", missing
        )
    return tuple(found[i] for i in wanted)


def _prompt(
    engine: Engine, template: Template, budget: int | None, item: LampItem, i: int
) -> tuple[Message, ...] | Failure:
    aspects = item.rubric.rubric_aspects
    if not aspects:
        raise InputError(f"question {item.rubric.id!r} has no rubric aspects to grade by")
    user = User(
        id=item.comparison.user.id,
        criteria=tuple(f"{a.aspect}: {a.reason}" for a in aspects),
        self_description=item.rubric.narrative,
    )
    try:
        return fit_prompt(
            template,
            user,
            item.comparison.context,
            (item.comparison.responses[i],),
            count_tokens=engine.count_tokens,
            budget_tokens=budget,
        ).messages
    except PromptTooLongError as error:
        return Failure(kind=FailureKind.TOO_LONG, reason=str(error))


def _read(sample: Completion | Failure, n_aspects: int) -> float | Failure:
    if isinstance(sample, Failure):
        return sample
    grades = read_completion(sample, lambda text: parse_grades(text, n_aspects))
    if isinstance(grades, Failure):
        return grades
    return round(sum(grades) / (BEST * n_aspects), 6)
