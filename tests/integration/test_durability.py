"""A host goes on, and nothing that it gave is lost, whatever somebody else does with the files meanwhile."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.faulty import FaultyServer
from support.locking import locked
from support.processes import Victim, conclusions_on, messages_on
from support.providers import MakeProvider

from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.errors import StateError

# A caller waits a fifth of a second for somebody else, and never the two seconds that the lane waits.
LONGEST = 1.5


def test_a_turn_that_is_given_while_somebody_locks_the_outbox_is_kept_and_delivered(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    provider = make_provider(base_url=server.url, recall_mode="tools")
    provider.sync_turn("zero", "").result(10)
    with locked(tmp_path / "state" / "outbox.db"):
        begun = time.monotonic()
        futures = [provider.sync_turn(text, "") for text in ("one", "two", "three")]
        assert time.monotonic() - begun < LONGEST
        assert not any(future.done() for future in futures)
        status = provider.status()
        assert status.ok is False
        assert (status.pending, status.unstored) == (3, 3)
        assert any("not durable yet" in finding.what for finding in status.findings)
        assert not any(future.durable for future in futures)
        assert "not durable yet" in repr(futures[0])
    futures.append(provider.sync_turn("four", ""))
    assert provider.flush(20) == 0
    assert [future.result(10).written for future in futures] == [1, 1, 1, 1]
    assert messages_on(server.url, "s1") == ["zero", "one", "two", "three", "four"]
    assert provider.status().unstored == 0
    assert all(future.durable for future in futures)


def test_conclusion_given_while_another_process_locks_the_outbox_is_not_called_kept(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    provider = make_provider(base_url=server.url, recall_mode="tools", sync_join_timeout=0.1)
    provider.sync_turn("zero", "").result(10)
    with locked(tmp_path / "state" / "outbox.db"):
        answer = provider.handle_tool_call("honcho_conclude", {"conclusion": "likes tea"})
        assert "is not stored yet" in answer
        assert "is kept" not in answer
    assert provider.flush(20) == 0
    assert conclusions_on(server.url) == ["likes tea"]


def test_what_is_held_back_while_somebody_locks_the_outbox_is_let_go_later(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    provider = make_provider(base_url=server.url, recall_mode="tools", write_frequency=2)
    provider.sync_turn("one", "")
    with locked(tmp_path / "state" / "outbox.db"):
        begun = time.monotonic()
        futures = [provider.sync_turn("two", ""), provider.sync_turn("three", "")]
        assert time.monotonic() - begun < LONGEST
    assert futures[0].result(20).written == 1
    assert provider.flush(20) == 0
    assert messages_on(server.url, "s1") == ["one", "two", "three"]


def test_a_turn_that_is_given_where_the_outbox_cannot_even_be_opened_is_kept_and_delivered(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    settings = {"base_url": server.url, "recall_mode": "tools"}
    make_provider(**settings).shutdown()
    with locked(tmp_path / "state" / "outbox.db", "PRAGMA locking_mode=EXCLUSIVE;BEGIN EXCLUSIVE"):
        provider = make_provider(**settings)
        begun = time.monotonic()
        futures = [provider.sync_turn(text, "") for text in ("one", "two")]
        assert time.monotonic() - begun < LONGEST
        assert not any(future.done() for future in futures)
    assert provider.flush(20) == 0
    assert [future.result(10).written for future in futures] == [1, 1]
    assert messages_on(server.url, "s1") == ["one", "two"]


def test_shutdown_while_somebody_locks_the_outbox_tells_what_was_not_stored(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    provider = make_provider(base_url=server.url, recall_mode="tools", shutdown_timeout=0.5)
    provider.sync_turn("zero", "").result(10)
    with locked(tmp_path / "state" / "outbox.db"):
        lost = provider.sync_turn("lost", "")
        begun = time.monotonic()
        assert provider.shutdown() == 0
        assert 0.4 < time.monotonic() - begun < 5
        with pytest.raises(StateError, match="NOT stored"):
            lost.result(0)
    assert make_provider("later", base_url=server.url).flush(20) == 0
    assert messages_on(server.url, "s1") == ["zero"]


def test_shutdown_waits_for_somebody_who_releases_the_outbox_in_time(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    provider = make_provider(base_url=server.url, recall_mode="tools", shutdown_timeout=10)
    provider.sync_turn("zero", "").result(10)
    with ThreadPoolExecutor(1) as thread:
        with locked(tmp_path / "state" / "outbox.db"):
            kept = provider.sync_turn("kept", "")
            closing = thread.submit(provider.shutdown)
            threading.Event().wait(0.5)
        closing.result(20)
    assert make_provider("later", base_url=server.url).flush(20) == 0
    assert messages_on(server.url, "s1") == ["zero", "kept"]
    assert kept.done()


def _remove_all(home: Path) -> None:
    # What a running process makes anew meanwhile may be in the way of the folder's end.
    shutil.rmtree(home, ignore_errors=True)


def _remove(home: Path) -> None:
    for path in home.glob("*.db*"):
        path.unlink(missing_ok=True)


def _rename(home: Path) -> None:
    home.rename(home.with_name("elsewhere"))


@pytest.mark.parametrize("move", [_remove_all, _remove, _rename])
def test_turns_of_a_removed_state_fail_and_later_ones_are_delivered(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path, move: Callable[[Path], object]
) -> None:
    provider = make_provider(base_url=server.url, write_frequency="session")
    held = [provider.sync_turn(text, "") for text in ("one", "two")]
    move(tmp_path / "state")
    later = provider.sync_turn("three", "")
    for future in held:
        assert isinstance(error := future.exception(20), StateError)
        assert "outbox.db was removed or renamed while it was open; 2 rows that were pending in it are lost" in str(
            error
        )
    assert not later.done()
    assert any("2 rows" in finding.what for finding in provider.status().findings if finding.level == "problem")
    assert any("2 rows" in finding.what for finding in provider.doctor())
    # Another process sees it as the last failure.
    with make_provider("s2", base_url=server.url).outbox() as outbox:
        assert "2 rows" in str(outbox.history.last().error)
    provider.shutdown()
    assert messages_on(server.url, "s1") == ["three"]


def test_killed_after_the_state_was_removed(server: FaultyServer, make_provider: MakeProvider, tmp_path: Path) -> None:
    settings = {"base_url": server.url, "recall_mode": "tools"}
    server.stop()
    with Victim(tmp_path / "state", "said", **settings) as victim:
        victim.hear("ready")
        victim.give("one")
        _remove_all(tmp_path / "state")
        victim.give("two")
        victim.kill()
    server.start()
    assert make_provider("later", **settings).flush(20) == 0
    assert messages_on(server.url, "said") == ["two"]


@pytest.mark.parametrize("move", [_remove_all, _remove, _rename])
def test_the_embedded_memory_begins_anew_where_its_file_was_removed(
    make_provider: MakeProvider, tmp_path: Path, move: Callable[[Path], object]
) -> None:
    provider = make_provider()
    provider.sync_turn("before", "").result(10)
    assert provider.search("before")
    move(tmp_path / "state")
    assert provider.search("before") == []
    provider.sync_turn("after", "").result(20)
    provider.prefetch("what?")
    assert [hit.content for hit in provider.search("after")] == ["after"]
    assert provider.status().ok
    # Other processes see the same.
    honcho = EmbeddedHoncho(tmp_path / "state" / "memory.db")
    other = make_provider("s2")
    assert [hit.content for hit in other.search("after")] == ["after"]
    honcho.close()
