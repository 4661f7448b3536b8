"""Says once, while a sync is stuck, for how long it has been going."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from honcho_exec.runtime.timer import Timer, weakly

__all__ = ["SlowWatch"]

_log = logging.getLogger(__name__)


class SlowWatch:
    """Logs one line when the oldest sync has been going for `after` seconds, and none more until all have ended.

    Args:
        age: seconds for which the oldest sync has been going; None when there is none. Called on the timer's thread.
        quiet: whether something was said already of why it takes long.
        timer: calls back later.
    """

    def __init__(
        self, age: Callable[[], float | None], *, after: float, quiet: Callable[[], bool], timer: Timer
    ) -> None:
        self._age = age
        self._after = after
        self._quiet = quiet
        self._timer = timer
        self._look_again = weakly(self._look)
        self._lock = threading.Lock()
        self._take_back: Callable[[], None] | None = None
        self._armed = False
        self._said = False
        self._closed = False

    def arm(self) -> None:
        """Begin to watch, unless that has been done: a sync has begun."""
        with self._lock:
            if self._armed:
                return
            self._armed = True
            self._again()

    def close(self) -> None:
        """Watch no more."""
        with self._lock:
            take_back, self._take_back = self._take_back, None
            self._closed = True
        if take_back is not None:
            take_back()

    def _again(self) -> None:
        if not self._closed:
            self._take_back = self._timer(self._after, self._look_again)

    def _look(self) -> None:
        age = self._age()
        if age is None:
            with self._lock:
                self._armed = self._said = False
            return
        if age >= self._after and not self._said and not self._quiet():
            self._said = True
            _log.warning("a sync has been going for %.1f s and is not done; nothing is lost, it goes on", age)
        with self._lock:
            self._again()
