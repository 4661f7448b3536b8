"""A session that was deleted stops neither the tools nor other sessions, and loses nothing that was accepted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack

import httpx
import pytest
from support.faulty import FaultyServer, Seen, status
from support.processes import messages_on
from support.providers import MakeProvider

from honcho_exec import HonchoProvider
from honcho_exec.client import api as honcho_api
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.errors import SessionDeleted
from honcho_exec.text.purge_filter import PurgeFilter

WORKSPACE = "/v3/workspaces/hermes"
READING_TOOLS = {
    "honcho_profile": {},
    "honcho_search": {"query": "tea"},
    "honcho_reasoning": {"query": "what does she drink?"},
    "honcho_context": {},
    "honcho_conclude": {"list": True},
}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again for a deleted session after a tenth of a second."""
    monkeypatch.setattr(honcho_api, "_NAME_FREED_AFTER_SECONDS", 0.1)


def delete(server: FaultyServer, session: str = "s1") -> None:
    """Delete a session as a server does: its name is not free before `heal`."""
    httpx.delete(f"{server.url}{WORKSPACE}/sessions/{session}", trust_env=False).raise_for_status()

    def refused(seen: Seen) -> bool:
        body = seen.body_json if isinstance(seen.body_json, dict) else {}
        inside = f"/sessions/{session}" in seen.path and not seen.is_for("POST", "/(list|search)$")
        made = seen.is_for("POST", "/sessions$") and body.get("id") == session
        concluded = seen.is_for("POST", "/conclusions$") and f'"session_id": "{session}"' in json.dumps(body)
        return inside or made or concluded

    server.rule(match=refused, fault=status(404, body=b'{"detail": "Session not found"}'))


def call(provider: HonchoProvider, tool: str, arguments: dict[str, object]) -> dict[str, object]:
    answer: dict[str, object] = json.loads(provider.handle_tool_call(tool, arguments))
    return answer


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "before it starts"])
def test_tools_work_while_the_session_is_deleted(
    server: FaultyServer, make_provider: MakeProvider, *, running: bool
) -> None:
    first = make_provider(base_url=server.url)
    first.remember("s2", "user", "I like my tea black").result(10)
    first.sync_turn("hello", "hi").result(10)
    provider = first
    if running:
        delete(server)
        assert isinstance(provider.sync_turn("lost?", "").exception(10), SessionDeleted)
    else:
        first.shutdown()
        delete(server)
        provider = make_provider(base_url=server.url, home="another")
    for tool, arguments in READING_TOOLS.items():
        answer = call(provider, tool, arguments)
        assert "error" not in answer, (tool, answer)
        assert "was deleted" in str(answer["note"]), tool
        assert "five minutes" in str(answer["note"]), tool
    assert "tea black" in str(call(provider, "honcho_search", {"query": "tea"})["result"])
    assert "likes tea" in str(call(provider, "honcho_conclude", {"conclusion": "likes tea"})["result"])
    (concluded,) = call(provider, "honcho_conclude", {"list": True})["conclusions"]  # type: ignore[misc]
    assert "error" not in call(provider, "honcho_conclude", {"delete_id": concluded["id"]})  # type: ignore[index]
    assert "error" not in call(provider, "honcho_profile", {"card": ["drinks tea"]})


def test_turns_wait_for_the_name_and_others_do_not(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url)
    provider.sync_turn("before", "").result(10)
    delete(server)
    for said in ("one", "two", "three"):
        assert isinstance(provider.sync_turn(said, "").exception(10), SessionDeleted)
    assert provider.remember("s2", "user", "elsewhere").result(10).written == 1
    found = provider.status()
    assert (found.pending, found.parked, found.problem_cause, found.ok) == (3, 0, "session_deleted", False)
    assert "s1 was deleted" in str(found.problem)
    assert all(finding.advice for finding in found.findings if finding.level == "problem")
    server.heal()
    assert provider.flush(10) == 0
    assert messages_on(server.url, "s1") == ["one", "two", "three"]
    assert provider.status().ok
    assert "note" not in call(provider, "honcho_context", {})


def test_turns_of_a_deleted_session_survive_the_process(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url)
    provider.sync_turn("before", "").result(10)
    delete(server)
    assert isinstance(provider.sync_turn("kept", "").exception(10), SessionDeleted)
    provider.shutdown()
    server.heal()
    assert make_provider(base_url=server.url).flush(10) == 0
    assert messages_on(server.url, "s1") == ["kept"]


def test_deleted_session_is_not_asked_for_with_every_call(
    server: FaultyServer, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(honcho_api, "_NAME_FREED_AFTER_SECONDS", 60.0)
    provider = make_provider(base_url=server.url)
    provider.sync_turn("before", "").result(10)
    delete(server)
    for said in range(10):
        provider.sync_turn(str(said), "").exception(10)
        call(provider, "honcho_context", {})
    assert server.count("POST", "/sessions$") <= 2


def test_embedded_session_purged_by_another_process_begins_again(make_provider: MakeProvider) -> None:
    provider = make_provider()
    provider.sync_turn("before", "noted").result(10)
    other = EmbeddedHoncho(provider.home / "memory.db")
    other.purge(PurgeFilter(session="s1"))
    other.close()
    for tool, arguments in READING_TOOLS.items():
        assert "error" not in call(provider, tool, arguments), tool
    assert "error" not in call(provider, "honcho_conclude", {"conclusion": "likes tea"})
    assert provider.sync_turn("after", "noted too").result(10).written == 2
    answer = str(call(provider, "honcho_context", {})["result"])
    assert "after" in answer
    assert "before" not in answer
    assert provider.status().parked == 0


@pytest.mark.parametrize("served", [False, True], ids=["embedded", "served"])
def test_running_process_joins_again_what_another_process_purged(
    server: FaultyServer, make_provider: MakeProvider, *, served: bool
) -> None:
    settings = {"base_url": server.url} if served else {}
    provider, other = make_provider(**settings), make_provider(**settings)
    for each in (provider, other):
        assert each.sync_turn("before", "noted").result(10).written == 2
    environ = {"HONCHO_EXEC_HOME": str(provider.home), "HONCHO_BASE_URL": server.url if served else "embedded"}
    purge = [sys.executable, "-m", "honcho_exec", "purge", "--session", "s1", "--yes"]
    subprocess.run(purge, env=os.environ | environ, check=True, capture_output=True, timeout=30)
    assert provider.sync_turn("after", "").result(10).written == 1
    assert other.remember("s1", "assistant", "noted too").result(10).written == 1
    provider.shutdown()
    other.shutdown()
    with ExitStack() as stack:
        url = server.url
        if not served:
            honcho = EmbeddedHoncho(provider.home / "memory.db")
            stack.callback(honcho.close)
            url = stack.enter_context(FaultyServer(honcho.app)).url
        assert messages_on(url, "s1") == ["after", "noted too"]
        for peer in ("ada", "hermes"):
            config = httpx.get(f"{url}{WORKSPACE}/sessions/s1/peers/{peer}/config", trust_env=False).json()
            assert config == {"observe_me": True, "observe_others": True}, peer
