"""What the real host says when a conversation moves on, and where the turns then go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.memory_manager import MemoryManager
from hermes_state import SessionDB

from honcho_exec.hermes.adapter import HonchoExecMemoryProvider


@pytest.fixture
def titles(hermes_environ: Path) -> Iterator[SessionDB]:
    """The host's own sessions, with the titles that people gave them."""
    hermes_environ.mkdir(exist_ok=True)
    database = SessionDB(hermes_environ / "state.db")
    for name in ("run-1", "run-2", "run-3"):
        database.create_session(name, "cli")
    yield database
    database.close()


@pytest.fixture
def shell(titles: SessionDB) -> HonchoExecMemoryProvider:
    assert titles
    return HonchoExecMemoryProvider()


@pytest.fixture
def manager(shell: HonchoExecMemoryProvider) -> Iterator[MemoryManager]:
    manager = MemoryManager()
    manager.add_provider(shell)
    yield manager
    manager.shutdown_all()


def session(shell: HonchoExecMemoryProvider) -> str:
    """Where the next turn goes."""
    conversation = shell._provider._conversation
    assert conversation is not None
    return conversation.ref.session


def test_titles_rule_over_new_resume_branch_and_compression(
    manager: MemoryManager,
    shell: HonchoExecMemoryProvider,
    titles: SessionDB,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (project := tmp_path / "project").mkdir()
    monkeypatch.chdir(project)
    titles.set_session_title("run-1", "Garden plans")
    titles.set_session_title("run-3", "Taxes")
    manager.initialize_all("run-1", platform="cli", session_title="Garden plans")
    assert session(shell) == "Garden-plans"
    # Compressed: the host numbers the title of what is the same conversation.
    titles.set_session_title("run-2", "Garden plans #2")
    manager.on_session_switch("run-2", parent_session_id="run-1", reason="compression")
    assert session(shell) == "Garden-plans"
    # /undo keeps the id.
    manager.on_session_switch("run-2", rewound=True)
    assert session(shell) == "Garden-plans"
    # /resume goes where `hermes --resume` would go.
    manager.on_session_switch("run-3", parent_session_id="run-2", reason="resume")
    assert session(shell) == "Taxes"
    # /new leaves the title behind, on the host's own thread.
    manager.commit_session_boundary_async([], new_session_id="run-4", parent_session_id="run-3")
    assert manager.flush_pending(timeout=10)
    assert session(shell) == "project"
    # /branch gives a title of its own before it tells.
    titles.create_session("run-5", "cli")
    titles.set_session_title("run-5", "Taxes, another way")
    manager.on_session_switch("run-5", parent_session_id="run-4", reason="branch")
    assert session(shell) == "Taxes-another-way"


def test_a_turn_is_stored_where_it_was_said_whatever_happens_then(
    manager: MemoryManager, shell: HonchoExecMemoryProvider, titles: SessionDB
) -> None:
    titles.set_session_title("run-2", "Second")
    manager.initialize_all("run-1", platform="cli", session_title="First")
    manager.sync_all("said in the first", "yes", session_id="run-1")
    manager.on_session_switch("run-2", parent_session_id="run-1", reason="resume")
    manager.sync_all("late", "yes", session_id="run-1")
    manager.sync_all("said in the second", "yes", session_id="run-2")
    assert manager.flush_pending(timeout=10)
    assert shell._provider.flush(20) == 0
    found = {hit.content: hit.session for hit in shell._provider.search("said late", limit=10)}
    assert found.get("said in the first") == "First"
    assert found.get("said in the second") == "Second"
    assert found.get("late") == "First"
