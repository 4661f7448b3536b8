"""Exponential back-off with full jitter, ended for a whole process when one request gets through."""

from __future__ import annotations

import random
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Hashable

from honcho_exec.errors import CircuitOpen, Unreached
from honcho_exec.forks import PerProcess

__all__ = ["CAP_SECONDS", "Backoff"]

CAP_SECONDS = 5.0
"""No wait is longer, so that a server that can be reached again is used within this time."""

_FIRST_SECONDS = 0.5
# The average distance between those that try again because another one got through.
_SPREAD_SECONDS = 0.01


class Backoff:
    """The waits between attempts, until one succeeds. Usable from any thread.

    Attempts that could not connect are made again as soon as another one of this process gets through.

    Args:
        endpoint: what is tried; equal for all that share it.
        hasten: a method that makes the next attempt in the given number of seconds if it is due later. It is called
            on a thread of another user of the endpoint; its object is not kept alive.
        jitter: returns a number between two.
    """

    def __init__(
        self,
        endpoint: Hashable,
        *,
        hasten: Callable[[float], None],
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.hasten = weakref.WeakMethod(hasten)
        self._endpoint = endpoint
        self._jitter = jitter
        self._failures = 0

    def next(self, error: BaseException) -> float:
        """Return the seconds to wait after one more failure."""
        if isinstance(error, CircuitOpen):
            # No request was made, so that nothing new is known.
            return min(error.retry_after or CAP_SECONDS, CAP_SECONDS)
        if isinstance(error, Unreached):
            _outages().add(self._endpoint, self)
        else:
            _outages().discard(self._endpoint, self)
        ceiling = min(CAP_SECONDS, _FIRST_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return self._jitter(0.0, ceiling)

    def record_success(self) -> None:
        """Begin again with short waits, and hasten all that could not connect to the endpoint."""
        self.reset()
        waiting = _outages().pop(self._endpoint)
        for backoff in waiting:
            if (hasten := backoff.hasten()) is not None:
                hasten(random.uniform(0.0, _SPREAD_SECONDS * len(waiting)))  # noqa: S311 - spreads load only

    def reset(self) -> None:
        """Begin again with short waits."""
        self._failures = 0
        _outages().discard(self._endpoint, self)


class _Outages:
    """Which back-offs of this process could not connect to an endpoint."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: defaultdict[Hashable, weakref.WeakSet[Backoff]] = defaultdict(weakref.WeakSet)

    def add(self, endpoint: Hashable, backoff: Backoff) -> None:
        with self._lock:
            self._waiting[endpoint].add(backoff)

    def discard(self, endpoint: Hashable, backoff: Backoff) -> None:
        with self._lock:
            if endpoint in self._waiting:
                self._waiting[endpoint].discard(backoff)

    def pop(self, endpoint: Hashable) -> list[Backoff]:
        with self._lock:
            return list(self._waiting.pop(endpoint, ()))


_outages = PerProcess(_Outages)
