"""The openai engine against a real server of models: `transformers serve` with a tiny Llama.

That server answers 200 to `n` and gives one choice, which is what makes it worth a test.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from pgenrm.engines.openai import OpenAIEngine
from pgenrm.engines.protocol import ChatRequest, Completion, Sampling
from pgenrm.judge import PGenRM
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.types import FailureKind, FinishReason, Message, Outcome
from tests.cases import comparison
from tests.tiny_llama import make_tiny_llama

pytestmark = [pytest.mark.local, pytest.mark.slow]

START_TIMEOUT_S = 180.0
"""It takes 10 to 15 s on an idle machine."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def wait_until_healthy(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        if is_healthy(port):
            return
        time.sleep(0.2)
    pytest.fail(f"transformers serve did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAIEngine]:
    """An engine whose server runs as long as the tests of this module."""
    work = tmp_path_factory.mktemp("serve")
    model, log, port = make_tiny_llama(work / "tiny"), work / "log.txt", free_port()
    (work / "hub").mkdir()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(work / "hub")},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until_healthy(port, server, log)
            # One call at a time: the server has one random state, set by whatever call came last.
            engine = OpenAIEngine(str(model), f"http://127.0.0.1:{port}/v1", concurrency=1)
            yield engine
            engine.close()
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def ask(text: str, n: int, **sampling: float) -> ChatRequest:
    return ChatRequest(
        messages=(Message(role="system", content="Judge."), Message(role="user", content=text)),
        n=n,
        sampling=Sampling.model_validate({"max_tokens": 12} | sampling),
    )


def test_all_samples_come_from_a_server_that_ignores_n(engine: OpenAIEngine) -> None:
    answers = engine.complete([ask("Which is better?", n=4), ask("And now?", n=1)])
    assert [len(answer.samples) for answer in answers] == [4, 1]
    texts = set()
    for answer in answers:
        assert (answer.n_prompt_tokens or 0) > 0
        for sample in answer.samples:
            assert isinstance(sample, Completion), sample
            assert 0 < (sample.n_tokens or 0) <= 12
            assert sample.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
            texts.add(sample.text)
    assert len(texts) == 5, "one seed was used for several samples"


def test_temperature_zero_is_greedy_there_too(engine: OpenAIEngine) -> None:
    (answer,) = engine.complete([ask("Which is better?", n=3, temperature=0)])
    assert len({sample.text for sample in answer.samples}) == 1


def test_a_comparison_is_judged_and_no_chain_is_lost(engine: OpenAIEngine) -> None:
    evaluator = LanguageModelEvaluator(engine, sampling=Sampling(max_tokens=16))
    judgment = PGenRM(evaluator, m=4).judge_one(comparison())
    assert judgment.outcome is Outcome.UNSCORED, "a random model wrote a chain"
    assert len(judgment.failures) == 4
    for failed in judgment.failures:
        assert failed.failure.kind in (FailureKind.TRUNCATED, FailureKind.FORMAT), failed
        assert failed.failure.text
    assert 0 < judgment.n_completion_tokens <= 64
