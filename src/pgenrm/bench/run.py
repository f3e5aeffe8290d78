"""One method over the comparisons of a bench, into records; killed at any point, it goes on.

`OUT/records/NAME.seedS.jsonl` is a run of `pgenrm.runs`: a judgment a line, never judged again.
How long things took stands apart in `NAME.seedS.times.jsonl`, for it differs from run to run.

A method never sees the labels of what it judges: they are put into the judgments afterwards.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

from pydantic_core import from_json

from pgenrm.batches import batched
from pgenrm.data.dataset import TRAIN, VALIDATION, Dataset
from pgenrm.engines.cached import Usage
from pgenrm.errors import EngineError, InputError
from pgenrm.methods.protocol import Method
from pgenrm.runs import Run
from pgenrm.types import Comparison, FailureKind, Judgment
from pgenrm.verdict import digest, outcome_of

RECORDS: Final = "records"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._+-]*")
BATCH_SIZE: Final = 64
WHAT_TO_DO: Final = (
    "run the same command again to ask them, or add --accept-unanswered to count them as unscored"
)


class Task(NamedTuple):
    """A method with a seed."""

    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.method}.seed{self.seed}"


PREPARED: Final = "prepare.times.jsonl"
"""How long what all tasks need took, a line for each command."""


class Timing(NamedTuple):
    """How long a stage took."""

    stage: str
    """`fit`, `adapt` or `score`; `prepare` for what was done for several methods at once."""
    n: int
    """Training comparisons, users, or comparisons judged (`prepare`: of the bench)."""
    seconds: float
    n_cached: int = 0
    """Samples that came from the cache of completions, so that `seconds` is not what they took."""
    n_asked: int = 0
    """Samples that the engine was asked for."""
    n_prompt_tokens: int = 0
    """Of all samples, cached ones too: what the stage costs where nothing is cached."""
    n_completion_tokens: int = 0
    n_lost: int = 0
    """Samples that a request did not bring."""


def records_path(out: Path, task: Task) -> Path:
    """Return the file with the judgments of a task.

    Raises:
        InputError: the name of the method cannot be part of a file's name.
    """
    if not NAME.fullmatch(task.method):
        raise InputError(f"{task.method!r} is no name of a method; use a-z, 0-9 and . _ + -")
    return out / RECORDS / f"{task}.jsonl"


def times_path(out: Path, task: Task) -> Path:
    """Return the file that says how long a task took."""
    return records_path(out, task).with_suffix(".times.jsonl")


def run_method(
    method: Method,
    task: Task,
    dataset: Dataset,
    comparisons: Sequence[Comparison],
    out: Path,
    *,
    batch_size: int = BATCH_SIZE,
    accept_unanswered: bool = False,
    usage: Callable[[], Usage] = Usage,
) -> None:
    """Judge the comparisons that have no record yet.

    A trained method is fitted and adapted again when a run goes on, and gets whole batches, so that
    what it computes does not depend on where it was stopped; of an untrained one nothing is asked
    twice. What the engine did not answer, in whole or in part, is asked once more at the end,
    unless it left as many comparisons as a batch holds unanswered without a break.

    Args:
        method: of this task; not fitted yet.
        task: names the records.
        dataset: to fit on: its splits `train` and `validation`.
        comparisons: to judge, labelled where labels are known.
        out: directory of the bench.
        batch_size: comparisons handed over at once.
        accept_unanswered: keep what got no answer even then, as unscored.
        usage: says what the method's engine was asked so far, for the timings.

    Raises:
        EngineError: the engine answers no more; what was judged before is kept.
        InputError: the records in `out` are of another version or other data.
    """
    settings = {
        "method": task.method,
        "version": method.version,
        "is_trained": method.is_trained,
        "seed": task.seed,
        "dataset": dataset.name,
        "revision": dataset.revision,
    }
    with Run(records_path(out, task), settings) as run:
        left = {c.id for c in run.remaining(comparisons)}
        if not left:
            return
        under_way = _UnderWay(
            method, run, left, times_path(out, task), usage, accept_unanswered=accept_unanswered
        )
        under_way.fit(dataset)
        if method.is_trained:
            under_way.adapt(comparisons)
        else:
            comparisons = [c for c in comparisons if c.id in left]
        lost: list[Comparison] = []
        n_in_vain = 0
        for batch in batched(comparisons, batch_size):
            if n_left := sum(c.id in left for c in batch):
                under_way.adapt(batch)
                incomplete = under_way.judge(batch)
                lost += [comparison for comparison, _ in incomplete]
                n_unanswered = sum(is_unanswered(judgment) for _, judgment in incomplete)
                n_in_vain = n_in_vain + n_left if n_unanswered == n_left else 0
                if n_in_vain >= batch_size and not accept_unanswered:
                    raise EngineError(
                        f"{task}: the engine answers no more: {under_way.reason}; {len(left)} "
                        f"comparisons are left, {WHAT_TO_DO}"
                    )
        for batch in batched(lost, batch_size):
            incomplete = under_way.judge(batch)
            if accept_unanswered or not any(is_unanswered(judgment) for _, judgment in incomplete):
                under_way.keep(incomplete)
        if left:
            raise EngineError(
                f"{task}: {len(left)} comparisons got no answer: {under_way.reason}; {WHAT_TO_DO}"
            )


class _UnderWay:
    """A method at work: what it is asked, what is left, and how long it takes.

    Attributes:
        reason: why the last comparison without an answer got none.
    """

    def __init__(
        self,
        method: Method,
        run: Run,
        left: set[str],
        times: Path,
        usage: Callable[[], Usage],
        *,
        accept_unanswered: bool,
    ) -> None:
        self.method, self.run, self.left, self.times = method, run, left, times
        self.usage = usage
        self.accept_unanswered = accept_unanswered
        self.reason = ""
        self._adapted: set[str] = set()

    def fit(self, dataset: Dataset) -> None:
        """Fit on what may be learnt from."""
        train, validation = (dataset.splits.get(name, ()) for name in (TRAIN, VALIDATION))
        with self._learning("fit", len(train)):
            self.method.fit(train, validation)

    def adapt(self, comparisons: Iterable[Comparison]) -> None:
        """Adapt to the users of these comparisons, to each once."""
        users = {c.user.id: c.user for c in comparisons if c.user.id not in self._adapted}
        if users:
            self._adapted.update(users)
            with self._learning("adapt", len(users)):
                self.method.adapt(list(users.values()))

    def judge(self, batch: Sequence[Comparison]) -> list[tuple[Comparison, Judgment]]:
        """Judge a batch and keep what is left of it; return what the engine did not fully answer.

        That is not kept: part of an answer would stand for the whole of it.
        """
        with self._timed("score", len(batch)):
            judgments = self.method.score([c.model_copy(update={"label": None}) for c in batch])
        pairs = [p for p in zip(batch, judgments, strict=True) if p[0].id in self.left]
        self.keep(pair for pair in pairs if not _lost_requests(pair[1]))
        incomplete = [pair for pair in pairs if _lost_requests(pair[1])]
        for _, judgment in incomplete:
            self.reason = _lost_requests(judgment)[-1]
        return incomplete

    def keep(self, pairs: Iterable[tuple[Comparison, Judgment]]) -> None:
        """Store judgments, with the labels of what they are of."""
        for comparison, judgment in pairs:
            self.run.add(_labelled(judgment, comparison))
            self.left.discard(comparison.id)

    @contextmanager
    def _learning(self, stage: str, n: int) -> Iterator[None]:
        """Refuse what was learnt from answers that a request did not bring.

        Raises:
            EngineError: some were lost.
        """
        before = self.usage()
        with self._timed(stage, n):
            yield
        n_lost = self.usage().minus(before).n_lost
        if n_lost and not self.accept_unanswered:
            raise EngineError(
                f"the engine did not answer {n_lost} requests that `{stage}` made, and what would "
                f"be learnt without them is something else; {len(self.left)} comparisons are "
                "left, run the same command again to ask them, or add --accept-unanswered to "
                "learn without them"
            )

    @contextmanager
    def _timed(self, stage: str, n: int) -> Iterator[None]:
        """Note how long something took, if it does not fail."""
        start, before = perf_counter(), self.usage()
        yield
        seconds, asked = round(perf_counter() - start, 6), self.usage().minus(before)
        note_timing(self.times, Timing(stage, n, seconds, *asked))


def _labelled(judgment: Judgment, comparison: Comparison) -> Judgment:
    return judgment.model_copy(
        update={
            "comparison_digest": digest(comparison),
            "label": comparison.label,
            "outcome": outcome_of(comparison, judgment.choice, judgment.is_tie),
        }
    )


def _lost_requests(judgment: Judgment) -> list[str]:
    """Return why requests for it got no completion; asking again may help."""
    return [
        failed.failure.reason
        for failed in judgment.failures
        if failed.failure.kind is FailureKind.REQUEST
    ]


def is_unanswered(judgment: Judgment) -> bool:
    """Whether the engine gave nothing at all for it."""
    n_lost = len(_lost_requests(judgment))
    return bool(n_lost) and n_lost == len(judgment.failures) and not judgment.chains


def note_timing(path: Path, timing: Timing) -> None:
    """Append a timing to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(timing._asdict()) + "\n")


def read_times(path: Path) -> Iterator[Timing]:
    """Yield the timings of a task; lines that a kill cut are left out."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield Timing(**from_json(line))
        except (ValueError, TypeError):
            continue
