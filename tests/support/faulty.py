"""A real HTTP server on loopback that serves a WSGI app and misbehaves on demand."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import struct
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from wsgiref.types import WSGIApplication

__all__ = [
    "Answer",
    "Exchange",
    "Fault",
    "FaultyServer",
    "Gate",
    "Rule",
    "Seen",
    "drip",
    "endless_body",
    "garbage",
    "gate",
    "hang",
    "late_work",
    "latency",
    "reset_after_work",
    "reset_before_work",
    "status",
    "wrong_json",
]

JOIN_SECONDS = 2.0
TICK_SECONDS = 0.005
RST_ON_CLOSE = struct.pack("ii", 1, 0)
JSON_TYPE = {"content-type": "application/json"}
ANY = ("*", "")


@dataclass(frozen=True)
class Seen:
    """A request as it arrived; header names are in lower case, `body_json` is None where it is not JSON."""

    method: str
    path: str
    query: str
    body_json: Any
    at_monotonic: float
    headers: Mapping[str, str]

    def is_for(self, method: str, path: str) -> bool:
        """Whether it has this method ("*" for any) and a path in which the regex is found."""
        return method in ("*", self.method) and re.search(path, self.path) is not None


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer; header names are in lower case."""

    code: int
    headers: Mapping[str, str]
    body: bytes = b""

    def head(self) -> bytes:
        """The bytes up to the body, with a Content-Length where the answer must have one."""
        known = self.code in set(HTTPStatus)
        lines = [f"HTTP/1.1 {self.code} {HTTPStatus(self.code).phrase if known else 'Unknown'}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.code not in (204, 304) and "content-length" not in self.headers:
            lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass(frozen=True)
class Gate:
    """Two events that hold a request: the server sets `arrived`, then waits for `proceed`."""

    arrived: threading.Event = field(default_factory=threading.Event)
    proceed: threading.Event = field(default_factory=threading.Event)


class _StoppedError(Exception):
    """The server stops: the request at hand is dropped."""


class Exchange:
    """One request on its way through the faults, and all that a fault may do with it."""

    def __init__(
        self,
        handler: BaseHTTPRequestHandler,
        run_app: Callable[[], Answer],
        stopping: threading.Event,
        released: threading.Event,
    ) -> None:
        self.released = released
        self._handler = handler
        self._run_app = run_app
        self._stopping = stopping
        self._answer: Answer | None = None

    def work(self) -> Answer:
        """Run the wrapped app, once however often it is asked for, and give its answer."""
        if self._answer is None:
            self._answer = self._run_app()
        return self._answer

    def reply(self, answer: Answer) -> None:
        """Send a whole answer; the connection lives on unless one side said otherwise."""
        if answer.headers.get("connection", "").lower() == "close":
            self.drop()
        self.send(answer.head() + (b"" if self._handler.command == "HEAD" else answer.body))

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self._handler.connection.sendall(data)

    def drop(self) -> None:
        """Have the connection closed when the fault has been played."""
        self._handler.close_connection = True

    def reset(self) -> None:
        """Have the connection closed with a TCP reset when the fault has been played."""
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        self.drop()

    def pause(self, seconds: float) -> None:
        """Let this time pass; the request is dropped when the server stops meanwhile."""
        if self._stopping.wait(seconds):
            raise _StoppedError

    def wait(self, event: threading.Event) -> None:
        """Wait for an event; the request is dropped when the server stops meanwhile."""
        while not event.wait(TICK_SECONDS):
            self.pause(0)


@dataclass(frozen=True)
class Fault:
    """What happens to a request: with `after_work` once the app has run, with `ends` in place of its answer."""

    name: str
    play: Callable[[Exchange], None] = field(repr=False)
    after_work: bool = False
    ends: bool = True


def latency(seconds: float, *, after_work: bool = False) -> Fault:
    """Wait, then go on; with `after_work` the app runs at once and only its answer is late."""
    return Fault("latency", lambda exchange: exchange.pause(seconds), after_work, ends=False)


def late_work(delay: float) -> Fault:
    """Nothing for `delay` seconds, and only then the work and the answer, even if the client has gone."""

    def play(exchange: Exchange) -> None:
        exchange.pause(delay)
        exchange.reply(exchange.work())

    return Fault("late_work", play)


def gate(held_by: Gate, *, after_work: bool = False) -> Fault:
    """Hold the request, or with `after_work` the answer, until the gate lets it proceed."""

    def play(exchange: Exchange) -> None:
        held_by.arrived.set()
        exchange.wait(held_by.proceed)

    return Fault("gate", play, after_work, ends=False)


def hang(*, until_released: bool = True, after_work: bool = False) -> Fault:
    """Never answer; `FaultyServer.release()` closes the connection, or else only the server's end does."""

    def play(exchange: Exchange) -> None:
        exchange.wait(exchange.released if until_released else threading.Event())
        exchange.drop()

    return Fault("hang", play, after_work)


def reset_before_work() -> Fault:
    """Reset the connection; the app never hears of the request."""
    return Fault("reset_before_work", Exchange.reset)


def reset_after_work() -> Fault:
    """Run the app, drop its answer and reset the connection."""
    return Fault("reset_after_work", Exchange.reset, after_work=True)


def status(
    code: int,
    headers: Mapping[str, str] | None = None,
    body: bytes = b'{"detail": "an injected fault"}',
    *,
    after_work: bool = False,
) -> Fault:
    """Answer with this status; the connection lives on unless `headers` hold `Connection: close`."""
    answer = Answer(code, JSON_TYPE | {name.lower(): value for name, value in (headers or {}).items()}, body)
    return Fault(f"status {code}", lambda exchange: exchange.reply(answer), after_work)


def garbage(body: bytes = b"<html>\xff\x00 this is not JSON", *, after_work: bool = False) -> Fault:
    """Answer 200 with a body that is called JSON and is not, nor UTF-8 unless `body` is."""
    return replace(status(200, body=body, after_work=after_work), name="garbage")


def wrong_json(body: bytes = b'{"unexpected": true}', *, after_work: bool = False) -> Fault:
    """Answer 200 with good JSON of a shape that nobody asked for."""
    return replace(status(200, body=body, after_work=after_work), name="wrong_json")


def drip(interval: float, part: Literal["headers", "body"] = "body") -> Fault:
    """Serve the request, but send this part of the answer a byte at a time."""

    def play(exchange: Exchange) -> None:
        head, body = exchange.work().head(), exchange.work().body
        at_once, slowly, rest = (b"", head, body) if part == "headers" else (head, body, b"")
        exchange.send(at_once)
        for byte in slowly:
            exchange.send(bytes([byte]))
            exchange.pause(interval)
        exchange.send(rest)

    return Fault("drip", play)


def endless_body(interval: float = 0.01, *, after_work: bool = False) -> Fault:
    """Answer 200 with a body that never ends: one KiB every `interval` seconds."""

    def play(exchange: Exchange) -> None:
        exchange.send(Answer(200, JSON_TYPE | {"content-length": str(2**50)}).head() + b'{"text": "')
        while True:
            exchange.send(b"a" * 1024)
            exchange.pause(interval)

    return Fault("endless_body", play, after_work)


@dataclass
class Rule:
    """Which requests meet which fault; `used` counts those that did."""

    matches: Callable[[Seen], bool]
    fault: Fault
    times: int | None
    used: int = 0

    def takes(self, seen: Seen) -> bool:
        """Whether the rule still applies, and to this request."""
        return (self.times is None or self.used < self.times) and self.matches(seen)


class FaultyServer:
    """Serves `app` on 127.0.0.1, over HTTP/1.1 with keep-alive, as a context manager.

    A request is recorded when it has arrived whole. It then meets the faults of all rules that match it, in the
    order the rules were made, up to the first fault that ends it. An app that streams is read to its end before
    anything is sent. An exception from the app is a 500 to the client, and is raised in the handler's thread for
    the test runner to see.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = httpx.WSGITransport(app)
        self._changed = threading.Condition()
        self._rules: list[Rule] = []
        self._requests: list[Seen] = []
        self._connections = 0
        self._busy = 0
        self._stopping = threading.Event()
        self._released = threading.Event()
        self._listener: _Listener | None = None
        self._acceptor: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._listener = _Listener(self, port=0)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        with self._changed:
            state = "serving" if self._acceptor else "stopped"
            return f"<FaultyServer [{state} | {len(self._requests)} seen, {self._busy} in flight]>"

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end; it stays the same over `stop()` and `start()`."""
        return f"http://127.0.0.1:{self._bound().port}"

    @property
    def requests(self) -> list[Seen]:
        """What has arrived so far, oldest first."""
        with self._changed:
            return list(self._requests)

    @property
    def connections(self) -> int:
        """How many connections have been opened."""
        with self._changed:
            return self._connections

    def count(self, method: str = "*", path: str = "") -> int:
        """How many requests arrived with this method ("*" for any) and a path in which the regex is found."""
        return sum(seen.is_for(method, path) for seen in self.requests)

    def clear(self) -> None:
        """Forget the requests and connections so far; the rules stay."""
        with self._changed:
            self._requests.clear()
            self._connections = 0

    def rule(
        self, *, match: tuple[str, str] | Callable[[Seen], bool] = ANY, fault: Fault, times: int | None = None
    ) -> Rule:
        """Put a fault in, for `times` requests or until `heal()`.

        Args:
            match: a method ("*" for any) and a regex to be found in the path, or a predicate.
            fault: what happens to the requests that match.
            times: to how many of them, None for all.
        """
        rule = Rule(match if callable(match) else lambda seen: seen.is_for(*match), fault, times)
        with self._changed:
            self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """Take all rules out; requests that are held or hang already stay so."""
        with self._changed:
            self._rules.clear()

    def release(self) -> None:
        """End every request that hangs now; later ones hang again."""
        with self._changed:
            self._released.set()
            self._released = threading.Event()

    def wait_count(self, wanted: int, method: str = "*", path: str = "", *, timeout: float = 5.0) -> bool:
        """Wait until so many matching requests have arrived, and say whether they have."""
        with self._changed:
            return self._changed.wait_for(lambda: self.count(method, path) >= wanted, timeout)

    def wait_idle(self, *, timeout: float = 5.0) -> bool:
        """Wait until no request is worked on, whether or not its client has gone, and say whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout)

    def start(self) -> None:
        """Serve, after `stop()` again."""
        listener = self._bound()
        if self._acceptor is None:
            self._stopping.clear()
            listener.server_activate()
            self._acceptor = threading.Thread(
                target=listener.serve_forever, args=(TICK_SECONDS,), name="faulty-accept", daemon=True
            )
            self._acceptor.start()

    def stop(self) -> None:
        """Drop all requests and connections, join all threads and refuse connections from now on.

        Raises:
            RuntimeError: the wrapped app does not come back.
        """
        if self._acceptor is None:
            return
        listener = self._bound()
        self._stopping.set()
        listener.shutdown()
        self._acceptor.join()
        self._acceptor = None
        listener.server_close()
        # Bound at once, listening only from the next start on: nobody else can get the port meanwhile, and a
        # client's own end cannot happen to be it, which on loopback would connect the client to itself.
        self._listener = _Listener(self, listener.port)
        listener.end_connections()

    def close(self) -> None:
        """Stop for good."""
        try:
            self.stop()
        finally:
            self._bound().server_close()

    def _bound(self) -> _Listener:
        assert self._listener is not None, "the server has not been entered"
        return self._listener

    def _connected(self) -> None:
        with self._changed:
            self._connections += 1

    def _serve(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        url = urlsplit(handler.path)
        headers = MappingProxyType({name.lower(): value for name, value in handler.headers.items()})
        seen = Seen(handler.command, url.path, url.query, _json_or_none(body), time.monotonic(), headers)
        with self._in_flight(seen) as (faults, released):
            exchange = Exchange(handler, lambda: self._run_app(handler, body), self._stopping, released)
            try:
                _play(faults, exchange)
            except (_StoppedError, ConnectionError):
                exchange.drop()
            except Exception:
                exchange.drop()
                with suppress(ConnectionError):
                    exchange.reply(Answer(500, {}, b"the wrapped app failed"))
                raise

    def _run_app(self, handler: BaseHTTPRequestHandler, body: bytes) -> Answer:
        request = httpx.Request(handler.command, self.url + handler.path, headers=handler.headers.items(), content=body)
        with closing(self._app.handle_request(request)) as response:
            return Answer(response.status_code, dict(response.headers), b"".join(response.iter_raw()))

    @contextmanager
    def _in_flight(self, seen: Seen) -> Iterator[tuple[list[Fault], threading.Event]]:
        with self._changed:
            self._requests.append(seen)
            faults, released = self._faults_for(seen), self._released
            self._busy += 1
            self._changed.notify_all()
        try:
            yield faults, released
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _faults_for(self, seen: Seen) -> list[Fault]:
        # Decided on arrival, so that `times` follows the order of arrival whatever the faults then wait for.
        faults: list[Fault] = []
        for rule in self._rules:
            if rule.takes(seen):
                rule.used += 1
                faults.append(rule.fault)
                if rule.fault.ends:
                    break
        return faults


def _play(faults: list[Fault], exchange: Exchange) -> None:
    for fault in faults:
        if fault.after_work:
            exchange.work()
        fault.play(exchange)
        if fault.ends:
            return
    exchange.reply(exchange.work())


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


class _Listener(socketserver.TCPServer):
    """Bound from the beginning, listening from `server_activate()` on; a thread for each connection."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, owner: FaultyServer, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler, bind_and_activate=False)
        self.owner = owner
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        try:
            self.server_bind()
        except OSError:
            self.server_close()
            raise

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self._converse, args=(request, client_address), name="faulty-connection", daemon=True
        )
        self.owner._connected()
        with self._lock:
            self._open.add(request)
            self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]
            thread.start()

    def _converse(self, connection: socket.socket, client_address: Any) -> None:
        # A plain close, where socketserver would send a FIN first: a reset must be the first thing sent.
        with closing(connection):
            try:
                self.finish_request(connection, client_address)
            finally:
                with self._lock:
                    self._open.remove(connection)

    def end_connections(self) -> None:
        """Shut every connection and join its thread; RuntimeError when one does not end."""
        with self._lock:
            threads = self._threads
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        until = time.monotonic() + JOIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            raise RuntimeError(f"the wrapped app did not come back within {JOIN_SECONDS} s")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def do_any(self) -> None:
        if "Transfer-Encoding" in self.headers:
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
        else:
            self.server.owner._serve(self, body)

    do_DELETE = do_GET = do_HEAD = do_OPTIONS = do_PATCH = do_POST = do_PUT = do_any  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""
