"""When the pump runs next, and the health of delivery that follows from it."""

from __future__ import annotations

import logging
import random
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from honcho_exec.clock import Clock
from honcho_exec.errors import CircuitOpen, HonchoExecError, SessionDeleted
from honcho_exec.forks import PerProcess, on_fork_in_child
from honcho_exec.net.backoff import Backoff
from honcho_exec.runtime.offload import Serial
from honcho_exec.runtime.timer import CallLater, Timer

__all__ = ["DeletedSessions", "Health", "Schedule"]

_log = logging.getLogger(__name__)

# How often to check for rows that a dead process left behind, and the same while such rows stand before ours.
_IDLE_POLL_SECONDS = 2.0
_BLOCKED_POLL_SECONDS = 0.5
# A refused key is not hammered: a person has to change it.
_AUTH_PAUSE_SECONDS = 60.0
_MAX_RETRY_AFTER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Health:
    """How delivery is doing.

    Attributes:
        error: the last failure.
        failing: whether nothing has been delivered since.
        retry_at: when the next attempt is due, on the monotonic clock; None when nothing is failing.
    """

    error: HonchoExecError | None = None
    failing: bool = False
    retry_at: float | None = None


_schedules: defaultdict[tuple[Path, str], weakref.WeakSet[Schedule]] = defaultdict(weakref.WeakSet)
_schedules_lock = PerProcess(threading.Lock)


@on_fork_in_child
def _after_fork() -> None:
    _schedules.clear()


class Schedule:
    """Decides when the pump runs next, and keeps the health of delivery.

    The methods that report an event are called on the lane.

    Args:
        key: the outbox's file and destination; equal for all pumps of this process that send the same rows.
        wake: queues the pump's next job.
        on_health_change: called with the error when delivery begins to fail, and with None when it works again.
        run: runs that callback, where it holds nothing up.
        call_later: the process's alarm, or a test's own.

    Attributes:
        health: how delivery is doing.
        backing_off: whether the pump waits for the time of the next attempt.
        blocked: whether rows of another holder stand before those of this process.
    """

    def __init__(
        self,
        key: tuple[Path, str],
        clock: Clock,
        *,
        wake: Callable[[], None],
        on_health_change: Callable[[HonchoExecError | None], None],
        run: Callable[[Callable[[], None]], object],
        call_later: CallLater,
    ) -> None:
        self.health = Health()
        self.backing_off = False
        self.blocked = False
        self.wake = wake
        self._key = key
        self._clock = clock
        self._on_health_change = on_health_change
        self._notices = Serial(run)
        self._backoff = Backoff(key, hasten=self.hasten)
        self._lock = threading.Lock()
        self._timer = Timer(self._due, call_later)
        self._due_at = 0.0
        self._closed = False
        with _schedules_lock():
            _schedules[key].add(self)

    def on_delivered(self) -> None:
        """End the back-off: Honcho took something."""
        self._recover("delivery to Honcho works again")
        self._backoff.record_success()

    def on_failure(self, error: HonchoExecError) -> None:
        """Back off until the next attempt."""
        pause = self._pause_after(error)
        begins = not self.health.failing and not self._closed
        self.health = Health(error, failing=True, retry_at=self._clock.monotonic() + pause)
        self.backing_off = True
        self._set_timer(pause)
        if begins:
            _log.warning("delivery to Honcho is failing; pending rows are kept and sent later: %s", error)
            self._notify(error)

    def on_empty(self, *, blocked: bool) -> None:
        """Check again later for rows of dead processes: soon if rows of another holder stand before ours."""
        self.blocked = blocked
        if blocked:
            self._set_timer(_BLOCKED_POLL_SECONDS)
            return
        self._backoff.reset()
        # The rows that failed may have been parked, dropped, or handed over.
        self._recover("the rows that Honcho did not take are no longer pending")
        # One of all that share these rows is enough to see that another process died and left some behind.
        spread = len(_schedules[self._key]) * random.uniform(1, 2)  # noqa: S311 - spreads load only
        self._set_timer(_IDLE_POLL_SECONDS * spread, keep_alive=False)

    def wake_blocked(self) -> None:
        """Wake the other pumps of this process that waited for rows of ours."""
        with _schedules_lock():
            others = [other for other in _schedules[self._key] if other is not self]
        for other in others:
            if other.blocked:
                other.wake()

    def hasten(self, delay: float) -> None:
        """Try again in `delay` seconds if the next attempt is due later."""
        with self._lock:
            is_sooner = self.backing_off and self._clock.monotonic() + delay < self._due_at
        if is_sooner:
            self._set_timer(delay)

    def cancel(self) -> None:
        """End the back-off without an attempt."""
        with self._lock:
            self._timer.cancel()
            self.backing_off = False

    def close(self) -> None:
        """Wake the pump no more."""
        self._closed = True
        self.cancel()
        self._backoff.reset()

    def _pause_after(self, error: HonchoExecError) -> float:
        if error.cause == "auth":
            # An error from before the request says itself when to try again.
            return error.retry_after or _AUTH_PAUSE_SECONDS
        pause = self._backoff.next(error)
        if isinstance(error, CircuitOpen):
            return pause
        return max(pause, min(error.retry_after or 0.0, _MAX_RETRY_AFTER_SECONDS))

    def _recover(self, reason: str) -> None:
        failed = self.health.failing
        self.health = Health(self.health.error)
        if failed:
            _log.warning(reason)
            self._notify(None)

    def _notify(self, error: HonchoExecError | None) -> None:
        self._notices.post(partial(self._on_health_change, error))

    def _set_timer(self, delay: float, *, keep_alive: bool = True) -> None:
        """Wake the pump in `delay` seconds, and not earlier."""
        with self._lock:
            self._due_at = self._clock.monotonic() + delay
            if not self._closed:
                self._timer.set(delay, keep_alive=keep_alive)

    def _due(self) -> None:
        with self._lock:
            if self._timer.is_set:
                # It was set again while this call was due.
                return
            self.backing_off = False
        self.wake()


class DeletedSessions:
    """The streams whose sessions were deleted, until the names of these are free."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._streams: dict[str, tuple[float, SessionDeleted]] = {}

    def add(self, stream: str, error: SessionDeleted) -> None:
        """Pause a stream."""
        pause = error.retry_after or _IDLE_POLL_SECONDS
        self._streams[stream] = (self._clock.monotonic() + pause, error)

    def remove(self, stream: str) -> None:
        """Resume a stream."""
        self._streams.pop(stream, None)

    def paused(self) -> list[str]:
        """Return the streams that are not tried again yet."""
        now = self._clock.monotonic()
        return [stream for stream, (due, _) in self._streams.items() if due > now]

    def errors(self) -> dict[str, SessionDeleted]:
        """Return why each stream waits."""
        return {stream: error for stream, (_, error) in list(self._streams.items())}

    def error(self, session: str | None = None) -> SessionDeleted | None:
        """Return why rows of a session (any session if None) wait; None if none do."""
        return next((error for error in self.errors().values() if session in (None, error.session)), None)
