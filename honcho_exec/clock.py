"""Time and ids as parameters, so that tests need no waiting."""

from __future__ import annotations

import itertools
import os
import time
import uuid
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Clock", "Deadline", "SystemClock"]


class Clock(Protocol):
    """Where time and new ids come from."""

    def now(self) -> float:
        """Seconds since the epoch; for what is stored or shown."""

    def monotonic(self) -> float:
        """Seconds that never go back; for what is waited for."""

    def new_id(self) -> str:
        """An id that no other call returns, in this process or another."""


# A random name for this process and a number are as unique as a random id for each, and cost no system call, in
# which another thread could take the interpreter away for milliseconds.
_process = uuid.uuid4().hex[:20]
_numbers = itertools.count()


def _after_fork() -> None:
    global _process  # noqa: PLW0603 - the child's ids must not be its parent's
    _process = uuid.uuid4().hex[:20]


os.register_at_fork(after_in_child=_after_fork)


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """See `Clock.now`."""
        return time.time()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    def new_id(self) -> str:
        """See `Clock.new_id`."""
        return f"{_process}{next(_numbers):012x}"


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock that is passed down instead of a timeout per step."""

    at: float
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        """The moment `seconds` from now."""
        return cls(clock.monotonic() + seconds, clock)

    def remaining(self) -> float:
        """Seconds left, 0.0 when the moment has passed."""
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the moment is over."""
        return self.clock.monotonic() >= self.at
