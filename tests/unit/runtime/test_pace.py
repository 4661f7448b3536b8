from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable

import pytest

from honcho_exec.runtime import pace
from honcho_exec.runtime.pace import Pace

SECONDS = 5.0


class Lane:
    """Notes when it begins, and ends when the test says so."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.begun = threading.Event()
        self.done: Callable[[], None] = lambda: None

    def start(self, done: Callable[[], None]) -> bool:
        if not self.refuses:
            self.done = done
            self.begun.set()
        return not self.refuses


def test_lanes_work_one_at_a_time_in_the_order_of_asking() -> None:
    shared, lanes = Pace(), [Lane() for _ in range(3)]
    for lane in lanes:
        shared.ask(lane.start)
    for number, lane in enumerate(lanes):
        assert [other.begun.is_set() for other in lanes] == [True] * (number + 1) + [False] * (2 - number)
        lane.done()
    again = Lane()
    shared.ask(again.start)
    assert again.begun.is_set()


def test_a_lane_begins_in_the_context_in_which_it_asked() -> None:
    who = contextvars.ContextVar("who", default="nobody")
    seen: list[str] = []

    def start(_done: Callable[[], None]) -> bool:
        seen.append(who.get())
        return True

    shared, first = Pace(), Lane()
    shared.ask(first.start)
    context = contextvars.copy_context()
    context.run(who.set, "ada")
    context.run(shared.ask, start)
    first.done()
    assert seen == ["ada"]


def test_closed_lanes_are_passed_over_however_many() -> None:
    shared, first, last = Pace(), Lane(), Lane()
    shared.ask(first.start)
    for _ in range(2_000):
        shared.ask(Lane(refuses=True).start)
    shared.ask(last.start)
    first.done()
    assert last.begun.is_set()


def test_a_lane_that_hangs_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, hanging, other, third = Pace(), Lane(), Lane(), Lane()
    shared.ask(hanging.start)
    monkeypatch.setattr(pace, "_LONGEST_WORK_SECONDS", 0.0)
    shared.ask(other.start)
    assert other.begun.is_set()
    monkeypatch.undo()
    shared.ask(third.start)
    # It works no longer: another lane does.
    hanging.done()
    assert not third.begun.is_set()
    other.done()
    assert third.begun.is_set()


def test_lanes_rest_while_callers_store_many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_WINDOW_SECONDS", 0.0)
    monkeypatch.setattr(pace, "_LONGEST_REST_SECONDS", 0.05)
    monkeypatch.setattr(pace, "_REST_FACTOR", 1_000_000.0)
    shared, first, second = Pace(), Lane(), Lane()
    shared.ask(first.start)
    shared.ask(second.start)
    for _ in range(1_000_000):
        shared.given()
    assert shared.most_rows(100) < 100
    for _ in range(1_000_000):
        shared.given()
    first.done()
    assert not second.begun.is_set()
    assert second.begun.wait(SECONDS)
    assert shared.most_rows(100) == 100
