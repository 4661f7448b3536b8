"""Retry requests with tenacity: bounded attempts, a deadline, jitter, ended by closing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity

from honcho_exec.clock import Clock, Deadline
from honcho_exec.errors import Ambiguous, Unavailable
from honcho_exec.net.breaker import Breaker

__all__ = ["RetryPolicy"]

T = TypeVar("T")


class RetryPolicy:
    """How often and how long a failed request is tried again.

    Only `Unavailable` and `Ambiguous` are tried again; the last error is raised unchanged.

    Args:
        attempts: the maximum number of calls, including the first.
        max_wait: the longest wait between two calls in seconds; a server's Retry-After is capped by it.
        deadline: seconds after which no further call is begun.
        closing: when it is set, a wait ends at once and no further call is made.
        breaker: while it is open, no further call is made.
        on_retry: called before each further call.
        clock: where time comes from.
    """

    def __init__(
        self,
        *,
        attempts: int,
        max_wait: float,
        deadline: float,
        closing: threading.Event,
        breaker: Breaker,
        clock: Clock,
        on_retry: Callable[[], None] = lambda: None,
    ) -> None:
        self._attempts = attempts
        self._max_wait = max_wait
        self._deadline = deadline
        self._closing = closing
        self._breaker = breaker
        self._on_retry = on_retry
        self._clock = clock
        self._jitter = tenacity.wait_random_exponential(multiplier=0.2, max=max_wait, min=0.05)

    def call(self, function: Callable[[], T], *, deadline: Deadline | None = None) -> T:
        """Call `function` until it returns, is rejected, or a limit is reached."""
        ends = Deadline.after(self._deadline, self._clock)
        if deadline is not None and deadline.at < ends.at:
            ends = deadline

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((Unavailable, Ambiguous)),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self._attempts),
                tenacity.stop_when_event_set(self._closing),
                _StopWhenOpen(self._breaker),
                _StopBefore(ends),
            ),
            wait=self._wait,
            sleep=tenacity.sleep_using_event(self._closing),
            before_sleep=lambda _: self._on_retry(),
            reraise=True,
        )
        return retrying(function)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        wait = self._jitter(state)
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "retry_after", None) or 0.0
        return max(wait, min(asked, self._max_wait))


class _StopBefore(tenacity.stop.stop_base):
    """Stop when the next wait would end after the deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        return retry_state.upcoming_sleep >= self._deadline.remaining()


class _StopWhenOpen(tenacity.stop.stop_base):
    """Stop when the circuit breaker would not let the next call through."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:  # noqa: ARG002 - tenacity's contract
        return self._breaker.state == "open"
