"""`writeFrequency`: a turn is stored at once in every mode; only its sending is held back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from support.faulty import FaultyServer, hang, latency
from support.paths import TESTS
from support.providers import MakeProvider

from honcho_exec import HonchoProvider
from honcho_exec.errors import StateError

ALL = ["one", "1", "two", "2", "three", "3"]


def talk(provider: HonchoProvider, turns: int = 3) -> None:
    for said, answer in zip(ALL[: 2 * turns : 2], ALL[1 : 2 * turns : 2], strict=True):
        provider.sync_turn(said, answer)


def posted(server: FaultyServer, session: str = "") -> list[list[str]]:
    """What each request for messages held, in order."""
    return [
        [message["content"] for message in seen.body_json["messages"]]
        for seen in server.requests
        if seen.is_for("POST", f"{session}/messages$")
    ]


def fail(*_: object) -> NoReturn:
    raise StateError("the disk is full")


def at_the_end(provider: HonchoProvider) -> None:
    provider.on_session_end([])


def at_a_switch(provider: HonchoProvider) -> None:
    sessions = provider._lifecycle.sessions
    sessions._context = sessions._context.__class__(cwd="/elsewhere")
    provider.on_session_switch("other")
    assert provider.flush(10) == 0


def by_hand(provider: HonchoProvider) -> None:
    assert provider.flush(10) == 0


@pytest.mark.parametrize("frequency", ["session", "100"])
@pytest.mark.parametrize("end", [at_the_end, at_a_switch, by_hand, HonchoProvider.shutdown])
def test_what_is_held_back_is_sent_at_the_end_in_few_requests(
    server: FaultyServer, make_provider: MakeProvider, frequency: str, end: Callable[[HonchoProvider], None]
) -> None:
    provider = make_provider(base_url=server.url, write_frequency=frequency)
    talk(provider)
    # Whatever else is done meanwhile neither sends it nor waits for it.
    provider.sync_turn("", "")
    assert "error" not in json.loads(provider.handle_tool_call("honcho_search", {"query": "one"}))
    assert "error" not in json.loads(provider.handle_tool_call("honcho_conclude", {"conclusion": "Counts."}))
    status = provider.status()
    assert (status.ok, status.pending, status.held, status.oldest_pending_age) == (True, 6, 6, None)
    assert posted(server) == []
    end(provider)
    assert posted(server) == [ALL]


def test_a_number_of_turns_is_sent_when_it_is_gathered(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url, write_frequency=2)
    assert not provider.sync_turn("one", "1").done()
    provider.handle_tool_call("honcho_search", {"query": "one"})
    assert posted(server) == []
    assert provider.sync_turn("two", "2").result(10).written == 2
    third = provider.sync_turn("three", "3")
    assert posted(server) == [ALL[:4]]
    provider.shutdown()
    assert posted(server) == [ALL[:4], ALL[4:]]
    assert third.result(0).written == 2


def test_without_a_setting_nothing_is_held_back(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url)
    assert provider.sync_turn("one", "1").result(10).written == 2
    assert posted(server) == [["one", "1"]]


def test_what_is_imported_behind_a_turn_stays_behind_it(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url, write_frequency="session")
    talk(provider, 2)
    provider.remember("s1", "user", "three").result(10)
    assert [text for texts in posted(server) for text in texts] == ["one", "1", "two", "2", "three"]


def test_a_disk_that_fails_for_a_moment_delays_what_is_held_back(
    server: FaultyServer, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = make_provider(base_url=server.url, write_frequency="session", sync_join_timeout=0.5)
    talk(provider)
    with monkeypatch.context() as patched:
        patched.setattr("honcho_exec.outbox.outbox._Release.apply", fail)
        provider.on_session_end([])
        assert posted(server) == []
    assert provider.flush(20) == 0
    assert posted(server) == [ALL]


def test_in_the_mode_turn_the_caller_waits_for_the_delivery(server: FaultyServer, make_provider: MakeProvider) -> None:
    server.rule(match=lambda seen: seen.is_for("POST", "/messages$"), fault=latency(0.2))
    provider = make_provider(base_url=server.url, write_frequency="turn")
    assert provider.sync_turn("one", "1").done()
    assert posted(server) == [["one", "1"]]


def test_in_the_mode_turn_the_caller_waits_for_a_stuck_sync_once(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    server.rule(match=lambda seen: seen.is_for("POST", "/messages$"), fault=hang())
    provider = make_provider(
        base_url=server.url, write_frequency="turn", sync_join_timeout=0.5, shutdown_timeout=0.1, timeout=60
    )
    start = time.monotonic()
    assert not provider.sync_turn("one", "1").done()
    assert time.monotonic() - start > 0.4
    start = time.monotonic()
    for _ in range(20):
        provider.sync_turn("two", "2")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("frequency", ["session", "5"])
def test_a_killed_process_loses_nothing_of_what_it_held_back(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path, frequency: str
) -> None:
    program = (
        "import os, signal, sys\n"
        "from honcho_exec import HonchoProvider\n"
        "provider = HonchoProvider('s1')\n"
        "provider.initialize()\n"
        f"for said, answer in zip({ALL[::2]}, {ALL[1::2]}):\n"
        "    provider.sync_turn(said, answer)\n"
        "provider.handle_tool_call('honcho_search', {'query': 'one'})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environ = {
        "HOME": str(tmp_path),
        "HONCHO_EXEC_HOME": str(tmp_path / "state"),
        "HONCHO_BASE_URL": server.url,
        "HONCHO_WRITE_FREQUENCY": frequency,
        "PYTHONPATH": str(TESTS.parent),
    }
    subprocess.run([sys.executable, "-c", program], env=environ, check=False)
    assert posted(server) == []
    # Also where the next one holds its own turns back.
    provider = make_provider(base_url=server.url, write_frequency="session")
    provider.handle_tool_call("honcho_search", {"query": "one"})
    assert posted(server) == [ALL]
