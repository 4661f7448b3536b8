"""Make running jobs end soon when the interpreter exits, which waits for their threads."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

from honcho_exec.forks import PerProcess
from honcho_exec.runtime.timer import Timer
from honcho_exec.threads import ThreadPool

__all__ = ["Abandonable", "ExitWatch", "exit_watch"]

_POLL_SECONDS = 0.25


class Abandonable(Protocol):
    """Runs jobs one at a time, and can make the running one end soon."""

    @property
    def busy(self) -> bool:
        """Whether a job is running."""

    def abandon(self) -> None:
        """Make the running job end soon."""


class ExitWatch:
    """Checks, while jobs are running, whether the interpreter has begun to exit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: weakref.WeakSet[Abandonable] = weakref.WeakSet()
        self._timer = Timer(self._check)
        self._watching = False

    def add(self, lane: Abandonable) -> None:
        """Watch a lane while it is busy."""
        with self._lock:
            self._watched.add(lane)
            watching, self._watching = self._watching, True
            if not watching:
                self._timer.set(_POLL_SECONDS)

    def discard(self, lane: Abandonable) -> None:
        """Stop watching a lane; after the last one, the timer's thread can end."""
        with self._lock:
            self._watched.discard(lane)
            if not self._watched:
                self._watching = False
                self._timer.cancel()

    def _check(self) -> None:
        with self._lock:
            watched = list(self._watched)
        busy = [lane for lane in watched if lane.busy]
        # Asked once for all of them: the answer costs a thread.
        if busy and _interpreter_is_exiting():
            for lane in busy:
                lane.abandon()
        with self._lock:
            self._watched.difference_update(set(watched).difference(busy))
            self._watching = bool(self._watched)
            if self._watching:
                self._timer.set(_POLL_SECONDS)


exit_watch = PerProcess(ExitWatch)


def _interpreter_is_exiting() -> bool:
    """Whether the main thread has ended and the interpreter waits for the other threads.

    From that moment on every executor refuses work, which is the only public sign of it.
    """
    with ThreadPool(1, "honcho-probe") as probe:
        try:
            probe.submit(bool)
        except RuntimeError:
            return True
    return False
