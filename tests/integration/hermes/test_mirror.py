"""The real host's built-in memory tool, its compression and its delegation, as they reach Honcho."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent.memory_manager import MemoryManager
from tools.memory_tool import MemoryStore, memory_tool

from honcho_exec.hermes.adapter import HonchoExecMemoryProvider


class Agent:
    """What the host's agent loop does around the built-in memory tool."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.store.load_from_disk()
        self.shell = HonchoExecMemoryProvider()
        self.manager = MemoryManager()
        self.manager.add_provider(self.shell)
        self.manager.initialize_all("s1", platform="cli", agent_context="primary")

    def remember(self, **arguments: Any) -> None:
        result = memory_tool(**arguments, store=self.store)
        self.manager.notify_memory_tool_write(
            result, arguments, build_metadata=lambda: {"session_id": "s1", "tool_name": "memory"}
        )

    def concluded(self, peer: str = "user") -> set[str]:
        assert self.shell._provider.flush(10) == 0
        answer = json.loads(self.manager.handle_tool_call("honcho_conclude", {"list": True, "peer": peer}))
        return {one["content"] for one in answer["conclusions"]}


@pytest.fixture
def agents(hermes_environ: Path) -> Iterator[list[Agent]]:
    (hermes_environ / "memories").mkdir(parents=True)
    (hermes_environ / "memories" / "USER.md").write_text("Is left-handed")
    made: list[Agent] = []
    yield made
    for agent in made:
        agent.manager.shutdown_all()


def test_the_hosts_memory_tool_is_mirrored(agents: list[Agent]) -> None:
    agents.append(agent := Agent())
    agent.remember(action="add", target="user", content="Likes tea with honey")
    agent.remember(action="add", target="user", content="Likes tea with honey")
    agent.remember(action="add", target="memory", content="Runs tests with make")
    assert agent.concluded() == {"Likes tea with honey"}
    assert agent.concluded("ai") == {"Runs tests with make"}
    agent.remember(action="replace", target="user", old_text="honey", content="Likes coffee")
    # What the host refuses is not mirrored.
    agent.remember(action="remove", target="user", old_text="not there")
    assert agent.concluded() == {"Likes coffee"}
    # Another process, and several operations at once.
    agents.append(other := Agent())
    other.remember(
        target="user",
        operations=[
            {"action": "replace", "old_text": "coffee", "content": "Likes cocoa"},
            {"action": "add", "content": "Has a cat"},
            {"action": "replace", "old_text": "cocoa", "content": "Likes water"},
            {"action": "remove", "old_text": "left-handed"},
        ],
    )
    assert other.concluded() == {"Likes water", "Has a cat"}
    agent.remember(action="remove", target="user", old_text="cat")
    assert agent.concluded() == {"Likes water"}


def test_delegation_and_compression_lose_nothing(agents: list[Agent]) -> None:
    agents.append(agent := Agent())
    agent.manager.sync_all("What is the capital of Peru?", "Lima.", session_id="s1")
    assert agent.manager.flush_pending(timeout=10)
    agent.manager.on_delegation("Look up hotels in Lima", "The Gran Bolivar is open", child_session_id="c1")
    assert agent.manager.on_pre_compress([{"role": "user", "content": "What is the capital of Peru?"}]) == ""
    agent.manager.on_session_end([])
    found = json.loads(agent.manager.handle_tool_call("honcho_search", {"query": "Lima", "peer": "ai"}))["result"]
    assert "Gran Bolivar" in found
    assert "capital of Peru" in found


def test_a_backup_takes_what_is_kept_outside_the_hosts_folder(
    hermes_environ: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hermes_environ.mkdir(exist_ok=True)
    (hermes_environ / "config.yaml").write_text("memory:\n  provider: honcho_exec\n")
    shared = tmp_path / ".hermes" / "honcho.json"
    for path in (shared, tmp_path / ".honcho" / "config.json", tmp_path / "elsewhere" / "memory.db"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    monkeypatch.setenv("HONCHO_EXEC_HOME", str(tmp_path / "elsewhere"))
    assert set(HonchoExecMemoryProvider().backup_paths()) == {
        str(tmp_path / ".honcho"),
        str(shared),
        str(tmp_path / "elsewhere"),
    }
    monkeypatch.setenv("HONCHO_EXEC_HOME", "~nobody-of-this-name/state")
    assert str(tmp_path / ".honcho") in HonchoExecMemoryProvider().backup_paths()
