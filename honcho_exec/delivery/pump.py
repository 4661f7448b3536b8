"""The pump: carries rows from the outbox to Honcho, one batch in each job of the lane."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from honcho_exec.client.connection import Connection
from honcho_exec.clock import Clock, Deadline
from honcho_exec.delivery.schedule import DeletedSessions, Health, Schedule
from honcho_exec.delivery.sender import Sender
from honcho_exec.delivery.turns import Turns
from honcho_exec.errors import (
    Busy,
    Closed,
    ConfigurationError,
    HonchoExecError,
    Rejected,
    RequestError,
    SessionDeleted,
    StateError,
    Unavailable,
)
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.retry import RetryPolicy
from honcho_exec.outbox.outbox import MAX_BATCH, Outbox
from honcho_exec.outbox.rows import Batch, OutboxRow
from honcho_exec.runtime.lane import Lane
from honcho_exec.runtime.metrics import Meter
from honcho_exec.runtime.offload import post, post_in_order
from honcho_exec.runtime.pace import Pace
from honcho_exec.runtime.timer import CallLater, Timer, call_later

__all__ = ["Pump"]

_DRAIN_POLL_SECONDS = 2.0
# The outbox's file is vacuumed this long after the last delivery: not in the middle of a conversation.
_VACUUM_AFTER_SECONDS = 1.0


class Pump:
    """Carries rows from the outbox to Honcho, in order within each stream, each once.

    Turns are admitted from any thread; everything that touches the cache or sends runs on the lane. One job of the
    lane sends one batch and then queues the next job, so that other jobs get their turn and an exiting interpreter
    is not held up by a backlog.

    Args:
        slow_after: seconds after which a pending sync is logged.
        on_health_change: called with the error when delivery begins to fail, and with None when it works again.
        run: runs callbacks of callers, where they hold nothing up.
        run_in_order: runs `wake` after a turn was stored, on another thread than the caller's.
        pace: shares the processor with callers, if delivering is this process's own work.
        call_later: the process's alarm, or a test's own.

    Attributes:
        turns: the turns of this process; admits new ones.
        deleted: the streams whose sessions were deleted.
    """

    def __init__(
        self,
        *,
        lane: Lane,
        outbox: Outbox,
        connection: Connection,
        retry: RetryPolicy,
        breaker: Breaker,
        meter: Meter,
        clock: Clock,
        slow_after: float,
        on_health_change: Callable[[HonchoExecError | None], None],
        run: Callable[[Callable[[], None]], object] = post,
        run_in_order: Callable[[Callable[[], None]], object] = post_in_order,
        pace: Pace | None = None,
        call_later: CallLater = call_later,
    ) -> None:
        self._lane = lane
        self._outbox = outbox
        self._pace = pace
        self._run_in_order = run_in_order
        self._changed = threading.Condition()
        self._queued = False
        self._closed = False
        # The number of jobs that have begun, and of the last one that found nothing to send; 0 before there was one.
        self._jobs = 0
        self._empty_at = 0
        self._vacuum_timer = Timer(self._on_vacuum_due, call_later)
        self._must_vacuum = True
        self._schedule = Schedule(
            (outbox.path, outbox.destination),
            clock,
            wake=self.wake,
            on_health_change=on_health_change,
            run=run,
            call_later=call_later,
        )
        self.turns = Turns(
            outbox,
            clock,
            meter,
            run=run,
            on_change=self._on_change,
            failing=lambda: self.health.failing,
            call_later=call_later,
            slow_after=slow_after,
            pace=pace,
        )
        self.deleted = DeletedSessions(clock)
        self._sender = Sender(
            outbox=outbox,
            connection=connection,
            retry=retry,
            breaker=breaker,
            outcome=self,
            meter=meter,
            clock=clock,
        )

    @property
    def health(self) -> Health:
        """How delivery is doing, as a frozen value."""
        return self._schedule.health

    def wake(self) -> None:
        """Queue a job that sends, unless one is queued or the next attempt is not due yet."""
        with self._changed:
            if self._queued or self._closed or self._schedule.backing_off:
                return
            self._queued = True
        if self._pace is None:
            self._post(_do_nothing)
        else:
            self._pace.ask(self._post)

    def wait_until_tried(self, deadline: Deadline) -> bool:
        """Wait until every row that an earlier process left was tried; False if the deadline came first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._empty_at > 0 or self._closed, deadline.remaining())

    def drain(self, deadline: Deadline, *, patient: bool) -> int:
        """Try at once, wait until nothing is left to send, and return how many rows are left.

        Rows of another living holder are not waited for.

        Args:
            deadline: when to give up.
            patient: whether to go on waiting while Honcho fails; otherwise give up then.
        """
        self._schedule.cancel()
        with self._changed:
            # A job that runs now may have looked before the last row was there.
            earlier = self._jobs
        self.wake()
        while not deadline.passed:
            with self._changed:
                tried = self._empty_at > earlier
                unstored = self._outbox.inspection.unstored()
                if self._closed or (tried and not patient and not unstored):
                    break
            if tried and self._outbox.inspection.pending() == 0:
                break
            with self._changed:
                if self._empty_at <= earlier or patient or unstored:
                    self._changed.wait(min(deadline.remaining(), _DRAIN_POLL_SECONDS))
        return self._outbox.inspection.pending()

    def on_delivered(self, rows: Sequence[OutboxRow], *, new: bool) -> None:
        """See `Outcome`: complete the Futures of rows that are out of the outbox."""
        self._must_vacuum = True
        self._schedule.on_delivered()
        self.turns.on_delivered([row.turn for row in rows], new=new)
        self._notify_all()

    def on_refused(self, rows: Sequence[OutboxRow], error: RequestError) -> None:
        """See `Outcome`: fail the Futures of rows that Honcho did not take."""
        self.turns.fail([row.turn for row in rows], error)

    def close(self) -> None:
        """Take nothing more and fail the Futures that are left; the rows stay."""
        with self._changed:
            self._closed = True
            self._vacuum_timer.cancel()
            self._changed.notify_all()
        self._schedule.close()
        self.turns.close()

    def _post(self, done: Callable[[], None]) -> bool:
        posted = self._lane.post(partial(self.run_once, done), failed=self._on_crash)
        if not posted:
            with self._changed:
                self._queued = False
        return posted

    def run_once(self, done: Callable[[], None]) -> None:
        """Send one batch and queue the next job; on the lane only.

        Args:
            done: called at the end.
        """
        try:
            with self._changed:
                self._queued = False
                if self._closed:
                    return
                self._jobs += 1
            self._send_next()
        finally:
            done()

    def _send_next(self) -> None:
        try:
            self._outbox.file.flush()
            self.turns.retry_releases()
            self.turns.fail_lost()
            most = MAX_BATCH if self._pace is None else self._pace.most_rows(MAX_BATCH)
            batch = self._outbox.claim(skip_streams=self.deleted.paused(), max_rows=most)
            if batch is not None:
                self._send(batch)
                self._schedule.wake_blocked()
            elif not self._outbox.adopt():
                self._on_empty()
                return
        except StateError as error:
            if not self._made_room(error):
                self._on_failure(error)
                return
        except Closed:
            # The provider is closed, or the interpreter exits: another process delivers the rows.
            return
        self.wake()

    def _send(self, batch: Batch) -> None:
        try:
            self._sender.deliver(batch)
            self.deleted.remove(batch.stream)
        except SessionDeleted as error:
            # Only this stream waits: other sessions, and what needs no session, are delivered meanwhile.
            self._outbox.history.record_error(str(error))
            self.deleted.add(batch.stream, error)
            self.on_refused(batch.rows, error)
        except (RequestError, StateError, ConfigurationError) as error:
            if self._made_room(error):
                return
            with suppress(StateError):
                self._outbox.history.record_error(str(error))
            self._on_failure(error)
            if isinstance(error, Rejected) and error.cause != "auth":
                # The server refuses the session, not these rows: they are kept, and sent again.
                error = Unavailable(str(error), cause=error.cause, status=error.status)
            self.turns.fail([row.turn for row in batch.rows], error)

    def _made_room(self, error: HonchoExecError) -> bool:
        """Return whether the disk was full and the reserved space was given back: an attempt may succeed now."""
        return isinstance(error, StateError) and not isinstance(error, Busy) and self._outbox.file.make_room()

    def _on_failure(self, error: HonchoExecError) -> None:
        self._schedule.on_failure(error)
        if not isinstance(error, StateError):
            self._outbox.file.reserve.allocate()
        self._end_round()

    def _on_crash(self, error: BaseException) -> None:
        with self._changed:
            self._queued = False
        self._on_failure(HonchoExecError(f"unexpected {type(error).__name__} while delivering"))

    def _on_empty(self) -> None:
        for stream, error in self.deleted.errors().items():
            # The turns fail, and their rows stay.
            turns = self._outbox.turns_in([stream])
            self.turns.fail(turns, error)
            if not turns:
                self.deleted.remove(stream)
        waiting = self.turns.verify()
        blocked = bool(self._outbox.inspection.pending() or waiting)
        if not blocked:
            self._sender.reset()
        self._schedule.on_empty(blocked=blocked)
        with self._changed:
            if not blocked and self._must_vacuum and not self._closed and not self._vacuum_timer.is_set:
                self._vacuum_timer.set(_VACUUM_AFTER_SECONDS, keep_alive=True)
        self._end_round()

    def _on_vacuum_due(self) -> None:
        self._lane.post(self._vacuum)

    def _vacuum(self) -> None:
        if self._outbox.inspection.is_empty():
            self._outbox.file.vacuum()
            self._must_vacuum = False

    def _on_change(self) -> None:
        """Wake the lane from another thread: a caller who stores must not wait until a thread is started."""
        self._notify_all()
        if isinstance(self.health.error, Busy) and self._schedule.backing_off:
            # The outbox's lock is released.
            self._schedule.hasten(0.0)
        elif not self._queued:
            self._run_in_order(self.wake)

    def _end_round(self) -> None:
        """Wake those who drain: nothing more is sent for now."""
        with self._changed:
            self._empty_at = self._jobs
            self._changed.notify_all()

    def _notify_all(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _do_nothing() -> None:
    pass
