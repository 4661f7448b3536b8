from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from honcho import Honcho

from honcho_exec.embedded import EmbeddedHoncho

WORKSPACE = "/v3/workspaces/home"


def test_health(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{WORKSPACE}/schedule_dream"),
        ("POST", f"{WORKSPACE}/scopes"),
        ("GET", f"{WORKSPACE}/scopes/x/status"),
        ("POST", "/v3/keys"),
        ("GET", f"{WORKSPACE}/webhooks"),
        ("GET", f"{WORKSPACE}/webhooks/test"),
    ],
)
def test_routes_of_a_real_server_only_answer_501(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)
    assert answer.status_code == 501
    assert answer.json()["detail"].startswith(f"{method} /v3/")
    assert "not served by the embedded Honcho" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/", 404, "Not Found"),
        ("GET", "/v3/x", 404, "Not Found"),
        ("GET", "/v3/workspaces", 405, "Method Not Allowed"),
    ],
)
def test_unknown_routes_answer_404_and_405(
    http: httpx.Client, method: str, path: str, status: int, detail: str
) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})


@pytest.mark.parametrize("body", [None, [], "text", 7])
def test_a_body_must_be_an_object(http: httpx.Client, body: object) -> None:
    for path in ("/v3/workspaces", f"{WORKSPACE}/search", f"{WORKSPACE}/conclusions", f"{WORKSPACE}/peers/a/chat"):
        answer = http.post(path, json=body)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["body"]


def test_what_is_stored_survives_a_restart(embedded: EmbeddedHoncho, honcho: Honcho, tmp_path: Path) -> None:
    honcho.session("s").add_messages(honcho.peer("alice").message("the tide is low"))
    embedded.close()
    again = EmbeddedHoncho(tmp_path / "memory.db")
    with httpx.Client(transport=httpx.WSGITransport(app=again.app), base_url="http://embedded") as http:
        found = http.post(f"{WORKSPACE}/search", json={"query": "tide"}).json()
    again.close()
    assert [message["content"] for message in found] == ["the tide is low"]


def test_files_are_readable_by_their_owner_only(embedded: EmbeddedHoncho, honcho: Honcho, tmp_path: Path) -> None:
    honcho.session("s").add_messages(honcho.peer("alice").message("private"))
    assert repr(embedded) == f"<EmbeddedHoncho {tmp_path / 'memory.db'}>"
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("memory.db*")} == {0o600}


def test_a_closed_store_is_unavailable(embedded: EmbeddedHoncho, http: httpx.Client) -> None:
    embedded.close()
    answer = http.post("/v3/workspaces", json={"id": "home"})
    assert answer.status_code == 503
    assert "closed" in answer.json()["detail"]


def test_a_failure_inside_is_a_500_and_logged(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, embedded: EmbeddedHoncho
) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(embedded._store, "reading", fail)
    answer = http.post("/v3/workspaces/list")
    assert (answer.status_code, answer.json()) == (500, {"detail": "An unexpected error occurred"})
    assert "POST /v3/workspaces/list failed" in caplog.text


def test_many_threads_write_and_read_at_once(sdk: Callable[[str], Honcho]) -> None:
    ready = threading.Barrier(8)

    def work(number: int) -> int:
        honcho = sdk("home")
        ready.wait()
        alice, session = honcho.peer("alice"), honcho.session(f"s{number % 3}")
        for turn in range(5):
            session.add_messages([alice.message(f"tide {number} {turn} {part}") for part in "ab"])
            honcho.search(f"tide {number}")
        return len(honcho.search("tide", limit=100))

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(work, range(8)))
    assert max(counts) == 80
    honcho = sdk("home")
    stored = [message.content for n in range(3) for message in honcho.session(f"s{n}").messages(size=100)]
    assert len(set(stored)) == 80
    # Batches never interleave.
    assert all(first[:-1] == second[:-1] for first, second in zip(stored[::2], stored[1::2], strict=True))


def test_two_instances_share_a_file(tmp_path: Path) -> None:
    stores = [EmbeddedHoncho(tmp_path / "memory.db") for _ in range(2)]
    clients = [httpx.Client(transport=httpx.WSGITransport(app=one.app), base_url="http://x") for one in stores]
    for client in clients:
        body = {"messages": [{"content": "tide", "peer_id": "alice"}]}
        assert client.post(f"{WORKSPACE}/sessions/s/messages", json=body).status_code == 201
    totals = [client.post(f"{WORKSPACE}/sessions/s/messages/list").json()["total"] for client in clients]
    for closing in (*clients, *stores):
        closing.close()
    assert totals == [2, 2]
