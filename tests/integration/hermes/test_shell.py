from __future__ import annotations

import json
import logging
import os
import queue
import time
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from support.faulty import FaultyServer, hang, status

from honcho_exec.errors import HonchoExecError, InputError
from honcho_exec.model import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIEnvironment


from agent import secret_scope
from agent.memory_manager import MemoryManager
from hermes_constants import reset_hermes_home_override, set_hermes_home_override

from honcho_exec.hermes.adapter import HonchoExecMemoryProvider

SECRET = "the words of a person"


class Broken:
    """A provider that fails in a way nobody foresaw, whatever is asked of it."""

    @property
    def home(self) -> NoReturn:
        raise ZeroDivisionError(SECRET)

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        def fail(*_: object, **__: object) -> NoReturn:
            raise ZeroDivisionError(SECRET)

        return fail


@pytest.fixture
def broken(hermes_environ: Path) -> HonchoExecMemoryProvider:
    assert hermes_environ
    shell = HonchoExecMemoryProvider()
    shell._provider = Broken()
    return shell


@pytest.fixture
def manager(hermes_environ: Path) -> Iterator[MemoryManager]:
    assert hermes_environ
    manager = MemoryManager()
    manager.add_provider(HonchoExecMemoryProvider())
    yield manager
    manager.shutdown_all()


def nothing_there(_: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    start_response("404 Not Found", [])
    return []


def test_a_conversation_through_the_hosts_manager(manager: MemoryManager, hermes_environ: Path) -> None:
    manager.initialize_all("s1", platform="cli", agent_context="primary", warning_callback=print, user_name="Ada")
    assert "honcho_search" in manager.build_system_prompt()
    manager.sync_all("I moved to Lisbon.", "Noted.", session_id="s1", messages=[{"role": "user", "content": "?"}])
    manager.queue_prefetch_all("Where do I live?", session_id="s1")
    assert manager.flush_pending(timeout=5)
    found = json.loads(manager.handle_tool_call("honcho_search", {"query": "Lisbon"}, tool_call_id="1"))
    assert "I moved to Lisbon." in found["result"]
    # A turn later, so that what was queued first has been fetched.
    assert json.loads(manager.handle_tool_call("honcho_reasoning", {"query": "Lisbon?"}))["result"]
    assert "Lisbon" in prefetched(manager)
    manager.on_session_switch("s2", parent_session_id="s1", reset=False, reason="compression")
    manager.on_session_end([])
    manager.shutdown_all()
    assert manager.shutdown_drain_state["status"] == "drained"
    assert (hermes_environ / "honcho_exec" / "memory.db").exists()
    answer = json.loads(manager.handle_tool_call("honcho_search", {"query": "Lisbon"}))
    assert (answer["cause"], answer["retryable"]) == ("closed", False)


def prefetched(manager: MemoryManager) -> str:
    """What the host would inject, asked for until something is there."""
    for _ in range(100):
        if text := manager.prefetch_all("Where do I live?", session_id="s1"):
            return text
        manager.queue_prefetch_all("Where do I live?", session_id="s1")
        manager.flush_pending(timeout=5)
        manager.handle_tool_call("honcho_context", {})
    return ""


def test_initialize_does_not_wait_for_a_server_that_hangs(
    hermes_environ: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyServer(nothing_there) as server:
        server.rule(fault=hang())
        monkeypatch.setenv("HONCHO_BASE_URL", server.url)
        monkeypatch.setenv("HONCHO_SHUTDOWN_TIMEOUT", "0.1")
        took = []
        # The best of a few: what is measured is the provider, not what else the machine does.
        for _ in range(5):
            shell = HonchoExecMemoryProvider()
            begun = time.perf_counter()
            shell.initialize("s1", hermes_home=str(hermes_environ), platform="cli")
            took.append(time.perf_counter() - begun)
            future = shell.sync_turn("one", "two", session_id="s1")
            shell.shutdown()
        assert server.requests
    assert min(took) < 0.05
    with pytest.raises(HonchoExecError, match="will be delivered later"):
        future.result(0)


def test_nothing_unforeseen_reaches_the_host(
    broken: HonchoExecMemoryProvider, caplog: pytest.LogCaptureFixture
) -> None:
    answers: dict[str, tuple[Callable[[], Any], Any]] = {
        "is_available": (broken.is_available, False),
        "initialize": (lambda: broken.initialize("s1"), None),
        "system_prompt_block": (broken.system_prompt_block, ""),
        "prefetch": (lambda: broken.prefetch("q"), ""),
        "queue_prefetch": (lambda: broken.queue_prefetch("q"), None),
        "get_tool_schemas": (broken.get_tool_schemas, []),
        "on_session_end": (broken.on_session_end, None),
        "on_session_switch": (lambda: broken.on_session_switch("s2", reset=True), None),
        "shutdown": (broken.shutdown, None),
        "backup_paths": (broken.backup_paths, []),
    }
    for name, (call, expected) in answers.items():
        caplog.clear()
        assert call() == expected
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert f"{name} failed unexpectedly with ZeroDivisionError" in record.getMessage()
        assert "raise ZeroDivisionError(SECRET)" in record.getMessage()
        assert SECRET not in record.getMessage()


def test_an_unforeseen_failure_of_a_tool_is_answered_as_an_error(broken: HonchoExecMemoryProvider) -> None:
    text = broken.handle_tool_call("honcho_search", {"query": "x"}, tool_call_id="1")
    answer = json.loads(text)
    assert {name: answer[name] for name in ("tool", "retryable", "cause")} == {
        "tool": "honcho_search",
        "retryable": False,
        "cause": "internal",
    }
    assert SECRET not in text


def test_an_unforeseen_failure_of_a_sync_fails_its_future(broken: HonchoExecMemoryProvider) -> None:
    future = broken.sync_turn("one", "two")
    with pytest.raises(HonchoExecError, match="sync_turn failed unexpectedly"):
        future.result(0)


def test_a_turn_that_cannot_be_stored_is_logged(manager: MemoryManager, caplog: pytest.LogCaptureFixture) -> None:
    (shell,) = manager.providers
    manager.initialize_all("s1")
    with pytest.raises(InputError):
        shell.sync_turn(object(), SECRET).result(0)
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "a turn was not stored: `user_content` must be text" in record.getMessage()
    assert isinstance(shell.sync_turn("one", "two").result(5), Receipt)


def test_whatever_the_host_says_of_a_conversation_can_be_said(manager: MemoryManager) -> None:
    (shell,) = manager.providers
    manager.initialize_all("s1", user_id=4711, user_id_alt=None, chat_id=1, thread_id=None, agent_identity=None)
    assert "4711" in json.dumps(json.loads(shell.handle_tool_call("honcho_conclude", {"conclusion": "Likes tea."})))


def test_settings_that_cannot_be_used_are_answered_by_the_tools(
    hermes_environ: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONCHO_TIMEOUT", "soon")
    monkeypatch.setenv("HERMES_HOME", str(hermes_environ))
    manager = MemoryManager()
    manager.add_provider(HonchoExecMemoryProvider())
    manager.initialize_all("s1")
    assert len(manager.get_all_tool_schemas()) == 5
    answer = json.loads(manager.handle_tool_call("honcho_search", {"query": "x"}))
    assert (answer["cause"], answer["retryable"]) == ("configuration", False)
    assert "HONCHO_TIMEOUT" in answer["error"]
    manager.shutdown_all()


def test_profiles_of_one_gateway_do_not_see_each_others_settings(
    hermes_environ: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONCHO_BASE_URL", "http://process.example")
    coder = hermes_environ / "profiles" / "coder"
    home = set_hermes_home_override(str(coder))
    secrets = secret_scope.set_secret_scope({"HONCHO_API_KEY": "coders"})
    try:
        # One profile a process: its own file and the process's environment are the same thing.
        assert HonchoExecMemoryProvider().get_status_config()["url"] == "http://process.example"
        secret_scope.set_multiplex_active(True)
        status = HonchoExecMemoryProvider().get_status_config()
    finally:
        secret_scope.set_multiplex_active(False)
        secret_scope.reset_secret_scope(secrets)
        reset_hermes_home_override(home)
    assert (status["backend"], status["url"]) == ("cloud", "https://api.honcho.dev")
    assert status["state"] == str(coder / "honcho_exec")
    assert "coders" not in str(status)


def test_what_lies_outside_the_hosts_home_is_named_for_its_backup(
    hermes_environ: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honcho = str(hermes_environ.parent / ".honcho")
    assert HonchoExecMemoryProvider().backup_paths() == [honcho]
    monkeypatch.setenv("HONCHO_EXEC_HOME", str(tmp_path / "elsewhere"))
    assert HonchoExecMemoryProvider().backup_paths() == [honcho, str(tmp_path / "elsewhere")]
    monkeypatch.setenv("HONCHO_EXEC_HOME", f"{honcho}/exec")
    assert HonchoExecMemoryProvider().backup_paths() == [honcho]


def test_a_shell_that_is_only_looked_at_leaves_nothing(hermes_environ: Path) -> None:
    shell = HonchoExecMemoryProvider()
    assert shell.is_available()
    shell.on_session_end([])
    shell.shutdown()
    shell.shutdown()
    # Nor a thread: every test is checked for that.
    assert not os.path.lexists(hermes_environ)


def test_a_person_at_the_terminal_is_told_that_memory_is_not_in_use(
    hermes_environ: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONCHO_BASE_URL", "htp://x")
    told: list[str] = []
    shell = HonchoExecMemoryProvider()
    shell.initialize("s1", hermes_home=str(hermes_environ), warning_callback=told.append)
    assert len(told) == 1
    assert "HONCHO_BASE_URL" in told[0]


def test_the_person_is_told_once_when_memory_falters_and_once_when_it_is_back(
    hermes_environ: Path, monkeypatch: pytest.MonkeyPatch, server: FaultyServer
) -> None:
    for name, value in {"BASE_URL": server.url, "TIMEOUT": "1", "BREAKER_COOLDOWN": "0.3"}.items():
        monkeypatch.setenv(f"HONCHO_{name}", value)
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    server.rule(fault=status(503))
    shell = HonchoExecMemoryProvider()
    shell.initialize("s1", hermes_home=str(hermes_environ), warning_callback=told.put)
    shell.sync_turn("what was said", "")
    assert "Honcho memory does not work: " in told.get(timeout=20)
    server.heal()
    assert "works again" in told.get(timeout=20)
    shell.shutdown()
    assert told.empty()
