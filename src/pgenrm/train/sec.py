"""Structured evaluation chains (SEC) by rejection sampling (paper, section 3.2: PSI).

A teacher writes chains for a labelled comparison until they put the chosen response first, at most
once per temperature. What it is asked depends on the label in no way: only what is kept does.

There are two sets of chains, and each comes from requests of its own. For `with_criteria` teacher
and prompt see all that the user states; for `history_only` they see bare past choices, so that no
chain quotes what its prompt does not show.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from pgenrm.attributes.scenario import classify
from pgenrm.case import Order, rotations
from pgenrm.chain import format
from pgenrm.chain.json_tail import EXACT_KEY
from pgenrm.errors import EngineError
from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet, Evaluator
from pgenrm.history import draw_pairs, tells_label
from pgenrm.prompts import Template, default_template, has_explicit_signals
from pgenrm.seeding import derive_seed, rng
from pgenrm.types import (
    Arithmetic,
    Comparison,
    EvaluationChain,
    Failure,
    FailureKind,
    Message,
    Preference,
    ScoreSource,
    User,
    Value,
)
from pgenrm.verdict import TIE_TOLERANCE, digest


class SecSet(StrEnum):
    """Which prompts a chain is to be learnt with."""

    WITH_CRITERIA = "with_criteria"
    """Everything that the user states; only where it tells what he looks for: a criterion, a
    description of himself, ratings of a past choice. Demographics alone do not."""
    HISTORY_ONLY = "history_only"
    """Bare past choices."""


class Fate(StrEnum):
    """What became of a chain that was asked for."""

    KEPT = "kept"
    WRONG = "wrong"
    """It scores another response higher than the chosen one."""
    TIE = "tie"
    CONTRADICTORY = "contradictory"
    """It ranks right, but its totals do not follow from its rubric."""
    DUPLICATE = "duplicate"
    """It is nearly the same text as a chain that was kept for the same comparison in the same set,
    in whatever order the responses were shown."""
    UNREADABLE = "unreadable"
    """No chain could be read, or its text would be read differently."""
    TOO_LONG = "too_long"
    """The teacher's prompt does not fit its context window."""
    LOST = "lost"
    """The request failed."""


FATE_OF_FAILURE: Final = {
    FailureKind.REQUEST: Fate.LOST,
    FailureKind.TOO_LONG: Fate.TOO_LONG,
    FailureKind.FORMAT: Fate.UNREADABLE,
    FailureKind.TRUNCATED: Fate.UNREADABLE,
}
N_SHINGLE_WORDS: Final = 3
"""Texts are compared by their runs of so many words."""


TEMPERATURES: Final = (1.0, 1.1, 1.2, 1.3)
NotNegative = Annotated[float, Field(ge=0)]


class ChainSettings(Value):
    """What is asked for and kept. The paper gives the three past choices only; the rest is ours."""

    sets: Annotated[tuple[SecSet, ...], Field(min_length=1)] = tuple(SecSet)
    n_chains: int = Field(default=1, ge=1)
    """Wanted per comparison and set, over all presentation orders."""
    temperatures: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = TEMPERATURES
    """Of the tries, rising: as the teacher is at first, then further afield."""
    n_history: Annotated[int, Field(ge=0)] | None = 3
    """Past choices shown, drawn at random; None shows all."""
    min_history: Annotated[int, Field(ge=0)] | None = None
    """Where given, each comparison shows from so many to `n_history` of them, evenly."""
    max_similarity: float = Field(default=0.9, gt=0, le=1)
    """Chains for one comparison and set that share more than this of their runs of three words
    (Jaccard index) are near-duplicates; 1 keeps all but equal ones. Chains for different orders are
    compared as if their responses had been shown as they are given."""
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.temperatures) != sorted(self.temperatures):
            raise ValueError(f"temperatures must not fall from try to try: {self.temperatures}")
        if len(set(self.sets)) < len(self.sets):
            raise ValueError("name each set once")
        if self.min_history is not None and (
            self.n_history is None or self.min_history > self.n_history
        ):
            raise ValueError(f"min_history is {self.min_history}; give n_history at least as much")
        return self


class KeptChain(Value):
    """A chain that is kept, as a model is to write it."""

    attempt: int
    """From 1."""
    temperature: float
    text: str


class Found(Value):
    """The chains of one comparison in one set and presentation order."""

    set: SecSet
    order: Order
    """Position p shows response `order[p]`."""
    n_wanted: int
    tries: tuple[tuple[Fate, ...], ...]
    """[n_tries][n_asked], in the order in which they were asked."""
    kept: tuple[KeptChain, ...]
    n_history: int
    prompt: tuple[Message, ...]
    """Empty where nothing was kept."""
    prompt_version: str
    teacher_version: str
    """Version of what the teacher was asked with."""
    cuts: tuple[str, ...]
    """What did not fit into the teacher's prompt; the prompt here is whole."""
    last_failure: str
    """Why the last chain that failed could not be had."""


class Sampled(Value):
    """All that came of one comparison."""

    id: str
    comparison_digest: str
    user_id: str
    scenario: str
    label: int
    criteria: tuple[str, ...]
    n_telling: int
    """Past choices that were not shown because they tell the answer."""
    found: tuple[Found, ...]

    @property
    def is_lost(self) -> bool:
        """Whether a request failed, so that asking again may bring more."""
        return any(Fate.LOST in fates for found in self.found for fates in found.tries)

    @property
    def last_failure(self) -> str:
        """Why the last chain that failed could not be had."""
        return next((f.last_failure for f in reversed(self.found) if f.last_failure), "")


def sample_chains(
    comparisons: Sequence[Comparison],
    teachers: Sequence[Evaluator],
    settings: ChainSettings,
    template: Template | None = None,
) -> list[Sampled]:
    """Ask for chains and keep the right ones, in one call of the teacher per try.

    What is found for a comparison does not depend on the others.

    Args:
        comparisons: labelled, of at least two responses.
        teachers: one per temperature of the settings.
        settings: what is asked for and kept.
        template: of the prompts that the chains are to be learnt with; None takes the default of
            each user.

    Raises:
        EngineError: the teacher cannot work at all.
    """
    searches = [list(_searches(comparison, settings)) for comparison in comparisons]
    for number, teacher in enumerate(teachers, start=1):
        still_open = [s for found in searches for s in found if s.n_missing]
        if not still_open:
            break
        requests = [search.request(number) for search in still_open]
        for search, answer in zip(still_open, teacher.evaluate(requests), strict=True):
            search.take(number, answer)
    return [
        Sampled(
            id=comparison.id,
            comparison_digest=digest(comparison),
            user_id=comparison.user.id,
            scenario=classify(comparison.context).value,
            label=_label(comparison),
            criteria=comparison.user.criteria,
            n_telling=sum(tells_label(pair, comparison) for pair in comparison.user.history),
            found=tuple(search.found(template) for search in found),
        )
        for comparison, found in zip(comparisons, searches, strict=True)
    ]


def _searches(comparison: Comparison, settings: ChainSettings) -> Iterator["_Search"]:
    n_responses = len(comparison.responses)
    orders = rotations(n_responses, (settings.seed, comparison.id))
    each, extra = divmod(settings.n_chains, n_responses)
    for kind in settings.sets:
        user = shown_user(comparison, kind, settings)
        seen: list[str] = []
        for r, order in enumerate(orders):
            n_wanted = each + (r < extra)
            if user is not None and n_wanted:
                yield _Search(comparison, user, kind, order, n_wanted, settings, seen)


def shown_user(comparison: Comparison, kind: SecSet, settings: ChainSettings) -> User | None:
    """Return what teacher and prompt may see of the user; None where the set is not for him.

    A past choice in this very conversation that concerns one of the responses would tell the
    answer and is never shown, nor is one in a later turn, which goes on from the chosen response.
    """
    history = tuple(
        p for p in comparison.user.history if p.is_informative and not tells_label(p, comparison)
    )
    user = comparison.user.model_copy(update={"history": history})
    n_pairs = settings.n_history
    if n_pairs is not None:
        if settings.min_history is not None:
            draw = rng("n_history", settings.seed, comparison.id)
            n_pairs = int(draw.integers(settings.min_history, n_pairs + 1))
        user = draw_pairs(user, n_pairs, settings.seed, comparison.id)
    if kind is SecSet.WITH_CRITERIA:
        without_demographics = user.model_copy(update={"demographics": {}})
        return user if has_explicit_signals(without_demographics) else None
    bare = [
        Preference(context=p.context, chosen=p.chosen, rejected=p.rejected) for p in user.history
    ]
    return User(id=user.id, history=tuple(bare))


def _label(comparison: Comparison) -> int:
    if comparison.label is None:
        raise ValueError(f"comparison {comparison.id!r} has no label")
    return comparison.label


@dataclass
class _Search:
    """The search for chains of one comparison in one set and presentation order."""

    comparison: Comparison
    user: User
    kind: SecSet
    order: Order
    n_wanted: int
    settings: ChainSettings
    seen: list[str]
    """Of all orders: the chains that were kept, as `as_given` has them."""
    tries: list[tuple[Fate, ...]] = field(default_factory=list)
    kept: list[KeptChain] = field(default_factory=list)
    teacher_version: str = ""
    cuts: tuple[str, ...] = ()
    last_failure: str = ""

    @property
    def n_missing(self) -> int:
        return self.n_wanted - len(self.kept)

    def request(self, number: int) -> ChainRequest:
        c = self.comparison
        return ChainRequest(
            id=c.id,
            user=self.user,
            context=c.context,
            responses=tuple(c.responses[i] for i in self.order),
            n=self.n_missing,
            seed=derive_seed("chains", self.settings.seed, self.kind, c.id, *self.order, number),
        )

    def take(self, number: int, answer: ChainSet) -> None:
        if len(answer.samples) != self.n_missing:
            raise EngineError(
                f"the teacher broke its contract on {self.comparison.id!r}: asked for "
                f"{self.n_missing} chains, it gave {len(answer.samples)}"
            )
        self.teacher_version, self.cuts = answer.prompt_version, answer.cuts
        self.tries.append(tuple([self._fate(number, sample) for sample in answer.samples]))

    def _fate(self, number: int, sample: ChainSample | Failure) -> Fate:
        """Decide on a chain, and keep it if it is good."""
        if isinstance(sample, Failure):
            self.last_failure = sample.reason
            return FATE_OF_FAILURE[sample.kind]
        fate = ranking(sample.chain, self.order.index(_label(self.comparison)))
        if fate is not Fate.KEPT:
            return fate
        text = format(sample.chain)
        if f'"{EXACT_KEY}":' in text:  # the plain form would be read as another chain
            return Fate.UNREADABLE
        limit = self.settings.max_similarity
        given = format(as_given(sample.chain, self.order))
        if any(known == given or similarity(known, given) > limit for known in self.seen):
            return Fate.DUPLICATE
        self.seen.append(given)
        temperature = self.settings.temperatures[number - 1]
        self.kept.append(KeptChain(attempt=number, temperature=temperature, text=text))
        return Fate.KEPT

    def found(self, template: Template | None) -> Found:
        c = self.comparison
        template = template or default_template(self.user)
        shown = [c.responses[i] for i in self.order]
        return Found(
            set=self.kind,
            order=self.order,
            n_wanted=self.n_wanted,
            tries=tuple(self.tries),
            kept=tuple(self.kept),
            n_history=len(self.user.history),
            prompt=template.render(self.user, c.context, shown) if self.kept else (),
            prompt_version=template.version,
            teacher_version=self.teacher_version,
            cuts=self.cuts,
            last_failure=self.last_failure,
        )


def ranking(chain: EvaluationChain, chosen: int) -> Fate:
    """Say whether a chain puts the response at position `chosen` strictly first.

    It must do so by the totals that it states and by those that follow from its rubric, and the two
    must agree: a model is not to learn from wrong arithmetic.
    """
    margins = []
    for source in ScoreSource:
        scores = [score for score in chain.scores(source) if score is not None]
        if len(scores) < chain.n_responses:
            return Fate.UNREADABLE
        others = scores[:chosen] + scores[chosen + 1 :]
        margins.append(scores[chosen] - max(others))
    if min(margins) < -TIE_TOLERANCE:
        return Fate.WRONG
    if min(margins) <= TIE_TOLERANCE:
        return Fate.TIE
    return Fate.CONTRADICTORY if chain.arithmetic is Arithmetic.DISAGREES else Fate.KEPT


def as_given(chain: EvaluationChain, order: Order) -> EvaluationChain:
    """Return a chain about responses in the order shown as one in the order given."""
    places = [order.index(i) for i in range(len(order))]
    return chain.model_copy(
        update={
            "ratings": tuple(chain.ratings[p] for p in places) if chain.ratings else (),
            "stated_scores": tuple(chain.stated_scores[p] for p in places),
        }
    )


def similarity(a: str, b: str) -> float:
    """Return the Jaccard index of the runs of three words of two texts, in [0, 1].

    >>> similarity("she likes short answers", "she likes short poems")
    0.3333333333333333
    """
    ours, theirs = _shingles(a), _shingles(b)
    return len(ours & theirs) / len(ours | theirs)


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + N_SHINGLE_WORDS]) for i in range(max(1, len(words) - 2))}
