"""A world: its users, what they chose, and the comparisons that a judge is given.

Everything is seeded by names: user `u00012` and comparison `u00012-test-3` are the same however
many users or comparisons are made, and in whatever order.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import count, islice
from typing import Final

import numpy as np

from pgenrm.errors import InputError
from pgenrm.seeding import rng
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.population import (
    choice_probability,
    criteria_model,
    description_model,
    population,
)
from pgenrm.sim.source import Source
from pgenrm.sim.tastes import CRITERIA, DEMOGRAPHICS, DESCRIPTIONS, FLAWED, Array
from pgenrm.sim.texts import SimulatedTexts
from pgenrm.types import Comparison, Preference, User


class Split(StrEnum):
    """The four sets of comparisons; the train split of an unseen user is only ever history."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST_SEEN = "test_seen"
    TEST_UNSEEN = "test_unseen"

    @property
    def is_of_seen(self) -> bool:
        """Whether it holds seen users."""
        return self is not Split.TEST_UNSEEN

    @property
    def part(self) -> str:
        """Return the part of a user's comparisons that it holds, as their ids name it."""
        return self.value.partition("_")[0]


SMALL_MARGIN: Final = 1.0
"""A weighted difference below this leaves a user undecided: P < 0.73 either way."""


@dataclass(frozen=True)
class Person:
    """A user with his hidden side."""

    user: User
    """What may be known: id, criteria, self-description, demographics; no history yet."""
    prototype: int
    weights: Array
    """[n_scenarios, n_attributes]."""
    is_seen: bool


@dataclass(frozen=True)
class Choice:
    """A comparison with everything that decided it."""

    id: str
    query: str
    scenario: int
    responses: tuple[str, str]
    features: Array
    """[2, n_attributes]."""
    is_narrow: bool
    is_hard: bool
    """A hard negative: neither response is flawed, the margin is small for most prototypes and
    clear for this user."""
    probability: float
    """P(the first response is preferred)."""
    label: int


class World:
    """Users and their comparisons, made when asked for."""

    def __init__(
        self, config: WorldConfig | None = None, seed: int = 0, source: Source | None = None
    ) -> None:
        self.config = config or WorldConfig()
        self.seed = seed
        self.source: Source = source or SimulatedTexts(self.config)
        self.population = population(self.config)
        self.criteria = criteria_model(self.config)
        self.descriptions = description_model(self.config)
        self._typical = self.population.prototypes + self.population.pull

    # ------------------------------------------------------------ people

    def person(self, index: int) -> Person:
        """Return user `index`, counted from 0."""
        user_id = f"u{index:05d}"
        generator = rng(self.seed, "user", user_id)
        prototype = int(generator.choice(self.config.n_prototypes, p=self.population.shares))
        weights = self.population.sample(generator, np.array([prototype]))[0]
        return Person(
            user=User(
                id=user_id,
                criteria=self._criteria(user_id, weights),
                self_description=self._description(user_id, weights),
                demographics=_demographics(rng(self.seed, "demographics", user_id)),
            ),
            prototype=prototype,
            weights=weights,
            is_seen=self._is_seen(index),
        )

    def person_of(self, user_id: str) -> Person:
        """Return the user with this id.

        Raises:
            InputError: it is no id of a simulated user.
        """
        if not user_id[1:].isdecimal():
            raise InputError(f"{user_id!r} is no simulated user; ids are like u00012")
        return self.person(int(user_id[1:]))

    def _is_seen(self, index: int) -> bool:
        share = self.config.unseen_share
        return int((index + 1) * share) == int(index * share)

    def _criteria(self, user_id: str, weights: Array) -> tuple[str, ...]:
        generator = rng(self.seed, "criteria", user_id)
        if generator.random() >= self.config.criteria_share:
            return ()
        items = self.criteria.draw(generator, weights, self.config.n_criteria)
        return tuple(_pick(generator, CRITERIA[item]) for item in items)

    def _description(self, user_id: str, weights: Array) -> str | None:
        generator = rng(self.seed, "description", user_id)
        if generator.random() >= self.config.description_share:
            return None
        (item,) = self.descriptions.draw(generator, weights, 1)
        return _pick(generator, DESCRIPTIONS[item])

    # ------------------------------------------------------------ choices

    def choices(self, person: Person, part: str) -> list[Choice]:
        """Return what a user chose in one part: `train`, `validation` or `test`."""
        n = getattr(self.config, f"n_{part}")
        phase = rng(self.seed, "narrow", person.user.id, part).random()
        share = self.config.narrow_share
        return [
            self._choice(
                person,
                f"{person.user.id}-{part}-{i}",
                is_narrow=int(phase + (i + 1) * share) > int(phase + i * share),
                held_out=part != Split.TRAIN,
            )
            for i in range(n)
        ]

    def _choice(self, person: Person, id_: str, *, is_narrow: bool, held_out: bool) -> Choice:
        generator = rng(self.seed, "choice", id_)
        draft = self.source.draw(generator, narrow=is_narrow, held_out=held_out)
        difference = draft.features[0] - draft.features[1]
        margin = difference @ person.weights[draft.scenario]
        probability = float(choice_probability(margin, self.config.noise))
        typical = np.abs(self._typical[:, draft.scenario] @ difference)
        return Choice(
            id=id_,
            query=draft.query,
            scenario=draft.scenario,
            responses=draft.responses,
            features=draft.features,
            is_narrow=is_narrow,
            is_hard=bool(
                not draft.features[:, FLAWED].any()
                and self.population.shares[typical < SMALL_MARGIN].sum() > 0.5
                and abs(margin) >= SMALL_MARGIN
            ),
            probability=probability,
            label=int(generator.random() >= probability),
        )

    # ------------------------------------------------------------ comparisons

    def comparison(self, person: Person, choice: Choice, train: list[Choice]) -> Comparison:
        """Return a choice as a judge is given it, with `n_history` of the train choices.

        Narrow choices, the choice itself and others with the same query are not shown.
        """
        eligible = [
            t for t in train if not t.is_narrow and t.id != choice.id and t.query != choice.query
        ]
        drawn = rng(self.seed, "shown", choice.id).permutation(len(eligible))
        shown = sorted(drawn[: self.config.n_history].tolist())
        history = tuple(
            Preference(
                context=t.query,
                chosen=t.responses[t.label],
                rejected=t.responses[1 - t.label],
            )
            for t in (eligible[i] for i in shown)
        )
        return Comparison(
            id=choice.id,
            user=person.user.model_copy(update={"history": history}),
            context=choice.query,
            responses=choice.responses,
            label=choice.label,
        )

    def of_user(
        self, person: Person, splits: Iterable[Split]
    ) -> Iterator[tuple[Split, Choice, Comparison]]:
        """Yield a user's comparisons in the given splits, with the truth about each."""
        splits = [split for split in splits if split.is_of_seen is person.is_seen]
        if not splits:
            return
        train = self.choices(person, "train")
        for split in splits:
            choices = train if split is Split.TRAIN else self.choices(person, split.part)
            for choice in choices:
                yield split, choice, self.comparison(person, choice, train)

    def comparisons(self, split: str, n: int) -> Iterator[Comparison]:
        """Yield the first n comparisons of a split, user by user, each made when asked for.

        Raises:
            InputError: under this configuration the split has none.
        """
        split = Split(split)
        share_of_users = (
            1 - self.config.unseen_share if split.is_of_seen else self.config.unseen_share
        )
        if not share_of_users or not getattr(self.config, f"n_{split.part}"):
            raise InputError(
                f"this world has no {split} comparisons; "
                f"check unseen_share and n_{split.part} in its configuration"
            )
        endless = (
            comparison
            for index in count()
            for _, _, comparison in self.of_user(self.person(index), [split])
        )
        return islice(endless, n)


def without_statements(comparison: Comparison) -> Comparison:
    """Hide what the user states of himself."""
    user = comparison.user.model_copy(update={"criteria": (), "self_description": None})
    return comparison.model_copy(update={"user": user})


def _pick(generator: np.random.Generator, texts: tuple[str, ...]) -> str:
    return texts[int(generator.integers(len(texts)))]


def _demographics(generator: np.random.Generator) -> dict[str, str]:
    return {name: _pick(generator, tuple(values)) for name, values in DEMOGRAPHICS.items()}
