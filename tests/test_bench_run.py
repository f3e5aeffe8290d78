import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm.bench.plan import (
    DataSource,
    load_source,
    note_command,
    open_plan,
    read_commands,
    read_items,
    read_plan,
    with_shared_histories,
)
from pgenrm.bench.pool import run_tasks
from pgenrm.bench.records import find_tasks
from pgenrm.bench.run import Task, read_times, records_path, run_method, times_path
from pgenrm.data.dataset import Dataset
from pgenrm.engines.cached import CachedEngine
from pgenrm.engines.protocol import ChatRequest
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.errors import EngineError, InputError
from pgenrm.methods.protocol import Method
from pgenrm.seeding import rng
from pgenrm.sim import Split, World, WorldConfig
from pgenrm.types import Comparison, Failure, FailureKind, Judgment, Message, User
from tests.bench_cases import (
    SOURCE,
    Chance,
    Dying,
    WithChains,
    comparison,
    dataset,
    run_bench,
    sorted_records,
    unanswered,
)

TASK = Task("chance", 0)


def judged(out: Path, task: Task = TASK) -> list[str]:
    return [json.loads(line)["id"] for line in records_path(out, task).read_text().splitlines()]


def run(out: Path, method: Method, batch_size: int = 8, *, accept: bool = False) -> None:
    data = dataset()
    items = [item.comparison for item in open_plan(out, SOURCE, data)]
    task = Task(method.name, 0)
    run_method(method, task, data, items, out, batch_size=batch_size, accept_unanswered=accept)


def test_no_method_sees_the_label_of_what_it_judges(tmp_path: Path) -> None:
    method = Chance("chance")
    run(tmp_path, method)
    assert method.asked
    assert {c.label for c in method.asked} == {None}
    stored = [json.loads(line) for line in records_path(tmp_path, TASK).read_text().splitlines()]
    labels = {i.comparison.id: i.comparison.label for i in read_items(tmp_path)}
    assert {row["id"]: row["label"] for row in stored} == labels
    assert {row["outcome"] for row in stored} == {"correct", "wrong"}


@pytest.mark.parametrize("is_trained", [False, True])
@settings(max_examples=15)
@given(cut=st.integers(0, 200_000))
def test_a_run_cut_anywhere_goes_on_to_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, is_trained: bool, cut: int
) -> None:
    out = tmp_path_factory.mktemp("bench")
    run(out, Chance("chance", is_trained=is_trained))
    path = records_path(out, TASK)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % len(whole)])
    n_left = len(read_items(out)) - path.read_bytes().count(b"\n")
    method = Chance("chance", is_trained=is_trained)
    run(out, method)
    assert path.read_bytes() == whole
    if is_trained:  # whole batches, so that nothing depends on where it was cut
        assert n_left <= len(method.asked) < n_left + 8
        assert len(set(method.adapted)) == 24
    else:
        assert len(method.asked) == n_left


def test_what_exists_is_not_computed_again(tmp_path: Path) -> None:
    run(tmp_path, Chance("chance"))
    again = Chance("chance")
    run(tmp_path, again)
    assert (again.calls, again.adapted, again.asked) == ([], [], [])


def test_a_user_is_adapted_to_once_and_before_he_is_judged(tmp_path: Path) -> None:
    method = Chance("chance")
    run(tmp_path, method, batch_size=5)
    assert sorted(method.adapted) == sorted({c.user.id for c in method.asked})


def test_records_of_another_version_are_not_reused(tmp_path: Path) -> None:
    run(tmp_path, Chance("chance"))
    changed = Chance("chance")
    changed.version = "2"
    with pytest.raises(InputError, match=r"version: '1' -> '2'"):
        run(tmp_path, changed)


def test_an_engine_that_dies_half_way_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"chance.seed0.*no more: connection refused.*--accept"):
        run(tmp_path, Dying("chance", n_answers=20))
    assert len(judged(tmp_path)) == 20
    run(tmp_path, Chance("chance"))
    run(tmp_path / "whole", Chance("chance"))
    assert sorted_records(tmp_path) == sorted_records(tmp_path / "whole")


class Refusing(Chance):
    """Never answers one comparison."""

    def judgment(self, comparison: Comparison) -> Judgment:
        if comparison.id == "u3-test-1":
            return unanswered(comparison, self.name)
        return super().judgment(comparison)


def test_what_is_never_answered_is_asked_twice_and_then_named(tmp_path: Path) -> None:
    method = Refusing("chance")
    with pytest.raises(EngineError, match=r"1 comparisons got no answer.*--accept-unanswered"):
        run(tmp_path, method)
    assert [c.id for c in method.asked].count("u3-test-1") == 2
    assert len(judged(tmp_path)) == len(read_items(tmp_path)) - 1
    run(tmp_path, Refusing("chance"), accept=True)
    assert sorted(judged(tmp_path)) == sorted(i.comparison.id for i in read_items(tmp_path))


def test_what_is_left_of_an_earlier_run_is_asked_twice_however_little_it_is(
    tmp_path: Path,
) -> None:
    class RefusingTwo(Chance):
        def judgment(self, comparison: Comparison) -> Judgment:
            if comparison.id in {"u3-test-1", "u20-test-1"}:
                return unanswered(comparison, self.name)
            return super().judgment(comparison)

    for _ in range(2):
        method = RefusingTwo("chance", is_trained=True)
        with pytest.raises(EngineError, match=r"2 comparisons got no answer.*--accept-unanswered"):
            run(tmp_path, method)
        asked = [c.id for c in method.asked]
        assert asked.count("u3-test-1") == asked.count("u20-test-1") == 2


class Stuttering(WithChains):
    """Loses one chain of some comparisons, the first time that it is asked."""

    def __init__(self, name: str, n_faults: int) -> None:
        super().__init__(name, 2)
        self.n_faults = n_faults

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        return [self._cut(j) if int(j.id[-1]) == 2 else j for j in super().score(comparisons)]

    def _cut(self, judgment: Judgment) -> Judgment:
        if not self.n_faults:
            return judgment
        self.n_faults -= 1
        lost = unanswered(comparison("u0", 0), "x").failures
        return judgment.model_copy(update={"chains": judgment.chains[:1], "failures": lost})


def test_an_answer_in_part_does_not_stand_for_the_whole_while_asking_again_may_help(
    tmp_path: Path,
) -> None:
    n_faults = 24  # the third comparison of every user, once
    run(tmp_path, Stuttering("chains", n_faults))
    run(tmp_path / "whole", WithChains("chains", 2))
    assert sorted_records(tmp_path) == sorted_records(tmp_path / "whole")


def test_an_answer_in_part_is_kept_with_its_failure_when_asking_again_does_not_help(
    tmp_path: Path,
) -> None:
    run(tmp_path, Stuttering("chains", 10**6))
    lines = records_path(tmp_path, Task("chains", 0)).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == len(read_items(tmp_path))
    assert sum(bool(row["failures"]) for row in rows) == 24


def test_how_long_things_took_is_kept_apart(tmp_path: Path) -> None:
    run(tmp_path, Chance("chance"))
    with times_path(tmp_path, TASK).open("a") as file:
        file.write('{"stage": "score", "n":')  # as a kill leaves it
    times = list(read_times(times_path(tmp_path, TASK)))
    assert {t.stage for t in times} == {"fit", "adapt", "score"}
    assert sum(t.n for t in times if t.stage == "score") == len(read_items(tmp_path))


def test_a_bench_over_other_data_is_refused(tmp_path: Path) -> None:
    open_plan(tmp_path, SOURCE, dataset())
    with pytest.raises(InputError, match=r"over other data .*n_items"):
        open_plan(tmp_path, SOURCE, dataset(26))
    with pytest.raises(InputError, match=r"over other data .*source"):
        open_plan(tmp_path, DataSource(target="toy", n_history=1), dataset())


def test_data_without_test_comparisons_are_refused(tmp_path: Path) -> None:
    data = dataset()
    with pytest.raises(InputError, match="no test comparisons"):
        open_plan(tmp_path, SOURCE, Dataset("toy", "1", {"train": data.splits["train"]}))


def test_a_directory_that_is_no_bench_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no plan\.json"):
        read_plan(tmp_path)


def test_a_name_that_would_leave_the_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no name of a method"):
        records_path(tmp_path, Task("../x", 0))


def test_commands_are_kept_in_order_with_versions(tmp_path: Path) -> None:
    note_command(tmp_path, ["pgenrm", "bench", "one"])
    note_command(tmp_path, ["pgenrm", "bench", "two"])
    with (tmp_path / "commands.jsonl").open("a") as file:
        file.write('{"command": ["cut')
    note_command(tmp_path, ["pgenrm", "bench", "three"])
    commands = read_commands(tmp_path)
    assert [c.command[-1] for c in commands] == ["one", "two", "three"]
    assert {"pgenrm", "python", "numpy"} <= set(commands[0].versions)


def test_a_bench_whose_only_command_was_cut_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "commands.jsonl").write_text('{"command": ["cut')
    with pytest.raises(InputError, match="no whole command; run the command"):
        read_commands(tmp_path)


# ---------------------------------------------------------------- what is known of users


@given(n=st.integers(0, 5), seed=st.integers(0, 3))
def test_all_comparisons_of_a_user_show_the_same_past_choices(n: int, seed: int) -> None:
    shared = with_shared_histories([comparison("u1", i) for i in range(4)], n, seed)
    history = shared[0].user.history
    assert all(c.user.history == history for c in shared)
    assert len(history) == min(n, 3)
    more = with_shared_histories([comparison("u1", i) for i in range(4)], n + 1, seed)
    assert all(pair in more[0].user.history for pair in history)


def test_past_choices_in_the_context_of_a_comparison_are_not_shown() -> None:
    one, other = comparison("u1", 0), comparison("u1", 1)
    answered = Message(role="assistant", content=other.responses[0])
    later = (*other.context, answered, Message(role="user", content="And then?"))
    told = tuple(
        one.user.history[0].model_copy(update={"context": context})
        for context in (other.context, later)
    )
    user = one.user.model_copy(update={"history": (*one.user.history, *told)})
    shared = with_shared_histories([one.model_copy(update={"user": user}), other], None)
    assert all(pair not in shared[0].user.history for pair in told)
    assert len(shared[0].user.history) == 3


def test_labels_do_not_become_past_choices() -> None:
    nobody = User(id="u1")
    rows = [comparison("u1", i).model_copy(update={"user": nobody}) for i in range(3)]
    assert with_shared_histories(rows, 8)[0].user.history == ()


# ---------------------------------------------------------------- many processes


class Slow(Chance):
    """Takes its time, so that a kill lands in the middle."""

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        time.sleep(0.03)
        return super().score(comparisons)


def make(task: Task, data: Dataset) -> Method:
    """Make a method in a worker."""
    if task.method == "broken":
        raise InputError("nobody can make this")
    if task.method == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.method == "wrong":
        raise ValueError("nobody foresaw this")
    if task.method == "chains":
        return WithChains("chains", 2)
    kind = Slow if task.method == "slow" else Chance
    return kind(task.method, seed=task.seed, is_trained=task.seed > 0)


def refuse(data: Dataset, comparisons: Sequence[Comparison]) -> None:
    """Prepare nothing, as on a full disk."""
    raise OSError("no space left")


def as_lines(path: Path, data: Dataset) -> Path:
    path.mkdir()
    for name, split in data.splits.items():
        (path / f"{name}.jsonl").write_text("".join(c.model_dump_json() + "\n" for c in split))
    return path


def test_tasks_run_in_processes_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    source = DataSource(target=str(as_lines(tmp_path / "data", dataset())))
    out = tmp_path / "bench"
    items = open_plan(out, source, load_source(source))
    bad = [Task("killed", 0), Task("broken", 0), Task("wrong", 0)]
    tasks = [*bad, Task("chance", 0), Task("chance", 1), Task("chains", 0)]
    seen: dict[Task, int] = {}
    ended: list[Task] = []

    def watch(task: Task, n: int, has_ended: bool) -> None:
        assert n >= seen.get(task, 0)
        seen[task] = n
        ended.extend([task] * has_ended)

    failed = run_tasks(tasks, make, source, out, n_processes=2, prepare=refuse, watch=watch)
    assert [*sorted(failed)] == sorted(bad)
    assert "ended from outside" in failed[bad[0]]
    assert failed[bad[1]] == "nobody can make this"
    assert failed[bad[2]].startswith("ValueError: nobody foresaw this")
    assert sorted(ended) == sorted(tasks)
    assert [seen[task] for task in tasks] == [0, 0, 0, *[len(items)] * 3]
    alone = run_bench(tmp_path / "alone", [Chance("chance")], load_source(source))
    assert judged(alone) == judged(out)


class Asking(Chance):
    """Learns from an engine."""

    def __init__(self, engine: CachedEngine, stage: str) -> None:
        super().__init__("chance")
        self.engine, self.stage = engine, stage

    def ask(self, stage: str) -> None:
        if stage == self.stage:
            self.engine.complete([ChatRequest(messages=(Message(role="user", content="Hello"),))])

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        self.ask("fit")

    def adapt(self, users: Sequence[User]) -> None:
        self.ask("adapt")


@pytest.mark.parametrize("stage", ["fit", "adapt"])
def test_nothing_is_judged_by_what_was_learnt_without_lost_answers(
    stage: str, tmp_path: Path
) -> None:
    lost = Failure(kind=FailureKind.REQUEST, reason="connection refused")
    engine = CachedEngine(ScriptedEngine([lost, "Hi.", *[lost] * 9]), tmp_path / "c.sqlite")
    data = dataset()
    items = [item.comparison for item in open_plan(tmp_path, SOURCE, data)]

    def run_once(out: Path, *, accept: bool = False) -> None:
        run_method(
            Asking(engine, stage),
            TASK,
            data,
            items,
            out,
            usage=lambda: engine.usage,
            accept_unanswered=accept,
        )

    with pytest.raises(EngineError, match=rf"did not answer 1 requests that `{stage}` made"):
        run_once(tmp_path)
    assert judged(tmp_path) == []
    run_once(tmp_path)
    assert len(judged(tmp_path)) == len(items)
    with closing(CachedEngine(engine, tmp_path / "new.sqlite")) as engine:
        run_once(tmp_path / "lossy", accept=True)
    assert len(judged(tmp_path / "lossy")) == len(items)


WIDE = [Task("slow", 0), Task("slow", 1), Task("slow", 2), Task("chains", 0)]


def wide_run(data: str, out: str) -> None:
    """Run a wide bench in a process of its own, which the test kills."""
    failed = run_tasks(WIDE, make, DataSource(target=data), Path(out), n_processes=2)
    if failed:
        sys.exit(str(failed))


def n_records(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in find_tasks(out).values())


@pytest.mark.slow
@pytest.mark.timeout(1200)  # eleven starts of three processes on a busy machine
def test_a_wide_run_killed_ten_times_ends_with_the_same_records(tmp_path: Path) -> None:
    source = DataSource(target=str(as_lines(tmp_path / "data", dataset(500, 4))))
    data = load_source(source)
    out, whole = tmp_path / "killed", tmp_path / "whole"
    items = [item.comparison for item in open_plan(out, source, data)]
    assert len(items) == 2000
    open_plan(whole, source, data)
    for task in WIDE:
        run_method(make(task, data), task, data, items, whole)

    code = "import sys; from tests.test_bench_run import wide_run; wide_run(*sys.argv[1:])"
    command = [sys.executable, "-c", code, source.target, str(out)]
    n_all = len(WIDE) * len(items)
    n_kills = 10
    limits = sorted(rng("kills", n_kills).integers(1, n_all - 200, n_kills).tolist())
    n_killed = 0
    for i, limit in enumerate(limits):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
        while process.poll() is None and n_records(out) < limit:
            time.sleep(0.01)
        if process.poll() is None:
            n_killed += 1
            if i % 2:  # workers too, or only the process that started them
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.communicate()
    assert n_killed == n_kills
    assert 0 < n_records(out) < n_all
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted_records(out) == sorted_records(whole)


FITS = [Task(name, 0) for name in ("lore", "gpo", "pgenrm-ind8-pro4")]


def of_few_users() -> Dataset:
    """Of 80 simulated users; 40 of them are validated on alone, as many as a calibration needs."""
    sizes = {"n_train": 2, "n_validation": 1, "n_test": 1, "n_history": 1}
    world = World(WorldConfig(**sizes, narrow_share=0.0, unseen_share=0.0), seed=5)
    parts = {
        "train": (Split.TRAIN, range(30)),
        "validation": (Split.VALIDATION, range(30, 70)),
        "test_seen": (Split.TEST_SEEN, range(30)),
        "test_unseen": (Split.TEST_SEEN, range(70, 80)),
    }
    return Dataset(
        "sim",
        "1",
        {
            name: [c for i in people for *_, c in world.of_user(world.person(i), [split])]
            for name, (split, people) in parts.items()
        },
    )


KILLS: list[tuple[Task | None, float]] = [(None, 3), *((task, 3) for task in FITS)]
"""What is under way, None for the embedding of texts, and seconds within which it is killed."""


def has_begun(task: Task | None, out: Path, at_ns: int) -> bool:
    """Whether a part of a bench has begun since then; of the embedding, some hundred texts."""
    path = out / "vectors.sqlite"
    if task is None:
        return path.exists() and path.stat().st_size > 100_000
    path = records_path(out, task).with_name(f"{task}.jsonl.run.json")
    return path.exists() and path.stat().st_mtime_ns > at_ns


def is_fitted(task: Task, out: Path) -> bool:
    return any(timing.stage == "fit" for timing in read_times(times_path(out, task)))


@pytest.mark.local
@pytest.mark.slow
@pytest.mark.timeout(1200)  # six starts of two processes that load much
def test_fits_killed_while_they_run_end_with_the_same_records(tmp_path: Path) -> None:
    """With MiniLM, prototypes and a calibration; each fit is killed once before it may end."""
    pytest.importorskip("torch")
    pytest.importorskip("sentence_transformers")
    data = as_lines(tmp_path / "data", of_few_users())
    names = ",".join(task.method for task in FITS)
    command = [
        *(sys.executable, "-m", "pgenrm", "bench", str(data), "--methods", names),
        *("--processes", "1", "--embed-dtype", "bfloat16", "--out"),
    ]
    log = tmp_path / "log"

    def bench(out: Path) -> "subprocess.Popen[bytes]":
        with log.open("ab") as file:
            return subprocess.Popen(
                [*command, str(out)], start_new_session=True, stdout=file, stderr=file
            )

    out, whole = tmp_path / "killed", tmp_path / "whole"
    n_fits = 0
    for i, (task, within_s) in enumerate(KILLS):
        start_ns = time.time_ns()
        process = bench(out)
        while process.poll() is None and not has_begun(task, out, start_ns):
            time.sleep(0.01)
        time.sleep(rng("kills", i).uniform(0, within_s))
        if process.poll() is None:
            n_fits += task is not None and not is_fitted(task, out)
            if i % 2:  # workers too, or only the process that started them
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
    assert n_fits > 0
    for each in (out, whole):
        assert bench(each).wait() == 0, log.read_text()
    assert sorted_records(out) == sorted_records(whole)
