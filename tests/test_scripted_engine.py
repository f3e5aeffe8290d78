"""The scripted engine: answers as given, in order, counted by its rule."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pgenrm.engines.protocol import ChatRequest, Completion, Engine, Sampling
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.errors import EngineError
from pgenrm.types import Failure, FailureKind, FinishReason, Message

DOWN = Failure(kind=FailureKind.REQUEST, reason="server down")


def ask(text: str = "Hello?", n: int = 1, sampling: Sampling | None = None) -> ChatRequest:
    return ChatRequest(
        messages=(Message(role="user", content=text),), n=n, sampling=sampling or Sampling()
    )


def test_samples_are_handed_out_in_the_order_of_the_requests() -> None:
    engine: Engine = ScriptedEngine(["a", DOWN, "b c!"])
    first, second = engine.complete([ask(n=2), ask()])
    assert first.samples[0] == Completion(text="a", finish_reason=FinishReason.STOP, n_tokens=1)
    assert first.samples[1] == DOWN
    assert second.samples[0] == Completion(text="b c!", finish_reason=FinishReason.STOP, n_tokens=3)


def test_a_function_sees_the_request_and_the_number_of_the_sample() -> None:
    engine = ScriptedEngine(lambda request, i: f"{request.messages[-1].content} {i}")
    (answer,) = engine.complete([ask("Who?", n=3)])
    texts = [s.text for s in answer.samples if isinstance(s, Completion)]
    assert texts == ["Who? 0", "Who? 1", "Who? 2"]


def test_a_used_up_script_says_where_and_what_to_do() -> None:
    engine = ScriptedEngine(["one", "two"])
    with pytest.raises(
        EngineError, match="used up at sample 2 of a request for 2; give more samples"
    ):
        engine.complete([ask(), ask(n=2)])


def test_a_text_ends_at_max_tokens_and_before_a_stop_sequence() -> None:
    engine = ScriptedEngine(lambda *_: "One, two <END> three")
    (cut,) = engine.complete([ask(sampling=Sampling(max_tokens=3))])
    assert cut.samples[0] == Completion(
        text="One, two", finish_reason=FinishReason.LENGTH, n_tokens=3
    )
    (stopped,) = engine.complete([ask(sampling=Sampling(stop=("<END>", "three")))])
    assert stopped.samples[0] == Completion(
        text="One, two ", finish_reason=FinishReason.STOP, n_tokens=3
    )


def test_a_completion_is_given_as_it_is() -> None:
    completion = Completion(text="half a ch", finish_reason=FinishReason.LENGTH, n_tokens=None)
    (answer,) = ScriptedEngine([completion]).complete([ask()])
    assert answer.samples == (completion,)


def test_requests_are_recorded_and_tokens_counted() -> None:
    engine = ScriptedEngine(["a"], model="m", context_window=100, workers=2)
    (answer,) = engine.complete([ask("Two words, please.")])
    assert engine.requests == [ask("Two words, please.")]
    assert answer.n_prompt_tokens == engine.count_tokens(ask("Two words, please.").messages) == 5
    assert (engine.name, engine.model) == ("scripted", "m")
    assert (engine.context_window, engine.workers) == (100, 2)


def test_threads_share_a_script_without_loss_or_repetition() -> None:
    engine = ScriptedEngine([str(i) for i in range(200)])
    with ThreadPoolExecutor(8) as pool:
        batches = pool.map(lambda _: engine.complete([ask(n=2), ask(n=3)]), range(40))
        samples = [s for batch in batches for answer in batch for s in answer.samples]
    assert sorted(int(s.text) for s in samples if isinstance(s, Completion)) == list(range(200))


def test_closing_twice_is_harmless() -> None:
    engine = ScriptedEngine([])
    engine.close()
    engine.close()
