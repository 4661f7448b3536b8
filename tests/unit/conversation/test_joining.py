"""How a session is opened: in few requests, joined once, and remembered for the next process."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from support.faulty import FaultyServer, Gate, gate, latency, status
from support.processes import Victim, messages_on
from support.providers import MakeProvider

from honcho_exec.clock import Deadline, SystemClock
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.storage.database import Database
from honcho_exec.storage.file_lock import exclusive

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

ENSURE = ("POST", "/workspaces/[^/]+/sessions$")
MEMBERS = ("GET", "/sessions/[^/]+/peers$")
JOIN = ("POST", "/sessions/[^/]+/peers$")
SEARCH = ("POST", "/search$")
OBSERVES = {"observe_me": True, "observe_others": True}
SESSION = "/v3/workspaces/hermes/sessions/s1"


def requests_before_a_tools_own(server: FaultyServer) -> list[str]:
    """What was asked before the first tool's own request, as method and path."""
    asked = [f"{seen.method} {seen.path}" for seen in server.requests]
    return asked[: next(place for place, line in enumerate(asked) if line.endswith("/search"))]


def search(make_provider: MakeProvider, server: FaultyServer, **settings: object) -> str:
    """The answer of a fresh provider's first tool call."""
    provider = make_provider(base_url=server.url, recall_mode="tools", init_on_session_start="true", **settings)
    answer = json.loads(provider.handle_tool_call("honcho_search", {"query": "tea"}))
    provider.shutdown()
    return str(answer["result"])


def test_session_opens_in_few_requests_and_in_none_in_the_next_process(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    server.rule(match=lambda _: True, fault=latency(0.1))
    search(make_provider, server, home="one")
    assert len(requests_before_a_tools_own(server)) == 4
    server.clear()
    search(make_provider, server, home="another")
    assert len(requests_before_a_tools_own(server)) == 3
    server.clear()
    search(make_provider, server, home="one")
    assert requests_before_a_tools_own(server) == ["POST /v3/workspaces"]
    assert server.count(*ENSURE) + server.count(*MEMBERS) + server.count(*JOIN) == 0


def test_what_failed_is_asked_again(server: FaultyServer, make_provider: MakeProvider) -> None:
    server.rule(match=JOIN, fault=status(503), times=1)
    provider = make_provider(base_url=server.url, recall_mode="tools", init_on_session_start="true")
    assert provider.flush(10) == 0
    provider.shutdown()
    server.clear()
    search(make_provider, server)
    search(make_provider, server)
    assert server.count(*MEMBERS) == 1


def test_what_was_said_before_a_restart_is_found_after_it(server: FaultyServer, make_provider: MakeProvider) -> None:
    first = make_provider(base_url=server.url)
    first.sync_turn("I take my tea black", "Noted").result(10)
    first.shutdown()
    for home in ("state", "another"):
        assert "tea black" in search(make_provider, server, home=home)
    assert server.count(*JOIN) == 1
    perspective = {"query": "tea", "filters": {"peer_perspective": "ada"}}
    found = httpx.post(f"{server.url}/v3/workspaces/hermes/search", json=perspective, trust_env=False).json()
    assert "I take my tea black" in [message["content"] for message in found]


def member(server: FaultyServer, peer: str) -> object:
    """What a member of the session observes."""
    return httpx.get(f"{server.url}{SESSION}/peers/{peer}/config", trust_env=False).json()


def test_a_session_that_was_deleted_meanwhile_is_opened_again(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    first = make_provider(base_url=server.url)
    first.sync_turn("before", "").result(10)
    first.shutdown()
    # Honcho refuses late messages while it deletes, and then knows nothing of the session.
    httpx.request("DELETE", f"{server.url}{SESSION}/peers", json=["ada", "hermes"], trust_env=False).raise_for_status()
    server.rule(match=("POST", "/messages$"), fault=status(404), times=1)
    second = make_provider(base_url=server.url)
    assert second.sync_turn("after", "").result(10).written == 1
    assert messages_on(server.url, "s1") == ["before", "after"]
    assert [member(server, peer) for peer in ("ada", "hermes")] == [OBSERVES] * 2
    assert second.status().parked == 0


class Replaceable:
    """A Honcho whose database somebody empties."""

    def __init__(self, folder: Path) -> None:
        self.honcho = EmbeddedHoncho(folder / "memory.db")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.honcho.app(environ, start_response)

    def empty(self, folder: Path) -> None:
        self.honcho.close()
        self.honcho = EmbeddedHoncho(folder / "memory.db")


@contextmanager
def replaceable(folder: Path) -> Iterator[tuple[FaultyServer, Replaceable]]:
    app = Replaceable(folder)
    with FaultyServer(app) as server:
        yield server, app
    app.honcho.close()


def test_a_server_that_was_emptied_is_joined_again(make_provider: MakeProvider, tmp_path: Path) -> None:
    """It would take the messages all the same, and let their authors join without observing anybody."""
    with replaceable(tmp_path / "full") as (server, app):
        first = make_provider(base_url=server.url)
        first.sync_turn("before", "").result(10)
        first.shutdown()
        app.empty(tmp_path / "empty")
        second = make_provider(base_url=server.url)
        second.sync_turn("after", "").result(10)
        second.shutdown()
        assert [member(server, peer) for peer in ("ada", "hermes")] == [OBSERVES] * 2


def test_two_processes_that_want_a_new_session_at_once_join_its_peers_once(
    server: FaultyServer, tmp_path: Path
) -> None:
    held = Gate()
    server.rule(match=MEMBERS, fault=gate(held, after_work=True), times=1)
    home = tmp_path / "state"
    settings = {"base_url": server.url, "recall_mode": "tools", "init_on_session_start": "true"}
    with Victim(home, "s1", **settings) as one, Victim(home, "s1", **settings) as other:
        assert held.arrived.wait(20)
        for process in (one, other):
            process.hear("ready")
            process.order("turn", str(process.pid))
            process.hear("accepted")
        held.proceed.set()
        assert server.wait_count(2, "POST", "/messages$", timeout=20)
        assert one.finish() + other.finish() == [str(one.pid), str(other.pid)]
    assert (server.count(*MEMBERS), server.count(*JOIN)) == (1, 1)
    assert sorted(messages_on(server.url, "s1")) == sorted([str(one.pid), str(other.pid)])
    assert list((home / "joining").iterdir()) == []


def test_a_damaged_memory_of_sessions_costs_requests_and_nothing_else(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    search(make_provider, server)
    file = tmp_path / "state" / "known.db"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(b"not a database" * 1000)
    search(make_provider, server)
    server.clear()
    search(make_provider, server)
    assert server.count(*MEMBERS) == 0
    assert server.count(*JOIN) == 0


def test_state_folder_without_locks_or_memory_keeps_no_provider_out(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    Database(tmp_path / "state" / "known.db", ("",) * 99).close()
    (tmp_path / "state" / "joining").touch()
    assert search(make_provider, server) == "Nothing was found for this query."


def test_a_lock_is_one_at_a_time_and_leaves_no_file(tmp_path: Path) -> None:
    path, clock = tmp_path / "lock", SystemClock()
    inside, rounds = [], 20

    def work() -> None:
        for _ in range(rounds):
            with exclusive(path, Deadline.after(30, clock)):
                inside.append(len(inside))
                os.sched_yield()
                assert inside.pop() == 0

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, list(tmp_path.iterdir())) == ([], [])
    with (
        exclusive(path, Deadline.after(0, clock)),
        pytest.raises(TimeoutError),
        exclusive(path, Deadline.after(60, clock), stop=lambda: True),
    ):
        pass
