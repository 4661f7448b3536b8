"""Log a warning when a sync takes long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from honcho_exec.runtime.timer import CallLater, Timer, call_later

__all__ = ["SlowWatch"]

_log = logging.getLogger(__name__)


class SlowWatch:
    """Logs one line when the oldest sync has been pending for `after` seconds, and none more until all have ended.

    Args:
        age: returns the seconds for which the oldest sync has been pending, or None; called on the timer's thread.
        quiet: returns whether it was logged already why it takes long.
        call_later: the process's alarm, or a test's own.
    """

    def __init__(
        self,
        age: Callable[[], float | None],
        *,
        after: float,
        quiet: Callable[[], bool],
        call_later: CallLater = call_later,
    ) -> None:
        self._age = age
        self._after = after
        self._quiet = quiet
        self._timer = Timer(self._check, call_later)
        self._lock = threading.Lock()
        self._armed = False
        self._logged = False
        self._closed = False

    def arm(self) -> None:
        """Begin to watch, unless that has been done."""
        with self._lock:
            if self._armed:
                return
            self._armed = True
            self._again()

    def close(self) -> None:
        """Watch no more."""
        with self._lock:
            self._closed = True
            self._timer.cancel()

    def _again(self) -> None:
        if not self._closed:
            self._timer.set(self._after)

    def _check(self) -> None:
        age = self._age()
        if age is None:
            with self._lock:
                self._armed = self._logged = False
            return
        if age >= self._after and not self._logged and not self._quiet():
            self._logged = True
            _log.warning("a sync has been going for %.1f s and is not done; nothing is lost, it goes on", age)
        with self._lock:
            self._again()
