"""Decide which messages are dated by this machine, so that the times of a session never decrease."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from honcho_exec.clock import Clock
from honcho_exec.model import Message
from honcho_exec.outbox.rows import OutboxRow

__all__ = ["date_messages"]

# A message that waited longer than this is sent with the time it was said. Others take the server's time, since a
# message that seems older than its author's joining is hidden from a search by perspective.
_LONG_AGO_SECONDS = 60.0
# A clock before 2025-06-01 has not been set yet (seconds since the epoch).
_CLOCK_IS_SET = 1_748_736_000.0


def date_messages(
    rows: Sequence[OutboxRow],
    clock: Clock,
    *,
    dated: float | None,
    newest: Callable[[], float | None],
    verify: bool = False,
) -> dict[int, float]:
    """Return the times to date messages with, in seconds since the epoch, by the ids of their rows.

    From the first message on that waited long, or if the session was dated before, all are dated: the server's clock
    may be behind this machine's. No time is less than the one before, or than the session's newest. A restored backup
    does not know that the session was dated; all are dated then too if the newest seems to be in the future.

    Args:
        rows: messages of one session, in their order; those that were given with a time keep it.
        clock: the source of time.
        dated: the latest date given to the session from here; None if it never was.
        newest: asks for the time of the newest message on the server; called at most once.
        verify: whether the session may have been dated later than `dated` says, from a copy of the state.
    """
    times: dict[int, float] = {}
    latest, known = dated, False
    newest_at: float | None = None
    if verify:
        newest_at, known = newest(), True
        if latest is not None or (newest_at is not None and newest_at > clock.now()):
            latest = _later(latest, newest_at)
    for row in rows:
        if not isinstance(row.write, Message) or row.write.created_at is not None:
            continue
        said_at, waited = _said_at(row, clock)
        if waited < _LONG_AGO_SECONDS and latest is None:
            continue
        if waited >= _LONG_AGO_SECONDS:
            if not known:
                newest_at, known = newest(), True
            latest = _later(latest, newest_at)
        at = _later(latest, said_at)
        if at is not None:
            latest = times[row.id] = at
    return times


def _later(one: float | None, other: float | None) -> float | None:
    """Return the later of two times; None if neither is known."""
    return max((at for at in (one, other) if at is not None), default=None)


def _said_at(row: OutboxRow, clock: Clock) -> tuple[float | None, float]:
    """Return when a message was said, if that is known, and for how many seconds it has waited."""
    now = clock.now()
    waited = clock.boot_time().since(row.admitted)
    if waited is not None and waited >= 0:
        # The clock may have been set since; what it says now is nearer to the truth.
        return (now - waited if now - waited >= _CLOCK_IS_SET else None), waited
    if not _CLOCK_IS_SET <= row.admitted_at <= now:
        return None, 0.0
    return row.admitted_at, now - row.admitted_at
