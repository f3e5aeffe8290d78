"""The contract of `pgenrm.engines.protocol.Engine` in executable form.

Run it on an engine of your own: make a `Subject` that says what the engine promises, and call
every function in `CHECKS` with it, each with a fresh subject, as `test_engine_conformity.py` does.
A check of a promise that was not made passes at once.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pgenrm.engines.protocol import Answer, ChatRequest, Completion, Engine, Sampling
from pgenrm.types import Failure, FinishReason, Message


@dataclass(frozen=True)
class Subject:
    """An engine and what it promises beyond the protocol."""

    engine: Engine
    repeats: bool = True
    """Equal requests get equal samples, whatever else is in the batch; other seeds get others."""
    counts_tokens: bool = True
    """Every completion says how many tokens it has, every answer how many its prompts had."""
    gives_logprobs: bool = True
    max_tokens: int = 8
    """Length of the completions asked for; small for engines that take long."""
    hopeless: ChatRequest | None = None
    """A request that must fail while others in its batch do not, e.g. one beyond the window."""

    def ask(self, text: str, n: int = 1, seed: int = 0, **sampling: Any) -> ChatRequest:
        return ChatRequest(
            messages=(
                Message(role="system", content="You compare answers."),
                Message(role="user", content=text),
            ),
            n=n,
            seed=seed,
            sampling=Sampling(**({"max_tokens": self.max_tokens} | sampling)),
        )

    def complete(self, *requests: ChatRequest) -> list[Answer]:
        """Ask the engine, and hold what is true of every answer."""
        answers = self.engine.complete(requests)
        assert len(answers) == len(requests)
        for request, answer in zip(requests, answers, strict=True):
            assert isinstance(answer, Answer)
            assert len(answer.samples) == request.n
            for sample in answer.samples:
                if isinstance(sample, Failure):
                    assert sample.reason, "a failure says why"
                else:
                    assert sample.text, "a completion is never an empty string"
        return answers


def texts(answer: Answer) -> list[str]:
    return [sample.text for sample in completions(answer)]


def completions(answer: Answer) -> list[Completion]:
    assert not any(isinstance(sample, Failure) for sample in answer.samples), answer
    return [sample for sample in answer.samples if isinstance(sample, Completion)]


def it_says_what_it_is(subject: Subject) -> None:
    engine = subject.engine
    assert engine.name
    assert engine.model
    assert engine.workers >= 1
    assert engine.context_window is None or engine.context_window > 0


def it_answers_nothing_with_nothing(subject: Subject) -> None:
    assert subject.complete() == []


def every_request_gets_its_n_samples_in_order(subject: Subject) -> None:
    requests = [subject.ask(f"question {i}", n=n) for i, n in enumerate((1, 3, 2, 1))]
    answers = subject.complete(*requests)
    if subject.repeats:
        assert answers == [subject.complete(request)[0] for request in requests]


def an_answer_does_not_depend_on_its_batch(subject: Subject) -> None:
    if not subject.repeats:
        return
    request = subject.ask("the same question", n=2, seed=7)
    others = [subject.ask(f"{'long ' * 5 * i}question {i}", seed=i) for i in range(3)]
    (alone,) = subject.complete(request)
    assert subject.complete(request, *others)[0] == alone
    assert subject.complete(*others, request)[-1] == alone


def samples_and_seeds_differ(subject: Subject) -> None:
    first, second = subject.complete(*[subject.ask("Hm?", n=4, seed=s) for s in (1, 2)])
    assert len(set(texts(first))) > 1, "all samples of a request are equal at temperature 1"
    if subject.repeats:
        assert texts(first) != texts(second), "another seed gives the same samples"


def temperature_zero_is_greedy(subject: Subject) -> None:
    if not subject.repeats:
        return
    first, second = subject.complete(
        *[subject.ask("Hm?", n=2, seed=s, temperature=0.0) for s in (1, 2)]
    )
    assert len({*texts(first), *texts(second)}) == 1


def max_tokens_bounds_a_completion(subject: Subject) -> None:
    (answer,) = subject.complete(subject.ask("Tell me everything.", n=3, max_tokens=2))
    for completion in completions(answer):
        assert completion.n_tokens is None or completion.n_tokens <= 2
        if completion.n_tokens == 2:
            assert completion.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)


def tokens_are_counted(subject: Subject) -> None:
    (answer,) = subject.complete(subject.ask("Count me.", n=2))
    for completion in completions(answer):
        assert completion.n_tokens is None or completion.n_tokens > 0
        assert not subject.counts_tokens or completion.n_tokens is not None
    assert not subject.counts_tokens or (answer.n_prompt_tokens or 0) > 0


def prompt_tokens_are_not_underestimated(subject: Subject) -> None:
    request = subject.ask("How long is this prompt? " * 20)
    (answer,) = subject.complete(request)
    estimate = subject.engine.count_tokens(request.messages)
    assert estimate >= (answer.n_prompt_tokens or 1)
    assert estimate > subject.engine.count_tokens(request.messages[:1]) > 0


def logprobs_come_only_when_asked_for(subject: Subject) -> None:
    asked, not_asked = subject.complete(
        subject.ask("Well?", n=2, logprobs=True), subject.ask("Well?")
    )
    assert all(completion.logprobs is None for completion in completions(not_asked))
    if not subject.gives_logprobs:
        return
    for completion in completions(asked):
        assert completion.logprobs
        assert completion.n_tokens in (None, len(completion.logprobs))
        assert all(value <= 1e-4 for _, value in completion.logprobs), "a probability above 1"


def any_text_is_answered(subject: Subject) -> None:
    prompts = ["", " ", "\x00\x1b[31m", "😀 ß 漢字 \u202eabc", "<|im_end|></s>[INST]", "{{ 1/0 }}"]
    subject.complete(*[subject.ask(text) for text in prompts])


def threads_get_their_own_answers(subject: Subject) -> None:
    batches = [[subject.ask(f"thread {t}, question {i}", n=2) for i in range(2)] for t in range(4)]
    with ThreadPoolExecutor(len(batches)) as threads:
        answers = list(threads.map(lambda batch: subject.complete(*batch), batches))
    if subject.repeats:
        assert answers == [subject.complete(*batch) for batch in batches]


def a_hopeless_request_fails_alone(subject: Subject) -> None:
    if subject.hopeless is None:
        return
    before, lost, after = subject.complete(
        subject.ask("before"), subject.hopeless, subject.ask("after")
    )
    assert all(isinstance(sample, Failure) for sample in lost.samples)
    completions(before)
    completions(after)


def it_can_be_closed_twice(subject: Subject) -> None:
    subject.complete(subject.ask("one last question"))
    subject.engine.close()
    subject.engine.close()


CHECKS: list[Callable[[Subject], None]] = [
    it_says_what_it_is,
    it_answers_nothing_with_nothing,
    every_request_gets_its_n_samples_in_order,
    an_answer_does_not_depend_on_its_batch,
    samples_and_seeds_differ,
    temperature_zero_is_greedy,
    max_tokens_bounds_a_completion,
    tokens_are_counted,
    prompt_tokens_are_not_underestimated,
    logprobs_come_only_when_asked_for,
    any_text_is_answered,
    threads_get_their_own_answers,
    a_hopeless_request_fails_alone,
    it_can_be_closed_twice,
]
