"""How much of a server's capacity judging through the `openai` engine uses.

A loopback server in a process of its own has a fixed number of slots; each writes one completion
(a realistic chain) in a fixed time. Work beyond the slots waits in the server's queue, as in real
servers. Efficiency is the time that the server needs when no slot is ever idle, divided by the time
that judging took: prompts, calls, parsing and pooling included. It is measured twice: all samples
of a prompt in one call, and on a server that gives one sample per call.

    python -m benchmarks.engine_throughput [--json]
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from rich.console import Console
from rich.table import Table

from pgenrm.chain import format as format_chain
from pgenrm.engines.openai import OpenAIEngine
from pgenrm.evaluator import Evaluator
from pgenrm.judge import PGenRM
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.seeding import rng
from pgenrm.types import Comparison, Criterion, EvaluationChain, Message, Preference, Rating, User

TEXT = """the user wants a plain answer that names each step and gives one example with numbers
before any warning or list because earlier choices went to short friendly replies"""
CRITERIA = ("Directness", "Worked example", "Warm tone", "Length")


# ---------------------------------------------------------------- material


def prose(n_words: int, *seed: object) -> str:
    return " ".join(str(word) for word in rng(*seed).choice(TEXT.split(), size=n_words))


def comparison(i: int) -> Comparison:
    """Make a comparison with three past choices; its prompt has about 6 kB."""

    def messages(name: str) -> tuple[Message, ...]:
        return (Message(role="user", content=prose(25, name, i)),)

    history = tuple(
        Preference(
            context=messages(f"context {k}"),
            chosen=prose(80, "chosen", i, k),
            rejected=prose(80, "rejected", i, k),
        )
        for k in range(3)
    )
    return Comparison(
        id=f"c{i}",
        user=User(id=f"u{i % 100}", history=history),
        context=messages("query"),
        responses=(prose(120, "first", i), prose(120, "second", i)),
        label=0,
    )


def chain_text(i: int) -> str:
    """Write an evaluation chain of about 1.5 kB for two responses."""
    scores = rng("scores", i).integers(1, 11, size=(2, len(CRITERIA))).tolist()
    return format_chain(
        EvaluationChain(
            preferences=prose(90, "preferences", i),
            criteria=tuple(Criterion(name=name, weight=25) for name in CRITERIA),
            ratings=tuple(
                tuple(Rating(score=s, reason=prose(7, "reason", i, r, s)) for s in row)
                for r, row in enumerate(scores)
            ),
            stated_scores=tuple(sum(row) / len(row) for row in scores),
        )
    )


# ---------------------------------------------------------------- the server


@dataclass
class Call:
    """A call whose completions are being written."""

    connection: asyncio.WriteTransport
    n: int
    n_pending: int


class SlotServer:
    """Writes completions in `n_slots` slots, `latency_s` each; a call with n takes n of them."""

    def __init__(self, n_slots: int, latency_s: float, ignores_n: bool) -> None:
        self.latency_s = latency_s
        self.ignores_n = ignores_n
        self.n_free = n_slots
        self.n_calls = 0
        self.busy_s = 0.0
        self.waiting: deque[Call] = deque()
        self.chains = [chain_text(i) for i in range(64)]

    def take(self, connection: asyncio.WriteTransport, body: dict[str, Any]) -> None:
        """Start the completions of a call, or let them wait for slots."""
        self.n_calls += 1
        n = 1 if self.ignores_n else body.get("n", 1)
        self.waiting.extend([Call(connection, n, n_pending=n)] * n)
        self._fill_slots()

    def _fill_slots(self) -> None:
        while self.n_free and self.waiting:
            self.n_free -= 1
            call = self.waiting.popleft()
            loop = asyncio.get_running_loop()
            loop.call_later(self.latency_s, self._finish, call, loop.time())

    def _finish(self, call: Call, start_s: float) -> None:
        self.busy_s += asyncio.get_running_loop().time() - start_s
        self.n_free += 1
        self._fill_slots()
        call.n_pending -= 1
        if not call.n_pending:
            call.connection.write(self._answer(call.n))

    def _answer(self, n: int) -> bytes:
        texts = [self.chains[(self.n_calls + i) % len(self.chains)] for i in range(n)]
        choices = [
            {"index": i, "message": {"content": text}, "finish_reason": "stop"}
            for i, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 1500, "completion_tokens": 400 * n}
        content = json.dumps({"choices": choices, "usage": usage}).encode()
        head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        return (head % len(content)).encode() + content


async def converse(
    server: SlotServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Read the calls of one connection: as much HTTP as the benchmark needs."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):  # the client hung up
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            server.take(writer.transport, json.loads(await reader.readexactly(length)))
    writer.close()


def serve(pipe: Connection, n_slots: int, latency_s: float, ignores_n: bool) -> None:
    """Serve until something is sent through the pipe, then send back calls and busy slot time."""

    async def run() -> None:
        server = SlotServer(n_slots, latency_s, ignores_n)
        listening = await asyncio.start_server(
            partial(converse, server), "127.0.0.1", 0, backlog=1024
        )
        pipe.send(listening.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        pipe.send((server.n_calls, server.busy_s))

    asyncio.run(run())


# ---------------------------------------------------------------- the measurement


@dataclass(frozen=True)
class Measured:
    """One way of judging."""

    case: str
    n_calls: int
    n_chains: int
    n_failures: int
    ideal_s: float
    measured_s: float
    efficiency: float
    """Ideal over measured time."""
    slots_busy: float
    """Share of the slots' time in which they wrote: what a late server loses is not in it."""
    chains_per_s: float
    client_cpu_ms_per_call: float


def measure(
    case: str,
    judge_with: Callable[[Evaluator], PGenRM],
    comparisons: Iterable[Comparison],
    options: argparse.Namespace,
    *,
    ignores_n: bool = False,
) -> Measured:
    """Judge through a server of its own with the options of `server_options`."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    latency_s = options.latency_ms / 1000
    process = context.Process(target=serve, args=(there, options.slots, latency_s, ignores_n))
    process.start()
    there.close()  # so that a server that dies is noticed here
    engine = OpenAIEngine(
        "benchmark",
        f"http://127.0.0.1:{here.recv()}/v1",
        context_window=32_768,
        concurrency=options.concurrency,
    )
    judge = judge_with(LanguageModelEvaluator(engine))
    n_chains = n_failures = 0
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for judgment in judge.judge(comparisons):
        n_chains += len(judgment.chains)
        n_failures += len(judgment.failures)
    measured_s = time.perf_counter() - start_s
    cpu_s = time.process_time() - start_cpu_s
    engine.close()
    here.send("stop")
    n_calls, busy_s = here.recv()
    process.join()
    ideal_s = math.ceil(n_chains / options.slots) * latency_s
    return Measured(
        case=case,
        n_calls=n_calls,
        n_chains=n_chains,
        n_failures=n_failures,
        ideal_s=round(ideal_s, 3),
        measured_s=round(measured_s, 3),
        efficiency=round(ideal_s / measured_s, 4),
        slots_busy=round(busy_s / options.slots / measured_s, 4),
        chains_per_s=round(n_chains / measured_s, 1),
        client_cpu_ms_per_call=round(1000 * cpu_s / n_calls, 3),
    )


def server_options(description: str, n_comparisons: int) -> argparse.ArgumentParser:
    """Make a parser with the options that every such benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--comparisons", type=int, default=n_comparisons)
    parser.add_argument("--m", type=int, default=8, help="chains per comparison")
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--latency-ms", type=float, default=200.0)
    parser.add_argument("--concurrency", type=int, default=64, help="of the engine")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def report(rows: Sequence[Measured], what: str, options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps({"options": vars(options), "rows": [asdict(row) for row in rows]}))
        return
    table = Table(
        title=f"{options.comparisons} comparisons x {what}, {options.slots} slots of "
        f"{options.latency_ms:g} ms, concurrency {options.concurrency}"
    )
    for name in asdict(rows[0]):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*[str(value) for value in asdict(row).values()])
    Console(width=140).print(table)


def main() -> None:
    options = server_options(str(__doc__).splitlines()[0], 1000).parse_args()
    comparisons = [comparison(i) for i in range(options.comparisons)]

    def own_chains(evaluator: Evaluator) -> PGenRM:
        return PGenRM(evaluator, m=options.m)

    rows = [
        measure("all samples in one call", own_chains, comparisons, options),
        measure("1 sample per call", own_chains, comparisons, options, ignores_n=True),
    ]
    report(rows, f"{options.m} chains", options)


if __name__ == "__main__":
    main()
