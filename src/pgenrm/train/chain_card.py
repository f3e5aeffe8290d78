"""The card of a SEC data set: who taught it, what was asked for, and what was kept."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from importlib.metadata import version
from typing import Any, Final

from pydantic import ConfigDict, computed_field

from pgenrm.train.sec import Fate, Found, Sampled, SecSet
from pgenrm.train.sec_rows import Row
from pgenrm.types import Value

N_USERS_SHOWN: Final = 10
"""Users with the lowest acceptance that `card.md` names; `card.json` has all."""


class Unusable(StrEnum):
    """Why a comparison was left out."""

    NO_LABEL = "no label"
    ONE_RESPONSE = "a single response"
    SAME_TEXT = "the chosen text is also another response"
    REPEATED = "the same user, conversation and responses as an earlier one"


class Acceptance(Value):
    """How many chains were wanted, asked for in all tries, and kept."""

    model_config = ConfigDict(extra="ignore")

    n_wanted: int
    n_asked: int
    n_kept: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def share(self) -> float | None:
        """Of those asked for, in [0, 1]; None where none were."""
        return self.n_kept / self.n_asked if self.n_asked else None


class SetCard(Value):
    """One of the two sets."""

    name: SecSet
    n_rows: int
    """In the file: kept, and not left out for balance."""
    n_comparisons: int
    """Asked about."""
    total: Acceptance
    fates: dict[Fate, int]
    by_try: tuple[Acceptance, ...]
    by_scenario: dict[str, Acceptance]
    by_user: dict[str, Acceptance]
    by_position: dict[int, tuple[Acceptance, ...]]
    """Number of responses -> by the position at which the chosen one was shown: a teacher with a
    liking for a position shows here."""
    rows_by_position: dict[int, tuple[int, ...]]
    """The same for the rows in the file."""
    rows_by_order: dict[str, int]
    """Presentation order -> rows in the file; `1,0`: the second response was shown first."""
    prompt_versions: tuple[str, ...]
    teacher_versions: tuple[str, ...]
    n_cut: int
    """Times that past choices or turns did not fit into the teacher's prompt."""


class ChainCard(Value):
    """Everything needed to make the same data set again, with its counts."""

    settings: dict[str, Any]
    """Whatever the chains depend on beside the comparisons."""
    versions: dict[str, str]
    n_comparisons: int
    """That were asked about."""
    left_out: dict[Unusable, int]
    n_telling: int
    """Past choices that were not shown because they tell the answer."""
    sets: tuple[SetCard, ...]


class CardBuilder:
    """Counts what was found, and the rows as they are written.

    Attributes:
        last_failure: why the last chain that failed could not be had.
    """

    def __init__(self, sets: Sequence[SecSet]) -> None:
        self._sets = {name: _SetCounts() for name in sets}
        self._n_comparisons = 0
        self._n_telling = 0
        self.last_failure = ""

    def add(self, sampled: Sampled) -> None:
        """Count one comparison."""
        self.last_failure = sampled.last_failure or self.last_failure
        self._n_comparisons += 1
        self._n_telling += sampled.n_telling
        for name in {found.set for found in sampled.found}:
            self._sets[name].n_comparisons += 1
        for found in sampled.found:
            self._sets[found.set].add(sampled, found)

    def counted(self, name: SecSet, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows of a set as they are, and count them."""
        counts = self._sets[name]
        for row in rows:
            counts.positions[len(row["order"]), row["label"]] += 1
            counts.orders[",".join(map(str, row["order"]))] += 1
            yield row

    def card(self, settings: dict[str, Any], left_out: Mapping[Unusable, int]) -> ChainCard:
        """Return the card."""
        return ChainCard(
            settings=settings,
            versions={"pgenrm": version("pgenrm")},
            n_comparisons=self._n_comparisons,
            left_out=dict(left_out),
            n_telling=self._n_telling,
            sets=tuple(counts.card(name) for name, counts in self._sets.items()),
        )


class _SetCounts:
    def __init__(self) -> None:
        self.n_comparisons = 0
        self.n_cut = 0
        self.fates: Counter[Fate] = Counter()
        self.total: Counter[str] = Counter()
        self.by_try: dict[int, Counter[str]] = defaultdict(Counter)
        self.by_scenario: dict[str, Counter[str]] = defaultdict(Counter)
        self.by_user: dict[str, Counter[str]] = defaultdict(Counter)
        self.by_position: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
        self.positions: Counter[tuple[int, int]] = Counter()
        self.orders: Counter[str] = Counter()
        self.prompt_versions: set[str] = set()
        self.teacher_versions: set[str] = set()

    def add(self, sampled: Sampled, found: Found) -> None:
        for number, fates in enumerate(found.tries, start=1):
            self.fates.update(fates)
            n_kept = fates.count(Fate.KEPT)
            self.by_try[number].update(n_wanted=len(fates), n_asked=len(fates), n_kept=n_kept)
        place = len(found.order), found.order.index(sampled.label)
        for counts in (
            self.total,
            self.by_scenario[sampled.scenario],
            self.by_user[sampled.user_id],
            self.by_position[place],
        ):
            counts.update(
                n_wanted=found.n_wanted,
                n_asked=sum(map(len, found.tries)),
                n_kept=len(found.kept),
            )
        self.n_cut += bool(found.cuts)
        self.prompt_versions.add(found.prompt_version)
        self.teacher_versions.add(found.teacher_version)

    def card(self, name: SecSet) -> SetCard:
        sizes = sorted({n for n, _ in self.by_position})
        return SetCard(
            name=name,
            n_rows=self.positions.total(),
            n_comparisons=self.n_comparisons,
            total=_acceptance(self.total),
            fates={fate: self.fates[fate] for fate in Fate if self.fates[fate]},
            by_try=tuple(_acceptance(counts) for _, counts in sorted(self.by_try.items())),
            by_scenario=_named(self.by_scenario),
            by_user=_named(self.by_user),
            by_position={
                n: tuple(_acceptance(self.by_position[n, p]) for p in range(n)) for n in sizes
            },
            rows_by_position={n: tuple(self.positions[n, p] for p in range(n)) for n in sizes},
            rows_by_order=dict(sorted(self.orders.items())),
            prompt_versions=tuple(sorted(self.prompt_versions)),
            teacher_versions=tuple(sorted(self.teacher_versions)),
            n_cut=self.n_cut,
        )


def _acceptance(counts: Counter[str]) -> Acceptance:
    return Acceptance(
        n_wanted=counts["n_wanted"], n_asked=counts["n_asked"], n_kept=counts["n_kept"]
    )


def _named(groups: Mapping[str, Counter[str]]) -> dict[str, Acceptance]:
    return {name: _acceptance(counts) for name, counts in sorted(groups.items())}


def markdown(card: ChainCard) -> str:
    """Return the card for people to read."""
    lines = [
        "# Evaluation chains (SEC)",
        "",
        f"Written by {card.settings['teacher']} about {card.n_comparisons:,} comparisons; a chain "
        "is kept if it puts the chosen response strictly first.",
    ]
    notes = [f"- left out: {reason.value}: {n:,}" for reason, n in card.left_out.items()]
    if card.n_telling:
        notes.append(f"- past choices not shown because they tell the answer: {card.n_telling:,}")
    lines += ["", *notes] if notes else []
    for one in card.sets:
        lines += ["", *_set_lines(one)]
    lines += ["", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in (card.settings | card.versions).items()]
    return "\n".join(lines) + "\n"


def _set_lines(one: SetCard) -> Iterator[str]:
    n_surplus = one.total.n_kept - one.n_rows
    yield f"## {one.name}: {one.n_rows:,} rows"
    yield ""
    yield (
        f"{one.n_comparisons:,} comparisons, {one.total.n_wanted:,} chains wanted, "
        f"{one.total.n_asked:,} asked for, {one.total.n_kept:,} kept, {n_surplus:,} of these left "
        f"out for balance. Prompts {', '.join(one.prompt_versions) or '-'}; teacher's prompts "
        f"{', '.join(one.teacher_versions) or '-'}."
    )
    if one.n_cut:
        yield ""
        yield f"The teacher's prompt had to be cut {one.n_cut:,} times."
    yield ""
    yield "| of all asked for | chains | share |"
    yield "|---|---|---|"
    for fate, n_chains in one.fates.items():
        yield f"| {fate.value} | {n_chains:,} | {n_chains / one.total.n_asked:.1%} |"
    yield ""
    yield "| | wanted | asked | kept | of asked |"
    yield "|---|---|---|---|---|"
    for number, acceptance in enumerate(one.by_try, start=1):
        yield _line(f"try {number}", acceptance)
    for n, positions in one.by_position.items():
        for p, acceptance in enumerate(positions, start=1):
            yield _line(f"chosen shown as {p} of {n}", acceptance)
    for scenario, acceptance in one.by_scenario.items():
        yield _line(scenario, acceptance)
    lowest = sorted(one.by_user.items(), key=lambda item: item[1].share or 0.0)[:N_USERS_SHOWN]
    for user, acceptance in lowest:
        yield _line("user " + user.replace("|", "\\|"), acceptance)
    n_none = sum(not acceptance.n_kept for acceptance in one.by_user.values())
    yield ""
    yield (
        f"{len(one.by_user):,} users, {n_none:,} of them without any chain; the table names the "
        f"{len(lowest)} with the lowest acceptance, `card.json` all."
    )


def _line(name: str, a: Acceptance) -> str:
    share = "-" if a.share is None else f"{a.share:.1%}"
    return f"| {name} | {a.n_wanted:,} | {a.n_asked:,} | {a.n_kept:,} | {share} |"
