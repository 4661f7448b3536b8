"""Open a conversation's session, and try again while the server is away."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Hashable
from concurrent.futures import Future
from contextlib import suppress

from honcho_exec.client.connection import Connection
from honcho_exec.clock import Clock
from honcho_exec.errors import Ambiguous, Closed, SessionDeleted, Unavailable
from honcho_exec.model import SessionRef
from honcho_exec.net.backoff import Backoff
from honcho_exec.net.breaker import Breaker
from honcho_exec.runtime.lane import Lane
from honcho_exec.runtime.timer import Timer

__all__ = ["SessionOpener"]


class SessionOpener:
    """Opens one session at a time, on the lane. Usable from any thread.

    Args:
        place: the destination; see `Backoff`.
        breaker: while it is open, only its probes are tried.
        writes: False names the session and does not create it.

    Attributes:
        opened: the number of sessions opened so far.
    """

    def __init__(
        self, connection: Connection, lane: Lane, place: Hashable, breaker: Breaker, clock: Clock, *, writes: bool
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._breaker = breaker
        self._clock = clock
        self._writes = writes
        self._backoff = Backoff(place, hasten=self._retry_in)
        self._lock = threading.Lock()
        self._named: dict[SessionRef, SessionRef] = {}
        self._ref: SessionRef | None = None
        self._future: Future[SessionRef] | None = None
        self._since = clock.monotonic()
        self._retry_timer = Timer(self._retry)
        self._closed = False
        self.opened = 0

    @property
    def age(self) -> float:
        """Seconds since the first attempt."""
        return self._clock.monotonic() - self._since

    @property
    def begun(self) -> bool:
        """Whether a session was wanted."""
        return self._future is not None

    @property
    def is_missing(self) -> bool:
        """Whether the session is not open yet, or failed to open; False if it was deleted."""
        return not isinstance(self.failure(0.0), SessionDeleted | None)

    def named(self, ref: SessionRef) -> SessionRef | None:
        """Return `ref` with the session that its key goes to; None until the lane has decided."""
        return self._named.get(ref) if ref.key else ref

    def begin(self, ref: SessionRef) -> Future[SessionRef]:
        """Return the Future of opening `ref`; begin again if it failed.

        Raises:
            Closed: the lane is closed.
        """
        with self._lock:
            future = self._future
            if future is None or ref != self._ref:
                self._ref, self._since = ref, self._clock.monotonic()
            elif not future.done() or (not future.cancelled() and future.exception() is None):
                return future
            future = self._future = self._lane.submit(lambda: self._open(ref))
        future.add_done_callback(self._ended)
        return future

    def failure(self, patience: float) -> BaseException | None:
        """Return why the session is not open after `patience` seconds; `TimeoutError` if it is still being opened."""
        future = self._future
        if future is None or future.cancelled():
            return None
        if not concurrent.futures.wait([future], timeout=patience).done:
            return TimeoutError()
        return future.exception()

    def close(self) -> None:
        """Cancel further attempts."""
        with self._lock:
            self._closed = True
            self._retry_timer.cancel()
        self._backoff.reset()

    def _open(self, ref: SessionRef) -> SessionRef:
        cache = self._connection.open().cache
        named = cache.named(ref)
        if ref.key:
            # Before the session is there: reads go on without one that was deleted.
            self._named[ref] = named
        return cache.session(named) if self._writes else named

    def _ended(self, future: Future[SessionRef]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is None:
            self.opened += 1
            self._backoff.record_success()
        elif isinstance(error, Unavailable | Ambiguous):
            self._retry_in(self._backoff.next(error))

    def _retry_in(self, delay: float) -> None:
        """Try again in `delay` seconds, instead of when it was due before."""
        with self._lock:
            if not self._closed:
                self._retry_timer.set(delay)

    def _retry(self) -> None:
        with self._lock:
            ref = None if self._closed else self._ref
        if ref is not None:
            self._breaker.allow_probe()
            with suppress(Closed):
                self.begin(ref)
