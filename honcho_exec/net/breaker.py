"""A circuit breaker: no requests for a while to a server that keeps failing."""

from __future__ import annotations

import threading
from typing import Literal

from honcho_exec.clock import Clock
from honcho_exec.errors import CircuitOpen, HonchoExecError, Unreached

__all__ = ["Breaker", "BreakerState"]

BreakerState = Literal["closed", "open", "half-open"]


class Breaker:
    """Lets requests through until `threshold` of them have failed in a row, then none for `cooldown` seconds.

    After that it is half open: one is let through, and what becomes of it opens or closes the breaker. Usable from
    any thread.

    Args:
        name: what it protects, for messages.
        threshold: failures in a row that open it.
        cooldown: seconds until one request is let through again.
    """

    def __init__(self, name: str, *, threshold: int, cooldown: float, clock: Clock) -> None:
        self._name = name
        self._threshold = threshold
        self._cooldown = cooldown
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._last: HonchoExecError | None = None
        self._opens_until: float | None = None
        self._probing = False

    def __repr__(self) -> str:
        state = self.state
        return f"<Breaker {state} {self.remaining():.0f} s>" if state == "open" else f"<Breaker {state}>"

    @property
    def state(self) -> BreakerState:
        """`closed`: all pass; `open`: none does; `half-open`: one does, or is under way."""
        until = self._opens_until
        if until is None:
            return "closed"
        return "open" if self._clock.monotonic() < until else "half-open"

    def remaining(self) -> float:
        """Seconds until a request is let through; 0.0 when one is."""
        until = self._opens_until
        return 0.0 if until is None else max(0.0, until - self._clock.monotonic())

    @property
    def unreached(self) -> bool:
        """Whether the last request could not connect, and nothing has answered since."""
        return isinstance(self._last, Unreached)

    def allow_probe(self) -> None:
        """Let the next request through at once if the last one could not connect.

        The cool-down spares a server that fails; a server that accepts no connections has no load to be spared.
        """
        with self._lock:
            if self._opens_until is not None and self.unreached:
                self._opens_until = self._clock.monotonic()

    def raise_if_open(self) -> None:
        """Raise `CircuitOpen` while it is open, without taking the single attempt of the half-open state."""
        if self._opens_until is not None and self.remaining() > 0.0:
            raise self._refusal()

    def acquire(self, *, ignore: bool = False) -> None:
        """Begin a request; `record_success`, `record_failure` or `cancel` must follow.

        Args:
            ignore: let it through in any state, because a person asked for it.

        Raises:
            CircuitOpen: it is open, or half open with another request under way.
        """
        with self._lock:
            if self._opens_until is None or ignore:
                return
            if self._clock.monotonic() >= self._opens_until and not self._probing:
                self._probing = True
                return
        raise self._refusal()

    def record_success(self) -> None:
        """Record that the server answered, with success or a refusal, and close."""
        with self._lock:
            self._failures = 0
            self._probing = False
            self._opens_until = None
            self._last = None

    def record_failure(self, error: HonchoExecError, *, counts: bool = True) -> bool:
        """Record that the connection or the server failed; return whether that opened the breaker.

        Args:
            error: the failure.
            counts: False if only part of the server may be at fault; it then only keeps an open breaker open.
        """
        with self._lock:
            if not (counts or self._probing):
                return False
            self._failures += 1
            self._last = error
            opens = self._probing or self._failures >= self._threshold
            if opens:
                self._opens_until = self._clock.monotonic() + self._cooldown
            self._probing = False
            return opens

    def cancel(self) -> None:
        """Record that the request ended without showing whether the server works."""
        with self._lock:
            self._probing = False

    def _refusal(self) -> CircuitOpen:
        wait = self.remaining() or 1.0
        return CircuitOpen(
            f"{self._name} is left alone for another {wait:.0f} s: it failed {self._failures} times in a row"
            f" (last: {self._last}); nothing is lost, try again then",
            retry_after=wait,
        )
