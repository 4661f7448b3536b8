"""Hands snapshots of the counters to whoever exports them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from honcho_exec.alarm import alarm_after
from honcho_exec.lane import Lane
from honcho_exec.stats import Meter, Stats
from honcho_exec.unforeseen import foreign

__all__ = ["StatsHook"]

_log = logging.getLogger(__name__)

# Snapshots come at most this often (seconds), and closing waits so long for the last.
_EVERY = 1.0


class StatsHook:
    """Calls `hook` with a snapshot soon after something was counted, at most once a second, and once at the end.

    The hook runs on a thread of its own: one that takes long holds up nothing but the next snapshot, and one that
    fails is logged.
    """

    def __init__(self, hook: Callable[[Stats], None], meter: Meter) -> None:
        self._hook = hook
        self._meter = meter
        self._lane = Lane("honcho-stats")
        self._lock = threading.Lock()
        self._take_back: Callable[[], None] | None = None
        self._due = False
        self._closed = False

    def changed(self) -> None:
        """Something was counted."""
        with self._lock:
            if self._due or self._closed:
                return
            self._due = True
            self._take_back = alarm_after(_EVERY, self._time_has_come)

    def close(self) -> None:
        """Hand the last snapshot over, waiting at most a second for the hook."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            take_back = self._take_back
        if take_back is not None:
            take_back()
        self._lane.post(self._export)
        self._lane.close(_EVERY)

    def _time_has_come(self) -> None:
        with self._lock:
            self._due = False
        self._lane.post(self._export)

    def _export(self) -> None:
        foreign(_log, "the stats hook", lambda: self._hook(self._meter.snapshot()), None)
