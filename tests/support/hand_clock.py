from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from threading import Event

from honcho_exec.clock import BootTime

NOON = 1_750_000_000.0


class HandClock:
    """A clock that moves when it is told to.

    Attributes:
        seconds: time that passes.
        wall_offset: how far the wall clock has been set forward since the beginning, or backward.
    """

    def __init__(self) -> None:
        self.seconds = NOON
        self.wall_offset = 0.0
        self._boots = 0
        self._booted_at = 0.0
        self._ids = itertools.count(1)

    def now(self) -> float:
        return self.seconds + self.wall_offset

    def boot_time(self) -> BootTime:
        return BootTime(f"boot {self._boots}", self.seconds - self._booted_at)

    def reboot(self) -> None:
        """Begin another boot, whose clock begins at zero."""
        self._boots += 1
        self._booted_at = self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def new_id(self) -> str:
        return f"id-{next(self._ids):06}"


class HandTimer(HandClock):
    """A clock whose moving calls whoever waits, in the order of time."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back later; see `honcho_exec.runtime.timer.CallLater`."""
        entry = (self.seconds + delay, next(self._numbers), callback)
        heapq.heappush(self._waiting, entry)

        def take_back() -> None:
            self._waiting = [other for other in self._waiting if other[1] != entry[1]]
            heapq.heapify(self._waiting)

        return take_back

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        until = self.seconds + seconds
        while self._waiting and self._waiting[0][0] <= until:
            due, _, callback = heapq.heappop(self._waiting)
            self.seconds = max(self.seconds, due)
            callback()
        self.seconds = max(self.seconds, until)

    def advance_to_next(self, latest: float = math.inf) -> None:
        """Let time pass until somebody is called, or until `latest`."""
        due = min([latest, *(entry[0] for entry in self._waiting[:1])])
        if due < math.inf:
            self.advance(max(0.0, due - self.seconds))

    def never(self) -> Event:
        """An event that is never set, and whose waits take no time but this clock's."""
        return _Never(self)


class _Never(Event):
    def __init__(self, timer: HandTimer) -> None:
        super().__init__()
        self._timer = timer

    def wait(self, timeout: float | None = None) -> bool:
        self._timer.advance(timeout or 0.0)
        return False
