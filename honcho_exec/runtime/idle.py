"""Gives something back when nobody has used it for a while."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from honcho_exec.runtime.timer import alarm_after, weakly

__all__ = ["Idle"]


class Idle:
    """Counts what is under way, and calls `give_back` when nothing has been for `after` seconds.

    Nothing begins while `give_back` runs. It is called on the alarm's thread, and does not keep its object alive.

    Args:
        give_back: a method.
        after: seconds.
    """

    def __init__(self, give_back: Callable[[], None], *, after: float) -> None:
        self._give_back = weakref.WeakMethod(give_back)
        self._after = after
        self._lock = threading.Lock()
        self._under_way = 0
        self._rested_at = 0.0
        self._watching = False
        self._closed = False
        self._look_again = weakly(self._look)
        self._take_back: Callable[[], None] | None = None

    def begin(self) -> None:
        """Something begins; `end` must follow."""
        with self._lock:
            self._under_way += 1

    def end(self) -> None:
        """It has ended."""
        with self._lock:
            self._under_way -= 1
            self._rested_at = time.monotonic()
            if self._under_way or self._watching or self._closed:
                return
            self._watching = True
            self._take_back = alarm_after(self._after, self._look_again)

    def close(self) -> None:
        """Watch no more."""
        with self._lock:
            self._closed = True
            take_back, self._take_back = self._take_back, None
        if take_back is not None:
            take_back()

    def _look(self) -> None:
        with self._lock:
            left = self._rested_at + self._after - time.monotonic()
            self._watching = self._under_way == 0 and left > 0 and not self._closed
            if self._watching:
                self._take_back = alarm_after(left, self._look_again)
            elif self._under_way == 0 and (give_back := self._give_back()) is not None:
                give_back()
