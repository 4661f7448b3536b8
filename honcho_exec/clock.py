"""Time and ids as parameters, so that tests need no waiting; and times as text."""

from __future__ import annotations

import itertools
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from honcho_exec.forks import on_fork_in_child

__all__ = ["BootTime", "Clock", "Deadline", "SystemClock", "format_duration", "iso_time"]


@dataclass(frozen=True, slots=True)
class BootTime:
    """A moment on a clock that never jumps, shared by the processes of one boot.

    Two moments can be compared only if they have the same `boot`.

    Attributes:
        boot: identifies the boot of the machine.
        seconds: seconds since then, including the time that the machine was suspended.
    """

    boot: str
    seconds: float

    def since(self, other: BootTime) -> float | None:
        """Return the seconds between `other` and this moment; None if that was another boot."""
        return self.seconds - other.seconds if self.boot == other.boot else None


class Clock(Protocol):
    """The source of time and new ids."""

    def now(self) -> float:
        """Return seconds since the epoch, for times that are stored or shown."""

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back, for waits."""

    def boot_time(self) -> BootTime:
        """Return the present on a clock that never jumps, for waits that outlive the process."""

    def new_id(self) -> str:
        """Return an id that is unique among all processes."""


# A random name for this process and a number are as unique as a random id for each, and cost no system call, in
# which another thread could take the interpreter away for milliseconds.
_process = uuid.uuid4().hex[:20]
_numbers = itertools.count()


@on_fork_in_child
def _after_fork() -> None:
    global _process  # noqa: PLW0603 - the child's ids must not be its parent's
    _process = uuid.uuid4().hex[:20]


def _boot_id() -> str:
    """Identify the boot, and the time namespace in it."""
    parts = []
    for file in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/timens_offsets")):
        try:
            parts.append(" ".join(file.read_text("ascii").split()))
        except (OSError, ValueError):
            parts.append("")
    # Without a name for the boot, no other process's moments can be compared with this one's.
    return "/".join(parts) if parts[0] else uuid.uuid4().hex


_boot = _boot_id()
_boot_clock: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """See `Clock.now`."""
        return time.time()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    def boot_time(self) -> BootTime:
        """See `Clock.boot_time`."""
        return BootTime(_boot, time.monotonic() if _boot_clock is None else time.clock_gettime(_boot_clock))

    def new_id(self) -> str:
        """See `Clock.new_id`."""
        return f"{_process}{next(_numbers):012x}"


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, passed down instead of a timeout for each step."""

    at: float
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        """Return the deadline `seconds` from now."""
        return cls(clock.monotonic() + seconds, clock)

    def remaining(self) -> float:
        """Return the seconds left, 0.0 if the deadline has passed."""
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the deadline has passed."""
        return self.clock.monotonic() >= self.at


def iso_time(seconds: float, timespec: str = "seconds") -> str:
    """Format seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec=timespec)


def format_duration(seconds: float) -> str:
    """Format a duration in its largest unit."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
