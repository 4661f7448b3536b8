"""The opening of a conversation's session: begun once, and by itself again while the server is away."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress

from honcho_exec.clock import Clock
from honcho_exec.errors import Ambiguous, Closed, Unavailable
from honcho_exec.model import SessionRef
from honcho_exec.net.backoff import Waits
from honcho_exec.net.breaker import Breaker
from honcho_exec.runtime.lane import Lane
from honcho_exec.runtime.timer import CallLater, Timer, call_later

__all__ = ["Opening"]

# Who waits for a session that somebody has waited out before waits no longer than this (seconds).
_BRIEFLY = 1.0


class Opening:
    """Opens one session at a time, on the lane. Usable from any thread, save to wait.

    Args:
        open_session: makes the session; called on the lane.
        place: where it is opened; see `Waits`.
        breaker: while it is open, nothing is tried again, unless to knock.
    """

    def __init__(
        self,
        open_session: Callable[[SessionRef], SessionRef],
        lane: Lane,
        place: Hashable,
        breaker: Breaker,
        clock: Clock,
        *,
        call_later: CallLater = call_later,
    ) -> None:
        self._open_session = open_session
        self._lane = lane
        self._breaker = breaker
        self._clock = clock
        self._waits = Waits(place, breaker, clock, sooner=self._later)
        self._lock = threading.Lock()
        self._ref: SessionRef | None = None
        self._future: Future[SessionRef] | None = None
        self._since = clock.monotonic()
        self._waited_out = False
        self._again = Timer(self._due, call_later)
        self._closed = False

    @property
    def age(self) -> float:
        """Seconds since it was first tried."""
        return self._clock.monotonic() - self._since

    @property
    def begun(self) -> bool:
        """Whether anybody has wanted it."""
        return self._future is not None

    def patience(self, seconds: float) -> float:
        """How long it is worth waiting for, at most `seconds`."""
        return min(seconds, _BRIEFLY) if self._waited_out else seconds

    def begin(self, ref: SessionRef) -> Future[SessionRef]:
        """The Future of the opening of `ref`, begun again if it failed.

        Raises:
            Closed: the lane is closed.
        """
        with self._lock:
            future = self._future
            if future is None or ref != self._ref:
                self._ref, self._since = ref, self._clock.monotonic()
            elif not future.done() or (not future.cancelled() and future.exception() is None):
                return future
            future = self._future = self._lane.submit(lambda: self._open_session(ref))
        future.add_done_callback(self._ended)
        return future

    def wait_out(self) -> bool:
        """Say that somebody has waited in vain; whether that is the first time since it was last opened."""
        first, self._waited_out = not self._waited_out, True
        return first

    def failure(self, patience: float) -> BaseException | None:
        """What it failed with, after waiting `patience` seconds for it; `TimeoutError` when it is not done by then."""
        future = self._future
        if future is None or future.cancelled():
            return None
        if not concurrent.futures.wait([future], timeout=patience).done:
            return TimeoutError()
        return future.exception()

    def close(self) -> None:
        """Try no more."""
        with self._lock:
            self._closed = True
            self._again.cancel()
        self._waits.forget()

    def _ended(self, future: Future[SessionRef]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is None:
            self._waited_out = False
            self._waits.succeeded()
        elif isinstance(error, Unavailable | Ambiguous):
            self._later(self._waits.next(error))

    def _later(self, delay: float) -> None:
        """Try again then, and not when it was to be before."""
        with self._lock:
            if not self._closed:
                self._again.set(delay)

    def _due(self) -> None:
        with self._lock:
            ref = None if self._closed else self._ref
        if ref is not None:
            self._breaker.knock()
            with suppress(Closed):
                self.begin(ref)
