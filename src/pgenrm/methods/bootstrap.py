"""Bootstrap reasoning and demonstration selection of SynthesizeMe.

A candidate is a tuple of demonstrations for one user. Reasoning is kept only where it led to the
user's true choice (self-verification). Candidates are tried on choices that were held out, those of
all users at once, candidate by candidate, as each user stops when one is good enough. A choice is
never predicted with a demonstration in its own context.

Deliberately left out: asking again at a higher temperature where an answer cannot be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet, Evaluator
from pgenrm.few_shot import Demonstration
from pgenrm.history import discloses
from pgenrm.seeding import derive_seed, rng
from pgenrm.types import Failure, User, Value

Candidate = tuple[Demonstration, ...]


class BootstrapSettings(Value):
    """How candidates are made and compared; the defaults are the released package's."""

    n_seeds: int = 10
    """Candidates with a shuffled order and a drawn number of demonstrations."""
    max_labelled: int = 4
    """Demonstrations without reasoning: shown to the judge that reasons, and filled up with."""
    good_enough: float = 0.8
    """Share of held-out choices from which on no further candidate is tried."""


@dataclass
class Search:
    """The search of one user."""

    user: User
    """With the persona, where there is one yet, and no history."""
    train: Candidate
    """Choices that demonstrations are made of."""
    held_out: Candidate
    """Choices that candidates are tried on."""
    best: Candidate = ()
    best_share: float = -1.0
    """Of held-out predictions that are right, in both presentation orders."""

    def is_over(self, good_enough: float) -> bool:
        """Whether no further candidate is tried; without held-out choices, after the first."""
        return self.best_share >= (good_enough if self.held_out else 0.0)


class Bootstrap:
    """Searches for demonstrations with one judge."""

    def __init__(self, evaluator: Evaluator, settings: BootstrapSettings, seed: int) -> None:
        """Set up the search.

        Args:
            evaluator: a judge that is shown demonstrations, see `pgenrm.few_shot`.
            settings: of the candidates.
            seed: with a user's id, of everything that is drawn.
        """
        self.evaluator = evaluator
        self.settings = settings
        self.seed = seed

    def run(self, searches: Sequence[Search], stage: str, *, with_none: bool) -> None:
        """Find the best candidate of every search; the first among equals.

        Candidates, in this order: none at all (if `with_none`), plain choices, reasoning in the
        given order, and `n_seeds` times reasoning in a shuffled one.

        Args:
            searches: the result of one does not depend on the others.
            stage: names what is drawn.
            with_none: whether judging without demonstrations is a candidate.
        """
        kinds = ([None] if with_none else []) + ["plain", "given"]
        for kind in [*kinds, *range(self.settings.n_seeds)]:
            still = [s for s in searches if not s.is_over(self.settings.good_enough)]
            candidates = self._candidates(still, kind, stage)
            shares = self._shares(still, candidates)
            for search, candidate, share in zip(still, candidates, shares, strict=True):
                if share > search.best_share:
                    search.best, search.best_share = candidate, share

    # ------------------------------------------------------------ candidates

    def _candidates(
        self, searches: Sequence[Search], kind: str | int | None, stage: str
    ) -> list[Candidate]:
        if kind is None:
            return [() for _ in searches]
        drafts = [_Draft.of(search, kind, stage, self.seed, self.settings) for search in searches]
        if kind == "plain":
            return [draft.labelled for draft in drafts]
        asked = [
            self._request(draft.search, shown, draft.labelled)
            for draft in drafts
            for shown in draft.order
        ]
        answers = iter(self.evaluator.evaluate(asked))
        return [draft.verified([next(answers) for _ in draft.order]) for draft in drafts]

    def _shares(self, searches: Sequence[Search], candidates: Sequence[Candidate]) -> list[float]:
        """Return the share of held-out choices that each candidate predicts, over both orders."""
        asked = [
            (number, both, self._request(search, both, candidate))
            for number, (search, candidate) in enumerate(zip(searches, candidates, strict=True))
            for shown in search.held_out
            for both in (shown, _turned(shown))
        ]
        right = [0.0] * len(searches)
        answers = self.evaluator.evaluate([request for _, _, request in asked])
        for (number, shown, _), answer in zip(asked, answers, strict=True):
            right[number] += predicts(answer, shown)
        return [
            n / (2 * len(search.held_out)) if search.held_out else 0.0
            for n, search in zip(right, searches, strict=True)
        ]

    def _request(self, search: Search, shown: Demonstration, given: Candidate) -> ChainRequest:
        others = tuple(one for one in given if not discloses(one.context, {shown.context}))
        return ChainRequest(
            id=search.user.id,
            user=search.user.model_copy(update={"history": others}),
            context=shown.context,
            responses=shown.responses,
            seed=derive_seed("bootstrap", self.seed, search.user.id),
        )


def predicts(answer: ChainSet, shown: Demonstration) -> bool:
    """Whether the answer scores the chosen response above the other one."""
    (sample,) = answer.samples
    if isinstance(sample, Failure):
        return False
    first, second = _scores(sample)
    return first < second if shown.is_swapped else first > second


def _scores(sample: ChainSample) -> tuple[float, float]:
    first, second = (score or 0.0 for score in sample.chain.stated_scores)
    return first, second


def _turned(shown: Demonstration) -> Demonstration:
    return shown.model_copy(update={"is_swapped": not shown.is_swapped})


@dataclass(frozen=True)
class _Draft:
    """What is drawn for one candidate."""

    search: Search
    order: Candidate
    """All choices, in the order in which they are tried."""
    n_wanted: int
    """How many with reasoning."""
    labelled: Candidate
    """Choices without reasoning, for the judge that is to reason."""
    n_least: int
    """Demonstrations that the candidate is filled up to."""

    @classmethod
    def of(
        cls, search: Search, kind: str | int, stage: str, seed: int, settings: BootstrapSettings
    ) -> "_Draft":
        generator = rng("bootstrap", seed, stage, search.user.id, kind)
        n = len(search.train)
        places = generator.permutation(n).tolist() if isinstance(kind, int) else list(range(n))
        n_wanted = int(generator.integers(1, n + 1)) if isinstance(kind, int) and n else n
        labelled = sorted(generator.permutation(n)[: settings.max_labelled].tolist())
        return cls(
            search=search,
            order=tuple(search.train[i] for i in places),
            n_wanted=n_wanted,
            labelled=tuple(search.train[i] for i in labelled),
            n_least=settings.max_labelled,
        )

    def verified(self, answers: Sequence[ChainSet]) -> Candidate:
        """Return the candidate: reasoning that led to the true choice, filled up with choices."""
        kept: list[Demonstration] = []
        left: list[Demonstration] = []
        for shown, answer in zip(self.order, answers, strict=True):
            if len(kept) < self.n_wanted and predicts(answer, shown):
                kept.append(_reasoned(shown, answer))
            else:
                left.append(shown)
        return (*kept, *left[: max(0, self.n_least - len(kept))])


def _reasoned(shown: Demonstration, answer: ChainSet) -> Demonstration:
    (sample,) = answer.samples
    assert isinstance(sample, ChainSample)  # what cannot be read predicts nothing
    first, second = _scores(sample)
    return shown.model_copy(
        update={
            "reasoning": sample.chain.preferences,
            "scores": (second, first) if shown.is_swapped else (first, second),
        }
    )
