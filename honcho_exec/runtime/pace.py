"""Keep the embedded Honcho's work from slowing down callers: one lane at a time, and not all the time."""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from honcho_exec.forks import PerProcess
from honcho_exec.runtime.timer import call_later

__all__ = ["Pace", "embedded_pace"]

# While more turns than this are stored in a second, lanes rest this many times as long as they work.
_BUSY_PER_SECOND = 150.0
_REST_FACTOR = 3.0
_LONGEST_REST_SECONDS = 0.5
# The rows of a batch meanwhile.
_BUSY_ROWS = 50
# How often the rate is measured.
_WINDOW_SECONDS = 0.05
# After this time the next lane starts although the present one works: its disk may hang.
_LONGEST_WORK_SECONDS = 5.0

Start = Callable[[Callable[[], None]], bool]
"""Begins a lane's work and returns True, or returns False; it is passed the function to call when the work is done."""


class Pace:
    """Shares the processor between callers that store turns and the lanes that deliver them in this process.

    Delivering to the embedded Honcho is work of this process, and Python runs one thread at a time: two lanes at work
    deliver no more than one, and each of them keeps every caller waiting. Rows that are not delivered now are in the
    outbox, and later go in larger batches. Only for threads of ours.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[contextvars.Context, Start]] = deque()
        self._working: tuple[object, float] | None = None
        self._given = 0
        self._seen = (time.monotonic(), 0)
        self._rate = 0.0

    def given(self) -> None:
        """Count a turn that was stored."""
        self._given += 1

    def ask(self, start: Start) -> None:
        """Call `start` in the present context when no other lane works: now, or later on another thread."""
        context = contextvars.copy_context()
        with self._lock:
            self._waiting.append((context, start))
            if self._working is not None and time.monotonic() - self._working[1] < _LONGEST_WORK_SECONDS:
                return
        self._next(None)

    def most_rows(self, usual: int) -> int:
        """Return how many rows a batch may have; fewer while callers store many turns.

        The objects of a batch under way count as long-lived when a garbage collection finds them. If many are found,
        all objects of the process are looked at, which stops every thread for a tenth of a second and longer.
        """
        return min(usual, _BUSY_ROWS) if self._busy() else usual

    def _next(self, before: object | None) -> None:
        """Let the next lane work, unless another one than `before` does."""
        while True:
            with self._lock:
                if before is not None and (self._working is None or self._working[0] is not before):
                    return
                self._working = None
                if not self._waiting:
                    return
                context, start = self._waiting.popleft()
                turn, now = object(), time.monotonic()
                self._working = (turn, now)
            if context.run(start, partial(self._done, turn, now)):
                return
            before = turn

    def _done(self, turn: object, begun: float) -> None:
        if self._busy():
            rest = min(_LONGEST_REST_SECONDS, _REST_FACTOR * (time.monotonic() - begun))
            call_later(rest, partial(self._next, turn))
        else:
            self._next(turn)

    def _busy(self) -> bool:
        now, (at, given) = time.monotonic(), self._seen
        if now - at >= _WINDOW_SECONDS:
            self._rate = (self._given - given) / (now - at)
            self._seen = (now, self._given)
        return self._rate > _BUSY_PER_SECOND


_pace = PerProcess(Pace)


def embedded_pace() -> Pace:
    """Return the pace of this process."""
    return _pace()
