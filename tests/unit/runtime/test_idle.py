"""What nobody uses is given back: threads, connections, files."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import honcho_exec.net.transport
import honcho_exec.runtime.idle
from honcho_exec import HonchoProvider
from honcho_exec.errors import StateError
from honcho_exec.runtime import offload
from honcho_exec.runtime.idle import Idle
from honcho_exec.runtime.lane import Lane

SOON = 0.05


class Thing:
    """Something that is given back."""

    def __init__(self) -> None:
        self.given_back = threading.Event()
        self.idle = Idle(self.give_back, after=SOON)

    def give_back(self) -> None:
        self.given_back.set()


def test_what_is_in_use_is_kept_and_given_back_once_it_is_not() -> None:
    thing = Thing()
    thing.idle.begin()
    thing.idle.begin()
    thing.idle.end()
    assert not thing.given_back.wait(4 * SOON)
    thing.idle.end()
    assert thing.given_back.wait(5)


def test_what_was_given_back_can_be_used_and_given_back_again() -> None:
    thing = Thing()
    for _ in range(3):
        thing.idle.begin()
        thing.idle.end()
        assert thing.given_back.wait(5)
        thing.given_back.clear()


def test_a_lane_without_jobs_has_no_thread_and_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honcho_exec.runtime.idle, "_IDLE_THREAD_SECONDS", SOON)
    lane = Lane()
    for _ in range(3):
        thread = lane.call(threading.current_thread, 5)
        thread.join(5)
        assert not thread.is_alive()
    assert lane.close(1)


def test_a_lane_with_a_job_keeps_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honcho_exec.runtime.idle, "_IDLE_THREAD_SECONDS", SOON)
    lane = Lane()
    proceed = threading.Event()
    first = lane.submit(threading.current_thread)
    long = lane.submit(lambda: proceed.wait(10))
    second = lane.submit(threading.current_thread)
    assert not long.cancelled()
    threading.Event().wait(4 * SOON)
    proceed.set()
    assert first.result(5) is second.result(5)
    assert lane.close(1)


def test_no_idle_thread_is_kept_for_a_provider_that_could_not_begin(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    provider = HonchoProvider(environ={"HOME": str(tmp_path)}, home=tmp_path / "file" / "state")
    provider.initialize()
    assert isinstance(provider.trouble, StateError)
    provider.shutdown()
    assert not offload._pool()._users
