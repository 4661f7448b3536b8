from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import httpx
import pytest
from support.faulty import (
    Fault,
    FaultyServer,
    Gate,
    drip,
    endless_body,
    garbage,
    gate,
    hang,
    late_work,
    latency,
    reset_after_work,
    reset_before_work,
    status,
    wrong_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment


class Ledger:
    """A WSGI app that notes the work it did and answers with it."""

    def __init__(self) -> None:
        self.work: list[tuple[str, str, str]] = []

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
        self.work.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], body))
        start_response("201 Created", [("Content-Type", "application/json"), ("X-Query", environ["QUERY_STRING"])])
        return [b'{"work": ', str(len(self.work)).encode(), b"}"]


@pytest.fixture
def app() -> Ledger:
    return Ledger()


@pytest.fixture
def server(app: Ledger) -> Iterator[FaultyServer]:
    before = set(threading.enumerate())
    with FaultyServer(app) as server:
        yield server
    assert set(threading.enumerate()) <= before


@pytest.fixture
def client(server: FaultyServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=5, trust_env=False) as client:
        yield client


@contextmanager
def in_background(job: Callable[[], object]) -> Iterator[threading.Thread]:
    def run() -> None:
        with pytest.raises(httpx.TransportError):
            job()

    thread = threading.Thread(target=run)
    thread.start()
    yield thread
    thread.join(5)
    assert not thread.is_alive()


def test_serves_the_app_and_keeps_the_connection(server: FaultyServer, client: httpx.Client) -> None:
    for turn in range(1, 4):
        response = client.post("/v3/a%20b?x=1&y=2", json={"turn": turn})
        assert (response.status_code, response.json()) == (201, {"work": turn})
        assert response.headers["X-Query"] == "x=1&y=2"
    assert server.connections == 1


def test_head_and_empty_answers_keep_the_framing() -> None:
    def app(_: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        start_response("204 No Content", [])
        return []

    with FaultyServer(app) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.delete("/").status_code == 204
        server.rule(match=("HEAD", ""), fault=status(200))
        assert client.head("/").content == b""
        assert client.get("/").status_code == 204
        assert server.connections == 1


def test_records_requests_on_arrival(server: FaultyServer, client: httpx.Client, app: Ledger) -> None:
    before = time.monotonic()
    client.post("/peers/p/search?n=2", json={"q": [1]}, headers={"X-Id": "7"})
    client.get("/peers")
    first, second = server.requests
    assert (first.method, first.path, first.query, first.body_json) == ("POST", "/peers/p/search", "n=2", {"q": [1]})
    assert first.headers["x-id"] == "7"
    assert before <= first.at_monotonic <= second.at_monotonic
    assert second.body_json is None
    assert app.work == [("POST", "/peers/p/search", '{"q":[1]}'), ("GET", "/peers", "")]


def test_counts_by_method_and_path(server: FaultyServer, client: httpx.Client) -> None:
    for path in ("/peers/a", "/peers/b", "/sessions"):
        client.get(path)
    client.post("/peers/a")
    assert server.count() == 4
    assert server.count("GET", "^/peers/") == 2
    assert server.count("*", "/a$") == 2
    assert server.wait_idle()
    assert repr(server) == "<FaultyServer [serving | 4 seen, 0 in flight]>"
    server.clear()
    assert (server.count(), server.requests, server.connections) == (0, [], 0)


def test_a_rule_applies_so_often_and_only_where_it_matches(
    server: FaultyServer, client: httpx.Client, app: Ledger
) -> None:
    rule = server.rule(match=("POST", "/messages$"), fault=status(503), times=2)
    assert [client.post("/messages").status_code for _ in range(3)] == [503, 503, 201]
    assert client.get("/messages").status_code == 201
    assert rule.used == 2
    assert len(app.work) == 2


def test_a_predicate_sees_the_request(server: FaultyServer, client: httpx.Client) -> None:
    server.rule(match=lambda seen: seen.body_json == {"bad": True}, fault=status(422))
    assert client.post("/", json={"bad": True}).status_code == 422
    assert client.post("/", json={"bad": False}).status_code == 201
    server.heal()
    assert client.post("/", json={"bad": True}).status_code == 201


def test_a_status_has_its_headers_and_body(server: FaultyServer, client: httpx.Client) -> None:
    server.rule(fault=status(429, {"Retry-After": "3"}, b'{"detail": "slow down"}'), times=1)
    server.rule(fault=status(599, {"Connection": "close"}), times=1)
    response = client.get("/")
    assert (response.headers["Retry-After"], response.json()) == ("3", {"detail": "slow down"})
    assert client.get("/").status_code == 599
    assert client.get("/").status_code == 201
    assert server.connections == 2


def test_latency_goes_on_to_the_next_fault(server: FaultyServer, client: httpx.Client, app: Ledger) -> None:
    server.rule(fault=latency(0.05))
    server.rule(fault=status(502, after_work=True), times=1)
    unused = server.rule(fault=status(500), times=1)
    assert client.get("/").status_code == 502
    assert client.get("/").elapsed.total_seconds() >= 0.05
    assert client.get("/").status_code == 201
    assert unused.used == 1
    assert len(app.work) == 2


@pytest.mark.parametrize(
    ("fault", "worked"),
    [(reset_before_work(), 0), (reset_after_work(), 1)],
    ids=["before work", "after work"],
)
def test_a_reset_is_a_reset(server: FaultyServer, client: httpx.Client, app: Ledger, fault: Fault, worked: int) -> None:
    server.rule(fault=fault, times=1)
    with pytest.raises(httpx.ReadError, match="reset"):
        client.post("/", json={})
    assert len(app.work) == worked
    assert client.post("/", json={}).status_code == 201


@pytest.mark.parametrize("after_work", [False, True])
def test_answers_that_make_no_sense(server: FaultyServer, client: httpx.Client, app: Ledger, after_work: bool) -> None:
    server.rule(fault=garbage(after_work=after_work), times=1)
    server.rule(fault=wrong_json(after_work=after_work), times=1)
    with pytest.raises(ValueError, match="decode"):
        client.get("/").json()
    assert client.get("/").json() == {"unexpected": True}
    assert len(app.work) == (2 if after_work else 0)


@pytest.mark.parametrize("after_work", [False, True])
def test_a_hang_lasts_until_it_is_released(
    server: FaultyServer, client: httpx.Client, app: Ledger, after_work: bool
) -> None:
    server.rule(fault=hang(after_work=after_work), times=1)
    with in_background(lambda: client.get("/")):
        assert server.wait_count(1)
        assert not server.wait_idle(timeout=0.05)
        server.release()
        assert server.wait_idle()
    assert len(app.work) == after_work
    assert client.get("/").status_code == 201


def test_a_released_server_hangs_again(server: FaultyServer, client: httpx.Client) -> None:
    server.release()
    server.rule(fault=hang(), times=1)
    with pytest.raises(httpx.ReadTimeout):
        client.get("/", timeout=0.05)


@pytest.mark.parametrize(("part", "interval"), [("headers", 0.005), ("body", 0.05)])
def test_a_drip_outlives_the_timeout_of_a_read(
    server: FaultyServer, client: httpx.Client, part: Literal["headers", "body"], interval: float
) -> None:
    server.rule(fault=drip(interval, part), times=1)
    began = time.monotonic()
    assert client.get("/", timeout=0.3).json() == {"work": 1}
    assert time.monotonic() - began > 0.3
    assert client.get("/").json() == {"work": 2}
    assert server.connections == 1


def test_an_endless_body_goes_on(server: FaultyServer, client: httpx.Client, app: Ledger) -> None:
    server.rule(fault=endless_body(0.0001))
    with client.stream("GET", "/") as response:
        received = 0
        for chunk in response.iter_raw():
            received += len(chunk)
            if received > 20_000:
                break
    assert server.wait_idle()
    assert app.work == []


def test_late_work_is_done_for_a_client_that_has_gone(server: FaultyServer, client: httpx.Client, app: Ledger) -> None:
    server.rule(fault=late_work(0.2))
    with pytest.raises(httpx.ReadTimeout):
        client.post("/", json={}, timeout=0.05)
    assert app.work == []
    assert server.wait_idle()
    assert len(app.work) == 1


@pytest.mark.parametrize("after_work", [False, True])
def test_a_gate_holds_a_request(server: FaultyServer, client: httpx.Client, app: Ledger, after_work: bool) -> None:
    door = Gate()
    answers: list[httpx.Response] = []
    server.rule(fault=gate(door, after_work=after_work), times=1)
    thread = threading.Thread(target=lambda: answers.append(client.get("/")))
    thread.start()
    assert door.arrived.wait(5)
    assert (len(app.work), answers) == (int(after_work), [])
    assert httpx.get(server.url, trust_env=False).status_code == 201, "others pass"
    door.proceed.set()
    thread.join(5)
    assert [answer.status_code for answer in answers] == [201]
    assert len(app.work) == 2


def test_stopped_it_refuses_and_started_it_serves_at_the_same_url(server: FaultyServer, client: httpx.Client) -> None:
    url = server.url
    assert client.get("/").status_code == 201
    for _ in range(2):
        server.stop()
        for _ in range(3):
            with pytest.raises(httpx.ConnectError):
                client.get("/")
        server.start()
        assert client.get("/").status_code == 201
    assert server.url == url
    assert server.count() == 3


@pytest.mark.parametrize(
    "fault",
    [
        hang(),
        hang(until_released=False, after_work=True),
        latency(60),
        late_work(60),
        gate(Gate()),
        drip(60),
        endless_body(0),
    ],
    ids=lambda fault: fault.name,
)
def test_closing_ends_whatever_is_held(server: FaultyServer, client: httpx.Client, fault: Fault) -> None:
    server.rule(fault=fault)
    with in_background(lambda: client.get("/")):
        assert server.wait_count(1)
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 1
    assert server.wait_idle(timeout=0)


def test_closing_says_when_the_app_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.faulty.JOIN_SECONDS", 0.05)
    door = Gate()

    def app(_: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        door.arrived.set()
        door.proceed.wait()
        start_response("200 OK", [])
        return []

    server = FaultyServer(app).__enter__()
    with in_background(lambda: httpx.get(server.url, trust_env=False)):
        assert door.arrived.wait(5)
        with pytest.raises(RuntimeError, match="did not come back"):
            server.close()
    door.proceed.set()
    assert server.wait_idle()


def test_an_app_that_fails_is_a_500_and_raises_in_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_type))

    def app(_: WSGIEnvironment, __: StartResponse) -> list[bytes]:
        raise LookupError

    with FaultyServer(app) as server:
        assert httpx.get(server.url, trust_env=False).status_code == 500
    assert raised == [LookupError]


def test_many_clients_at_once(server: FaultyServer, app: Ledger) -> None:
    server.rule(fault=latency(0.05))

    def talk() -> None:
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            for number in range(5):
                client.post("/", content=json.dumps(number))

    threads = [threading.Thread(target=talk) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(app.work) == server.count("POST") == 100
    assert server.connections == 20
