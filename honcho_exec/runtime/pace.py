"""Keep the embedded Honcho's work from slowing down callers: one lane at a time, and not all the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from honcho_exec.forks import PerProcess

__all__ = ["Pace", "embedded_pace"]

# While more turns a second than this are given, lanes rest this many times as long as they work.
_BUSY_PER_SECOND = 150.0
_REST = 3.0
_LONGEST_REST_SECONDS = 0.5
# The rows of a batch meanwhile.
_BUSY_ROWS = 50
# How often the rate is taken.
_WINDOW_SECONDS = 0.05


class Pace:
    """Shares the processor between those who give turns and the lanes that deliver them in this process.

    Delivering to the embedded Honcho is work of this process, and Python runs one thread at a time: two lanes at work
    deliver no more than one, and each of them keeps every caller waiting. What is not delivered now is in the outbox,
    and later goes in larger batches. Only for threads of ours.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._given = 0
        self._seen = (time.monotonic(), 0)
        self._rate = 0.0

    def given(self) -> None:
        """Count a turn that was given."""
        self._given += 1

    @contextmanager
    def work(self) -> Iterator[None]:
        """Deliver inside, alone; rest afterwards while callers give many turns."""
        with self._turn:
            begun = time.monotonic()
            try:
                yield
            finally:
                worked = time.monotonic() - begun
            if self._busy():
                threading.Event().wait(min(_LONGEST_REST_SECONDS, _REST * worked))

    def most_rows(self, usual: int) -> int:
        """How many rows a batch may have; fewer while callers give many turns.

        The objects of a batch under way count as long-lived when a garbage collection finds them. If many are found,
        all objects of the process are looked at, which stops every thread for a tenth of a second and longer.
        """
        return min(usual, _BUSY_ROWS) if self._busy() else usual

    def _busy(self) -> bool:
        now, (at, given) = time.monotonic(), self._seen
        if now - at >= _WINDOW_SECONDS:
            self._rate = (self._given - given) / (now - at)
            self._seen = (now, self._given)
        return self._rate > _BUSY_PER_SECOND


_pace = PerProcess(Pace)


def embedded_pace() -> Pace:
    """The pace of this process."""
    return _pace()
