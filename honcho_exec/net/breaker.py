"""The circuit breaker: a server that fails again and again is left alone for a while."""

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
        """Whether nothing has answered since, and the last request found nobody to connect to."""
        return isinstance(self._last, Unreached)

    def knock(self) -> None:
        """Let the next request through at once where the last found nobody to connect to.

        The cool-down spares a server that fails; one that takes no connection is not spared anything by it.
        """
        with self._lock:
            if self._opens_until is not None and self.unreached:
                self._opens_until = self._clock.monotonic()

    def refuse(self) -> None:
        """Raise `CircuitOpen` while it is open; takes nobody's turn."""
        if self._opens_until is not None and self.remaining() > 0.0:
            raise self._refusal()

    def enter(self, *, anyway: bool = False) -> None:
        """Begin a request; `passed` or `failed` must follow.

        Args:
            anyway: let it through even so: a person wants to know.

        Raises:
            CircuitOpen: it is open, or half open and another request tries already.
        """
        with self._lock:
            if self._opens_until is None or anyway:
                return
            if self._clock.monotonic() >= self._opens_until and not self._probing:
                self._probing = True
                return
        raise self._refusal()

    def passed(self) -> None:
        """The server answered, whatever it answered."""
        with self._lock:
            self._failures = 0
            self._probing = False
            self._opens_until = None
            self._last = None

    def failed(self, error: HonchoExecError, *, counts: bool = True) -> bool:
        """The connection or the server failed; returns whether that opened it.

        Args:
            error: what it failed with.
            counts: False where only part of the server may be at fault; it then only keeps an open breaker open.
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

    def left(self) -> None:
        """The request ended without a word about the server."""
        with self._lock:
            self._probing = False

    def _refusal(self) -> CircuitOpen:
        wait = self.remaining() or 1.0
        return CircuitOpen(
            f"{self._name} is left alone for another {wait:.0f} s: it failed {self._failures} times in a row"
            f" (last: {self._last}); nothing is lost, try again then",
            retry_after=wait,
        )
