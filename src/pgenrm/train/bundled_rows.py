"""The rows that the bundled judge is trained on, from a seed."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from rich.progress import track

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.nano import plain
from pgenrm.nano.practice import Encoder, Row, comparisons, varied
from pgenrm.nano.teacher import PosteriorTeacher
from pgenrm.nano.tokenizer import build
from pgenrm.prompts import default_template
from pgenrm.seeding import rng
from pgenrm.sim.dataset import simulate
from pgenrm.sim.world import World
from pgenrm.train.chains import write_chains
from pgenrm.train.record import write_whole
from pgenrm.train.rows import ENCODED
from pgenrm.train.sec import ChainSettings, SecSet, shown_user
from pgenrm.types import Comparison, User

try:
    from datasets import Dataset, concatenate_datasets
except ImportError as error:
    raise MissingExtraError("train", "training") from error

EXERCISES: Final = (
    ("reading", 0.12),
    ("difference", 0.10),
    ("choice", 0.12),
    ("statement", 0.07),
    ("meeting", 0.05),
    ("chain_only", 0.10),
    ("adding", 0.09),
    ("guessing", 0.14),
    ("weighing", 0.13),
    ("text", 0.04),
    ("impersonal", 0.04),
)
"""Share of each exercise among the rows; `impersonal` judges for a user who is not known at all."""
N_PER_PART: Final = 10_000
MADE: Final = "made.json"
N_HISTORY: Final = 6
"""Past choices in the chains to learn from: none to six."""
CHAIN_PART, RL_PART, CURRICULUM_PART, PLAIN_PART = 900, 910, 920, 930
"""Worlds of their own for the later stages."""


def write_practice(out: Path, n: int, seed: int, n_workers: int) -> None:
    """Write `n` exercises as parquet files; parts that are there already are kept.

    Raises:
        InputError: those that are there were drawn otherwise.
    """
    _note_made(out, {"n": n, "seed": seed, "shares": dict(EXERCISES)})
    parts = [
        (out / f"train-{i:05d}.parquet", i, min(N_PER_PART, n - i * N_PER_PART))
        for i in range(-(-n // N_PER_PART))
    ]
    missing = [part for part in parts if not part[0].exists()]
    if not missing:
        return
    with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(_write_part, seed=seed), missing))


def _note_made(out: Path, made: dict[str, Any]) -> None:
    """Write down how something is made, or see that it is made in the same way again."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / MADE).exists():
        write_whole(out / MADE, json.dumps(made, indent=2) + "\n")
    if (found := json.loads((out / MADE).read_bytes())) != made:
        raise InputError(f"{out} was made otherwise ({found}, not {made}); choose another --out")


def _write_part(part: tuple[Path, int, int], *, seed: int) -> None:
    path, number, n = part
    rows = _exercises(n, seed, number)
    _publish(Dataset.from_list([dict(zip(ENCODED, row, strict=True)) for row in rows]), path)


def _exercises(n: int, seed: int, part: int) -> Iterator[tuple[list[int], list[int]]]:
    world = practice_world(seed, part)
    encoder = Encoder(build(), PosteriorTeacher(world), seed)
    names, shares = zip(*EXERCISES, strict=True)
    for one in islice(comparisons(world, seed), n):
        generator = rng(seed, "exercise", part, one.id)
        name = names[int(generator.choice(len(names), p=shares))]
        row = _exercise(encoder, name, varied(one, seed), generator)
        yield row.input_ids, row.completion_mask


def _exercise(encoder: Encoder, name: str, one: Comparison, generator: Any) -> Row:
    if name in {"statement", "adding"}:
        own: Row = getattr(encoder, name)(generator)
        return own
    if name in {"meeting", "guessing", "weighing"}:
        asked: Row = getattr(encoder, name)(one, generator)
        return asked
    if name == "impersonal":
        return encoder.whole(one.model_copy(update={"user": User(id=one.user.id)}))
    exercise: Row = getattr(encoder, name)(one)
    return exercise


def practice_world(seed: int, part: int) -> World:
    """Return a world of its own for each part; none of them is one that figures come from."""
    return World(seed=100_000 + 1000 * seed + part)


def write_sec(
    out: Path, n_comparisons: int, seed: int, part: int = CHAIN_PART, n_history: int = N_HISTORY
) -> None:
    """Let the teacher write chains for comparisons and put the kept ones into `out`/train.parquet.

    They show none to `n_history` past choices. Goes on with what a killed run left.

    Raises:
        InputError: what is there was made otherwise.
    """
    _note_made(out, {"n": n_comparisons, "seed": seed, "part": part, "n_history": n_history})
    world = practice_world(seed, part)
    found = list(islice(comparisons(world, seed), n_comparisons))
    settings = ChainSettings(n_history=n_history, min_history=0, seed=seed)
    write_chains(
        lambda temperature: PosteriorTeacher(world, temperature=temperature),
        found,
        out / "sets",
        settings,
        recorded={"world": world.seed},
    )
    path = out / "train.parquet"
    if path.exists():
        return
    stated, bare = (
        Dataset.from_parquet(str(out / "sets" / f"{kind}.parquet")).select_columns(
            ["id", "prompt", "completion", "order"]
        )
        for kind in SecSet
    )
    again = partial(_with_demographics, known={c.id: c for c in found}, settings=settings)
    shown = bare.map(again, load_from_cache_file=False, desc="Showing demographics")
    _publish(concatenate_datasets([stated, bare, shown]).remove_columns("order"), path)


def _with_demographics(
    row: dict[str, Any], known: Mapping[str, Comparison], settings: ChainSettings
) -> dict[str, Any]:
    """Show what else is known of a user who states nothing; it says nothing about his taste."""
    one = known[row["id"]]
    user = shown_user(one, SecSet.HISTORY_ONLY, settings)
    assert user is not None  # this set is for everybody
    user = user.model_copy(update={"demographics": one.user.demographics})
    responses = [one.responses[i] for i in row["order"]]
    prompt = default_template(user).render(user, one.context, responses)
    return {"prompt": [message.model_dump() for message in prompt]}


def write_plain(path: Path, n: int, seed: int) -> None:
    """Write `n` prompts of plain judges with answers as a parquet file, unless it is there.

    Raises:
        InputError: those that are there were drawn otherwise.
    """
    made = {"n": n, "seed": seed, "part": PLAIN_PART, "shares": plain.SHARES}
    _note_made(path.parent, made)
    if not path.exists():
        found = plain.rows(practice_world(seed, PLAIN_PART), seed, n)
        _publish(Dataset.from_list(list(track(found, "Writing answers", n))), path)


WIDE: Final = "wide.jsonl"
"""The train comparisons of a world, some of them with three or four responses."""


def write_world(
    out: Path, n_users: int, seed: int, part: int, n_responses: int | None = None
) -> Path:
    """Simulate a world to learn from by reward, unless it is there; return its directory.

    Args:
        out: the directory, in which `WIDE` is what to learn from.
        n_users: of the world, unseen ones included.
        seed: of the run.
        part: which world.
        n_responses: of each comparison; None draws the number.

    Raises:
        InputError: another one is there.
    """
    _note_made(out, {"n_users": n_users, "seed": seed, "part": part, "n_responses": n_responses})
    world = practice_world(seed, part)
    if not (out / "card.json").exists():
        simulate(out, n_users, world.seed)
    if not (out / WIDE).exists():
        n_seen = sum(world.person(i).is_seen for i in range(n_users))
        rows = comparisons(world, seed, n_responses=n_responses)
        lines = (c.model_dump_json() + "\n" for c in islice(rows, n_seen * world.config.n_train))
        write_whole(out / WIDE, "".join(lines))
    return out


def _publish(rows: Dataset, path: Path) -> None:
    temporary = path.with_suffix(".partial")
    rows.to_parquet(str(temporary))
    temporary.rename(path)
