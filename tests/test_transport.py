from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from support.faulty import FaultyServer, drip, endless_body, hang, latency, status

from honcho_exec.clock import Deadline, SystemClock
from honcho_exec.transport import DeadlineTransport, request_deadline

CLOCK = SystemClock()


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
