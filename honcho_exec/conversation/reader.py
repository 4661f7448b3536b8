"""Read from Honcho on the caller's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from honcho_exec.client.connection import Connection
from honcho_exec.clock import Clock, Deadline
from honcho_exec.errors import RequestError
from honcho_exec.net.retry import RetryPolicy
from honcho_exec.runtime.lane import Lane
from honcho_exec.settings import Settings

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi

__all__ = ["Reader"]

T = TypeVar("T")

# The longest wait for an answer that is merely informative.
_INFORMATIVE_SECONDS = 3.0


class Reader:
    """Makes the requests of tool calls and of `status`. Usable from any thread."""

    def __init__(
        self, connection: Connection, lane: Lane, retry: RetryPolicy, settings: Settings, clock: Clock
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._retry = retry
        self._settings = settings
        self._clock = clock
        self._thread = threading.local()

    def begin_call(self) -> None:
        """Start the deadline that all reads of this thread's tool call share."""
        self._thread.since = self._clock.monotonic()

    def read(self, request: Callable[[HonchoApi], T]) -> T:
        """Make a request, with bounded retries."""
        deadline = self._deadline(self._settings.retry_deadline)
        api = self._connection.api
        with api.within(deadline):
            return self._retry.call(lambda: request(api), deadline=deadline)

    def chat(self, request: Callable[[HonchoApi], T]) -> T:
        """Make a request that a language model answers: once, since each attempt costs."""
        api = self._connection.api
        with api.within(self._deadline(self._settings.timeout)):
            return request(api)

    def ping(self) -> float:
        """Make a request that needs a valid key; return the seconds it took.

        Raises:
            RequestError, StateError: it failed, or took longer than the sync join timeout.
            TimeoutError: the lane did not open the connection in that time.
        """
        deadline = Deadline.after(self._settings.sync_join_timeout, self._clock)
        self._connection.wanted()
        if not self._connection.is_open:
            self._lane.call(self._connection.open, deadline.remaining())
        start = self._clock.monotonic()
        api = self._connection.api
        with api.within(deadline):
            api.ping()
        return self._clock.monotonic() - start

    def deriving(self) -> int | None:
        """Return how many stored pieces the server has yet to derive; None if it does not tell in time."""
        if self._settings.backend == "embedded":
            return None
        api = self._connection.api
        try:
            with api.within(Deadline.after(_INFORMATIVE_SECONDS, self._clock)):
                return api.reads.deriving()
        except RequestError:
            return None

    def server_version(self) -> str | None:
        """Return the server's version; None if it does not tell in time."""
        return self._connection.api.server_version(Deadline.after(_INFORMATIVE_SECONDS, self._clock))

    def _deadline(self, seconds: float) -> Deadline:
        since: float = getattr(self._thread, "since", self._clock.monotonic())
        return Deadline(since + seconds, self._clock)
