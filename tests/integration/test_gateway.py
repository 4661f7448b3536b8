"""Hundreds of conversations in one process."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from support.api import api_of
from support.faulty import FaultyServer

import honcho_exec.net.transport
import honcho_exec.runtime.idle
from honcho_exec import HonchoProvider
from honcho_exec.client.backend import open_backend
from honcho_exec.clock import SystemClock
from honcho_exec.settings import Settings

CHATS = 200
# The alarm, and what recall shares.
BESIDE = 1 + 32
SOON = 0.3


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def own_threads() -> list[str]:
    """The provider's threads of this process; the server's are not."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("honcho")]


def chat(number: int, server: FaultyServer, home: Path) -> HonchoProvider:
    environ = {"HOME": str(home), "HONCHO_BASE_URL": server.url, "HONCHO_TIMEOUT": "60"}
    provider = HonchoProvider(environ=environ, home=home / "state")
    provider.initialize(f"run-{number}", gateway_session_key=f"chat:{number}", user_id=f"user-{number}")
    return provider


@pytest.mark.slow
def test_two_hundred_conversations_keep_to_themselves_and_give_back_what_they_do_not_use(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(honcho_exec.runtime.idle, "_IDLE_THREAD_SECONDS", SOON)
    monkeypatch.setattr(honcho_exec.net.transport, "_KEEPALIVE_SECONDS", SOON)
    files = open_files()
    chats = [chat(number, server, tmp_path) for number in range(CHATS)]
    turns = [provider.sync_turn(f"I am number {number}", "") for number, provider in enumerate(chats)]
    assert len(own_threads()) <= CHATS + BESIDE
    assert [turn.result(120).written for turn in turns] == [1] * CHATS
    backend = open_backend(Settings(base_url=server.url), tmp_path, SystemClock())
    api = api_of(backend, "hermes")
    for number in (0, 7, CHATS - 1):
        (message,) = api.reads.session_context(f"chat-{number}").messages
        assert (message.content, message.peer) == (f"I am number {number}", f"user-{number}")
    backend.close()
    deadline = time.monotonic() + 60
    while len(own_threads()) > CHATS // 10 and time.monotonic() < deadline:
        threading.Event().wait(SOON)
    assert len(own_threads()) <= CHATS // 10
    assert open_files() - files < CHATS
    for provider in chats:
        provider.shutdown()
    assert open_files() - files < 20


def test_rounds_of_opening_and_closing_leave_nothing_behind(server: FaultyServer, tmp_path: Path) -> None:
    def rounds(first: int, last: int) -> None:
        for number in range(first, last):
            provider = chat(number, server, tmp_path)
            provider.sync_turn("hello", "").result(30)
            provider.shutdown()

    rounds(0, 5)
    files, threads = open_files(), len(own_threads())
    rounds(5, 25)
    assert open_files() <= files + 3
    assert len(own_threads()) <= threads + 3
