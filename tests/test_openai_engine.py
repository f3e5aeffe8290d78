"""The openai engine against real HTTP on loopback, faults included."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.engines.calls import retry_after_s
from pgenrm.engines.openai import OpenAIEngine
from pgenrm.engines.protocol import (
    Answer,
    ChatRequest,
    Completion,
    Engine,
    Sampling,
    StructuredOutput,
)
from pgenrm.engines.wire import Reply as WireReply
from pgenrm.engines.wire import read_reply
from pgenrm.errors import EngineError
from pgenrm.types import Failure, FailureKind, FinishReason, Message
from tests.server import Body, Reply, Script, Server, chat, choice, refuses, says, serve

MakeEngine = Callable[..., OpenAIEngine]


@pytest.fixture
def make_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeEngine]:
    """Engines with short waits that are closed after the test."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    engines = []

    def make(server: Server | str, model: str = "tiny", **options: Any) -> OpenAIEngine:
        base_url = server if isinstance(server, str) else server.base_url
        options = {"backoff_s": 0.01, "timeout_s": 5.0, "max_retries": 3} | options
        engine = OpenAIEngine(model, base_url, **options)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


def ask(text: str = "hello", n: int = 1, seed: int = 0, **sampling: Any) -> ChatRequest:
    messages = (Message(role="system", content="judge"), Message(role="user", content=text))
    return ChatRequest(messages=messages, n=n, seed=seed, sampling=Sampling(**sampling))


def asked(body: Body) -> str:
    """The text of the user's message in the body of a call."""
    return str(body["messages"][-1]["content"])


def echo(body: Body, n_earlier: int) -> Reply:
    """Answer every choice with the prompt and the choice's number."""
    return says(*[f"{asked(body)}/{i}" for i in range(body.get("n", 1))])


def texts(answer: Answer) -> list[str]:
    """The texts of an answer in which nothing failed."""
    assert all(isinstance(s, Completion) for s in answer.samples), answer
    return [s.text for s in answer.samples]


def only_failure(answer: Answer) -> Failure:
    assert len(answer.samples) == 1
    failure = answer.samples[0]
    assert isinstance(failure, Failure)
    if "no content" in failure.reason:  # there was an answer, if an empty one
        is_cut = "finish_reason length" in failure.reason
        assert failure.kind is (FailureKind.TRUNCATED if is_cut else FailureKind.FORMAT)
    else:
        assert failure.kind is FailureKind.REQUEST
    return failure


# ---------------------------------------------------------------- the plain case


def test_every_request_is_answered_once_and_in_order(make_engine: MakeEngine) -> None:
    def slow_first(body: Body, n_earlier: int) -> Reply:
        reply = echo(body, n_earlier)
        return Reply(reply.body, delay_s=0.2 if asked(body) == "q0" else 0.0)

    requests = [ask(f"q{i}", n=1 + i % 3) for i in range(30)]
    with serve(slow_first) as server:
        answers = make_engine(server).complete(requests)
    assert [texts(a) for a in answers] == [
        [f"q{i}/{k}" for k in range(1 + i % 3)] for i in range(30)
    ]
    assert sorted(map(asked, server.calls)) == sorted(f"q{i}" for i in range(30))


def test_an_empty_batch_asks_nothing(make_engine: MakeEngine) -> None:
    with serve(echo) as server:
        assert make_engine(server).complete([]) == []
    assert server.calls == []


def test_the_body_says_what_was_asked(make_engine: MakeEngine) -> None:
    with serve(echo) as server:
        engine = make_engine(server, extra_body={"top_k": 20, "top_p": 0.5})
        engine.complete([ask("q", n=2, temperature=0.7, max_tokens=99, stop=("END",))])
    (body,) = server.calls
    assert 0 <= body.pop("seed") < 2**31
    assert body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "judge"},
            {"role": "user", "content": "q"},
        ],
        "temperature": 0.7,
        "top_p": 0.5,  # extra_body wins
        "max_tokens": 99,
        "n": 2,
        "stop": ["END"],
        "top_k": 20,
    }


def test_the_key_goes_into_the_header_and_a_loopback_server_needs_none(
    make_engine: MakeEngine,
) -> None:
    with serve(echo) as server:
        make_engine(server).complete([ask()])
        make_engine(server, api_key="secret").complete([ask()])
    assert [h["authorization"] for h in server.headers] == ["Bearer none", "Bearer secret"]


def test_finish_reasons_and_tokens_are_reported(make_engine: MakeEngine) -> None:
    def script(body: Body, n_earlier: int) -> Reply:
        reasons = ["stop", "length", "content_filter", "abort"]
        choices = [choice("word " * (i + 1), i, finish_reason=r) for i, r in enumerate(reasons)]
        return chat(*reversed(choices), usage={"prompt_tokens": 12, "completion_tokens": 101})

    with serve(script) as server:
        (answer,) = make_engine(server).complete([ask(n=4)])
    assert texts(answer) == ["word ", "word word ", "word word word ", "word word word word "]
    completions = [s for s in answer.samples if isinstance(s, Completion)]
    assert [c.finish_reason for c in completions] == [
        FinishReason.STOP,
        FinishReason.LENGTH,
        FinishReason.FILTERED,
        FinishReason.OTHER,
    ]
    assert [c.n_tokens for c in completions] == [10, 20, 31, 40]
    assert answer.n_prompt_tokens == 12


def test_tokens_are_none_where_the_server_does_not_count(make_engine: MakeEngine) -> None:
    with serve(lambda body, n: says("hi", usage=None)) as server:
        (answer,) = make_engine(server).complete([ask()])
    assert answer.n_prompt_tokens is None
    assert isinstance(answer.samples[0], Completion)
    assert answer.samples[0].n_tokens is None


def test_logprobs_come_when_asked_for(make_engine: MakeEngine) -> None:
    def script(body: Body, n_earlier: int) -> Reply:
        tokens = [{"token": "Hel", "logprob": -0.5}, {"token": "lo", "logprob": -1.25}]
        logprobs = {"content": tokens} if body.get("logprobs") else None
        return chat(choice("Hello", logprobs=logprobs))

    with serve(script) as server:
        with_them, without = make_engine(server).complete([ask(logprobs=True), ask()])
    assert isinstance(with_them.samples[0], Completion)
    assert with_them.samples[0].logprobs == (("Hel", -0.5), ("lo", -1.25))
    assert isinstance(without.samples[0], Completion)
    assert without.samples[0].logprobs is None


def test_structured_output_constrains_what_stands_between_the_markers(
    make_engine: MakeEngine,
) -> None:
    schema = {"type": "object", "properties": {"rationale": {"type": "string"}}}
    structured = StructuredOutput.STRUCTURAL_TAG
    with serve(echo) as server:
        engine = make_engine(server)
        engine.complete([ask(structured=structured, json_schema=schema)])
        engine.complete([ask()])
    on, off = server.calls
    tags = on["response_format"]["format"]
    assert on["response_format"]["type"] == "structural_tag"
    assert (tags["type"], tags["triggers"]) == ("triggered_tags", ["<JSON_START>"])
    (tag,) = tags["tags"]
    assert (tag["begin"], tag["end"]) == ("<JSON_START>", "<JSON_END>")
    assert tag["content"] == {"type": "json_schema", "json_schema": schema}
    assert "response_format" not in off


# ---------------------------------------------------------------- n samples, seeds


def one_choice_only(body: Body, n_earlier: int) -> Reply:
    """Ignore `n`, as `transformers serve` does."""
    return says(f"{asked(body)}/{body.get('seed')}")


def test_samples_that_a_server_silently_left_out_are_fetched(make_engine: MakeEngine) -> None:
    with serve(one_choice_only) as server:
        (answer,) = make_engine(server).complete([ask(n=8)])
    assert len(set(texts(answer))) == 8
    assert [body.get("n", 1) for body in server.calls] == [8] + [1] * 7
    assert answer.n_prompt_tokens == 8 * 7


def test_the_engine_remembers_that_a_server_gives_one_choice(make_engine: MakeEngine) -> None:
    with serve(one_choice_only) as server:
        engine = make_engine(server)
        engine.complete([ask("first", n=2)])
        server.calls.clear()
        answers = engine.complete([ask(f"q{i}", n=3) for i in range(4)])
    assert [len(a.samples) for a in answers] == [3] * 4
    assert [body.get("n", 1) for body in server.calls] == [1] * 12


def test_a_server_that_caps_n_is_asked_for_as_many_as_it_gives(make_engine: MakeEngine) -> None:
    with serve(lambda body, n: says(*["x", "y", "z"][: body.get("n", 1)])) as server:
        engine = make_engine(server)
        engine.complete([ask(n=8)])
        engine.complete([ask(n=8)])
    assert [body.get("n", 1) for body in server.calls][-3:] == [3, 3, 2]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_rejects_n_is_asked_one_by_one(make_engine: MakeEngine, status: int) -> None:
    def script(body: Body, n_earlier: int) -> Reply:
        return refuses(status) if body.get("n", 1) > 1 else one_choice_only(body, n_earlier)

    with serve(script) as server:
        engine = make_engine(server)
        (answer,) = engine.complete([ask(n=4)])
        engine.complete([ask(n=4)])
    assert len(set(texts(answer))) == 4
    assert [body.get("n", 1) for body in server.calls] == [4] + [1] * 8


def test_a_surplus_choice_is_not_a_sample(make_engine: MakeEngine) -> None:
    with serve(lambda body, n: says("a", "b", "c")) as server:
        (answer,) = make_engine(server).complete([ask(n=2)])
    assert texts(answer) == ["a", "b"]


def test_seeds_differ_between_samples_and_requests_but_not_between_runs(
    make_engine: MakeEngine,
) -> None:
    requests = [ask(n=4, seed=1), ask(n=4, seed=2)]
    with serve(one_choice_only) as server:
        first = make_engine(server, n_per_call=1).complete(requests)
        second = make_engine(server, n_per_call=1).complete(requests[::-1])[::-1]
    assert first == second
    assert len({text for answer in first for text in texts(answer)}) == 8


def test_equal_samples_of_one_call_are_pointed_out(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(lambda body, n: says(*["same"] * body.get("n", 1))) as server:
        engine = make_engine(server)
        engine.complete([ask(n=3, temperature=0.0), ask(n=1)])
        assert caplog.text == ""
        engine.complete([ask(n=3), ask(n=3)])
    assert caplog.text.count("set n_per_call=1") == 1


# ---------------------------------------------------------------- parameters that a server rejects


def test_max_completion_tokens_is_used_where_the_server_wants_it(make_engine: MakeEngine) -> None:
    def script(body: Body, n_earlier: int) -> Reply:
        if "max_tokens" in body:
            return refuses(400, "'max_tokens' is not supported. Use 'max_completion_tokens'.")
        return echo(body, n_earlier)

    with serve(script) as server:
        engine = make_engine(server)
        engine.complete([ask(max_tokens=5)])
        engine.complete([ask(max_tokens=5)])
    assert [b.get("max_completion_tokens") for b in server.calls] == [None, 5, 5]


@pytest.mark.parametrize("name", ["seed", "logprobs"])
def test_a_rejected_parameter_is_left_out_and_named_once_in_the_log(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    def script(body: Body, n_earlier: int) -> Reply:
        detail = [{"loc": ["body", name], "msg": "extra fields not permitted"}]
        return Reply({"detail": detail}, 422) if name in body else echo(body, n_earlier)

    with serve(script) as server:
        engine = make_engine(server, concurrency=1)
        answers = engine.complete([ask(logprobs=True), ask(logprobs=True)])
        answers += engine.complete([ask(), ask(logprobs=True)])
    assert [texts(a) for a in answers] == [["hello/0"]] * 4
    assert len(caplog.records) == 1
    assert f"'{name}'" in caplog.text
    assert name not in server.calls[-1]


def test_a_slow_call_does_not_undo_what_was_found_out_meanwhile(make_engine: MakeEngine) -> None:
    def script(body: Body, n_earlier: int) -> Reply:
        if "logprobs" in body:
            return refuses(400, "logprobs are not supported")
        delay_s = 0.3 if asked(body) == "slow" else 0.0
        return Reply(echo(body, n_earlier).body, delay_s=delay_s)

    with serve(script) as server:
        engine = make_engine(server)
        engine.complete([ask("slow"), ask("quick", logprobs=True)])
        server.calls.clear()
        engine.complete([ask("later", logprobs=True)])
    assert ["logprobs" in body for body in server.calls] == [False]


def test_a_prompt_that_is_rejected_for_itself_teaches_nothing(make_engine: MakeEngine) -> None:
    def script(body: Body, n_earlier: int) -> Reply:
        too_long = "the context is 4096 tokens; lower max_tokens or max_completion_tokens; seed: 3"
        return refuses(400, too_long) if asked(body) == "long" else echo(body, n_earlier)

    with serve(script) as server:
        engine = make_engine(server)
        (answer,) = engine.complete([ask("long", n=2)])
        assert [isinstance(s, Failure) for s in answer.samples] == [True, True]
        assert "status 400" in answer.samples[0].reason  # type: ignore[union-attr]
        assert "4096 tokens" in answer.samples[0].reason  # type: ignore[union-attr]
        server.calls.clear()
        assert texts(engine.complete([ask("short", n=2)])[0]) == ["short/0", "short/1"]
    assert [(b["n"], "seed" in b, "max_tokens" in b) for b in server.calls] == [(2, True, True)]


# ---------------------------------------------------------------- faults


def failing_first(n_faults: int, fault: Reply) -> Script:
    return lambda body, n_earlier: fault if n_earlier < n_faults else echo(body, n_earlier)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_a_passing_fault_costs_nothing(make_engine: MakeEngine, status: int) -> None:
    with serve(failing_first(2, refuses(status))) as server:
        (answer,) = make_engine(server).complete([ask()])
    assert texts(answer) == ["hello/0"]
    assert len(server.calls) == 3


@pytest.mark.parametrize("cut_at", [0, 20])
def test_a_dropped_connection_is_tried_again(make_engine: MakeEngine, cut_at: int) -> None:
    dropped = Reply({"choices": "x" * 100}, cut_at=cut_at)
    with serve(failing_first(2, dropped)) as server:
        (answer,) = make_engine(server).complete([ask()])
    assert texts(answer) == ["hello/0"]


def test_a_lasting_fault_is_a_failure_after_the_last_retry(make_engine: MakeEngine) -> None:
    with serve(lambda body, n: refuses(500, "out of memory")) as server:
        (answer,) = make_engine(server, max_retries=2).complete([ask()])
    failure = only_failure(answer)
    assert "status 500" in failure.reason
    assert "out of memory" in failure.reason
    assert "3 tries" in failure.reason
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    ("headers", "at_least_s"),
    [
        ({"retry_after": "1"}, 1.0),
        ({"retry_after_ms": "300"}, 0.3),
        ({"retry_after": "DATE"}, 0.9),
    ],
)
@pytest.mark.parametrize("status", [429, 500])
def test_retry_after_is_honoured(
    make_engine: MakeEngine, headers: dict[str, str], at_least_s: float, status: int
) -> None:
    if headers.get("retry_after") == "DATE":  # dates have whole seconds: 2 from now is over 0.9
        headers = {"retry_after": format_datetime(datetime.now(UTC) + timedelta(seconds=2))}
    with serve(failing_first(1, refuses(status, **headers))) as server:
        start = time.monotonic()
        (answer,) = make_engine(server).complete([ask()])
    assert texts(answer) == ["hello/0"]
    assert at_least_s <= time.monotonic() - start < at_least_s + 1.5


def test_a_retry_after_of_nothing_does_not_use_up_the_retries_at_once(
    make_engine: MakeEngine,
) -> None:
    with serve(lambda body, n: refuses(429, retry_after="0")) as server:
        start = time.monotonic()
        make_engine(server, max_retries=4, backoff_s=0.05).complete([ask()])
    assert len(server.calls) == 5
    assert time.monotonic() - start >= 0.5 * 0.05 * (1 + 2 + 4 + 8)


def test_a_retry_after_beyond_the_timeout_is_a_failure_at_once(make_engine: MakeEngine) -> None:
    with serve(lambda body, n: refuses(429, retry_after="3600")) as server:
        (answer,) = make_engine(server, timeout_s=5.0).complete([ask()])
    assert "asks to wait 3600 s, longer than timeout_s 5" in only_failure(answer).reason
    assert len(server.calls) == 1


def test_a_server_that_says_not_to_retry_is_believed(make_engine: MakeEngine) -> None:
    with serve(lambda body, n: refuses(429, "no quota", x_should_retry="false")) as server:
        (answer,) = make_engine(server).complete([ask()])
    assert "no quota" in only_failure(answer).reason
    assert len(server.calls) == 1


def test_a_server_that_hangs_is_left_after_the_timeout_and_tried_once_more(
    make_engine: MakeEngine,
) -> None:
    with serve(lambda body, n: Reply(delay_s=60.0)) as server:
        (answer,) = make_engine(server, timeout_s=0.2).complete([ask()])
    assert only_failure(answer).reason == "no answer within 0.2 s (2 tries)"
    assert len(server.calls) == 2


def test_a_server_that_is_down_fails_every_sample_and_loses_none(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    engine = make_engine(base_url, concurrency=2)
    answers = engine.complete([ask(f"q{i}", n=3) for i in range(20)])
    samples = [sample for answer in answers for sample in answer.samples]
    assert len(samples) == 60
    assert all(isinstance(s, Failure) and base_url in s.reason for s in samples)
    assert {answer.n_prompt_tokens for answer in answers} == {0}
    assert caplog.text.count("trying again up to 3 times") == 1


def test_once_a_server_is_known_to_be_down_others_do_not_wait_for_it_again(
    make_engine: MakeEngine,
) -> None:
    with serve(lambda body, n: Reply(cut_at=0)) as server:
        engine = make_engine(server, concurrency=1, max_retries=3)
        engine.complete([ask(f"q{i}") for i in range(10)])
        assert len(server.calls) == 4 + 9
        server.script = failing_first(14, Reply(cut_at=0))
        engine.complete([ask()])  # the 14th call: still down
        engine.complete([ask()])  # answered: up again
        server.script = failing_first(18, Reply(cut_at=0))
        (answer,) = engine.complete([ask()])
    assert texts(answer) == ["hello/0"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (
            Reply(b"<html><body>Gateway</body></html>"),
            "status 200, but no chat completion: '<html>",
        ),
        (Reply(b'{"choices": [{"index": 0, "mess'), 'no chat completion: \'{"choices"'),
        (Reply(b""), "no chat completion: ''"),
        (Reply(b"\xff\xfe\x00"), "no chat completion"),
        (Reply(b'"text"', headers={"content-type": "text/plain"}), "no chat completion"),
        (Reply({"error": {"message": "overloaded"}}), "overloaded"),
        (Reply({"choices": None}), "no chat completion"),
        (Reply({"choices": [{"index": 0}]}), "no chat completion"),
        (chat(), "empty list of choices"),
        (chat(choice(None)), "no content (finish_reason stop)"),
        (chat(choice("")), "no content"),
        (chat(choice(" \n")), "no content"),
        (chat(choice(None, finish_reason="content_filter")), "content_filter"),
        (
            chat(
                choice(
                    None,
                    finish_reason="length",
                    message={"content": None, "reasoning_content": "hmm"},
                )
            ),
            "no content (finish_reason length), only 3 characters of reasoning; raise max_tokens",
        ),
        (chat(choice(None, message={"reasoning": "hmm, well"})), "only 9 characters of reasoning"),
    ],
)
def test_an_answer_that_is_none_is_a_failure_with_its_reason(
    make_engine: MakeEngine, reply: Reply, reason: str
) -> None:
    with serve(lambda body, n: reply) as server:
        (answer,) = make_engine(server).complete([ask()])
    assert reason in only_failure(answer).reason
    assert len(server.calls) == 1


def test_one_empty_choice_does_not_cost_the_others(make_engine: MakeEngine) -> None:
    with serve(lambda body, n: chat(choice("a"), choice(None, 1), choice("c", 2))) as server:
        (answer,) = make_engine(server).complete([ask(n=3)])
    assert [getattr(s, "text", "") for s in answer.samples] == ["a", "", "c"]
    assert isinstance(answer.samples[1], Failure)


def test_content_counts_where_reasoning_comes_too(make_engine: MakeEngine) -> None:
    message = {"content": "so B", "reasoning_content": "A or B?"}
    with serve(lambda body, n: chat(choice(None, message=message))) as server:
        (answer,) = make_engine(server).complete([ask()])
    assert texts(answer) == ["so B"]


def test_a_failing_request_leaves_the_others_alone(make_engine: MakeEngine) -> None:
    def script(body: Body, n_earlier: int) -> Reply:
        return refuses(500) if asked(body) == "q3" else echo(body, n_earlier)

    with serve(script) as server:
        answers = make_engine(server).complete([ask(f"q{i}") for i in range(6)])
    only_failure(answers[3])
    assert [texts(a) for i, a in enumerate(answers) if i != 3] == [
        [f"q{i}/0"] for i in (0, 1, 2, 4, 5)
    ]


# ---------------------------------------------------------------- what the user must change


@pytest.mark.parametrize(
    ("status", "next_step"),
    [(401, "OPENAI_API_KEY"), (403, "may use this model"), (404, "served: tiny-7b, tiny-70b")],
)
def test_a_refusal_of_the_first_call_is_an_error_with_the_next_step(
    make_engine: MakeEngine, status: int, next_step: str
) -> None:
    models = {"data": [{"id": "tiny-7b"}, {"id": "tiny-70b"}]}
    with (
        serve(lambda body, n: refuses(status, "go away"), models) as server,
        pytest.raises(EngineError, match=next_step) as raised,
    ):
        make_engine(server).complete([ask(n=2), ask()])
    assert server.base_url in str(raised.value)
    assert "go away" in str(raised.value)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_after_an_answer_is_a_failure(make_engine: MakeEngine, status: int) -> None:
    with serve(lambda body, n: refuses(status) if n else echo(body, n)) as server:
        engine = make_engine(server)
        engine.complete([ask()])
        (answer,) = engine.complete([ask()])
    assert f"status {status}" in only_failure(answer).reason


def test_options_that_cannot_work_are_errors(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EngineError, match="OPENAI_API_KEY"):
        OpenAIEngine("gpt")
    with pytest.raises(EngineError, match="must begin with http"):
        make_engine("localhost:8000/v1")
    with pytest.raises(EngineError, match="not 0"):
        make_engine("http://localhost:8000/v1", concurrency=0)


def test_without_the_extra_the_import_names_its_install_command() -> None:
    code = (
        "import sys; sys.modules['openai'] = None\n"
        "from pgenrm.errors import MissingExtraError\n"
        "try: import pgenrm.engines.openai\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'pgenrm[openai]'" in done.stdout


# ---------------------------------------------------------------- concurrency


def test_the_bound_on_concurrency_holds_over_all_threads(make_engine: MakeEngine) -> None:
    def script(body: Body, n_earlier: int) -> Reply:
        return Reply(one_choice_only(body, n_earlier).body, delay_s=0.02)

    with serve(script) as server:
        engine = make_engine(server, concurrency=5)
        batches = [[ask(f"b{b}q{i}", n=2) for i in range(6)] for b in range(4)]
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(engine.complete, batches))
    assert server.max_under_way == 5
    for batch, found in zip(batches, answers, strict=True):
        for request, answer in zip(batch, found, strict=True):
            prompt = request.messages[-1].content
            assert [t.split("/")[0] for t in texts(answer)] == [prompt] * 2


def test_calls_are_sent_in_the_order_in_which_they_were_asked_for(make_engine: MakeEngine) -> None:
    with serve(echo) as server:
        make_engine(server, concurrency=1).complete([ask(f"q{i}") for i in range(20)])
    assert list(map(asked, server.calls)) == [f"q{i}" for i in range(20)]


def test_a_request_in_trouble_does_not_hold_up_others(make_engine: MakeEngine) -> None:
    def script(body: Body, n_earlier: int) -> Reply:
        if asked(body) == "bad" and n_earlier == 0:
            return refuses(500, retry_after="1")
        return echo(body, n_earlier)

    with serve(script) as server:
        make_engine(server, concurrency=1).complete([ask("bad"), *[ask("good")] * 5])
    assert list(map(asked, server.calls)) == ["bad", *["good"] * 5, "bad"]


def test_a_busy_server_is_not_met_with_the_next_request(make_engine: MakeEngine) -> None:
    with serve(failing_first(1, refuses(429, retry_after_ms="300"))) as server:
        make_engine(server, concurrency=1).complete([ask("q0"), ask("q1")])
    assert list(map(asked, server.calls)) == ["q0", "q0", "q1"]


def test_a_rate_limit_far_below_the_concurrency_loses_nothing(make_engine: MakeEngine) -> None:
    gate = threading.Semaphore(4)

    def script(body: Body, n_earlier: int) -> Reply:
        if not gate.acquire(blocking=False):
            return refuses(429)
        time.sleep(0.01)
        gate.release()
        return echo(body, n_earlier)

    with serve(script) as server:
        engine = make_engine(server, concurrency=32, max_retries=8, backoff_s=0.02)
        answers = engine.complete([ask(f"q{i}") for i in range(200)])
    assert [texts(a) for a in answers] == [[f"q{i}/0"] for i in range(200)]


# ---------------------------------------------------------------- context window, tokens, closing


@pytest.mark.parametrize(
    ("models", "window"),
    [
        (
            {"data": [{"id": "other", "max_model_len": 1}, {"id": "tiny", "max_model_len": 8192}]},
            8192,
        ),
        ({"data": [{"id": "/path/on/the/server", "max_model_len": 4096}]}, 4096),
        ({"data": [{"id": "tiny", "meta": {"n_ctx": 2048, "n_ctx_train": 131072}}]}, 2048),
        ({"data": [{"id": "tiny", "meta": {"n_ctx_train": 131072}}]}, None),
        ({"data": [{"id": "a", "max_model_len": 1}, {"id": "b", "max_model_len": 2}]}, None),
        ({"data": [{"id": "tiny", "context_length": 32000, "meta": None}]}, 32000),
        ({"data": []}, None),
        ({"data": "none"}, None),
        (None, None),
    ],
)
def test_the_context_window_is_asked_for_once(
    make_engine: MakeEngine, models: Body | None, window: int | None
) -> None:
    with serve(echo, models) as server:
        engine = make_engine(server)
        assert server.n_listings == 0
        assert (engine.context_window, engine.context_window) == (window, window)
    assert server.n_listings == 1


def test_a_given_context_window_is_not_asked_for(make_engine: MakeEngine) -> None:
    with serve(echo, {"data": [{"id": "tiny", "max_model_len": 8192}]}) as server:
        assert make_engine(server, context_window=1000).context_window == 1000
    assert server.n_listings == 0


def test_a_proxy_of_the_environment_is_not_used_for_loopback(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serve(echo) as server:
        (answer,) = make_engine(server).complete([ask()])
    assert texts(answer) == ["hello/0"]


@given(st.text(max_size=200))
def test_tokens_are_estimated_from_bytes(text: str) -> None:
    message = Message(role="user", content=text)
    count = OpenAIEngine.count_tokens(None, [message])  # type: ignore[arg-type]
    assert 3 * (count - 8) >= len(text.encode())
    assert count <= 9 + len(text.encode()) / 3


def test_closing_twice_is_harmless_and_leaves_no_thread(make_engine: MakeEngine) -> None:
    with serve(echo) as server:
        engine = make_engine(server)
        engine.complete([ask()])
        engine.close()
        engine.close()
    assert not any(t.name == "pgenrm-openai" for t in threading.enumerate())
    with pytest.raises(EngineError, match="closed"):
        engine.complete([ask()])


def test_closing_ends_what_is_under_way(make_engine: MakeEngine) -> None:
    with serve(lambda body, n: Reply(delay_s=30.0)) as server, ThreadPoolExecutor(1) as thread:
        engine = make_engine(server, timeout_s=30.0)
        future = thread.submit(engine.complete, [ask()])
        while not server.calls:
            time.sleep(0.01)
        engine.close()
        assert future.exception() is not None


def test_the_cache_identity_tells_servers_and_extra_fields_apart(make_engine: MakeEngine) -> None:
    here = make_engine("http://localhost:1/v1")
    again = make_engine("http://localhost:1/v1")
    there = make_engine("http://localhost:2/v1")
    other = make_engine("http://localhost:1/v1", extra_body={"top_k": 1})
    assert here.cache_identity == again.cache_identity
    assert len({e.cache_identity for e in (here, there, other)}) == 3


def test_the_engine_is_an_engine(make_engine: MakeEngine) -> None:
    engine: Engine = make_engine("http://localhost:1/v1")
    assert engine.workers >= 1


# ---------------------------------------------------------------- pure parts


@given(st.binary(max_size=300))
def test_any_bytes_are_a_reply_or_a_failure(content: bytes) -> None:
    assert isinstance(read_reply(content), WireReply | Failure)


@given(
    st.lists(st.text(max_size=40), min_size=1, max_size=6),
    st.integers(min_value=0, max_value=10_000),
)
def test_the_tokens_of_a_call_are_shared_out_without_remainder(
    contents: list[str], total: int
) -> None:
    choices = [choice(text, i) for i, text in enumerate(contents)]
    usage = {"prompt_tokens": 1, "completion_tokens": total}
    reply = read_reply(json.dumps({"choices": choices, "usage": usage}).encode())
    assert isinstance(reply, WireReply)
    counts = [sample.n_tokens for sample in reply.samples]
    assert sum(n or 0 for n in counts) == total
    assert all(n is not None and n >= 0 for n in counts)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "40", "retry-after": "9"}, 0.04),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(
    headers: dict[str, str], wait_s: float | None
) -> None:
    assert retry_after_s(headers) == wait_s
