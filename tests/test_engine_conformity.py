"""All our engines keep the contract of the protocol."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from pgenrm.engines.cached import CachedEngine
from pgenrm.engines.openai import OpenAIEngine
from pgenrm.engines.protocol import Answer, ChatRequest, Completion, Sampling
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.errors import EngineError
from pgenrm.seeding import rng
from pgenrm.types import Failure, FailureKind, FinishReason, Message
from tests import engine_conformity as conformity
from tests.engine_conformity import CHECKS, Subject
from tests.server import Body, Reply, chat, choice, refuses, serve

WORDS = ("so", "well", "then", "yes", "no", "but", "why", "who", "it", "is", "not", "quite")
HOPELESS = ChatRequest(messages=(Message(role="user", content="HOPELESS"),), n=2)


def babble(prompt: str, temperature: float, seed: int, i: int) -> list[str]:
    """What a small model would write: noise that the seed decides, unless it is greedy."""
    drawn_by = (seed, i) if temperature > 0 else ()
    generator = rng(prompt, *drawn_by)
    return [str(word) for word in generator.choice(WORDS, size=int(generator.integers(3, 20)))]


def script(request: ChatRequest, i: int) -> str | Failure:
    prompt = request.messages[-1].content
    if prompt == "HOPELESS":
        return Failure(kind=FailureKind.REQUEST, reason="hopeless")
    return " ".join(babble(prompt, request.sampling.temperature, request.seed, i))


def model_server(body: Body, n_earlier: int) -> Reply:
    """Answer as a server with a model does, `n`, `seed`, `max_tokens` and `logprobs` included."""
    prompt = body["messages"][-1]["content"]
    if prompt == "HOPELESS":
        return refuses(400, "the prompt is too long")
    choices, n_tokens = [], 0
    for i in range(body.get("n", 1)):
        words = babble(prompt, body["temperature"], body["seed"], i)
        kept = words[: body["max_tokens"]]
        logprobs = {"content": [{"token": word, "logprob": -1.0} for word in kept]}
        choices.append(
            choice(
                " ".join(kept),
                i,
                finish_reason="stop" if kept == words else "length",
                logprobs=logprobs if body.get("logprobs") else None,
            )
        )
        n_tokens += len(kept)
    n_prompt_tokens = sum(len(m["content"].split()) + 4 for m in body["messages"])
    return chat(*choices, usage={"prompt_tokens": n_prompt_tokens, "completion_tokens": n_tokens})


def one_at_a_time(body: Body, n_earlier: int) -> Reply:
    """Ignore `n`, as some servers do."""
    return model_server(body | {"n": 1}, n_earlier)


@contextmanager
def scripted(tmp_path: Path) -> Iterator[Subject]:
    yield Subject(ScriptedEngine(script), gives_logprobs=False, hopeless=HOPELESS)


@contextmanager
def cached(tmp_path: Path) -> Iterator[Subject]:
    engine = CachedEngine(ScriptedEngine(script), tmp_path / "cache.sqlite")
    yield Subject(engine, gives_logprobs=False, hopeless=HOPELESS)


@contextmanager
def openai(tmp_path: Path) -> Iterator[Subject]:
    with serve(model_server) as server:
        yield Subject(OpenAIEngine("babble", server.base_url), hopeless=HOPELESS)


@contextmanager
def openai_one_at_a_time(tmp_path: Path) -> Iterator[Subject]:
    with serve(one_at_a_time) as server:
        yield Subject(OpenAIEngine("babble", server.base_url, n_per_call=1), hopeless=HOPELESS)


@contextmanager
def local(tmp_path: Path) -> Iterator[Subject]:
    from pgenrm.engines.local import LocalEngine
    from tests.tiny_llama import CONTEXT_WINDOW, make_tiny_llama

    long = Message(role="user", content="word " * CONTEXT_WINDOW)
    engine = LocalEngine(make_tiny_llama(tmp_path / "tiny"), device="cpu")
    yield Subject(engine, hopeless=ChatRequest(messages=(long,), n=2))


@contextmanager
def nano(tmp_path: Path) -> Iterator[Subject]:
    from pgenrm.engines.nano import NanoEngine
    from pgenrm.nano.tokenizer import CONTEXT_TOKENS
    from tests.nano_checkpoint import make_nano_checkpoint

    long = Message(role="user", content="x" * CONTEXT_TOKENS)
    engine = NanoEngine(make_nano_checkpoint(tmp_path / "nano"), warn=lambda text: None)
    yield Subject(engine, hopeless=ChatRequest(messages=(long,), n=2))


SUBJECTS = [
    scripted,
    cached,
    openai,
    openai_one_at_a_time,
    pytest.param(local, marks=pytest.mark.local),
    pytest.param(nano, marks=pytest.mark.local),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", SUBJECTS, ids=lambda make: make.__name__)
def test_it_keeps_the_contract(
    make: Callable[[Path], AbstractContextManager[Subject]],
    check: Callable[[Subject], None],
    tmp_path: Path,
) -> None:
    with make(tmp_path) as subject:
        try:
            check(subject)
        finally:
            subject.engine.close()


class Broken(ScriptedEngine):
    """A scripted engine that breaks the contract in one way."""

    def __init__(self, flaw: str) -> None:
        super().__init__(script)
        self.flaw = flaw
        self.n_batches = 0

    def complete(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        self.n_batches += 1
        if self.flaw == "ignores seeds":
            requests = [r.model_copy(update={"seed": 0}) for r in requests]
        if self.flaw == "is never greedy":
            hot = Sampling(temperature=1.0)
            requests = [r.model_copy(update={"sampling": hot}) for r in requests]
        if self.flaw == "seeds by batch":
            requests = [r.model_copy(update={"seed": self.n_batches}) for r in requests]
        if self.flaw == "raises" and HOPELESS in requests:
            raise EngineError("one request failed")
        answers = super().complete(requests)
        if self.flaw == "loses an answer":
            return answers[1:]
        if self.flaw == "mixes up the order":
            return answers[::-1]
        if self.flaw == "loses a sample":
            return [Answer(samples=a.samples[:1], n_prompt_tokens=1) for a in answers]
        if self.flaw == "gives empty texts":
            empty = Completion(text="", finish_reason=FinishReason.STOP)
            return [Answer(samples=(empty,) * len(a.samples)) for a in answers]
        if self.flaw == "underestimates prompts":
            return [Answer(samples=a.samples, n_prompt_tokens=9999) for a in answers]
        return answers


@pytest.mark.parametrize(
    ("flaw", "check"),
    [
        ("loses an answer", conformity.every_request_gets_its_n_samples_in_order),
        ("mixes up the order", conformity.every_request_gets_its_n_samples_in_order),
        ("loses a sample", conformity.every_request_gets_its_n_samples_in_order),
        ("gives empty texts", conformity.tokens_are_counted),
        ("ignores seeds", conformity.samples_and_seeds_differ),
        ("seeds by batch", conformity.an_answer_does_not_depend_on_its_batch),
        ("is never greedy", conformity.temperature_zero_is_greedy),
        ("underestimates prompts", conformity.prompt_tokens_are_not_underestimated),
        ("raises", conformity.a_hopeless_request_fails_alone),
    ],
)
def test_a_broken_engine_is_found_out(flaw: str, check: Callable[[Subject], None]) -> None:
    sound, broken = (
        Subject(Broken(f), gives_logprobs=False, hopeless=HOPELESS) for f in ("none", flaw)
    )
    check(sound)
    with pytest.raises((AssertionError, EngineError)):
        check(broken)
