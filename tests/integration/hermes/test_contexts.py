"""Runs without a person (cron, flush, subagents) read at most: through the real host's manager nothing is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.memory_manager import MemoryManager
from support.faulty import FaultyServer

from honcho_exec.hermes.adapter import HonchoExecMemoryProvider


@pytest.fixture
def manager(hermes_environ: Path, server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryManager]:
    monkeypatch.setenv("HONCHO_BASE_URL", server.url)
    monkeypatch.setenv("HONCHO_MIGRATE_MEMORY_FILES", "true")
    (hermes_environ / "memories").mkdir(parents=True)
    (hermes_environ / "memories" / "USER.md").write_text("Likes tea.", encoding="utf-8")
    manager = MemoryManager()
    manager.add_provider(HonchoExecMemoryProvider())
    yield manager
    manager.shutdown_all()


def live(manager: MemoryManager) -> list[str]:
    """What a run does; returns all that it would put into a prompt."""
    injected = [manager.build_system_prompt(), manager.prefetch_all("Where do I live?", session_id="s1")]
    manager.sync_all("I moved to Lisbon.", "Noted.", session_id="s1")
    manager.queue_prefetch_all("Where do I live?", session_id="s1")
    manager.on_memory_write("add", "user", "Lives in Lisbon.")
    manager.on_delegation("find a flat", "found one", child_session_id="c1")
    injected.append(str(manager.on_pre_compress([{"role": "user", "content": "x"}]) or ""))
    assert manager.flush_pending(timeout=10)
    injected.append(manager.prefetch_all("Where do I live?", session_id="s1"))
    manager.on_session_switch("s2", parent_session_id="s1", reset=True)
    manager.on_session_end([])
    return injected


@pytest.mark.parametrize(
    "context",
    [{"agent_context": "cron"}, {"agent_context": "flush"}, {"agent_context": "subagent"}, {"platform": "cron"}],
    ids=lambda context: "-".join(context.values()),
)
def test_a_run_without_a_person_writes_and_injects_nothing(
    manager: MemoryManager, server: FaultyServer, hermes_environ: Path, context: dict[str, str]
) -> None:
    manager.initialize_all("s1", **{"platform": "cli", **context})
    assert [text for text in live(manager) if text.strip()] == []
    for tool, args in (
        ("honcho_conclude", {"conclusion": "Is a cron job."}),
        ("honcho_conclude", {"delete_id": "x"}),
        ("honcho_profile", {"card": ["Is a cron job."]}),
    ):
        answer = json.loads(manager.handle_tool_call(tool, args))
        assert (answer["cause"], answer["retryable"]) == ("disabled", False)
    # It may look.
    assert json.loads(manager.handle_tool_call("honcho_search", {"query": "Lisbon"}))["result"]
    assert json.loads(manager.handle_tool_call("honcho_context", {}))["result"]
    manager.shutdown_all()
    # The SDK makes the workspace by itself; the peer's sessions are listed by a POST.
    harmless = r"/(search|list|workspaces|peers/[^/]+/sessions)$"
    made = [f"{seen.method} {seen.path}" for seen in server.requests if seen.method != "GET"]
    assert [request for request in made if not re.search(harmless, request)] == []
    assert b"Lisbon" not in b"".join(path.read_bytes() for path in hermes_environ.rglob("outbox.db*"))


def test_a_run_with_a_person_does_all_of_it(manager: MemoryManager, server: FaultyServer) -> None:
    """Or the test above would show nothing."""
    manager.initialize_all("s1", platform="cli", agent_context="primary")
    assert "Honcho memory" in live(manager)[0]
    manager.shutdown_all()
    assert server.count("POST", "/messages$") > 0
    assert server.count("POST", "/conclusions$") > 0
