"""When to try again by itself: waits that grow, and knocks at a door at which nobody answers."""

from __future__ import annotations

import random
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Hashable

from honcho_exec.clock import Clock
from honcho_exec.errors import CircuitOpen, RequestError, Unreached
from honcho_exec.forks import PerProcess
from honcho_exec.net.breaker import Breaker

__all__ = ["CAP", "SHARE", "SOONEST", "Waits"]

CAP = 10.0
"""No wait is longer, save a breaker's cool-down (seconds)."""
SHARE = 0.25
"""While nobody can be reached, no wait is longer than this share of the time for which it has been so …"""
SOONEST = 0.25
"""… or than this, in its beginning (seconds)."""

# The first wait after a failure that a server answered with; each further one is twice as long (seconds).
_FIRST = 0.5
# So much apart, on average, do those begin who hear from another that somebody is there again (seconds).
_APART = 0.01


class Waits:
    """How long to wait before the next try, until something succeeds; each wait with jitter.

    A server that fails gets waits that double, and the breaker's cool-down when that is open. One that takes no
    connection loses nothing by another attempt: the wait is a share of the time for which it has been away, so that a
    short outage is over soon. Of several in this process that cannot reach the same place one alone knocks like that;
    the others wait as long as ever, and hear of it when anyone of them gets through. Usable from any thread.

    Args:
        place: what they try to reach; equal for all who share it.
        breaker: knows whether the last request found nobody to connect to.
        sooner: told, with seconds, that it is worth trying as soon as that; called on another's thread.
        jitter: a number between two.
    """

    def __init__(
        self,
        place: Hashable,
        breaker: Breaker,
        clock: Clock,
        *,
        sooner: Callable[[float], None],
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._place = place
        self._breaker = breaker
        self._clock = clock
        self._sooner = weakref.WeakMethod(sooner)
        self._jitter = jitter
        self._failures = 0
        self._away_since: float | None = None

    def next(self, error: BaseException) -> float:
        """The seconds to wait after one more failure."""
        if isinstance(error, Unreached) or (isinstance(error, CircuitOpen) and self._breaker.unreached):
            return self._knock()
        self._reached()
        if isinstance(error, RequestError) and self._breaker.state == "open":
            # The breaker has waited out the failures already.
            return self._breaker.remaining()
        self._failures += 1
        return self._jittered(_FIRST * 2.0 ** min(self._failures - 1, 16))

    def succeeded(self) -> None:
        """Start anew, and tell whoever waits to reach the same place."""
        self.forget()
        for other, delay in _away().reached(self._place):
            if (sooner := other._sooner()) is not None:  # noqa: SLF001 - of the same class
                sooner(delay)

    def forget(self) -> None:
        """Start anew: there is nothing to try any more, and another may knock."""
        self._failures = 0
        self._reached()

    def _knock(self) -> float:
        now = self._clock.monotonic()
        if self._away_since is None:
            self._away_since = now
        knocks = _away().add(self._place, self)
        wait = self._jittered(max(SOONEST, SHARE * (now - self._away_since)) if knocks else CAP)
        # A cool-down that is shorter was chosen so.
        return min(wait, self._breaker.remaining() or wait)

    def _reached(self) -> None:
        self._away_since = None
        _away().discard(self._place, self)

    def _jittered(self, ceiling: float) -> float:
        ceiling = min(CAP, ceiling)
        return self._jitter(ceiling / 2, ceiling)


class _Away:
    """Who of this process cannot reach a place, and which of them knocks there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: defaultdict[Hashable, weakref.WeakSet[Waits]] = defaultdict(weakref.WeakSet)
        self._knocks: weakref.WeakValueDictionary[Hashable, Waits] = weakref.WeakValueDictionary()

    def add(self, place: Hashable, waits: Waits) -> bool:
        """Whether this is the one that knocks."""
        with self._lock:
            self._waiting[place].add(waits)
            return self._knocks.setdefault(place, waits) is waits

    def discard(self, place: Hashable, waits: Waits) -> None:
        with self._lock:
            if place in self._waiting:
                self._waiting[place].discard(waits)
            if self._knocks.get(place) is waits:
                del self._knocks[place]

    def reached(self, place: Hashable) -> list[tuple[Waits, float]]:
        """Who has waited for it, each with a moment of its own in which to try; told once."""
        with self._lock:
            waiting = list(self._waiting.pop(place, ()))
            self._knocks.pop(place, None)
        return [(waits, random.uniform(0.0, _APART * len(waiting))) for waits in waiting]  # noqa: S311 - spreads load only


_away = PerProcess(_Away)
