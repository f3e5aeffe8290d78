"""The completion cache around scripted engines, and around the openai engine."""

import multiprocessing
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm.engines.cached import CachedEngine
from pgenrm.engines.openai import OpenAIEngine
from pgenrm.engines.protocol import Answer, ChatRequest, Completion, Engine, Sampling
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.errors import InputError
from pgenrm.types import Failure, FailureKind, FinishReason, Message
from tests.server import Reply, says, serve

LOST = Failure(kind=FailureKind.REQUEST, reason="server on fire")

Open = Callable[[Engine], CachedEngine]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Open the cache of this test around an engine; closed at the end."""
    caches = []

    def open_cache(engine: Engine) -> CachedEngine:
        caches.append(CachedEngine(engine, tmp_path / "deep" / "cache.sqlite"))
        return caches[-1]

    yield open_cache
    for cache in caches:
        cache.close()


def ask(
    text: str = "hello", n: int = 1, seed: int = 0, version: str = "v1", **sampling: Any
) -> ChatRequest:
    return ChatRequest(
        messages=(Message(role="user", content=text),),
        n=n,
        seed=seed,
        prompt_version=version,
        sampling=Sampling(**sampling),
    )


def by_seed(request: ChatRequest, i: int) -> str:
    return f"{request.messages[-1].content} {request.seed} {i}"


def texts(answer: Answer) -> list[str]:
    return [s.text if isinstance(s, Completion) else "LOST" for s in answer.samples]


def test_what_was_answered_once_is_not_asked_again(opened: Open) -> None:
    engine = ScriptedEngine(by_seed)
    requests = [ask("a", n=2), ask("b", n=3)]
    first = opened(engine).complete(requests)
    again = opened(ScriptedEngine([])).complete(requests[::-1])[::-1]
    assert first == again
    assert engine.requests == requests


def test_everything_about_a_completion_survives(opened: Open) -> None:
    completion = Completion(
        text="naïve\u2028 \x00 😀",
        finish_reason=FinishReason.LENGTH,
        n_tokens=None,
        logprobs=(("na", -0.1), ("ïve", -12.5)),
    )
    opened(ScriptedEngine([completion])).complete([ask()])
    (answer,) = opened(ScriptedEngine([])).complete([ask()])
    assert answer.samples == (completion,)


def test_a_request_for_more_samples_asks_only_for_those_that_are_missing(opened: Open) -> None:
    engine = ScriptedEngine(by_seed)
    cache = opened(engine)
    (four,) = cache.complete([ask(n=4)])
    (eight,) = cache.complete([ask(n=8)])
    (three,) = cache.complete([ask(n=3)])
    assert texts(eight)[:4] == texts(four)
    assert texts(three) == texts(four)[:3]
    assert len(set(texts(eight))) == 8
    assert [request.n for request in engine.requests] == [4, 4]


def test_of_an_engine_that_numbers_its_samples_an_answer_does_not_depend_on_earlier_ones(
    opened: Open,
) -> None:
    def losing_third(request: ChatRequest, i: int) -> str | Failure:
        return LOST if i == 2 else by_seed(request, i)

    plain = ScriptedEngine(by_seed)
    opened(ScriptedEngine(losing_third)).complete([ask("one two", n=4)])
    engine = ScriptedEngine(by_seed)
    cache = opened(engine)
    for n in (4, 8, 3):
        assert cache.complete([ask("one two", n=n)]) == plain.complete([ask("one two", n=n)])
    assert [(request.first, request.n) for request in engine.requests] == [(2, 1), (4, 4)]


def test_what_was_asked_and_what_was_on_disk_is_counted(opened: Open) -> None:
    cache = opened(ScriptedEngine(by_seed))
    cache.complete([ask("one two", n=4), ask("three", n=1)])
    before = cache.usage
    assert (before.n_cached, before.n_asked, before.n_prompt_tokens) == (0, 5, 3)
    cache.complete([ask("one two", n=8)])
    since = cache.usage.minus(before)
    assert (since.n_cached, since.n_asked, since.n_prompt_tokens) == (4, 4, 2)
    assert since.n_completion_tokens == 8 * 4  # a text is "one two SEED NUMBER"


def test_samples_without_numbers_are_asked_for_under_another_seed(opened: Open) -> None:
    engine = ScriptedEngine([*"01234567"])
    cache = opened(engine)
    cache.complete([ask(n=4)])
    (eight,) = cache.complete([ask(n=8)])
    assert texts(eight) == [*"01234567"]
    first, second = engine.requests
    assert (first.seed, second.n, second.first) == (0, 4, 0)
    assert second.seed != first.seed


def test_prompt_tokens_are_those_of_the_calls_that_brought_the_samples(opened: Open) -> None:
    cache = opened(ScriptedEngine([*"01234567"]))
    (four,) = cache.complete([ask("one two three", n=4)])
    (eight,) = cache.complete([ask("one two three", n=8)])
    (again,) = cache.complete([ask("one two three", n=8)])
    assert [a.n_prompt_tokens for a in (four, eight, again)] == [3, 6, 6]


def test_uncounted_prompt_tokens_stay_uncounted(opened: Open) -> None:
    class Uncounting(ScriptedEngine):
        def complete(self, requests: Any) -> list[Answer]:
            return [Answer(samples=a.samples) for a in super().complete(requests)]

    cache = opened(Uncounting(["x"]))
    assert [cache.complete([ask()])[0].n_prompt_tokens for _ in range(2)] == [None, None]


def test_failures_are_asked_for_again_and_completions_beside_them_kept(opened: Open) -> None:
    first = opened(ScriptedEngine([LOST, "b", LOST])).complete([ask(n=3)])
    second = opened(ScriptedEngine(["a", LOST])).complete([ask(n=3)])
    third = opened(ScriptedEngine(["c"])).complete([ask(n=3)])
    assert [texts(a) for (a,) in (first, second, third)] == [
        ["LOST", "b", "LOST"],
        ["a", "b", "LOST"],
        ["a", "b", "c"],
    ]


@pytest.mark.parametrize(
    "other",
    [
        ask("hello!"),
        ask(seed=1),
        ask(version="v2"),
        ask(temperature=0.5),
        ask(top_p=0.9),
        ask(max_tokens=7),
        ask(stop=("x",)),
        ask(logprobs=True),
        ask(json_schema={"type": "object"}),
        ask().model_copy(update={"messages": (Message(role="system", content="hello"),)}),
        ask().model_copy(update={"messages": ask().messages * 2}),
    ],
)
def test_whatever_a_completion_depends_on_is_part_of_its_key(
    opened: Open, other: ChatRequest
) -> None:
    cache = opened(ScriptedEngine(["mine", "other"]))
    assert texts(cache.complete([ask()])[0]) == ["mine"]
    assert texts(cache.complete([other])[0]) == ["other"]
    assert texts(cache.complete([ask()])[0]) == ["mine"]


def test_engines_models_and_addresses_do_not_share_answers(opened: Open) -> None:
    def answers(text: str) -> Any:
        return lambda body, n_earlier: says(text)

    engines: list[Engine] = [
        ScriptedEngine(["scripted a"], model="a"),
        ScriptedEngine(["scripted b"], model="b"),
    ]
    with serve(answers("here")) as here, serve(answers("there")) as there:
        engines += [OpenAIEngine("a", server.base_url) for server in (here, there)]
        engines += [OpenAIEngine("a", here.base_url, extra_body={"top_k": 1})]
        caches = [opened(engine) for engine in engines]
        found = [texts(cache.complete([ask()])[0]) for cache in caches]
        again = [texts(cache.complete([ask()])[0]) for cache in caches]
    assert found == again == [["scripted a"], ["scripted b"], ["here"], ["there"], ["here"]]
    assert (len(here.calls), len(there.calls)) == (2, 1)


def test_the_cache_stands_for_the_engine(opened: Open) -> None:
    engine = ScriptedEngine([], model="m", context_window=99, workers=3)
    cache: Engine = opened(engine)
    assert (cache.name, cache.model, cache.workers) == ("scripted", "m", 3)
    assert cache.context_window == 99
    assert cache.count_tokens(ask("one two").messages) == 2


def test_closing_twice_is_harmless_and_closes_the_engine(tmp_path: Path) -> None:
    with serve(lambda body, n: Reply()) as server:
        engine = OpenAIEngine("m", server.base_url)
        cache = CachedEngine(engine, tmp_path / "cache.sqlite")
        cache.close()
        cache.close()
        with pytest.raises(Exception, match="closed"):
            engine.complete([ask()])


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.lists(st.booleans(), min_size=5)),
        max_size=12,
    )
)
def test_a_sample_that_was_given_once_never_changes(
    history: list[tuple[str, int, list[bool]]],
) -> None:
    given_before: dict[tuple[str, int], str] = {}
    with tempfile.TemporaryDirectory() as directory:
        for k, (prompt, n, is_lost) in enumerate(history):
            script = [LOST if lost else f"{k}.{i}" for i, lost in enumerate(is_lost)]
            with closing(CachedEngine(ScriptedEngine(script), f"{directory}/c")) as cache:
                (answer,) = cache.complete([ask(prompt, n=n)])
            assert len(answer.samples) == n
            for i, text in enumerate(texts(answer)):
                assert given_before.get((prompt, i), text) == text
                if text != "LOST":
                    given_before[prompt, i] = text


def test_threads_share_a_cache(opened: Open) -> None:
    cache = opened(ScriptedEngine(by_seed))
    batches = [[ask(f"{k % 4} {i}", n=2) for i in range(20)] for k in range(16)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(cache.complete, batches))
    assert answers == [ScriptedEngine(by_seed).complete(batch) for batch in batches]


def test_of_two_that_ask_for_the_same_the_first_to_store_it_wins(opened: Open) -> None:
    quick = opened(ScriptedEngine(["quick"]))

    def slow(request: ChatRequest, i: int) -> str:
        quick.complete([request])
        return "slow"

    opened(ScriptedEngine(slow)).complete([ask()])
    assert texts(opened(ScriptedEngine([])).complete([ask()])[0]) == ["quick"]


def fill(path: str, first: int) -> list[list[str]]:
    """What one of several processes does: ask in small batches, in an order of its own."""
    requests = [ask(str((first + i) % 60), n=2) for i in range(60)]
    answers = []
    with closing(CachedEngine(ScriptedEngine(by_seed), path)) as cache:
        for start in range(0, 60, 5):
            answers += cache.complete(requests[start : start + 5])
    return sorted(texts(answer) for answer in answers)


def test_processes_share_a_cache(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.sqlite")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        results = pool.starmap(fill, [(path, 0), (path, 20), (path, 40)])
    assert results[0] == results[1] == results[2]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM samples").fetchone() == (120,)


# ---------------------------------------------------------------- files that are no cache


def test_a_file_of_something_else_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary, " * 100)
    with pytest.raises(InputError, match=r"notes\.txt cannot be used as a cache.*delete it or"):
        CachedEngine(ScriptedEngine([]), path)
    assert path.read_text() == "dear diary, " * 100


def test_a_database_of_something_else_is_an_error_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE customers (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(InputError, match="a database of something else"):
        CachedEngine(ScriptedEngine([]), path)
    assert path.read_bytes() == before


def test_a_cache_of_another_version_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    CachedEngine(ScriptedEngine([]), path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="version 99, this pgenrm reads version 1"):
        CachedEngine(ScriptedEngine([]), path)


def test_a_cache_that_was_damaged_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    requests = [ask(str(i), n=8) for i in range(200)]
    with closing(CachedEngine(ScriptedEngine(by_seed), path)) as cache:
        cache.complete(requests)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    path.write_bytes(content)
    with (
        closing(CachedEngine(ScriptedEngine(by_seed), path)) as cache,
        pytest.raises(InputError, match="cannot be used as a cache"),
    ):
        cache.complete(requests)
