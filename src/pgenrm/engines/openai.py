"""The `openai` engine: any server that speaks OpenAI's chat protocol.

vLLM, SGLang, llama.cpp, `transformers serve`, OpenAI and others. Deliberately left out: streaming,
and other endpoints than chat completions.
"""

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from pgenrm.engines.calls import Calls
from pgenrm.engines.protocol import Answer, ChatRequest, Completion
from pgenrm.engines.wire import Dialect, Reply, body, lost, read_reply, served_window
from pgenrm.errors import EngineError
from pgenrm.seeding import derive_seed
from pgenrm.types import Failure, Message

T = TypeVar("T")

logger = logging.getLogger(__name__)


class OpenAIEngine:
    """Completions from an OpenAI-compatible server.

    At most `concurrency` calls are under way at once, over all threads, first come, first served.
    Calls are repeated after 408, 409, 429, 5xx, a lost connection, and once after a timeout; the
    wait doubles from `backoff_s`, with jitter, or is what the server asks for. `TroubleKind` in
    `calls.py` says which waits keep their slot.

    What a server does not take is found out once: several choices per call, `max_tokens`, `seed`,
    `logprobs`. Whatever is left out for that reason is named in a log warning.
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        concurrency: int = 64,
        timeout_s: float = 600.0,
        max_retries: int = 8,
        backoff_s: float = 0.5,
        context_window: int | None = None,
        n_per_call: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        """Start the engine's thread; nothing is sent yet.

        Args:
            model: name under which the server knows the model.
            base_url: e.g. `http://localhost:8000/v1`; default `OPENAI_BASE_URL`, else OpenAI. For
                a loopback address, proxy settings of the environment are not used.
            api_key: default `OPENAI_API_KEY`; a server of your own mostly needs none.
            concurrency: calls under way at once, 1 to 1000; best a little above the server's slots.
            timeout_s: bound on one call, from sending to the last byte. Also the longest
                Retry-After that is waited for.
            max_retries: how often a call is repeated; the default waits some 70 s in all.
            backoff_s: the first wait.
            context_window: tokens of prompt and completion together; None asks the server.
            n_per_call: samples asked for in one call; None asks for all until the server shows
                that it gives fewer. 1 gives every sample a seed of its own.
            extra_body: further fields of every call, e.g. `{"top_k": 20}`; these win over ours.

        Raises:
            EngineError: no key for OpenAI, or an address or a number that cannot work.
            MissingExtraError: (on import) the extra `openai` is not installed.
        """
        base_url = base_url or os.environ.get("OPENAI_BASE_URL")
        api_key = api_key or os.environ.get("OPENAI_API_KEY") or ("none" if base_url else None)
        if api_key is None:
            raise EngineError("no key for OpenAI: set OPENAI_API_KEY, or give base_url")
        if base_url and not base_url.startswith(("http://", "https://")):
            raise EngineError(f"base_url {base_url!r} must begin with http:// or https://")
        if not 1 <= concurrency <= 1000:
            raise EngineError(f"concurrency must be between 1 and 1000, not {concurrency}")
        self.model = model
        self.workers = max(4, concurrency // 16)  # batches of 16 requests and more fill the slots
        self._given_window = context_window
        self._extra_body = dict(extra_body or {})
        self._n_per_call = n_per_call
        self._dialect = Dialect()
        self._warned: set[str] = set()
        self._calls = Calls(
            base_url,
            api_key,
            concurrency=concurrency,
            timeout_s=timeout_s,
            max_retries=max_retries,
            backoff_s=backoff_s,
        )
        self.base_url = self._calls.base_url
        self._is_closed = False
        self._state = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="pgenrm-openai", daemon=True
        )
        self._thread.start()

    @property
    def cache_identity(self) -> str:
        """What completions depend on beside model and request: the address and `extra_body`."""
        return json.dumps([self.base_url, self._extra_body], sort_keys=True)

    @cached_property
    def context_window(self) -> int | None:
        """Tokens of prompt and completion together, as given or as the server reports.

        The server is asked once, at first use; None when it does not say or cannot be reached.
        """
        if self._given_window is not None:
            return self._given_window
        return served_window(self._run(self._calls.models), self.model)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Estimate the prompt tokens from above: a token per 3 UTF-8 bytes, and 8 per message.

        Current vocabularies take about 4 bytes of English or code per token and about 3 of most
        other scripts. Long runs of digits or symbols can need more tokens than this.
        """
        return sum(8 + -(-len(m.content.encode()) // 3) for m in messages)

    def complete(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        """Return one answer per request, in order.

        Raises:
            EngineError: the server refuses key, model or address before it has answered anything,
                or the engine is closed.
        """
        return self._run(lambda: self._complete(requests))

    def close(self) -> None:
        """End what is under way, close the connections and stop the thread."""
        with self._state:
            if self._is_closed:
                return
            self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with self._state:
            if self._is_closed:
                raise EngineError("this engine is closed; make a new one")
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C must not leave calls under way
            raise

    async def _shut_down(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._calls.close()
        await asyncio.sleep(0)  # lets the transports close their sockets

    async def _complete(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        return list(await asyncio.gather(*[self._answer(request) for request in requests]))

    async def _answer(self, request: ChatRequest) -> Answer:
        replies = await self._replies(request, 0, request.n)
        counts = [r.n_prompt_tokens for r in replies]
        return Answer(
            samples=tuple(sample for reply in replies for sample in reply.samples),
            n_prompt_tokens=None if None in counts else sum(n or 0 for n in counts),
        )

    async def _replies(self, request: ChatRequest, first: int, n: int) -> list[Reply]:
        """Ask for n samples from number `first` on, in as many calls as the server needs."""
        step = self._n_per_call or n
        calls = [
            self._ask(request, start, min(step, first + n - start))
            for start in range(first, first + n, step)
        ]
        return [reply for replies in await asyncio.gather(*calls) for reply in replies]

    async def _ask(self, request: ChatRequest, first: int, n: int) -> list[Reply]:
        """Ask for n samples in one call, and in further calls for those that did not come."""
        reply = await self._negotiate(request, first, n)
        if isinstance(reply, Failure):
            return [Reply(samples=(reply,) * n, n_prompt_tokens=0)]
        samples = reply.samples[:n]
        if request.sampling.temperature > 0:
            self._warn_if_equal(samples)
        if len(samples) == n:
            return [Reply(samples, reply.n_prompt_tokens)]
        self._n_per_call = len(samples)
        logger.info("%s gives %d samples per call", self.base_url, len(samples))
        rest = await self._replies(request, first + len(samples), n - len(samples))
        return [Reply(samples, reply.n_prompt_tokens), *rest]

    async def _negotiate(self, request: ChatRequest, first: int, n: int) -> Reply | Failure:
        """Call; when the server rejects a parameter, call without it and remember what helped.

        A prompt that is rejected for another reason costs a few short calls and teaches nothing.
        """
        dialect = known = self._dialect
        while True:
            fields = body(self.model, request, dialect, first, n, self._extra_body)
            outcome = await self._calls.post(fields, jitter=derive_seed(request.seed, first))
            if isinstance(outcome, bytes):
                if dialect != known:
                    self._learn(dialect)
                return read_reply(outcome)
            narrowed = dialect.narrowed(outcome.reason)
            if outcome.status not in (400, 422) or (narrowed is None and n == 1):
                return lost(outcome.reason)
            dialect, n = (narrowed, n) if narrowed else (dialect, 1)

    def _learn(self, dialect: Dialect) -> None:
        self._dialect = dialect
        if not dialect.takes_seed:
            self._warn_once("rejects 'seed': it is left out, and samples cannot be repeated")
        if not dialect.takes_logprobs:
            self._warn_once("rejects 'logprobs': they are left out")

    def _warn_if_equal(self, samples: Sequence[Completion | Failure]) -> None:
        texts = {sample.text for sample in samples}
        if len(samples) > 1 and len(texts) == 1 and "" not in texts:
            self._warn_once(
                "gave equal samples in one call; if it uses one seed for all, set n_per_call=1"
            )

    def _warn_once(self, what: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            logger.warning("%s %s", self.base_url, what)
