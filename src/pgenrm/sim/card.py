"""The card of a simulated world: what it is, and what can be reached on it."""

from collections.abc import Sequence
from importlib.metadata import version
from platform import python_version
from typing import Final

from pgenrm.sim.config import WorldConfig
from pgenrm.sim.observer import Reference, oracle, references
from pgenrm.sim.world import Choice, World
from pgenrm.types import Comparison, Value

REFERENCE_PAIRS: Final = (0, 1, 2, 3, 6)
"""Numbers of history pairs that the Bayes observer is asked for."""


class Group(Value):
    """References on some comparisons of a split, all on the same ones."""

    split: str
    who: str
    references: tuple[Reference, ...]
    """The oracle, then the Bayes observer by number of pairs."""


class Card(Value):
    """Everything needed to make the same world again, with its counts and references."""

    seed: int
    n_users: int
    source: str
    """Where the texts come from, with a digest of them."""
    config: WorldConfig
    versions: dict[str, str]
    counts: dict[str, int]
    """Split -> comparisons."""
    hard_counts: dict[str, int]
    """Split -> hard negatives among them."""
    groups: tuple[Group, ...]


def versions() -> dict[str, str]:
    """Return the versions that a world depends on."""
    return {"pgenrm": version("pgenrm"), "numpy": version("numpy"), "python": python_version()}


def groups(world: World, split: str, cases: Sequence[tuple[Choice, Comparison]]) -> list[Group]:
    """Compute the references on all, on those whose users state something, and on hard negatives.

    A group without comparisons is left out.
    """
    everybody = [comparison for _, comparison in cases]
    stating = [c for c in everybody if c.user.criteria or c.user.self_description]
    hard = [comparison for choice, comparison in cases if choice.is_hard]
    n_pairs = [n for n in REFERENCE_PAIRS if n <= world.config.n_history]
    return [
        Group(
            split=split,
            who=who,
            references=(
                oracle(comparisons, world),
                *references(comparisons, world, n_pairs, with_criteria=with_criteria),
            ),
        )
        for who, comparisons, with_criteria in (
            ("everybody, statements hidden", everybody, False),
            ("users who state something, statements shown", stating, True),
            ("hard negatives, statements hidden", hard, False),
        )
        if comparisons
    ]


def markdown(card: Card) -> str:
    """Return the card for people to read."""
    lines = [
        "# Simulated world",
        "",
        f"{card.n_users} users, seed {card.seed}, {card.source}; "
        + ", ".join(f"{name} {number}" for name, number in card.versions.items())
        + ".",
        "",
        "| split | comparisons | hard negatives |",
        "|---|---|---|",
        *(f"| {split} | {n} | {card.hard_counts[split]} |" for split, n in card.counts.items()),
        "",
        "Accuracy in percent with its 95 % interval (bootstrap over users). The Bayes observer",
        "sees what a judge may see; without history and statements it is the population mean.",
        "",
    ]
    for group in card.groups:
        bayes = group.references[1:]
        n = group.references[0].accuracy.n
        lines += [
            f"**{group.split}: {group.who}** (n = {n}; Monte Carlo error of the Bayes figures at "
            f"most {100 * max(r.mc_error for r in bayes):.2f} points)",
            "",
            "| oracle | " + " | ".join(f"{r.n_pairs} pairs" for r in bayes) + " |",
            "|---" * len(group.references) + "|",
            "| " + " | ".join(map(_cell, group.references)) + " |",
            "",
        ]
    settings = card.config.model_dump()
    lines += ["| setting | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in settings.items()]
    return "\n".join(lines) + "\n"


def _cell(reference: Reference) -> str:
    accuracy = f"{100 * reference.accuracy.accuracy:.1f}"
    if reference.accuracy.interval is None:
        return accuracy
    low, high = reference.accuracy.interval
    return f"{accuracy} [{100 * low:.1f}, {100 * high:.1f}]"
