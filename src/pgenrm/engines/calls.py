"""Bounded, retried calls to one OpenAI-compatible server.

The official client sends them. Its own retries stay off: they wait while holding a slot, shorten a
long Retry-After, and their first wait cannot be set.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any
from urllib.parse import urlsplit

from pgenrm.engines.wire import served_models, shown
from pgenrm.errors import EngineError, MissingExtraError
from pgenrm.seeding import derive_seed

try:
    import openai
except ImportError as error:
    raise MissingExtraError("openai", "the openai engine") from error

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
LISTING_TIMEOUT_S = 10.0
MAX_BACKOFF_S = 30.0
MAX_TIMEOUTS = 2
N_MODELS_NAMED = 5


class TroubleKind(Enum):
    """What stood in the way of an answer, which decides how a call goes on."""

    REJECTED = auto()
    """The same call would be rejected again: not repeated."""
    FAULT = auto()
    """408, 409, 500 and the like: repeated; the slot is free for other calls during the wait."""
    TIMED_OUT = auto()
    """As `FAULT`, but repeated once only: each try takes the whole time allowed."""
    BUSY = auto()
    """429 or 503: repeated; the slot is kept, so that a busy server is not met by the next call."""
    UNREACHABLE = auto()
    """No connection, or a broken one: as `BUSY`; once a call was given up for it, others are
    tried once only, until one succeeds."""


@dataclass(frozen=True)
class Trouble:
    """A call without an answer, and why."""

    kind: TroubleKind
    reason: str
    status: int | None = None
    retry_after_s: float | None = None


class Calls:
    """Calls to one server; use it on one event loop only."""

    def __init__(
        self,
        base_url: str | None,
        api_key: str,
        *,
        concurrency: int,
        timeout_s: float,
        max_retries: int,
        backoff_s: float,
    ) -> None:
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            max_retries=0,
            timeout=openai.Timeout(None, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            # A proxy named in the environment cannot reach this machine's own loopback address.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not _is_loopback(base_url)),
        )
        self.base_url = str(self._client.base_url)
        self._slots = asyncio.Semaphore(concurrency)  # first come, first served
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._backoff_s = backoff_s
        self._has_answered = False
        self._is_down = False
        self._outage_is_noted = False

    async def post(self, body: dict[str, Any], jitter: int) -> bytes | Trouble:
        """Ask for a chat completion until an answer comes or the call is given up.

        Args:
            body: the JSON body.
            jitter: seeds the random part of the waits.

        Raises:
            EngineError: the server refuses key, model or address and has never answered a call.
        """
        holds_slot = False
        n_retries = n_timeouts = 0
        try:
            while True:
                if not holds_slot:
                    await self._slots.acquire()
                    holds_slot = True
                outcome = await self._attempt(body)
                if isinstance(outcome, bytes):
                    self._has_answered, self._is_down, self._outage_is_noted = True, False, False
                    return outcome
                n_timeouts += outcome.kind is TroubleKind.TIMED_OUT
                if self._gives_up(outcome, n_retries, n_timeouts):
                    tries = f" ({n_retries + 1} tries)" if n_retries else ""
                    return replace(outcome, reason=outcome.reason + tries)
                if outcome.kind not in (TroubleKind.BUSY, TroubleKind.UNREACHABLE):
                    self._slots.release()
                    holds_slot = False
                self._note_outage(outcome)
                await asyncio.sleep(self._wait_s(outcome, n_retries, jitter))
                n_retries += 1
        finally:
            if holds_slot:
                self._slots.release()

    async def models(self) -> object:
        """Return the answer to GET /models, or None where the server gives none."""
        try:
            async with asyncio.timeout(LISTING_TIMEOUT_S):
                return await self._client.get("/models", cast_to=object)
        except (TimeoutError, openai.APIError, ValueError):
            return None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _attempt(self, body: dict[str, Any]) -> bytes | Trouble:
        try:
            async with asyncio.timeout(self._timeout_s):
                # As bytes: the client's own models accept anything and cost a third of the time.
                return await self._client.post("/chat/completions", body=body, cast_to=bytes)
        except TimeoutError:
            return Trouble(TroubleKind.TIMED_OUT, f"no answer within {self._timeout_s:g} s")
        except openai.APIStatusError as error:
            return await self._refusal(error, str(body.get("model")))
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            return Trouble(
                TroubleKind.UNREACHABLE,
                f"connection to {self.base_url} failed: {str(cause) or type(cause).__name__}",
            )

    async def _refusal(self, error: openai.APIStatusError, model: str) -> Trouble:
        status, headers = error.status_code, error.response.headers
        reason = f"status {status}: {shown(error.response.text)}"
        if status in (401, 403, 404) and not self._has_answered:
            raise EngineError(
                f"{self.base_url} answers {reason}; {await self._advice(status, model)}"
            )
        kind = TroubleKind.REJECTED
        if headers.get("x-should-retry") == "false":
            reason += " and says not to retry"
        elif status in (429, 503):
            kind = TroubleKind.BUSY
        elif status in (408, 409) or status >= 500:
            kind = TroubleKind.FAULT
        wait_s = retry_after_s(headers)
        if kind is not TroubleKind.REJECTED and wait_s is not None and wait_s > self._timeout_s:
            kind = TroubleKind.REJECTED
            reason += f" and asks to wait {wait_s:g} s, longer than timeout_s {self._timeout_s:g}"
        return Trouble(kind, reason, status, wait_s)

    async def _advice(self, status: int, model: str) -> str:
        if status != 404:
            return "check api_key or OPENAI_API_KEY, and that it may use this model"
        names = served_models(await self.models())[:N_MODELS_NAMED]
        served = f" (served: {', '.join(names)})" if names else ""
        return f"check the model's name {model!r}{served} and base_url, which mostly ends in /v1"

    def _gives_up(self, trouble: Trouble, n_retries: int, n_timeouts: int) -> bool:
        if trouble.kind is TroubleKind.REJECTED or n_timeouts == MAX_TIMEOUTS:
            return True
        if trouble.kind is TroubleKind.UNREACHABLE:
            self._is_down = self._is_down or n_retries == self._max_retries
            return self._is_down
        return n_retries == self._max_retries

    def _note_outage(self, trouble: Trouble) -> None:
        if trouble.kind is TroubleKind.UNREACHABLE and not self._outage_is_noted:
            self._outage_is_noted = True
            logger.warning("%s; trying again up to %d times", trouble.reason, self._max_retries)

    def _wait_s(self, trouble: Trouble, n_retries: int, jitter: int) -> float:
        spread = derive_seed("backoff", jitter, n_retries) / 2**63
        if trouble.retry_after_s:  # 0 tells nothing about how long a busy server stays busy
            return trouble.retry_after_s + spread * self._backoff_s
        return min(MAX_BACKOFF_S, self._backoff_s * 2.0**n_retries) * (0.5 + 0.5 * spread)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, seconds, or an HTTP date.

    None where it asks for nothing readable.

    >>> retry_after_s({"retry-after": "7"}), retry_after_s({"retry-after-ms": "250"})
    (7.0, 0.25)
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers.get(name, "")) * unit_s)
        except ValueError:
            continue
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _is_loopback(base_url: str | None) -> bool:
    host = urlsplit(base_url or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
