"""A simulated world written to files: comparisons by split, the truth apart, and a card.

Files are written beside their final names and renamed when all are complete, so a run that is
stopped leaves what was there before.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Final

from pgenrm.errors import InputError
from pgenrm.sim.card import Card, groups, markdown, versions
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.real import GivenResponses
from pgenrm.sim.tastes import ATTRIBUTES, SCENARIOS, Array
from pgenrm.sim.world import Choice, Person, Split, World
from pgenrm.types import Comparison, Value

N_REFERENCE: Final = 3000
"""References are computed on the first so many comparisons of a test split."""
TRUTH: Final = "truth"


class UserTruth(Value):
    """A line of `truth.jsonl`: the hidden side of a user."""

    user_id: str
    is_seen: bool
    prototype: int
    weights: dict[str, dict[str, float]]
    """Scenario -> attribute -> weight in log-odds, without the zeros."""


class ComparisonTruth(Value):
    """A line of `truth.jsonl`: what decided a comparison."""

    id: str
    split: str
    scenario: str
    features: tuple[dict[str, float], ...]
    """[2]; attribute -> value, without the zeros."""
    is_hard: bool
    probability: float
    """P(the first response is preferred)."""


def simulate(
    out_dir: str | Path,
    n_users: int,
    seed: int = 0,
    *,
    config: WorldConfig | None = None,
    responses: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Card:
    """Write a world to a directory.

    Args:
        out_dir: gets `train`, `validation`, `test_seen`, `test_unseen` and `truth` as `.jsonl`, and
            `card.json` and `card.md`. Made when missing; files of these names are replaced.
        n_users: seen and unseen together.
        seed: of users and comparisons.
        config: the defaults when None.
        responses: a file of given responses to simulate users over, instead of simulated texts.
        progress: called with (users done, users in all).

    Raises:
        InputError: the directory cannot be written, or an argument is wrong.
        RowError: a row of `responses` is wrong.
    """
    if n_users < 1:
        raise InputError(f"a world needs at least one user, found n_users = {n_users}")
    world = World(config, seed, GivenResponses(responses) if responses else None)
    counts = dict.fromkeys(Split, 0)
    hard_counts = dict.fromkeys(Split, 0)
    tested: dict[Split, list[tuple[Choice, Comparison]]] = {
        Split.TEST_SEEN: [],
        Split.TEST_UNSEEN: [],
    }
    lines = [f"{name}.jsonl" for name in (*Split, TRUTH)]
    with _written(Path(out_dir), [*lines, "card.json", "card.md"]) as files:
        for index in range(n_users):
            person = world.person(index)
            _write(files[f"{TRUTH}.jsonl"], _user_truth(person))
            for split, choice, comparison in world.of_user(person, Split):
                _write(files[f"{split}.jsonl"], comparison)
                _write(files[f"{TRUTH}.jsonl"], _comparison_truth(split, choice))
                counts[split] += 1
                hard_counts[split] += choice.is_hard
                if split in tested and len(tested[split]) < N_REFERENCE:
                    tested[split].append((choice, comparison))
            if progress:
                progress(index + 1, n_users)
        card = Card(
            seed=seed,
            n_users=n_users,
            source=world.source.version,
            config=world.config,
            versions=versions(),
            counts=counts,
            hard_counts=hard_counts,
            groups=tuple(g for split in tested for g in groups(world, split, tested[split])),
        )
        files["card.json"].write(card.model_dump_json(indent=2) + "\n")
        files["card.md"].write(markdown(card))
    return card


@contextmanager
def _written(directory: Path, names: list[str]) -> Iterator[Mapping[str, IO[str]]]:
    """Open files that come to the directory only when all were written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=directory, prefix=".simulate-") as place, ExitStack() as stack:
            files = {
                name: stack.enter_context((Path(place) / name).open("w", encoding="utf-8"))
                for name in names
            }
            yield files
            for name, file in files.items():
                file.close()
                (Path(place) / name).replace(directory / name)
    except OSError as error:
        raise InputError(f"{directory} cannot be written: {error}") from error


def _write(file: IO[str], value: Value) -> None:
    file.write(value.model_dump_json() + "\n")


def _user_truth(person: Person) -> UserTruth:
    return UserTruth(
        user_id=person.user.id,
        is_seen=person.is_seen,
        prototype=person.prototype,
        weights={name: _named(row) for name, row in zip(SCENARIOS, person.weights, strict=True)},
    )


def _comparison_truth(split: Split, choice: Choice) -> ComparisonTruth:
    return ComparisonTruth(
        id=choice.id,
        split=split,
        scenario=SCENARIOS[choice.scenario],
        features=tuple(_named(row) for row in choice.features),
        is_hard=choice.is_hard,
        probability=choice.probability,
    )


def _named(row: Array) -> dict[str, float]:
    values = zip(ATTRIBUTES, row.tolist(), strict=True)
    return {name: round(value, 4) for name, value in values if value}
