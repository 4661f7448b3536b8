"""One daemon thread for a whole process that calls back later, and that notices when the interpreter exits."""

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
from honcho_exec.threads import ThreadPool

__all__ = ["Timer", "alarm_after", "interpreter_is_exiting", "weakly"]

P = ParamSpec("P")

Timer = Callable[[float, Callable[[], None]], Callable[[], None]]
"""Calls a function once, some seconds later; returns what takes that back."""


class _Alarm:
    """One daemon thread for all lanes of a process; it ends when nothing is left to wait for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._cancelled: set[int] = set()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def after(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
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


def alarm_after(delay: float, callback: Callable[[], None]) -> Callable[[], None]:
    """Call `callback` in `delay` seconds on the process's alarm thread; the returned function takes that back."""
    return _alarm().after(delay, callback)


def weakly(method: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> Callable[[], None]:
    """Calls a method while its object is alive, and does not keep it alive."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := reference()) is not None:
            alive(*args, **kwargs)

    return call


def interpreter_is_exiting() -> bool:
    """Whether the main thread has ended and what is left is waited for.

    From that moment on every executor refuses work, which is the one sign of it that is public.
    """
    with ThreadPool(1, "honcho-probe") as probe:
        try:
            probe.submit(bool)
        except RuntimeError:
            return True
    return False
