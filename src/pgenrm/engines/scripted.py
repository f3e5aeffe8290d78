"""An engine whose answers are given in advance: for tests, documentation and dry runs."""

import re
from collections.abc import Callable, Iterator, Sequence
from threading import Lock

from pgenrm.engines.protocol import Answer, ChatRequest, Completion
from pgenrm.errors import EngineError
from pgenrm.types import Failure, FinishReason, Message

ScriptedSample = str | Completion | Failure
_Function = Callable[[ChatRequest, int], ScriptedSample]
Script = Sequence[ScriptedSample] | _Function

_TOKEN = re.compile(r"\w+|[^\w\s]")


class ScriptedEngine:
    """Answers from a script.

    A text is given as if a model had written it: it ends before the first stop sequence, and after
    `max_tokens` tokens with finish reason `length`. A token is a word or a punctuation mark.

    Attributes:
        requests: every request so far, in the order of arrival.
    """

    name = "scripted"

    def __init__(
        self,
        script: Script,
        *,
        model: str = "script",
        context_window: int | None = None,
        workers: int = 1,
    ) -> None:
        """Set up the script.

        Args:
            script: either samples, handed out one by one in the order of the requests, or a
                function of a request and the number of the sample (from 0), for answers that do
                not depend on the order of requests.
            model: recorded as the model's name.
            context_window: tokens of prompt and completion together; None is unlimited.
            workers: batches that may be under way at once.
        """
        self.model = model
        self.context_window = context_window
        self.workers = workers
        self.requests: list[ChatRequest] = []
        self.has_numbered_samples = callable(script)
        self._function: _Function = script if callable(script) else self._next
        self._samples: Iterator[ScriptedSample] = iter(() if callable(script) else script)
        self._lock = Lock()

    def complete(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        """Return one answer per request, in order.

        Raises:
            EngineError: the samples of the script are used up.
        """
        with self._lock:
            self.requests.extend(requests)
        return [self._answer(request) for request in requests]

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Count the words and punctuation marks of all messages."""
        return sum(_n_tokens(message.content) for message in messages)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _answer(self, request: ChatRequest) -> Answer:
        samples = [self._function(request, request.first + i) for i in range(request.n)]
        return Answer(
            samples=tuple(_completion(s, request) if isinstance(s, str) else s for s in samples),
            n_prompt_tokens=self.count_tokens(request.messages),
        )

    def _next(self, request: ChatRequest, i: int) -> ScriptedSample:
        with self._lock:
            sample = next(self._samples, None)
        if sample is None:
            raise EngineError(
                f"the script is used up at sample {i + 1} of a request for {request.n}; give more "
                "samples, or a function of the request"
            )
        return sample


def _n_tokens(text: str) -> int:
    return sum(1 for _ in _TOKEN.finditer(text))


def _completion(text: str, request: ChatRequest) -> Completion:
    stops = [text.index(stop) for stop in request.sampling.stop if stop in text]
    text = text[: min(stops, default=len(text))]
    ends = [match.end() for match in _TOKEN.finditer(text)]
    max_tokens = request.sampling.max_tokens
    if len(ends) > max_tokens:
        return Completion(
            text=text[: ends[max_tokens - 1]],
            finish_reason=FinishReason.LENGTH,
            n_tokens=max_tokens,
        )
    return Completion(text=text, finish_reason=FinishReason.STOP, n_tokens=len(ends))
