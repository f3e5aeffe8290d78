"""A comparison under judgment: which chains are asked for, and what came of them.

Chain i of presentation order r is the same whether it is asked for alone, in rounds or all at once:
requests carry the number of their first sample.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pgenrm.attributes.scenario import classify
from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet
from pgenrm.neighbours import Neighbour, Neighbourhood, NeighbourQuery
from pgenrm.scaling.evidence import Record, records_of
from pgenrm.seeding import derive_seed, rng
from pgenrm.types import (
    Comparison,
    FailedChain,
    Failure,
    FailureKind,
    JudgedChain,
    Preference,
    ScoreSource,
)

Order = tuple[int, ...]

MIN_TO_HOLD_OUT = 4
"""Past choices that a user needs before some are held out from the prompts of his own chains."""


@dataclass(frozen=True)
class Asked:
    """A request with what is needed to place its answer."""

    request: ChainRequest
    order: Order
    places: tuple[tuple[int, int], ...]
    """[n], of the chains among all of the comparison's: (number of the order, number within it), or
    behind these (number of orders, number of the neighbour)."""
    neighbour: Neighbour | None = None
    held_out: tuple[Preference, ...] = ()
    """Past choices of the user that the prompt does not show."""


@dataclass
class Written:
    """A readable chain."""

    chain: JudgedChain
    place: tuple[int, int]
    held_out: tuple[Preference, ...]
    is_checked: bool = False
    """Whether its rubric was applied to the choices that were held out, or there are none."""


@dataclass
class Case:
    """Everything that is known while one comparison is judged."""

    comparison: Comparison
    """As given; with the whole history."""
    seen: Comparison
    """With the history that is shown."""
    orders: tuple[Order, ...]
    seed: int
    score_source: ScoreSource
    n_folds: int = 1
    """Own chains come in so many folds, each written without its part of the history; 1: none."""
    is_known: bool = False
    """Whether neighbours are found without an analysis by one of these chains."""
    neighbourhood: Neighbourhood | None = None
    written: list[Written] = field(default_factory=list)
    failures: list[FailedChain] = field(default_factory=list)
    sets: list[ChainSet] = field(default_factory=list)
    analyses: dict[tuple[int, int], str] = field(default_factory=dict)
    """P of own chains by (number within the order, number of the order), where it says anything;
    also of one that was written for the neighbours' sake only."""
    n_own: int = 0
    n_neighbours: int = 0
    """Chains asked for so far."""

    # ------------------------------------------------------------ asking

    def own(self, until: int) -> list[Asked]:
        """Ask for own chains number `n_own` to `until`, over orders and folds."""
        asked = []
        for r, order in enumerate(self.orders):
            for fold in range(self.n_folds):
                numbers = [
                    i
                    for i in range(self._per_order(self.n_own, r), self._per_order(until, r))
                    if i % self.n_folds == fold
                ]
                if numbers:
                    asked.append(self._own(order, fold, [(r, i) for i in numbers]))
        self.n_own = max(until, self.n_own)
        return asked

    def _per_order(self, n: int, r: int) -> int:
        """Return how many of the first n chains show order r."""
        each, extra = divmod(n, len(self.orders))
        return each + (r < extra)

    def _own(self, order: Order, fold: int, places: Sequence[tuple[int, int]]) -> Asked:
        history = self.seen.user.history
        left_out = tuple(
            p for i, p in enumerate(history) if self.n_folds > 1 and i % self.n_folds == fold
        )
        user = self.seen.user
        if left_out:
            kept = tuple(p for i, p in enumerate(history) if i % self.n_folds != fold)
            user = user.model_copy(update={"history": kept})
        seed_parts = (self.seed, self.seen.id, *order) + ((f"fold {fold}",) if left_out else ())
        return Asked(
            ChainRequest(
                id=self.seen.id,
                user=user,
                context=self.seen.context,
                responses=tuple(self.seen.responses[i] for i in order),
                n=len(places),
                seed=derive_seed(*seed_parts),
                first=places[0][1] // self.n_folds,
            ),
            order,
            tuple(places),
            held_out=_hidden(left_out, user.history),
        )

    def query(self, n: int) -> NeighbourQuery:
        """Ask for n neighbours.

        Where it takes an analysis it is that of the first own chain that has one, so that rounds
        find the same neighbours as all chains at once.
        """
        first = () if self.is_known else (self.analyses[min(self.analyses)],)
        return NeighbourQuery(
            user_id=self.seen.user.id,
            scenario=str(classify(self.seen.context)),
            analyses=first,
            n=n,
        )

    @property
    def can_be_placed(self) -> bool:
        """Whether neighbours can be asked for."""
        return self.is_known or bool(self.analyses)

    def of_neighbours(self, until: int) -> list[Asked]:
        """Ask for one chain with the history of each neighbour number `n_neighbours` to `until`.

        The neighbour's history takes the place of the user's; what the user states stays.
        """
        found = self.neighbourhood.neighbours if self.neighbourhood else ()
        asked = []
        for w, neighbour in enumerate(found[:until]):
            if w < self.n_neighbours:
                continue
            order = self.orders[w % len(self.orders)]
            user = self.seen.user.model_copy(update={"history": neighbour.user.history})
            asked.append(
                Asked(
                    ChainRequest(
                        id=self.seen.id,
                        user=user,
                        context=self.seen.context,
                        responses=tuple(self.seen.responses[i] for i in order),
                        seed=derive_seed(self.seed, self.seen.id, "neighbour", neighbour.user.id),
                    ),
                    order,
                    ((len(self.orders), w),),
                    neighbour,
                    held_out=_hidden(self.seen.user.history, user.history),
                )
            )
        self.n_neighbours = max(min(until, len(found)), self.n_neighbours)
        return asked

    # ------------------------------------------------------------ taking in

    def take(self, asked: Asked, answer: ChainSet, *, counts: bool = True) -> None:
        """Keep an answer; `counts` False keeps analysis and failures only (Ind-0 needs one)."""
        self.sets.append(answer)
        for place, sample in zip(asked.places, answer.samples, strict=True):
            if isinstance(sample, ChainSample) and asked.neighbour is None:
                self._note_analysis(place, sample.chain.preferences)
            if counts or isinstance(sample, Failure):
                self._take(asked, place, sample)

    def _note_analysis(self, place: tuple[int, int], text: str) -> None:
        if text.strip():
            self.analyses[place[::-1]] = text

    def _take(self, asked: Asked, place: tuple[int, int], sample: ChainSample | Failure) -> None:
        name = asked.neighbour.user.id if asked.neighbour else None
        if isinstance(sample, Failure):
            self.failures.append(FailedChain(order=asked.order, failure=sample, neighbour=name))
            return
        by_position = sample.chain.scores(self.score_source)
        missing = [p for p, score in enumerate(by_position) if score is None]
        read = [score for score in by_position if score is not None]
        if len(read) != len(asked.order) or missing:
            failure = _without_score(sample, missing)
            self.failures.append(FailedChain(order=asked.order, failure=failure, neighbour=name))
            return
        by_response = dict(zip(asked.order, read, strict=True))
        scores = tuple(by_response[i] for i in range(len(asked.order)))
        chain = JudgedChain(
            order=asked.order,
            chain=sample.chain,
            scores=_shared_between_identical(scores, self.comparison.responses),
            finish_reason=sample.finish_reason,
            n_tokens=sample.n_tokens,
            neighbour=name,
            similarity=round(asked.neighbour.similarity, 6) if asked.neighbour else None,
        )
        self.written.append(Written(chain, place, asked.held_out))

    @property
    def chains(self) -> tuple[JudgedChain, ...]:
        """The readable chains by order and number, then neighbours', however they came in."""
        return tuple(one.chain for one in sorted(self.written, key=lambda one: one.place))

    def record(self) -> Record:
        """Return what the chains say in plain numbers, for the aggregator."""
        numbers = {order: r for r, order in enumerate(self.orders)}
        own, neighbours = records_of(self.chains, numbers)
        return Record(own, neighbours, self.n_history, len(self.comparison.responses))

    @property
    def n_history(self) -> int:
        """Past choices of the user that count as known."""
        return len(self.seen.user.history)


def _hidden(choices: Sequence[Preference], shown: Sequence[Preference]) -> tuple[Preference, ...]:
    """Return the choices that a prompt gives no hint of: another one may praise the same text."""
    praised = {(choice.context, choice.chosen) for choice in shown}
    return tuple(c for c in choices if (c.context, c.chosen) not in praised)


def rotations(n_responses: int, seed_parts: tuple[object, ...]) -> tuple[Order, ...]:
    """Return the rotations of a seeded permutation: balanced presentation orders.

    >>> sorted(rotations(2, (0, "a")))
    [(0, 1), (1, 0)]
    """
    first = rng("order", *seed_parts).permutation(n_responses).tolist()
    return tuple(tuple(first[r:] + first[:r]) for r in range(n_responses))


def by_prefix(asked: Sequence[tuple[Case, Asked]]) -> Iterator[tuple[Case, Asked]]:
    """Yield requests with the same history one after the other, so that prefix caches hit."""
    places: dict[str, list[tuple[Case, Asked]]] = {}
    for case, one in asked:
        who = one.neighbour.user.id if one.neighbour else f"own {case.seen.id}"
        places.setdefault(who, []).append((case, one))
    for group in places.values():
        yield from group


def _without_score(sample: ChainSample, missing: list[int]) -> Failure:
    names = ", ".join(f"response_{p + 1}" for p in missing)
    return Failure(
        kind=FailureKind.FORMAT,
        reason=f"the chain gives no score for {names}"
        if missing
        else f"the chain scores {sample.chain.n_responses} responses, another number was shown",
        text=sample.chain.model_dump_json(),
        n_tokens=sample.n_tokens,
    )


def _shared_between_identical(
    scores: tuple[float, ...], responses: Sequence[str]
) -> tuple[float, ...]:
    """Give identical texts the mean of their scores: they differ in position only."""
    if len(set(responses)) == len(responses):
        return scores
    mean = {
        text: float(
            np.mean([s for s, other in zip(scores, responses, strict=True) if other == text])
        )
        for text in responses
    }
    return tuple(mean[text] for text in responses)
