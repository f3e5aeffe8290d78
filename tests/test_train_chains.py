"""The SEC data set as files: balance, card, resuming, and the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.chain import format, parse
from pgenrm.errors import EngineError, InputError, RowError
from pgenrm.evaluator import ChainRequest, Evaluator
from pgenrm.rows import load_value, read_comparisons
from pgenrm.seeding import derive_seed
from pgenrm.sim import simulate
from pgenrm.train.chain_card import ChainCard, Unusable
from pgenrm.train.chains import write_chains
from pgenrm.train.sec import ChainSettings, Fate, SecSet
from pgenrm.types import Comparison, Failure, FailureKind, User
from tests.cases import KnownEvaluator, chain, comparison, preference
from tests.server import Body, Reply, chat, choice, serve
from tests.test_cli import Terminal, pgenrm

datasets = pytest.importorskip("datasets", reason="needs the extra 'train'")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'train'")

__all__ = ["pgenrm"]  # the fixture

FILES = ("card.json", "card.md", "history_only.parquet", "with_criteria.parquet")


def rows_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return found


def contents(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in FILES}


def users(n: int) -> list[Comparison]:
    """Two users, of whom the first states a criterion; labels and numbers of responses vary."""
    found = []
    for i in range(n):
        history = tuple(preference(k) for k in range(5))
        user = User(id=f"u{i % 2}", history=history, criteria=("Be brief.",) if i % 2 == 0 else ())
        texts = [f"answer {i} number {k}" for k in range(2 + i % 3)]
        found.append(comparison(f"c{i}", texts, label=i % len(texts), user=user))
    return found


def often_right(share: float = 0.6, likes_first: float = 0.0) -> KnownEvaluator:
    """Know the label from the id, and rank by it in a share of the chains."""

    def score(request: ChainRequest, i: int) -> Sequence[float] | Failure:
        draw = derive_seed(request.seed, i) % 1000 / 1000
        number = int(request.id[1:])
        chosen = f"answer {number} number {number % (2 + number % 3)}"
        bonus = likes_first if request.responses[0] == chosen else -likes_first
        best = 9 if draw < share + bonus else 1
        return [best if r == chosen else 4 + (draw * 100 // 1) / 100 for r in request.responses]

    return KnownEvaluator(score)


# ---------------------------------------------------------------- the two sets


def test_the_sets_are_balanced_in_what_is_kept_however_biased_the_teacher_is(
    tmp_path: Path,
) -> None:
    card = write_chains(
        lambda _: often_right(0.5, likes_first=0.2), users(300), tmp_path, ChainSettings()
    )
    for one in card.sets:
        rows = rows_of(tmp_path / f"{one.name}.parquet")
        assert len(rows) == one.n_rows > 50
        asked = [a.share for a in one.by_position[2]]
        assert asked[0] is not None
        assert asked[1] is not None
        assert asked[0] > asked[1] + 0.2  # the bias shows in the card
        for n, counts in one.rows_by_position.items():
            found = Counter(row["label"] for row in rows if len(row["order"]) == n)
            assert counts == tuple(found[p] for p in range(n))
            assert len(set(counts)) == 1
        assert one.rows_by_order["0,1"] == one.rows_by_order["1,0"]


def test_a_row_is_a_prompt_with_the_completion_that_ranks_its_label_first(tmp_path: Path) -> None:
    comparisons = {c.id: c for c in users(60)}
    settings = ChainSettings(n_chains=2, seed=5, n_history=2)
    write_chains(lambda _: often_right(), comparisons.values(), tmp_path, settings)
    seen = set()
    for kind in SecSet:
        for row in rows_of(tmp_path / f"{kind}.parquet"):
            c = comparisons[row["id"]]
            assert c.label == row["order"][row["label"]]
            assert row["user_id"] == c.user.id
            assert [m["role"] for m in row["prompt"]] == ["system", "user"]
            shown = row["prompt"][-1]["content"]
            assert all(c.responses[i] in shown for i in row["order"])
            assert shown.count("<past_choice number") == row["n_history"] == 2
            [said] = row["completion"]
            assert said["role"] == "assistant"
            scores = parse(said["content"], len(c.responses)).scores()
            best = max(range(len(scores)), key=lambda i: scores[i] or 0)
            assert best == row["label"]
            stated = ["Be brief."] if kind is SecSet.WITH_CRITERIA else []
            assert row["criteria"] == stated
            assert ("Be brief." in shown) is bool(stated)
            assert (row["teacher"], row["teacher_version"], row["seed"]) == ("known", "known@1", 5)
            assert row["prompt_version"].startswith("chain_")
            assert settings.temperatures[row["attempt"] - 1] == row["temperature"]
            key = (kind, row["id"], tuple(row["order"]), row["number"])
            assert key not in seen
            seen.add(key)
    assert len({key[1] for key in seen}) > 20


def test_the_sets_load_with_datasets(tmp_path: Path) -> None:
    write_chains(lambda _: often_right(), users(12), tmp_path)
    path = tmp_path / "history_only.parquet"
    loaded = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == rows_of(path)


def test_the_card_adds_up(tmp_path: Path) -> None:
    card = write_chains(lambda _: often_right(0.4), users(90), tmp_path)
    assert load_value(tmp_path / "card.json", ChainCard) == card
    for one in card.sets:
        for group in (one.by_scenario.values(), one.by_user.values()):
            assert sum(a.n_asked for a in group) == one.total.n_asked
            assert sum(a.n_kept for a in group) == one.total.n_kept
        assert sum(a.n_asked for a in one.by_try) == one.total.n_asked
        assert sum(one.fates.values()) == one.total.n_asked
        assert one.fates[Fate.KEPT] == one.total.n_kept
        for earlier, later in zip(one.by_try, one.by_try[1:], strict=False):
            assert later.n_asked == earlier.n_asked - earlier.n_kept
    assert set(card.sets[0].by_user) == {"u0"}
    assert card.sets[0].n_comparisons == 45
    text = (tmp_path / "card.md").read_text()
    for part in ("try 4", "user u1", "technical", "chosen shown as 3 of 4", "teacher | known"):
        assert part in text


def test_comparisons_that_teach_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    good, again = users(2)
    again = good.model_copy(
        update={"id": "c9", "responses": tuple(r.upper() + " " for r in good.responses[::-1])}
    )
    others = [
        comparison("a", label=None),
        comparison("b", responses=("alone",)),
        comparison("c", responses=("same", "same")),
    ]
    settings = ChainSettings(n_chains=2)
    card = write_chains(lambda _: often_right(1), [*others, good, again], tmp_path, settings)
    assert card.n_comparisons == 1
    assert card.sets[1].n_rows == 2
    assert card.left_out == dict.fromkeys(Unusable, 1)
    with pytest.raises(InputError, match="no label: 1, a single response: 1"):
        write_chains(lambda _: often_right(), others, tmp_path / "none")


def test_where_nothing_is_right_the_card_says_so(tmp_path: Path) -> None:
    failure = Failure(kind=FailureKind.FORMAT, reason="no JSON object in 'I refuse'")
    with pytest.raises(EngineError, match=r"no chain was kept; .*I refuse.*; see .*card\.md"):
        write_chains(lambda _: KnownEvaluator(lambda r, i: failure), users(3), tmp_path)
    assert "| unreadable | 12 | 100.0% |" in (tmp_path / "card.md").read_text()
    assert not list(tmp_path.glob("*.parquet"))


def test_a_teacher_who_is_right_about_one_position_only_leaves_nothing(tmp_path: Path) -> None:
    first_is_best = KnownEvaluator(lambda r, i: [9.0] + [2.0] * (len(r.responses) - 1))
    with pytest.raises(EngineError, match="no balanced set is left"):
        write_chains(lambda _: first_is_best, users(12), tmp_path)


# ---------------------------------------------------------------- resuming


@pytest.mark.parametrize(("batch_size", "n_workers"), [(1, 1), (7, 3)])
def test_batches_and_workers_move_no_result(
    tmp_path: Path, batch_size: int, n_workers: int
) -> None:
    write_chains(lambda _: often_right(), users(40), tmp_path / "a")
    write_chains(
        lambda _: often_right(),
        users(40),
        tmp_path / "b",
        batch_size=batch_size,
        n_workers=n_workers,
    )
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("cut_at", [0.0, 0.33, 0.5, 0.999])
def test_a_run_that_broke_off_anywhere_ends_as_an_uninterrupted_one(
    tmp_path: Path, cut_at: float
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = ChainSettings(n_chains=3)
    for out in (whole, broken):
        write_chains(lambda _: often_right(), users(40), out, settings)
    attempts = broken / "work/attempts.jsonl"
    os.truncate(attempts, int(attempts.stat().st_size * cut_at))
    for name in FILES:
        (broken / name).unlink()
    write_chains(lambda _: often_right(), users(40), broken, settings)
    assert attempts.read_bytes() == (whole / "work/attempts.jsonl").read_bytes()
    assert contents(broken) == contents(whole)


def test_more_comparisons_are_added_without_asking_again(tmp_path: Path) -> None:
    write_chains(lambda _: often_right(), users(40), tmp_path / "at_once")
    write_chains(lambda _: often_right(), users(25), tmp_path / "later")
    teacher = often_right()
    done: list[int] = []
    write_chains(lambda _: teacher, users(40), tmp_path / "later", progress=done.append)
    assert {r.id for r in teacher.requests} == {f"c{i}" for i in range(25, 40)}
    assert (done[0], done[-1]) == (25, 40)
    assert contents(tmp_path / "later") == contents(tmp_path / "at_once")


def test_lost_requests_are_asked_again_only_when_told_so(tmp_path: Path) -> None:
    def down(request: ChainRequest, i: int) -> Sequence[float] | Failure:
        if int(request.id[1:]) % 4 == 0:
            return Failure(kind=FailureKind.REQUEST, reason="server down")
        return often_right().scorer(request, i)

    card = write_chains(lambda _: KnownEvaluator(down), users(24), tmp_path / "a")
    assert card.sets[1].fates[Fate.LOST] == 6 * len(ChainSettings().temperatures)
    again = often_right()
    write_chains(lambda _: again, users(24), tmp_path / "a")
    assert again.requests == []
    write_chains(lambda _: again, users(24), tmp_path / "a", retry_lost=True)
    assert {r.id for r in again.requests} == {f"c{i}" for i in range(0, 24, 4)}
    write_chains(lambda _: often_right(), users(24), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_run_goes_on_only_with_the_same_settings_and_comparisons(tmp_path: Path) -> None:
    write_chains(lambda _: often_right(), users(12), tmp_path, recorded={"top_p": 0.9})
    with pytest.raises(InputError, match=r"other settings .*seed: 0 -> 1"):
        write_chains(
            lambda _: often_right(), users(4), tmp_path, ChainSettings(seed=1), recorded={}
        )
    with pytest.raises(InputError, match=r"top_p: 0.9 -> 1"):
        write_chains(lambda _: often_right(), users(4), tmp_path, recorded={"top_p": 1})
    changed = [users(4)[0].model_copy(update={"label": 1})]
    with pytest.raises(InputError, match="'c0' has changed since"):
        write_chains(lambda _: often_right(), changed, tmp_path, recorded={"top_p": 0.9})
    attempts = tmp_path / "work/attempts.jsonl"
    attempts.write_text("{}\n")
    with pytest.raises(RowError, match=r"attempts\.jsonl:1: .* is missing"):
        write_chains(lambda _: often_right(), users(12), tmp_path, recorded={"top_p": 0.9})


def test_a_killed_process_over_http_ends_as_an_uninterrupted_one(
    pgenrm: Terminal, tmp_path: Path
) -> None:
    path, out, whole = tmp_path / "in.jsonl", tmp_path / "out", tmp_path / "whole"
    path.write_text("".join(c.model_dump_json() + "\n" for c in users(60)))
    delay_s = 0.02

    def teacher(body: Body, _: int) -> Reply:
        """Score at random, by prompt, temperature and seed."""
        prompt = body["messages"][-1]["content"]
        draw = derive_seed(prompt, body["temperature"], body.get("seed"))
        scores = [1 + (draw >> 5 * k) % 32 / 4 for k in range(prompt.count("</response_"))]
        return replace(chat(choice(format(chain(scores)))), delay_s=delay_s)

    with serve(teacher) as server:
        command = [
            *("train", "chains", str(path), "--teacher", "openai:m"),
            *("--base-url", server.base_url, "--concurrency", "4", "--batch-size", "4", "--out"),
        ]
        process = subprocess.Popen([sys.executable, "-m", "pgenrm", *command, str(out)])
        attempts = out / "work/attempts.jsonl"
        while process.poll() is None and _n_lines(attempts) < 10:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        n_before = _n_lines(attempts)
        assert not (out / "card.json").exists()
        delay_s = 0.0
        for directory in (out, whole):
            done = pgenrm(*command, directory)
            assert done.code == 0, done.err
    assert 10 <= n_before < 60
    assert contents(out) == contents(whole)
    assert attempts.read_bytes() == (whole / "work/attempts.jsonl").read_bytes()
    assert {body["temperature"] for body in server.calls} == {1.0, 1.1, 1.2, 1.3}


def _n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


# ---------------------------------------------------------------- teachers and the command line


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("world")
    simulate(directory, 6, seed=3)
    return directory


def test_the_attribute_evaluator_teaches_diverse_chains(world: Path, tmp_path: Path) -> None:
    teacher: Evaluator = AttributeEvaluator()
    settings = ChainSettings(n_chains=4, temperatures=(1.0,) * 4, sets=(SecSet.HISTORY_ONLY,))
    comparisons = list(read_comparisons([world / "train.jsonl"]))[:30]
    write_chains(lambda _: teacher, comparisons, tmp_path, settings)
    by_prompt: dict[object, list[str]] = {}
    for row in rows_of(tmp_path / "history_only.parquet"):
        key = row["id"], tuple(row["order"])
        by_prompt.setdefault(key, []).append(row["completion"][0]["content"])
    several = [texts for texts in by_prompt.values() if len(texts) > 1]
    assert len(several) > 10
    assert all(len(set(texts)) == len(texts) for texts in several)


def test_the_command_writes_sets_and_card(pgenrm: Terminal, world: Path, tmp_path: Path) -> None:
    args = ("train", "chains", world / "train.jsonl", "--out", tmp_path / "chains")
    done = pgenrm(*args, "--history", 4, "--min-history", 0, "--set", "history_only")
    assert done.code == 0, done.err
    assert "history_only:" in done.err
    assert "with_criteria" not in done.err
    rows = rows_of(tmp_path / "chains/history_only.parquet")
    assert {row["n_history"] for row in rows} == {0, 1, 2, 3, 4}
    assert {row["teacher"] for row in rows} == {"attributes"}
    assert {row["temperature"] for row in rows} == {1.0}  # it has none to raise
    assert json.loads((tmp_path / "chains/card.json").read_text())["settings"]["seed"] == 0
    refused = pgenrm(*args, "--seed", 2)
    assert refused.code == 2
    assert "seed: 0 -> 2" in refused.err


def test_a_world_teaches_by_samples_of_its_posterior(
    pgenrm: Terminal, world: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join((world / "train.jsonl").read_text().splitlines(keepends=True)[:20]))
    args = ("train", "chains", few, "--teacher", f"sim:{world}", "--out", tmp_path / "chains")
    done = pgenrm(*args, "--chains", 2, "--temperature-step", 0.25)
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "chains/history_only.parquet")
    assert len(rows) > 15
    assert {row["teacher"].split(":")[0] for row in rows} == {"posterior"}
    assert {row["temperature"] for row in rows} <= {1.0, 1.25, 1.5, 1.75}


@pytest.mark.local
def test_a_local_model_that_writes_no_chain_ends_with_its_reason(
    pgenrm: Terminal, tmp_path: Path
) -> None:
    pytest.importorskip("transformers", reason="needs the extra 'local'")
    from tests.tiny_llama import make_tiny_llama

    model = make_tiny_llama(tmp_path / "tiny")
    done = pgenrm(
        *("train", "chains", "-", "--teacher", model, "--out", tmp_path / "chains"),
        *("--max-tokens", 6, "--tries", 2),
        stdin=comparison().model_dump_json(),
    )
    assert done.code == 1
    assert "no chain was kept" in done.err
    assert "no JSON object" in done.err
    assert "| unreadable | 2 | 100.0% |" in (tmp_path / "chains/card.md").read_text()


def test_bad_rows_are_left_out_on_request(pgenrm: Terminal, tmp_path: Path) -> None:
    good = "".join(
        comparison(f"c{i}", ("Yes.", f"No.\n- a list\n- of {i}\n- things"), i % 2).model_dump_json()
        + "\n"
        for i in range(12)
    )
    args = ("train", "chains", "-", "--out", tmp_path / "chains")
    bad = pgenrm(*args, stdin="{}\n" + good)
    assert bad.code == 2
    assert "stdin:1: 'user' is missing" in bad.err
    done = pgenrm(*args, "--skip-bad", stdin="{}\n" + good)
    assert done.code == 0, done.err
    assert "1 bad rows left out" in done.err


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--temperature", 0.5], "--temperature has no effect on --teacher attributes"),
        (["--temperature-step", 0.5], "--temperature-step has no effect"),
        (["--teacher-template", "x"], "--teacher-template has no effect"),
        (["--base-url", "http://localhost"], "--base-url has no effect"),
        (["--teacher", "sim:x", "--top-p", 0.5], "--top-p has no effect on --teacher sim:x"),
        (["--teacher", "sim"], "needs the directory of a world"),
        (["--teacher", "sim:none"], "none/card.json cannot be read"),
        (["--history", 2, "--min-history", 3], "at least as much"),
        (["-"], "standard input can be read once only"),
    ],
)
def test_options_that_do_not_go_together_say_so(
    pgenrm: Terminal, tmp_path: Path, args: list[object], reason: str
) -> None:
    done = pgenrm("train", "chains", "-", "--out", tmp_path, *args, stdin="")
    assert done.code == 2
    assert reason in done.err
