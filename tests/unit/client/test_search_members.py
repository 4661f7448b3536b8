"""Searches keep to the sessions of the user's peer, reach the oldest, and take a bounded number of requests."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.api import api_of
from support.faulty import FaultyServer

from honcho_exec import HonchoProvider
from honcho_exec.cli.main import main
from honcho_exec.client import reads
from honcho_exec.client.api import HonchoApi
from honcho_exec.client.backend import open_backend
from honcho_exec.clock import SystemClock
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.embedded.wire import FILTERS_HEADER, MEMBERS_FILTER
from honcho_exec.model import Found
from honcho_exec.settings import Settings

AT = "2026-01-01T00:00:00.000000Z"
LATER = "2026-02-01T00:00:00.000000Z"


class PlainServer:
    """The embedded Honcho as a server without filters of its own; if `deaf`, one that ignores filters of searches."""

    def __init__(self, app: Callable[..., Iterable[bytes]], *, deaf: bool = False) -> None:
        self._app = app
        self._deaf = deaf

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        assert MEMBERS_FILTER.encode() not in body
        if self._deaf and environ["PATH_INFO"].endswith("/search"):
            body = json.dumps({**json.loads(body), "filters": None}).encode()
            environ["PATH_INFO"] = "/v3/workspaces/w/search"
            environ["CONTENT_LENGTH"] = str(len(body))

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [one for one in headers if one[0].lower() != FILTERS_HEADER.lower()], *rest)

        environ["wsgi.input"] = io.BytesIO(body)
        return self._app(environ, start)


def load(honcho: EmbeddedHoncho, sessions: Iterable[tuple[str, Iterable[str], str]]) -> None:
    """Store sessions (name, members, when they joined), with one message of every member."""
    sessions = [(name, sorted(members), joined) for name, members, joined in sessions]
    placed = {"workspace": "w", "metadata": {}, "created_at": AT}
    everybody = sorted({peer for _, members, _ in sessions for peer in members})
    records: list[dict[str, object]] = [
        {"kind": "honcho_exec", "version": 1},
        {**placed, "kind": "workspace", "id": "w", "configuration": {}},
        *({**placed, "kind": "peer", "id": peer, "configuration": {}} for peer in everybody),
        *(
            {**placed, "kind": "session", "id": name, "is_active": True, "configuration": {}}
            for name, _, _ in sessions
        ),
        *(
            {"workspace": "w", "kind": "member", "session": name, "peer": peer, "joined_at": joined,
             "observe_me": None, "observe_others": None, "left_at": None}
            for name, members, joined in sessions for peer in members
        ),
        *(
            {**placed, "kind": "message", "session": name, "peer": peer, "id": f"{name}-{peer}",
             "content": f"a heron in {name} by {peer}", "token_count": 5}
            for name, members, _ in sessions for peer in members
        ),
    ]  # fmt: skip
    honcho.load((str(number), record) for number, record in enumerate(records))


@contextmanager
def server_of(
    folder: Path, sessions: Iterable[tuple[str, Iterable[str], str]], *, plain: bool, deaf: bool = False
) -> Iterator[tuple[FaultyServer, HonchoApi]]:
    """A Honcho that holds these sessions, and its API."""
    honcho = EmbeddedHoncho(folder / "memory.db")
    load(honcho, sessions)
    app = PlainServer(honcho.app, deaf=deaf) if plain else honcho.app
    with ExitStack() as stack:
        stack.callback(honcho.close)
        server = stack.enter_context(FaultyServer(app))
        backend = open_backend(Settings(base_url=server.url), folder, SystemClock())
        stack.callback(backend.close)
        yield server, api_of(backend)


@pytest.mark.parametrize("plain", [False, True], ids=["embedded", "server"])
def test_search_reaches_oldest_session_in_bounded_requests(tmp_path: Path, *, plain: bool) -> None:
    sessions = [(f"s{n}", ("ada", "ai"), AT) for n in range(1_100)]
    with server_of(tmp_path, sessions, plain=plain) as (server, api):
        api.ping()
        server.clear()
        found = api.reads.search("heron s0", members=["ada"], limit=10)
        assert "s0" in {hit.session for hit in found.hits}
        assert len(server.requests) <= 7
        assert bool(found.left_out) is plain
    if plain:
        assert "newest 100 sessions of ada" in found.left_out


def test_search_of_few_sessions_leaves_nothing_out(tmp_path: Path) -> None:
    sessions = [(f"s{n}", ("ada", "ai"), LATER) for n in range(100)]
    with server_of(tmp_path, sessions, plain=True) as (server, api):
        found = api.reads.search("heron s0", members=["ai", "ada"], limit=10)
        assert found.hits[0].session == "s0"
        assert found.left_out == ""
        assert server.count("POST", "/search$") == 1


def test_own_words_before_joining_again_are_found_in_old_sessions(tmp_path: Path) -> None:
    sessions = [("old", ("ada", "ai"), LATER), *((f"s{n}", ("ada", "ai"), AT) for n in range(150))]
    with server_of(tmp_path, sessions, plain=True) as (_, api):
        found = api.reads.search("old heron", members=["ada"], limit=10)
        assert ("old", "ada") in {(hit.session, hit.peer) for hit in found.hits}


def test_server_that_ignores_filters_gives_no_foreign_message(tmp_path: Path) -> None:
    sessions = [
        *((f"a{n}", ("ada", "ai"), AT) for n in range(120)),
        *((f"e{n}", ("eve", "ai"), AT) for n in range(120)),
    ]
    with server_of(tmp_path, sessions, plain=True, deaf=True) as (_, api):
        for members in (["ada"], ["ai", "ada"]):
            hits = api.reads.search("heron e7", members=members, limit=50).hits
            assert {hit.session[0] for hit in hits} <= {"a"}


PEERS = ["ada", "eve", "bob", "ai", "other-ai"]
MEMBERS = st.lists(st.sets(st.sampled_from(PEERS), min_size=1), min_size=1, max_size=12)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    membership=MEMBERS,
    asked=st.lists(st.sampled_from(PEERS), min_size=1, max_size=2, unique=True),
    named=st.integers(1, 4),
    plain=st.booleans(),
)
def test_search_keeps_to_sessions_of_all_members(
    monkeypatch: pytest.MonkeyPatch, membership: list[set[str]], asked: list[str], named: int, *, plain: bool
) -> None:
    monkeypatch.setattr(reads, "_NAMED_SESSIONS", named)
    sessions = [(f"s{n}", members, AT) for n, members in enumerate(membership)]
    common = {name for name, members, _ in sessions if set(members).issuperset(asked)}
    with tempfile.TemporaryDirectory() as folder, server_of(Path(folder), sessions, plain=plain) as (_, api):
        found: Found = api.reads.search("heron", members=asked, limit=100)
        sessions_found = {hit.session for hit in found.hits}
        assert sessions_found <= common
        if not found.left_out or len(asked) == 1:
            assert sessions_found == common
        assert len({hit.id for hit in found.hits}) == len(found.hits)


@pytest.mark.parametrize("shared", [False, True], ids=["single", "gateway"])
def test_tools_find_nothing_of_sessions_without_the_user(tmp_path: Path, *, shared: bool) -> None:
    honcho = EmbeddedHoncho(tmp_path / "memory.db")
    load(honcho, [("foreign", ("eve", "hermes"), AT), ("both", ("eve", "ada", "hermes"), AT)])
    honcho.close()
    environ = {"HONCHO_WORKSPACE": "w", "HONCHO_PEER_NAME": "ada", "HONCHO_AI_PEER": "hermes"}
    with HonchoProvider(environ=environ, home=tmp_path) as provider:
        kwargs = {"platform": "telegram", "user_id": "ada", "gateway_session_key": "k:1"} if shared else {}
        provider.initialize("run", **kwargs)
        for peer in ("user", "ai", *(() if shared else ("eve", "hermes"))):
            answer = provider.handle_tool_call("honcho_search", {"query": "heron", "peer": peer})
            assert "error" not in json.loads(answer), answer
            assert "in foreign" not in answer, peer
            if not shared:
                assert "in both" in answer, peer


@pytest.mark.parametrize("plain", [False, True], ids=["embedded", "server"])
def test_search_by_hand_shows_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, plain: bool
) -> None:
    monkeypatch.setenv("HONCHO_PEER_NAME", "ada")
    monkeypatch.setenv("HONCHO_WORKSPACE", "w")
    sessions = [(f"s{n}", ("ada", "ai"), AT) for n in range(110)]
    with server_of(tmp_path, sessions, plain=plain) as (server, _):
        monkeypatch.setenv("HONCHO_BASE_URL", server.url)
        shown = CliRunner().invoke(main, ["search", "heron"])
        answer = json.loads(CliRunner().invoke(main, ["search", "heron", "--json"]).stdout)
    assert shown.exit_code == 0
    assert ("Left out: only the newest 100 sessions of ada" in shown.stderr) is plain
    assert ("newest 100 sessions" in answer.get("left_out", "")) is plain
    assert len(answer["hits"]) == 10
