"""Timers on one daemon thread for the whole process."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import ParamSpec

from honcho_exec.forks import PerProcess

__all__ = ["CallLater", "Timer", "call_later", "weak_callback"]

P = ParamSpec("P")

CallLater = Callable[[float, Callable[[], None]], Callable[[], None]]
"""Calls a function once, after some seconds; returns a function that cancels the call."""


class _Alarm:
    """One daemon thread that makes the calls; it ends when no call is left."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def call_later(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        with self._changed:
            number = next(self._numbers)
            heapq.heappush(self._entries, (time.monotonic() + delay, number, callback))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="honcho-alarm", daemon=True)
                self._thread.start()
            self._changed.notify()
        return partial(self._cancel, number)

    def _cancel(self, number: int) -> None:
        with self._changed:
            self._entries = [entry for entry in self._entries if entry[1] != number]
            heapq.heapify(self._entries)
            self._changed.notify()

    def _run(self) -> None:
        while (callback := self._next()) is not None:
            callback()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while self._entries:
                due = self._entries[0][0] - time.monotonic()
                if due <= 0:
                    return heapq.heappop(self._entries)[2]
                self._changed.wait(due)
            self._thread = None
            return None


_alarm = PerProcess(_Alarm)


def call_later(delay: float, callback: Callable[[], None]) -> Callable[[], None]:
    """Call a short `callback` in `delay` seconds on the process's alarm thread; the returned function cancels it."""
    return _alarm().call_later(delay, callback)


def weak_callback(method: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> Callable[[], None]:
    """Return a function that calls `method` if its object is still alive, and does not keep it alive."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := reference()) is not None:
            alive(*args, **kwargs)

    return call


class Timer:
    """Calls a method once, a number of seconds after the last call of `set`. Usable from any thread.

    Args:
        method: called on the alarm's thread, so it must be short; its object is not kept alive.
        call_later: the process's alarm, or a test's own.
    """

    def __init__(self, method: Callable[[], None], call_later: CallLater = call_later) -> None:
        self._method = weakref.WeakMethod(method)
        self._call_later = call_later
        self._lock = threading.Lock()
        self._number = 0
        self._cancel: Callable[[], None] | None = None

    @property
    def is_set(self) -> bool:
        """Whether a call is still to come."""
        return self._cancel is not None

    def set(self, seconds: float, *, keep_alive: bool = False) -> None:
        """Call the method in `seconds`, and not when it was set to before; `keep_alive` keeps its object until then."""
        with self._lock:
            before, number = self._cancel, self._number + 1
            self._number = number
            alive = self._method() if keep_alive else None
            self._cancel = self._call_later(seconds, partial(self._call, number, alive))
        if before is not None:
            before()

    def cancel(self) -> None:
        """Make no call."""
        with self._lock:
            before, self._cancel = self._cancel, None
            self._number += 1
        if before is not None:
            before()

    def _call(self, number: int, alive: object) -> None:  # noqa: ARG002 - `alive` is only kept
        with self._lock:
            # It may have been set again, or cancelled, while this call was due.
            if number != self._number:
                return
            self._cancel = None
        if (method := self._method()) is not None:
            method()
