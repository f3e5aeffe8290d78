"""A disk cache of completions around any engine.

SQLite in WAL mode: several threads and processes of one machine may share a file. Deliberately
left out: expiry and a size limit; delete the file to empty the cache.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from pgenrm.cache_file import LOCK_TIMEOUT_S, prepare
from pgenrm.engines.protocol import Answer, ChatRequest, Completion, Engine
from pgenrm.errors import InputError
from pgenrm.seeding import derive_seed
from pgenrm.types import Failure, FailureKind, Message

SCHEMA_VERSION = 1
"""Of the table and of what a key is made of."""

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS samples (
    key BLOB NOT NULL,
    number INTEGER NOT NULL,
    completion TEXT NOT NULL,
    n_prompt_tokens INTEGER,
    PRIMARY KEY (key, number)
);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class Usage(NamedTuple):
    """What was asked of a cached engine."""

    n_cached: int = 0
    """Samples that were on disk."""
    n_asked: int = 0
    """Samples that the engine was asked for."""
    n_prompt_tokens: int = 0
    """Of all answers, as if nothing had been on disk; what no engine counted is 0."""
    n_completion_tokens: int = 0
    n_lost: int = 0
    """Samples that a request did not bring; none of them is on disk."""

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum."""
        return Usage(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: "Usage") -> "Usage":
        """Return what was asked since the other."""
        return Usage(*(a - b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class _Sample:
    sample: Completion | Failure
    n_prompt_tokens: int | None
    """Of the call that brought it; 0 for its other samples, so that sums are right."""


class CachedEngine:
    """Answers from disk what was answered before, and asks the engine for the rest.

    A completion is stored under the engine's name and model, its `cache_identity` where it has one
    (whatever else its completions depend on: address, adapter, revision), the prompt version, the
    messages, the sampling parameters, the seed, and the number of the sample. A request for 8
    samples therefore reuses those of one for 4. Failures are never stored.

    An engine with `has_numbered_samples` is asked for exactly the numbers that are missing, so that
    an answer does not depend on what was asked before. Any other is asked under a seed of its own,
    lest the stored samples come again.

    Attributes:
        weights_identity: the engine's, or empty.
        usage: what was asked since the cache was opened.
    """

    def __init__(self, engine: Engine, path: str | Path) -> None:
        """Open the cache, or create it.

        Args:
            engine: asked for what is not stored; closed together with the cache.
            path: the cache file.

        Raises:
            InputError: the file is damaged, not a cache, or of another version.
        """
        self.name = engine.name
        self.model = engine.model
        self.workers = engine.workers
        self.path = Path(path)
        self._engine = engine
        self._identity = str(getattr(engine, "cache_identity", ""))
        self.weights_identity = str(getattr(engine, "weights_identity", ""))
        self._is_numbered = bool(getattr(engine, "has_numbered_samples", False))
        self._lock = Lock()
        self.usage = Usage()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._database_errors():
            self._database = sqlite3.connect(
                self.path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                prepare(self._database, self.path, _SCHEMA, SCHEMA_VERSION)
            except BaseException:
                self._database.close()
                raise

    @property
    def context_window(self) -> int | None:
        """As the engine's."""
        return self._engine.context_window

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Count as the engine does."""
        return self._engine.count_tokens(messages)

    def complete(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        """Return one answer per request, in order, as the engine gave it or gives it now.

        Raises:
            EngineError: as the engine's.
            InputError: the cache file was damaged.
        """
        keys = [self._key(request) for request in requests]
        known = self._load(requests, keys)
        asked = [i for i, request in enumerate(requests) if len(known[i]) < request.n]
        wanted = {i: self._wanted(requests[i], known[i]) for i in asked}
        rest = _rest_of_numbered if self._is_numbered else _rest
        fresh = self._engine.complete([rest(requests[i], wanted[i]) for i in asked])
        gained = {
            i: _numbered(answer, wanted[i], bearer=0 if self._is_numbered else None)
            for i, answer in zip(asked, fresh, strict=True)
        }
        self._store([(keys[i], *item) for i in asked for item in gained[i].items()])
        answers = [_answer(gained.get(i, {}) | known[i]) for i in range(len(requests))]
        with self._lock:
            self.usage = self.usage.plus(_usage(answers, n_cached=sum(map(len, known))))
        return answers

    def close(self) -> None:
        """Close the engine and the file."""
        self._engine.close()
        self._database.close()

    def _wanted(self, request: ChatRequest, known: Mapping[int, _Sample]) -> list[int]:
        """Return the numbers that are missing; of numbered samples those in between, too."""
        missing = [number for number in range(request.n) if number not in known]
        return list(range(missing[0], missing[-1] + 1)) if self._is_numbered else missing

    def _key(self, request: ChatRequest) -> bytes:
        asked = request.model_dump(mode="json", exclude={"n", "first"})
        whole = json.dumps([self.name, self.model, self._identity, asked], sort_keys=True)
        return hashlib.blake2b(whole.encode(), digest_size=16).digest()

    def _load(
        self, requests: Sequence[ChatRequest], keys: Sequence[bytes]
    ) -> list[dict[int, _Sample]]:
        query = (
            "SELECT number, completion, n_prompt_tokens FROM samples WHERE key = ? AND number < ?"
        )
        with self._database_errors(), self._lock:
            found = [
                self._database.execute(query, (key, request.n)).fetchall()
                for key, request in zip(keys, requests, strict=True)
            ]
        return [
            {
                number: _Sample(Completion.model_validate_json(text), n_tokens)
                for number, text, n_tokens in rows
            }
            for rows in found
        ]

    def _store(self, samples: Sequence[tuple[bytes, int, _Sample]]) -> None:
        rows = [
            (key, number, s.sample.model_dump_json(), s.n_prompt_tokens)
            for key, number, s in samples
            if isinstance(s.sample, Completion)
        ]
        if not rows:
            return
        with self._database_errors(), self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            # Another process may have been faster; what is stored stays.
            self._database.executemany("INSERT OR IGNORE INTO samples VALUES (?, ?, ?, ?)", rows)

    @contextmanager
    def _database_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self.path} cannot be used as a cache of completions ({error}); delete it or "
                "name another file"
            ) from error


def _rest_of_numbered(request: ChatRequest, numbers: Sequence[int]) -> ChatRequest:
    return request.model_copy(update={"n": len(numbers), "first": numbers[0]})


def _rest(request: ChatRequest, numbers: Sequence[int]) -> ChatRequest:
    """Ask for the samples that are not known, under another seed lest the known ones come again."""
    if len(numbers) == request.n:
        return request
    seed = derive_seed("rest", request.seed, *numbers)
    return request.model_copy(update={"n": len(numbers), "seed": seed})


def _numbered(answer: Answer, numbers: Sequence[int], bearer: int | None) -> dict[int, _Sample]:
    """Give the samples of an answer their numbers, and one of them its prompt tokens.

    Args:
        answer: of the engine.
        numbers: [n_samples].
        bearer: number of the sample that gets the tokens; None takes the first that is kept.
    """
    if bearer is None:
        kept = (
            number
            for number, sample in zip(numbers, answer.samples, strict=True)
            if isinstance(sample, Completion)
        )
        bearer = next(kept, numbers[0])
    counted = answer.n_prompt_tokens is not None
    return {
        number: _Sample(
            sample, answer.n_prompt_tokens if number == bearer else 0 if counted else None
        )
        for number, sample in zip(numbers, answer.samples, strict=True)
    }


def _usage(answers: Sequence[Answer], n_cached: int) -> Usage:
    samples = [sample for answer in answers for sample in answer.samples]
    return Usage(
        n_cached=n_cached,
        n_asked=len(samples) - n_cached,
        n_prompt_tokens=sum(answer.n_prompt_tokens or 0 for answer in answers),
        n_completion_tokens=sum(s.n_tokens or 0 for s in samples if isinstance(s, Completion)),
        n_lost=sum(isinstance(s, Failure) and s.kind is FailureKind.REQUEST for s in samples),
    )


def _answer(samples: Mapping[int, _Sample]) -> Answer:
    counts = [s.n_prompt_tokens for s in samples.values()]
    return Answer(
        samples=tuple(samples[number].sample for number in sorted(samples)),
        n_prompt_tokens=None if None in counts else sum(n or 0 for n in counts),
    )
