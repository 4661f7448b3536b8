from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from support.faulty import FaultyServer, drip, endless_body, hang, latency, status

from honcho_exec.clock import Deadline, SystemClock
from honcho_exec.net.transport import DeadlineTransport, request_deadline

CLOCK = SystemClock()
SECONDS = 20.0


@pytest.fixture
def client(server: FaultyServer) -> Iterator[httpx.Client]:
    with httpx.Client(transport=DeadlineTransport(server.url, clock=CLOCK), base_url=server.url, timeout=0.3) as client:
        yield client


@pytest.mark.parametrize(
    "fault",
    [hang(), drip(0.05), drip(0.05, part="headers"), endless_body()],
    ids=["hang", "drip", "headers", "endless"],
)
def test_a_request_ends_when_its_time_is_up(server: FaultyServer, client: httpx.Client, fault: object) -> None:
    client.get("/health")
    rule = server.rule(match=("GET", "/health"), fault=fault, times=1)  # type: ignore[arg-type]
    start = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        client.get("/health")
    assert 0.25 < time.monotonic() - start < 0.6
    assert rule.used == 1
    connections = server.connections
    assert client.get("/health").status_code == 200
    assert server.connections == connections + 1, "the connection that timed out was used again"


def test_a_deadline_that_was_passed_down_bounds_a_request_too(server: FaultyServer, client: httpx.Client) -> None:
    server.rule(match=("GET", "/health"), fault=hang())
    start = time.monotonic()
    with request_deadline(Deadline.after(0.1, CLOCK)), pytest.raises(httpx.ReadTimeout):
        client.get("/health")
    assert time.monotonic() - start < 0.25


def test_connections_are_used_again(server: FaultyServer, client: httpx.Client) -> None:
    for _ in range(5):
        client.get("/health")
    assert server.connections == 1


def test_requests_of_several_threads_go_side_by_side(server: FaultyServer, client: httpx.Client) -> None:
    server.rule(match=("GET", "/health"), fault=latency(0.1))
    start = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: client.get("/health"), range(8)))
    assert time.monotonic() - start < 0.25


def test_abort_wakes_a_request_at_once_and_refuses_the_next(server: FaultyServer) -> None:
    transport = DeadlineTransport(server.url, clock=CLOCK)
    with httpx.Client(transport=transport, base_url=server.url, timeout=30) as client, ThreadPoolExecutor(1) as thread:
        server.rule(match=("GET", "/health"), fault=hang())
        pending = thread.submit(client.get, "/health")
        assert server.wait_count(1)
        start = time.monotonic()
        transport.abort()
        with pytest.raises(httpx.TransportError):
            pending.result(5)
        assert time.monotonic() - start < 0.5
        with pytest.raises(httpx.TransportError):
            client.get("/health")


def test_a_refused_connection_is_told_apart(server: FaultyServer, client: httpx.Client) -> None:
    server.stop()
    with pytest.raises(httpx.ConnectError):
        client.get("/health")


def test_a_large_body_arrives_whole(client: httpx.Client) -> None:
    body = {"messages": [{"content": "x" * 25_000, "peer_id": "ada"}] * 60}
    answer = client.post("/v3/workspaces/w/sessions/s/messages", json=body, timeout=10)
    assert answer.status_code == 201
    assert len(answer.json()) == 60


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_a_compressed_answer_is_neither_asked_for_nor_taken(
    server: FaultyServer, client: httpx.Client, encoding: str
) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    server.rule(fault=status(200, {"Content-Encoding": encoding}, bomb), times=1)
    with pytest.raises(httpx.DecodingError, match="compressed"):
        client.get("/health")
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert client.get("/health").status_code == 200


def test_the_environments_proxy_is_asked(monkeypatch: pytest.MonkeyPatch, server: FaultyServer) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    server.rule(match=("GET", "/health"), fault=status(200))
    transport = DeadlineTransport("http://honcho.invalid", clock=CLOCK)
    with httpx.Client(transport=transport, timeout=5) as client:
        client.get("http://honcho.invalid/health")
    assert server.count("GET", "/health") == 1


def test_a_connect_under_way_is_bounded_and_can_be_cut() -> None:
    """A listener whose backlog is full answers no further connect, as a firewall that drops packets does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        transport = DeadlineTransport(url, clock=CLOCK)
        with httpx.Client(transport=transport, timeout=0.3) as client:
            start = time.monotonic()
            with pytest.raises(httpx.TimeoutException):
                client.get(url)
            assert 0.25 < time.monotonic() - start < 0.7
        with httpx.Client(transport=transport, timeout=30) as client, ThreadPoolExecutor(1) as thread:
            pending = thread.submit(client.get, url)
            start = time.monotonic()
            transport.abort()
            with pytest.raises(httpx.TransportError):
                pending.result(5)
            assert time.monotonic() - start < 0.6
        for one in waiting:
            one.close()


@contextmanager
def mute_tls() -> Iterator[tuple[str, threading.Event]]:
    """A server that takes connections and reads what comes, and never says a word; an event says when some came."""
    came = threading.Event()

    def listen(listener: socket.socket) -> None:
        taken = []
        with suppress(OSError):
            while True:
                taken.append(listener.accept()[0])
                taken[-1].recv(1)
                came.set()
        for one in taken:
            one.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen, args=(listener,))
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}", came
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_tls_handshake_that_never_ends_is_bounded_and_can_be_cut() -> None:
    with mute_tls() as (url, came):
        transport = DeadlineTransport(url, clock=CLOCK)
        with httpx.Client(transport=transport, timeout=0.3) as client, pytest.raises(httpx.ConnectTimeout):
            client.get(url)
        came.clear()
        with httpx.Client(transport=transport, timeout=60) as client, ThreadPoolExecutor(1) as thread:
            pending = thread.submit(client.get, url)
            assert came.wait(SECONDS)
            transport.abort()
            with pytest.raises(httpx.ConnectError):
                pending.result(SECONDS)


@pytest.fixture
def mute_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A name server that does not answer until the test is over; the names that were asked for."""
    over = threading.Event()
    asked: list[str] = []
    real = socket.getaddrinfo

    def never(host: str, *args: Any, **kwargs: Any) -> Any:
        if not host.endswith(".example"):
            return real(host, *args, **kwargs)
        asked.append(host)
        over.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    yield asked
    over.set()


def test_a_name_that_nobody_can_tell_is_bounded_and_can_be_cut(mute_names: list[str]) -> None:
    url = "http://honcho.example"
    transport = DeadlineTransport(url, clock=CLOCK)
    with httpx.Client(transport=transport, timeout=60) as client, ThreadPoolExecutor(2) as threads:
        pending = [threads.submit(client.get, url) for _ in range(2)]
        with pytest.raises(httpx.ConnectTimeout):
            client.get(url, timeout=0.3)
        transport.abort()
        for one in pending:
            with pytest.raises(httpx.ConnectError):
                one.result(SECONDS)
    assert mute_names == ["honcho.example"]


@pytest.mark.parametrize("host", ["honcho.invalid", "a" * 64 + ".example"], ids=len)
def test_a_name_that_is_not_known_is_told_apart(host: str) -> None:
    transport = DeadlineTransport(f"http://{host}", clock=CLOCK)
    with httpx.Client(transport=transport, timeout=SECONDS) as client, pytest.raises(httpx.ConnectError):
        client.get(f"http://{host}")


def test_a_name_is_looked_up_where_no_thread_can_start(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while the interpreter exits."""
    real_lookup, real_start = socket.getaddrinfo, threading.Thread.start
    refused: list[str] = []

    def start(thread: threading.Thread) -> None:
        if thread.name == "honcho-lookup":
            refused.append(thread.name)
            raise RuntimeError("can't create new thread at interpreter shutdown")
        real_start(thread)

    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *args, **kwargs: real_lookup("127.0.0.1", *args, **kwargs))
    monkeypatch.setattr(threading.Thread, "start", start)
    url = server.url.replace("127.0.0.1", "honcho.example")
    with httpx.Client(transport=DeadlineTransport(url, clock=CLOCK), timeout=SECONDS) as client:
        assert client.get(f"{url}/health").status_code == 200
    assert len(refused) == 1
