"""What a bench compares, on disk: where the data are from, and the comparisons all methods judge.

`OUT/plan.json` and `OUT/items.jsonl` are written before the first judgment and never change; a run
continues only over the same data. Beside them stand `OUT/records/` (see `run.py`) and
`OUT/commands.jsonl`, one line for every command that wrote to `OUT`.
"""

import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Final

import pgenrm
from pgenrm.data import load, load_lampqa
from pgenrm.data.dataset import TESTS, Dataset
from pgenrm.data.load import OF_THE_HUB
from pgenrm.errors import InputError, MissingExtraError
from pgenrm.history import discloses, draw_pairs, gather_users
from pgenrm.rows import load_value, read_values
from pgenrm.sim.world import World
from pgenrm.types import Comparison, Context, User, Value

PLAN: Final = "plan.json"
ITEMS: Final = "items.jsonl"
COMMANDS: Final = "commands.jsonl"
LAMPQA: Final = "lampqa"
LIBRARIES: Final = (
    *("numpy", "scipy", "torch", "transformers", "trl", "peft", "datasets", "openai"),
    "sentence-transformers",
)


class DataSource(Value):
    """Which data, so that another process can load the same."""

    target: str
    """`sim`, `prism`, `arena`, ... or the path of a JSON Lines file."""
    folder: Path | None = None
    """A local copy in the hub's layout; None asks the hub."""
    candidates: Path | None = None
    """Answers to the questions of LaMP-QA; None looks for them in the folder."""
    fit_on: str | None = None
    """Another data set to learn from, `prism`, `sim`, ... or a path, where the target has none."""
    revision: str | None = None
    limit: int | None = None
    """Most comparisons of each test split; None takes all."""
    n_history: int | None = None
    """Past choices that methods may see of each user; None takes as many as the data show."""
    seed: int = 0
    """Of the simulated world and of the past choices drawn."""


class Answers(Value):
    """Who wrote the responses of a comparison, and what graders who know the rubric say of them."""

    domain: str
    models: tuple[str, ...]
    """[n_responses]; the policies."""
    scores: tuple[float, ...]
    """[n_responses]; sums over the graders."""


class Item(Value):
    """A comparison, with what methods do not see of it."""

    split: str
    """`test_seen` or `test_unseen`."""
    comparison: Comparison
    prototype: int | None = None
    """Of the user, where the truth is known."""
    is_hard: bool | None = None
    """Whether it is a hard negative, where the truth is known."""
    answers: Answers | None = None
    """Where policies are to be ranked."""


class Plan(Value):
    """What every record of a bench rests on."""

    source: DataSource
    dataset: str
    revision: str
    notes: tuple[str, ...]
    n_items: dict[str, int]
    """Comparisons by split."""
    n_train: int
    items_digest: str


class Command(Value):
    """A command that wrote to a bench, and with what."""

    command: tuple[str, ...]
    started_at: str
    """UTC, ISO 8601."""
    versions: dict[str, str]
    machine: str


def open_plan(out: Path, source: DataSource, dataset: Dataset) -> list[Item]:
    """Write the plan of a new bench, or check that the one in `out` is over the same data.

    Raises:
        InputError: it is not, or `out` cannot be written.
    """
    items = items_of(dataset, source)
    if not items:
        raise InputError(f"{dataset.name} has no test comparisons; see its splits with: data check")
    text = "".join(item.model_dump_json() + "\n" for item in items)
    plan = Plan(
        source=source,
        dataset=dataset.name,
        revision=dataset.revision,
        notes=dataset.notes,
        n_items={s: sum(i.split == s for i in items) for s in sorted({i.split for i in items})},
        n_train=len(dataset.splits.get("train", ())),
        items_digest=blake2b(text.encode(), digest_size=8).hexdigest(),
    )
    out.mkdir(parents=True, exist_ok=True)
    if (out / PLAN).exists():
        _check_same(out, read_plan(out), plan)
    else:  # the plan comes last: where it stands, the items are complete
        for name, content in ((ITEMS, text), (PLAN, plan.model_dump_json(indent=2) + "\n")):
            partial = out / (name + ".partial")
            partial.write_text(content, "utf-8")
            partial.replace(out / name)
    return items


def _check_same(out: Path, found: Plan, wanted: Plan) -> None:
    then, now = found.model_dump(mode="json"), wanted.model_dump(mode="json")
    changed = {key: (then[key], now[key]) for key in now if then[key] != now[key]}
    if changed:
        what = "; ".join(f"{key}: {a!r} -> {b!r}" for key, (a, b) in changed.items())
        raise InputError(f"{out} was begun over other data ({what}); name another --out")


def load_pinned(source: DataSource, out: Path) -> tuple[DataSource, Dataset]:
    """Load the data of a bench, and pin them to the commits of the hub that were read.

    The processes of the bench and whoever goes on with it then read the same, also when the hub has
    moved on. Without a revision, that of a bench which stands in `out` is taken.

    Raises:
        InputError: as `load_source`.
        RowError: as `load_source`.
    """
    if source.revision is None and (out / PLAN).exists():
        before = read_plan(out).source
        if (before.target, before.fit_on) == (source.target, source.fit_on):
            source = source.model_copy(update={"revision": before.revision})
    dataset = load_source(source)
    if source.folder is None and {source.target, source.fit_on} & set(OF_THE_HUB):
        source = source.model_copy(update={"revision": dataset.revision})
    return source, dataset


def pinned_model(name: str) -> str:
    """Name a model of the hub with the commit that it is at, `owner/model@commit`.

    Without a network that is the one in the hub's cache. A directory is returned as it is.

    Args:
        name: a directory, or a hub id, as `owner/model@revision` where it is not the newest.

    Raises:
        InputError: there is no such model, or it cannot be reached.
        MissingExtraError: the hub's library is not installed.
    """
    if Path(name).is_dir():
        return name
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingExtraError("train", "a model of the hub") from error
    hub_id, _, revision = name.partition("@")
    try:
        config = Path(hf_hub_download(hub_id, "config.json", revision=revision or None))
    except (OSError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the model {name} is no directory and cannot be had from the hub: {first_line}; check "
            "its name and the network, or give a directory that holds it"
        ) from error
    return f"{hub_id}@{config.parent.name}"


def load_source(source: DataSource) -> Dataset:
    """Load the data, with what is learnt from of another data set where one is named.

    The folder and the revision are for both, as far as they are data sets of the hub.

    Raises:
        InputError: there are no such data, they cannot be had, or do not go with each other.
        RowError: a row is wrong.
    """
    of_fit_on = source.fit_on in OF_THE_HUB and source.target not in OF_THE_HUB
    dataset = load(
        source.target,
        folder=None if of_fit_on else source.folder,
        candidates=source.candidates,
        revision=None if of_fit_on else source.revision,
        limit=source.limit,
        seed=source.seed,
    )
    if source.fit_on is None:
        return dataset
    if source.fit_on == "sim-real":
        raise InputError(
            "nothing can be fitted on sim-real by its name; give a directory that `pgenrm simulate "
            "--responses FILE` wrote"
        )
    is_of_hub = source.fit_on in OF_THE_HUB
    return dataset.fitted_on(
        load(
            source.fit_on,
            folder=source.folder if is_of_hub else None,
            revision=source.revision if is_of_hub else None,
            seed=source.seed,
        )
    )


def read_plan(out: Path) -> Plan:
    """Read the plan of a bench.

    Raises:
        InputError: `out` is no bench.
    """
    if not (out / PLAN).exists():
        raise InputError(f"{out} holds no {PLAN}; give a directory that `pgenrm bench` wrote")
    return load_value(out / PLAN, Plan)


def read_items(out: Path) -> list[Item]:
    """Read the comparisons of a bench, in order."""
    return [item for _, item in read_values(out / ITEMS, Item)]


def note_command(out: Path, command: Sequence[str]) -> None:
    """Add a command to those that wrote to a bench, with the versions it runs on."""
    row = Command(
        command=tuple(command),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"pgenrm": pgenrm.__version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in LIBRARIES if _is_installed(name)},
        machine=f"{sys.platform} {platform.machine()}",
    )
    path = out / COMMANDS
    is_cut = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * is_cut + row.model_dump_json() + "\n")


def read_commands(out: Path) -> list[Command]:
    """Read the commands that wrote to a bench, in order; one cut off by a kill is left out.

    Raises:
        InputError: none is left.
    """
    bad: list[object] = []
    commands = [command for _, command in read_values(out / COMMANDS, Command, bad.append)]
    if not commands:
        raise InputError(
            f"{out / COMMANDS} holds no whole command; run the command of the bench again"
        )
    return commands


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


# ---------------------------------------------------------------- which comparisons


def items_of(dataset: Dataset, source: DataSource) -> list[Item]:
    """Return the test comparisons that a bench is over: every user with one and the same history.

    Methods that learn a user once and those that read his choices anew in every prompt then know
    the same of him.
    """
    items = [
        Item(split=name, comparison=comparison)
        for name in TESTS
        for comparison in with_shared_histories(
            dataset.splits.get(name, ()), source.n_history, source.seed
        )
    ]
    if source.target == LAMPQA:
        return _with_answers(items, source)
    return items if dataset.truth is None else _with_truth(items, dataset.truth)


def with_shared_histories(
    comparisons: Iterable[Comparison], n_pairs: int | None, seed: int = 0
) -> list[Comparison]:
    """Give all comparisons of a user the same past choices, drawn from those that any of them show.

    A past choice in the context of one of his comparisons, or in a later turn, is left out: it
    would tell too much.

    Args:
        comparisons: labelled or not; labels do not become history.
        n_pairs: past choices per user, or as many as there are; None takes as many as his
            comparisons show at most, so that nobody knows more than the data give.
        seed: of the draw, with the user's id; draws for smaller numbers are nested.
    """
    comparisons = list(comparisons)
    n_shown: dict[str, int] = {}
    contexts: dict[str, set[Context]] = {}
    for c in comparisons:
        n_shown[c.user.id] = max(n_shown.get(c.user.id, 0), len(c.user.history))
        contexts.setdefault(c.user.id, set()).add(c.context)
    users: dict[str, User] = {}
    for user in gather_users(c.model_copy(update={"label": None}) for c in comparisons):
        pairs = tuple(p for p in user.history if not discloses(p.context, contexts[user.id]))
        n = n_shown[user.id] if n_pairs is None else n_pairs
        users[user.id] = draw_pairs(user.model_copy(update={"history": pairs}), n, seed, user.id)
    return [
        c.model_copy(
            update={"user": c.user.model_copy(update={"history": users[c.user.id].history})}
        )
        for c in comparisons
    ]


def _with_answers(items: Iterable[Item], source: DataSource) -> list[Item]:
    """Add who wrote the responses, and how good they are.

    Raises:
        InputError: the answers were not all graded by the same judges.
    """
    lampqa = load_lampqa(
        source.folder,
        source.revision,
        candidates=source.candidates,
        limit=source.limit,
        seed=source.seed,
    )
    by_id = {item.comparison.id: item for item in lampqa.items}
    judges = {judge for item in lampqa.items for scores in item.scores for judge in scores}
    found = []
    for item in items:
        of = by_id[item.comparison.id]
        for model, scores in zip(of.models, of.scores, strict=True):
            if not scores or set(scores) != judges:
                lacking = ", ".join(sorted(judges - set(scores))) or "any judge"
                raise InputError(
                    f"the answer of {model} to {item.comparison.id} has no score by {lacking}; "
                    "grade the answers with: pgenrm bench grade"
                )
        answers = Answers(
            domain=of.domain,
            models=of.models,
            scores=tuple(sum(scores.values()) for scores in of.scores),
        )
        found.append(item.model_copy(update={"answers": answers}))
    return found


def _with_truth(items: Iterable[Item], world: World) -> list[Item]:
    """Add what the world knows of users and comparisons."""
    known: dict[str, tuple[int, dict[str, bool]]] = {}
    found = []
    for item in items:
        user_id = item.comparison.user.id
        if user_id not in known:
            person = world.person_of(user_id)
            hard = {choice.id: choice.is_hard for choice in world.choices(person, "test")}
            known[user_id] = person.prototype, hard
        prototype, hard = known[user_id]
        update = {"prototype": prototype, "is_hard": hard.get(item.comparison.id)}
        found.append(item.model_copy(update=update))
    return found
