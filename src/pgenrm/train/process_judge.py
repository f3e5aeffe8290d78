"""The process reward by a language model: how far a chain covers what its user wants.

Paper, section 3.2: supervision are the criteria that the user stated, or those synthesised from the
full history where none were stated. The judge sees these, PART 1 and the rubric; neither the scores
nor which response was chosen, so that it cannot reward the outcome a second time.
"""

import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from pgenrm.budget import FittedPrompt, fit_prompt
from pgenrm.criteria import synthesise_criteria
from pgenrm.engines.cached import CachedEngine
from pgenrm.engines.protocol import ChatRequest, Completion, Engine, Sampling
from pgenrm.errors import FormatError, PromptTooLongError, TrainingError
from pgenrm.history import gather_users
from pgenrm.llm import budget_tokens, read_completion
from pgenrm.prompts import Template
from pgenrm.train.rewards import CoverageRequest, Criteria
from pgenrm.types import Comparison, EvaluationChain, Failure, FailureKind, Message, User
from pgenrm.untrusted import without_thoughts

logger = logging.getLogger(__name__)
T = TypeVar("T")
A = TypeVar("A")

SAMPLING: Final = Sampling(temperature=0.0, max_tokens=256)
PATIENCE_S: Final = 900.0
"""A server that is restarted, with its weights, is back before that."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0

_GRADE = re.compile(r"^\W*(\d{1,2})[\s*]*[:.)=-][\s*]*(\d(?:\.\d+)?|\.\d+)\W*$", re.MULTILINE)
_PING: Final = ChatRequest(
    messages=(Message(role="user", content="Say yes."),),
    sampling=Sampling(temperature=0.0, max_tokens=1),
)


class ModelCoverageJudge:
    """A coverage judge over any engine; see `pgenrm.train.rewards.CoverageJudge`."""

    def __init__(
        self,
        engine: Engine,
        *,
        cache: Path | None = None,
        template: Template | None = None,
        sampling: Sampling = SAMPLING,
        patience_s: float = PATIENCE_S,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        """Set up the judge.

        Args:
            engine: grades; closed together with the judge.
            cache: file of answers, so that a resumed run asks for none twice.
            template: None takes `coverage`.
            sampling: how to sample the grades.
            patience_s: how long a server that gives no answers at all is waited for, beyond the
                engine's own retries. Training stands still meanwhile.
            first_wait_s: between two looks whether it is back; doubles up to `LONGEST_WAIT_S`.

        Raises:
            InputError: `sampling.max_tokens` leaves no room for a prompt, or the cache is damaged.
        """
        self.engine: Engine = CachedEngine(engine, cache) if cache else engine
        self._server = engine
        self._template = template or Template.load("coverage")
        self._sampling = sampling
        self._patience_s = patience_s
        self._first_wait_s = first_wait_s
        self._budget = budget_tokens(engine, sampling)

    def criteria(self, comparisons: Sequence[Comparison]) -> Criteria:
        """Return what each user of some training comparisons wants.

        As stated; where nothing was, as synthesised from all of the user's history that stands in
        the rows. Labels of the comparisons stay out: they are what the outcome reward knows.

        Raises:
            TrainingError: the engine gave no answer within the patience.
            EngineError: no request could ever succeed.
        """
        users = gather_users(c.model_copy(update={"label": None}) for c in comparisons)
        stated = {user.id: user.criteria for user in users if user.criteria}
        silent = [user for user in users if not user.criteria and user.history]
        written = self._insisted(partial(synthesise_criteria, self.engine), silent)
        return stated | {user.id: found for user, found in zip(silent, written, strict=True)}

    def rate(self, requests: Sequence[CoverageRequest]) -> list[float | Failure]:
        """Return the mean grade of each chain over the user's criteria, or why there is none.

        Raises:
            TrainingError: the engine gave no answer within the patience.
            EngineError: no request could ever succeed.
        """
        prompts = [self._prompt(request) for request in requests]
        asked = [
            ChatRequest(messages=p.messages, sampling=self._sampling, prompt_version=p.version)
            for p in prompts
            if isinstance(p, FittedPrompt)
        ]
        samples = iter(self._insisted(self._complete, asked))
        return [
            _rating(next(samples), len(request.criteria)) if isinstance(p, FittedPrompt) else p
            for request, p in zip(requests, prompts, strict=True)
        ]

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _prompt(self, request: CoverageRequest) -> FittedPrompt | Failure:
        if not request.criteria:
            reason = f"{request.user_id} has no criteria that {request.id} could be rated by"
            return Failure(kind=FailureKind.FORMAT, reason=reason)
        try:
            return fit_prompt(
                self._template,
                User(id=request.user_id, criteria=request.criteria),
                responses=(analysis(request.chain),),
                count_tokens=self._server.count_tokens,
                budget_tokens=self._budget,
            )
        except PromptTooLongError as error:
            return Failure(kind=FailureKind.TOO_LONG, reason=str(error))

    def _complete(self, requests: Sequence[ChatRequest]) -> list[Completion | Failure]:
        return [answer.samples[0] for answer in self.engine.complete(requests)]

    def _insisted(
        self, ask: Callable[[Sequence[T]], Sequence[A | Failure]], questions: Sequence[T]
    ) -> list[A | Failure]:
        """Ask until each question is answered or, by a server that does answer, lost twice."""
        answers = list(ask(questions))
        n_before = None
        while lost := [i for i, answer in enumerate(answers) if _is_lost(answer)]:
            if not self._waited() and len(lost) == n_before:
                break
            n_before = len(lost)
            for i, answer in zip(lost, ask([questions[i] for i in lost]), strict=True):
                answers[i] = answer
        return answers

    def _waited(self) -> bool:
        """Wait until the server answers again; False where it does so at once."""
        started, wait_s = time.monotonic(), self._first_wait_s
        has_waited = False
        while True:
            (answer,) = self._server.complete([_PING])
            if not _is_lost(answer.samples[0]):
                return has_waited
            left_s = started + self._patience_s - time.monotonic()
            if left_s <= 0:
                raise TrainingError(
                    f"the process judge {self._server.name}:{self._server.model} has not answered "
                    f"for {self._patience_s:g} s ({_reason(answer.samples[0])}); start it again "
                    "and go on with --resume, or raise judge.patience_s"
                )
            if not has_waited:
                logger.warning(
                    "the process judge does not answer (%s); waiting for it for up to %g s",
                    *(_reason(answer.samples[0]), self._patience_s),
                )
            has_waited = True
            time.sleep(min(wait_s, left_s))
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def analysis(chain: EvaluationChain) -> str:
    """Return what a coverage judge sees of a chain: PART 1, then the rubric without any score."""
    lines = [
        f"{i}. {c.name} ({c.weight:g}%)" + (f": {c.description}" if c.description else "")
        for i, c in enumerate(chain.criteria, 1)
    ]
    return "\n".join([chain.preferences, "", "Rubric:", *(lines or ["(none)"])])


def parse_grades(text: str, n_criteria: int) -> float:
    r"""Read one grade in [0, 1] per criterion, and return their mean.

    The mean is ours to take: models grade better than they add up.

    >>> parse_grades("1: 0.5\n2: 1", n_criteria=2)
    0.75

    Raises:
        FormatError: a criterion has no grade, two of them, or one outside [0, 1].
    """
    found = _GRADE.findall(without_thoughts(text))
    grades = {int(number): float(grade) for number, grade in found}
    wanted = range(1, n_criteria + 1)
    if len(found) != len(grades) or set(grades) != set(wanted):
        missing = tuple(f"grade of criterion {i}" for i in wanted if i not in grades)
        raise FormatError(f"expected one grade for each of {n_criteria} criteria", missing)
    if not all(0 <= grade <= 1 for grade in grades.values()):
        raise FormatError(f"grades must be in [0, 1], found {sorted(grades.values())}")
    return sum(grades.values()) / n_criteria


def _rating(sample: Completion | Failure, n_criteria: int) -> float | Failure:
    if isinstance(sample, Failure):
        return sample
    return read_completion(sample, lambda text: parse_grades(text, n_criteria))


def _is_lost(sample: object) -> bool:
    return isinstance(sample, Failure) and sample.kind is FailureKind.REQUEST


def _reason(sample: Completion | Failure) -> str:
    return sample.reason if isinstance(sample, Failure) else "answered"
