"""LaMP-QA: questions, the asker's earlier posts, and answers of policy models to be ranked.

The hub has no answers. They are given as JSON Lines, one answer a line: `id` of the question,
`model`, `response`, and where they exist `scores`, {judge: score against the hidden rubric}. What a
reward model may see is `LampItem.comparison`; the rest of an item is for those who grade.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ConfigDict, Field

from pgenrm.data.dataset import TEST_UNSEEN, Dataset, draw, neutral_order
from pgenrm.data.hub import HubRow, Repository, RowT, files_digest, open_repository, read_rows
from pgenrm.data.posts import Post, asker
from pgenrm.data.reward_bench import DOMAINS
from pgenrm.errors import InputError, RowError
from pgenrm.rows import read_values
from pgenrm.types import Comparison, Id, NonEmpty, Value

REPO_ID: Final = "alireza7/LaMP-QA"
CANDIDATES: Final = "lampqa-candidates.jsonl"
"""Looked for in the folder when no file is named."""


class Aspect(Value):
    """One thing that a good answer covers for this asker."""

    model_config = ConfigDict(extra="ignore")

    aspect: str
    reason: str
    evidence: str


class QuestionRow(HubRow):
    """What a judge may know."""

    id: Id
    question: NonEmpty
    profile: tuple[Post, ...]


class Rubric(HubRow):
    """What only graders know."""

    id: Id
    narrative: str
    rubric_aspects: tuple[Aspect, ...]


class Candidate(Value):
    """A line of the file of answers."""

    id: Id
    model: NonEmpty
    response: str
    scores: dict[str, float] = Field(default_factory=dict)
    """Judge -> score against the rubric, on any scale that is the same for all answers."""


@dataclass(frozen=True)
class LampItem:
    """A question with all its answers.

    Attributes:
        comparison: what a reward model scores; it has no label.
        domain: one of `DOMAINS`.
        models: [n_responses]; who wrote each response of the comparison.
        scores: [n_responses]; judge -> score against the rubric, as far as they are given.
        rubric: for graders only.
    """

    comparison: Comparison
    domain: str
    models: tuple[str, ...]
    scores: tuple[Mapping[str, float], ...]
    rubric: Rubric


@dataclass(frozen=True)
class LampQa:
    """Questions of one hub split with answers.

    Attributes:
        revision: of the questions and of the answers.
        items: in the order of domains and questions.
        notes: what was left out and why.
    """

    revision: str
    items: tuple[LampItem, ...]
    notes: tuple[str, ...] = ()

    @property
    def dataset(self) -> Dataset:
        """What a reward model scores, as any other data set."""
        split = [item.comparison for item in self.items]
        return Dataset("lampqa", self.revision, {TEST_UNSEEN: split}, self.notes)


def load_lampqa(
    folder: Path | None = None,
    revision: str | None = None,
    *,
    candidates: Path | None = None,
    split: str = "test",
    limit: int | None = None,
    seed: int = 0,
) -> LampQa:
    """Load the questions of a hub split that have answers.

    Args:
        folder: holds the repository.
        revision: a commit of the hub.
        candidates: the answers; by default `lampqa-candidates.jsonl` in the folder.
        split: of the hub.
        limit: at most so many questions, drawn by the seed.
        seed: also draws the posts that are shown.

    Raises:
        InputError: questions or answers cannot be had.
        RowError: a row is wrong, or an answer is to no question of the split.
    """
    path = candidates or (folder / CANDIDATES if folder else None)
    if path is None or not (candidates or path.exists()):
        raise InputError(
            "LaMP-QA has questions but no answers; give a file of them, JSON Lines of id, model "
            f"and response, as the candidates, or as {CANDIDATES} in the folder (--candidates, "
            "--folder)"
        )
    repository = open_repository(REPO_ID, folder=folder, revision=revision)
    questions = _questions(repository, split)
    answers = _answers(path, questions)
    items = [
        _item(domain, row, rubric, answers[id_], seed)
        for id_, (domain, row, rubric) in questions.items()
        if id_ in answers
    ]
    n_without = len(questions) - len(items)
    notes = (f"{n_without} questions have no answers: left out",) if n_without else ()
    if limit is not None:
        kept = {c.id for c in draw([item.comparison for item in items], limit, seed)}
        items = [item for item in items if item.comparison.id in kept]
    revision = f"{repository.revision},{path.name}@files:{files_digest([path])}"
    return LampQa(revision, tuple(items), notes)


Question = tuple[str, QuestionRow, Rubric]


def _questions(repository: Repository, split: str) -> dict[str, Question]:
    """Return question id -> (domain, question, rubric)."""
    found: dict[str, Question] = {}
    for domain in DOMAINS:
        rows = _of_split(read_rows(repository, QuestionRow, domain), split, domain)
        rubrics = _of_split(read_rows(repository, Rubric, domain), split, domain)
        for row, rubric in zip(rows, rubrics, strict=True):
            if row.id in found:
                raise InputError(f"{domain}: question id {row.id!r} is used twice in LaMP-QA")
            found[row.id] = (domain, row, rubric)
    return found


def _of_split(rows: Mapping[str, list[RowT]], split: str, domain: str) -> list[RowT]:
    if split not in rows:
        raise InputError(f"{domain} has no split {split!r}; use one of {', '.join(rows)}")
    return rows[split]


def _answers(path: Path, known: Iterable[str]) -> dict[str, list[Candidate]]:
    """Return question id -> answers, in the order of the file."""
    known = set(known)
    answers: dict[str, list[Candidate]] = {}
    for place, row in read_values(path, Candidate):
        if row.id not in known:
            raise RowError(place, f"'id' {row.id!r} is no question of the split; check the split")
        of_question = answers.setdefault(row.id, [])
        if any(row.model == other.model for other in of_question):
            raise RowError(place, f"'model' {row.model!r} has answered {row.id!r} already")
        of_question.append(row)
    return answers


def _item(
    domain: str, row: QuestionRow, rubric: Rubric, answers: list[Candidate], seed: int
) -> LampItem:
    id_ = f"lampqa-{domain}-{row.id}"
    order = neutral_order(id_, [answer.response for answer in answers])
    ordered = [answers[i] for i in order]
    comparison = Comparison(
        id=id_,
        user=asker(id_, row.profile, seed),
        context=row.question,
        responses=tuple(answer.response for answer in ordered),
    )
    return LampItem(
        comparison=comparison,
        domain=domain,
        models=tuple(answer.model for answer in ordered),
        scores=tuple(answer.scores for answer in ordered),
        rubric=rubric,
    )
