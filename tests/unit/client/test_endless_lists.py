"""Lists that never end, or lie about their length, block neither callers nor the lane, and what is left out is said."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.faulty import FaultyServer
from support.providers import MakeProvider

from honcho_exec.client import rest as raw_api
from honcho_exec.client.backend import Backend, open_backend
from honcho_exec.client.rest import RawApi
from honcho_exec.clock import SystemClock
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.errors import Unavailable
from honcho_exec.settings import Settings
from honcho_exec.text.purge_filter import PurgeFilter
from honcho_exec.transfer.purge import ServerPurge

WORKSPACE = "/v3/workspaces/hermes"
Lie = Callable[[dict[str, Any], int], dict[str, Any]]


def endless(page: dict[str, Any], number: int) -> dict[str, Any]:
    """The same items on every page, under new ids from the second page on."""
    items = [{**item, "id": item["id"] if number == 1 else f"{item['id']}-{number}"} for item in page["items"]]
    return {**page, "items": items, "page": number, "pages": 10**9, "total": 10**9}


def repeating(page: dict[str, Any], number: int) -> dict[str, Any]:
    """The same items on every page."""
    return {**page, "page": number, "pages": 10**9, "total": 10**9}


def stuck(page: dict[str, Any], _: int) -> dict[str, Any]:
    """Every page says that it is the first."""
    return {**page, "page": 1, "pages": 2, "total": 10**9}


class Liar:
    """A Honcho whose lists are what `lie` makes of their first pages."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self.lie: Lie | None = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        query = dict(part.split("=") for part in environ["QUERY_STRING"].split("&") if "=" in part)
        if self.lie is not None and "page" in query:
            environ["QUERY_STRING"] = "&".join(f"{k}={v}" for k, v in {**query, "page": "1"}.items())
        body = b"".join(self._app(environ, lambda status, headers, *_: answered.append((status, headers))))
        status, headers = answered.pop()
        found = json.loads(body) if body else None
        if self.lie is not None and isinstance(found, dict) and "items" in found:
            body = json.dumps(self.lie(found, int(query.get("page", 1)))).encode()
        kept = [one for one in headers if one[0].lower() not in ("content-length", "honcho-exec-filters")]
        start_response(status, [*kept, ("Content-Length", str(len(body)))])
        return [body]


answered: list[tuple[str, list[tuple[str, str]]]] = []


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[tuple[FaultyServer, Liar]]:
    honcho = EmbeddedHoncho(tmp_path / "server" / "memory.db")
    app = Liar(honcho.app)
    with FaultyServer(app) as server:
        yield server, app
    honcho.close()


@pytest.fixture
def backend(liar: tuple[FaultyServer, Liar], tmp_path: Path) -> Iterator[Backend]:
    backend = open_backend(Settings(base_url=liar[0].url), tmp_path, SystemClock())
    yield backend
    backend.close()


@pytest.mark.parametrize("lie", [endless, repeating, stuck])
def test_tools_and_turns_end_while_lists_do_not(
    liar: tuple[FaultyServer, Liar], make_provider: MakeProvider, lie: Lie
) -> None:
    server, app = liar
    first = make_provider(base_url=server.url)
    first.sync_turn("I like tea", "noted").result(10)
    first.handle_tool_call("honcho_conclude", {"conclusion": "likes tea"})
    first.shutdown()
    app.lie = lie
    provider = make_provider(base_url=server.url, home="another", recall_mode="tools")
    calls: dict[str, dict[str, object]] = {
        "honcho_search": {"query": "tea"},
        "honcho_profile": {"peer": "nobody"},
        "honcho_context": {},
        "honcho_conclude": {"list": True},
    }
    for tool, arguments in calls.items():
        server.clear()
        start = time.monotonic()
        answer = json.loads(provider.handle_tool_call(tool, arguments))
        assert time.monotonic() - start < 5
        assert len(server.requests) < 15, tool
        if tool == "honcho_search":
            assert "I like tea" in answer["result"]
            assert answer["left_out"]
    assert provider.sync_turn("more tea", "").result(10).written == 1


@pytest.mark.parametrize("lie", [repeating, stuck])
def test_raw_list_ends_when_a_page_brings_nothing_new(
    liar: tuple[FaultyServer, Liar], backend: Backend, lie: Lie
) -> None:
    server, app = liar
    api = RawApi(backend)
    for name in ("ada", "bob"):
        api.request("POST", f"{WORKSPACE}/peers", {"id": name})
    app.lie = lie
    server.clear()
    assert api.ids(f"{WORKSPACE}/peers") == {"ada", "bob"}
    assert len(server.requests) == 2


def test_raw_list_whose_number_of_pages_is_too_small_is_read_to_its_end(
    liar: tuple[FaultyServer, Liar], backend: Backend
) -> None:
    _, app = liar
    api = RawApi(backend)
    for number in range(101):
        api.request("POST", f"{WORKSPACE}/peers", {"id": f"p{number}"})
    page = api.request("POST", f"{WORKSPACE}/peers/list?page=1&size=100", {}).json()["items"]

    def few(found: dict[str, Any], number: int) -> dict[str, Any]:
        last = [{"id": "p100"}] if number == 2 else []
        return {**found, "items": page if number == 1 else last, "page": number, "pages": 1, "total": 0}

    app.lie = few
    assert len(api.ids(f"{WORKSPACE}/peers")) == 101


def test_purge_of_endless_lists_ends_and_says_so(
    liar: tuple[FaultyServer, Liar], backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, app = liar
    api = RawApi(backend)
    for name in ("ada", "bob"):
        api.request("POST", f"{WORKSPACE}/peers", {"id": name})
    monkeypatch.setattr(raw_api, "_LIST_PAGES", 20)
    app.lie = endless
    server.clear()
    with pytest.raises(Unavailable, match=r"does not end: 40 items were read, and the rest was left out"):
        ServerPurge(api, "hermes", dry_run=True).purge(PurgeFilter(workspace="hermes", peer="ada"))
    assert len(server.requests) <= 60


def test_purge_asks_for_the_chosen_only(liar: tuple[FaultyServer, Liar], backend: Backend) -> None:
    server, _ = liar
    api = RawApi(backend)
    api.request("POST", f"{WORKSPACE}/sessions", {"id": "s1"})
    server.clear()
    done = ServerPurge(api, "hermes", dry_run=False).purge(PurgeFilter(workspace="hermes", session="s1"))
    assert done.deleted["session"] == 1
    filters = [seen.body_json["filters"] for seen in server.requests if seen.path.endswith("/list")]
    assert filters == [{"session_id": "s1"}, {"id": "s1"}]
