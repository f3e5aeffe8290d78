"""A scriptable OpenAI-compatible server on loopback: real sockets, faults to order.

with serve(lambda body, n_earlier: says("hello")) as server:
    OpenAIEngine("m", server.base_url)
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What the server does with one call."""

    body: bytes | Body = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    """Before anything is sent; ends early when the server stops."""
    cut_at: int | None = None
    """Close the connection after this many bytes of the body; 0 sends nothing at all."""


Script = Callable[[Body, int], Reply]
"""(body of the call, how many calls came before it) -> what to do."""


def choice(text: str | None, index: int = 0, **more: Any) -> Body:
    message = {"role": "assistant", "content": text}
    return {"index": index, "message": message, "finish_reason": "stop"} | more


def chat(*choices: Body, **more: Any) -> Reply:
    """A chat completion with these choices, 7 prompt tokens and 10 tokens per choice."""
    usage = {"prompt_tokens": 7, "completion_tokens": 10 * len(choices)}
    return Reply({"object": "chat.completion", "choices": list(choices), "usage": usage} | more)


def says(*texts: str, **more: Any) -> Reply:
    return chat(*[choice(text, i) for i, text in enumerate(texts)], **more)


def refuses(status: int, message: str = "no", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply({"error": {"message": message}}, status, named)


class Server:
    """Runs while its context lasts; see `serve`."""

    def __init__(self, script: Script, models: Body | None) -> None:
        self.script = script
        self.models = models
        self.calls: list[Body] = []
        """Bodies of all calls, in the order in which they came."""
        self.headers: list[dict[str, str]] = []
        self.max_under_way = 0
        self.n_listings = 0
        self.under_way = 0
        self.lock = Lock()
        self.stopping = Event()
        self.http = _Http(self)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server = server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def do_POST(self) -> None:
        server = self.server.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            n_earlier = len(server.calls)
            server.calls.append(body)
            server.headers.append({k.lower(): v for k, v in self.headers.items()})
            server.under_way += 1
            server.max_under_way = max(server.max_under_way, server.under_way)
        try:
            reply = server.script(body, n_earlier)
            server.stopping.wait(reply.delay_s)
        finally:
            with server.lock:
                server.under_way -= 1
        self._send(reply)

    def do_GET(self) -> None:
        self.server.server.n_listings += 1
        models = self.server.server.models
        self._send(Reply(models) if models is not None else Reply(status=404))

    def _send(self, reply: Reply) -> None:
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        headers = {"content-type": "application/json", "content-length": str(len(content))}
        lines = [f"HTTP/1.1 {reply.status} Status"]
        lines += [f"{name}: {value}" for name, value in (headers | reply.headers).items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        if reply.cut_at is None:
            self.wfile.write(head + content)
            return
        self.close_connection = True
        if reply.cut_at > 0:
            self.wfile.write(head + content[: reply.cut_at])

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def serve(script: Script, models: Body | None = None) -> Iterator[Server]:
    """Serve a script on a free port; `models` answers GET /v1/models, which is 404 without it."""
    server = Server(script, models)
    thread = Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.http.shutdown()
        thread.join()
        server.http.server_close()
