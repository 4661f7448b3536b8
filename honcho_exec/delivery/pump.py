"""The pump from the outbox to Honcho, and the Futures of what it carries."""

from __future__ import annotations

import logging
import math
import random
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from honcho_exec.client.connection import Connection
from honcho_exec.clock import Clock, Deadline
from honcho_exec.delivery.futures import TurnFuture, Turns, closed_first
from honcho_exec.delivery.sender import Sender
from honcho_exec.delivery.watchdog import SlowWatch
from honcho_exec.errors import (
    Busy,
    CircuitOpen,
    Closed,
    ConfigurationError,
    HonchoExecError,
    Overloaded,
    Rejected,
    RequestError,
    SessionDeleted,
    StateError,
    Unavailable,
)
from honcho_exec.forks import PerProcess, on_fork_in_child
from honcho_exec.model import Receipt, SessionRef, Write
from honcho_exec.net.backoff import Waits
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.retry import RetryPolicy
from honcho_exec.outbox.lease import Holder
from honcho_exec.outbox.outbox import MAX_BATCH, Outbox
from honcho_exec.outbox.rows import Admitted, Batch, OutboxRow
from honcho_exec.runtime.lane import Lane
from honcho_exec.runtime.metrics import Meter
from honcho_exec.runtime.offload import Serial, post, post_in_order
from honcho_exec.runtime.pace import Pace
from honcho_exec.runtime.timer import CallLater, Timer, call_later

__all__ = ["Delivery", "Health"]

_log = logging.getLogger(__name__)

# Another process may die and leave its rows behind: they are looked for about this often (seconds), and this often
# when rows of ours wait behind them.
_LOOK_AROUND = 2.0
_LOOK_AT_OTHERS = 0.5
# A refused key is not hammered: a person has to change it.
_AUTH_PAUSE = 60.0
# A server that asks to wait is not waited for longer than this (seconds).
_LONGEST_ASKED = 30.0
# How long after the last delivery the file is tidied (seconds): not in the middle of a conversation.
_TIDY_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class Health:
    """How delivery is doing.

    Attributes:
        error: the last failure.
        failing: whether nothing has been delivered since.
        retry_at: when the next attempt is due, on the monotonic clock; None when nothing is failing.
    """

    error: HonchoExecError | None = None
    failing: bool = False
    retry_at: float | None = None


_neighbours: defaultdict[tuple[Path, str], weakref.WeakSet[Delivery]] = defaultdict(weakref.WeakSet)
_neighbours_lock = PerProcess(threading.Lock)


@on_fork_in_child
def _after_fork() -> None:
    _neighbours.clear()


class _Admission:
    """A turn on its way into the outbox; see `admission.Listener`."""

    def __init__(self, delivery: Delivery, future: TurnFuture, rows: int, *, held: bool, awaited: bool) -> None:
        self.name = delivery.clock.new_id()
        self.future = future
        self.rows = rows
        self.since = math.inf if held else delivery.clock.monotonic()
        self.awaited = awaited
        self._delivery = delivery

    def begin(self) -> None:
        self._delivery.begin(self)

    def stored(self, admitted: Admitted) -> None:
        self._delivery.stored(self, admitted)

    def failed(self, error: HonchoExecError) -> None:
        self._delivery.refuse(self, error)


class Delivery:
    """Carries rows from the outbox to Honcho, in order within each stream, each once.

    `admit` may be called from any thread; everything that touches the cache or sends runs on the lane. One job
    of the lane sends one batch and then queues itself again, so that other jobs get their turn and an exiting
    interpreter is not held up by a backlog.

    Args:
        slow_after: seconds after which it is logged that a sync is still going.
        notice: told, with the error, that delivery begins to fail, and with None that it works again; called on a
            thread of its own.
        run: runs what is not ours, such as callbacks, where it holds nothing up.
        wake: runs what wakes the lane.
        call_later: the process's alarm, or a test's own.
        pace: shares the processor with callers, if delivering is this process's own work.

    Attributes:
        last_sync: the Future of the last turn that tool calls wait for.
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
        notice: Callable[[HonchoExecError | None], None],
        run: Callable[[Callable[[], None]], object] = post,
        wake: Callable[[Callable[[], None]], object] = post_in_order,
        pace: Pace | None = None,
        call_later: CallLater = call_later,
    ) -> None:
        self._lane = lane
        self._outbox = outbox
        self._sender = Sender(outbox=outbox, connection=connection, retry=retry, outcome=self, meter=meter, clock=clock)
        self._breaker = breaker
        self._meter = meter
        self._given_notice = notice
        self._notices = Serial(run)
        self._wake = wake
        self._pace = pace
        self.last_sync: TurnFuture | None = None
        self.clock = self._clock = clock
        self._key = (outbox.path, outbox.destination)
        self._waits = Waits(self._key, breaker, clock, sooner=self._sooner)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # Jobs that have begun, and the last of them that found nothing more to send; 0 before there was one.
        self._jobs = 0
        self._rested_in = 0
        self._turns = Turns(clock, meter, run)
        self._slow = SlowWatch(
            self._turns.age, after=slow_after, quiet=lambda: self._health.failing, call_later=call_later
        )
        self._queued = False
        self._blocked = False
        # Streams whose sessions were deleted, with the time at which they are tried again; for the lane.
        self._deleted: dict[str, tuple[float, SessionDeleted]] = {}
        self._untidy = True
        self._refusal: StateError | None = None
        # Turns of others that write the same as one of ours; a set, since it is only added to and looked into.
        self._carried: set[str] = set()
        self._incident = next(reversed(outbox.incidents()), None)
        self._unreleased: set[Holder] = set()
        self._backing_off = False
        self._timer = Timer(self._due, call_later)
        self._due_at = 0.0
        self._tidy = Timer(self._tidy_later, call_later)
        self._health = Health()
        self._closed = False
        with _neighbours_lock():
            _neighbours[self._key].add(self)

    @property
    def health(self) -> Health:
        """How delivery is doing, as a frozen value."""
        return self._health

    @property
    def refusal(self) -> StateError | None:
        """Why the last turn was not stored; None when it was."""
        return self._refusal

    def deleted(self, session: str | None = None) -> SessionDeleted | None:
        """Why rows wait for a session (any if None is given) that was deleted; None if none do."""
        errors = [error for _, error in list(self._deleted.values()) if session in (None, error.session)]
        return errors[0] if errors else None

    def oldest_turn(self) -> str | None:
        """The turn of this process that has been going longest; None when there is none."""
        return self._turns.oldest()

    @property
    def rested(self) -> bool:
        """Whether everything that an earlier process left has been tried."""
        return self._rested_in > 0

    def wait_for_rest(self, deadline: Deadline) -> bool:
        """Wait until that is so; False when the deadline came first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._rested_in > 0 or self._closed, deadline.remaining())

    def oldest_wait(self) -> float | None:
        """Seconds for which the oldest unsettled turn of this process has been going; None when there is none."""
        return self._turns.age()

    def admit(
        self, ref: SessionRef, writes: Sequence[Write], *, hold: Holder | None = None, awaited: bool = False
    ) -> TurnFuture:
        """Store `writes` durably and return the Future of their delivery.

        While another process locks the outbox the Future is returned before they are durable; see `TurnFuture.durable`.
        The caller may be interrupted at any moment: nothing stays locked, and all of `writes` are stored or none.

        The Future fails with `StateError`, `Overloaded` or `Closed` when nothing was stored; with `RequestError`
        when delivery failed for now (the rows stay and are delivered later) or for good (they are parked).

        Args:
            ref: where they belong.
            writes: what is stored, in order.
            hold: whose they are until they are given to `release`; nothing is sent of them before.
            awaited: whether `last_sync` is this turn from now on.
        """
        admission = _Admission(self, self._turns.future(), len(writes), held=hold is not None, awaited=awaited)
        if writes:
            self._outbox.submit(admission.name, ref, writes, admission, holder=hold)
        else:
            admission.future.set_result(Receipt(0))
        return admission.future

    def begin(self, admission: _Admission) -> None:
        """See `_Admission.begin`."""
        if self._closed:
            raise Closed("the provider is closed; nothing was stored")
        if self._pace is not None:
            self._pace.given()
        # Whoever waits must be known before the lane can deliver the rows.
        self._turns.add(admission.name, admission.future, admission.rows, since=admission.since)
        if admission.awaited:
            self.last_sync = admission.future

    def stored(self, admission: _Admission, admitted: Admitted) -> None:
        """See `_Admission.stored`."""
        name = admission.name
        self._refusal = None
        self._meter.count("admitted", admitted.added)
        self._slow.arm()
        if admitted.turn == name:
            self._turns.stored(name)
            self._turns.settle([name] * (admission.rows - admitted.added), new=False)
        else:
            admission.future = self._turns.follow(name, admitted.turn)
            if admission.awaited:
                self.last_sync = admission.future
            self._carried.add(admitted.turn)
            self._look_at([admitted.turn])
        if self._closed:
            # Closing went by meanwhile; what is stored is somebody else's to deliver.
            self._turns.fail([name], closed_first())
        self._go_on()

    def refuse(self, admission: _Admission, error: HonchoExecError) -> None:
        """See `_Admission.failed`."""
        if isinstance(error, StateError):
            self._refusal = error
        if isinstance(error, Overloaded):
            self._meter.count("overloaded")
        self._turns.fail([admission.name], error)
        # It may have been refused before it was known.
        if not admission.future.done():
            admission.future.set_exception(error)

    def release(self, hold: Holder) -> None:
        """Let what was admitted for that holder be sent, as soon as the outbox can be written."""
        self._turns.release()
        self._slow.arm()
        self._outbox.release(hold, partial(self._released, hold))

    def _released(self, hold: Holder, error: HonchoExecError | None) -> None:
        if error is not None:
            _log.warning("what is held back is let go later: %s", error)
            self._unreleased.add(hold)
        self._go_on()

    def _go_on(self) -> None:
        """Have the lane look, on another thread: whoever stores must not wait for one to be started."""
        with self._changed:
            self._changed.notify_all()
        if isinstance(self._health.error, Busy) and self._backing_off:
            # The lock is released.
            self._sooner(0.0)
        elif not self._queued:
            self._wake(self.pump)

    def pump(self) -> None:
        """Queue a job that sends, unless one is queued or the next attempt has its time."""
        with self._lock:
            if self._queued or self._closed or self._backing_off:
                return
            self._queued = True
        if not self._lane.post(self._job, failed=self._crashed):
            with self._lock:
                self._queued = False

    def drain(self, deadline: Deadline, *, patient: bool) -> int:
        """Try at once, wait until nothing is left to send, and return how many rows are.

        Rows that another living holder has are not waited for.

        Args:
            deadline: when to give up.
            patient: go on waiting while Honcho fails; otherwise give up then.
        """
        with self._lock:
            self._timer.cancel()
            self._backing_off = False
            # A job that runs now may have looked before the last row was there.
            earlier = self._jobs
        self.pump()
        while not deadline.passed:
            with self._changed:
                rested = self._rested_in > earlier
                unstored = self._outbox.unstored()
                if self._closed or (rested and not patient and not unstored):
                    break
            if rested and self._outbox.pending() == 0:
                break
            with self._changed:
                if self._rested_in <= earlier or patient or unstored:
                    self._changed.wait(min(deadline.remaining(), _LOOK_AROUND))
        return self._outbox.pending()

    def settled(self, rows: Sequence[OutboxRow], *, new: bool) -> None:
        """See `sending.Outcome`: drop the rows and tell whoever waits."""
        self._outbox.settle(rows)
        self._untidy = True
        self._meter.count("delivered", len(rows))
        recovered = self._no_longer_failing("delivery to Honcho works again")
        self._waits.succeeded()
        self._turns.settle([row.turn for row in rows], new=new)
        with self._changed:
            self._changed.notify_all()
        if recovered:
            self._notice(None)

    def refused(self, rows: Sequence[OutboxRow], error: RequestError) -> None:
        """See `sending.Outcome`: tell whoever waits."""
        self._turns.fail([row.turn for row in rows], error)

    def abandon(self) -> None:
        """Fail the Futures that are left: whoever waits for them would hold up the interpreter's exit."""
        self._turns.fail_all()

    def close(self) -> None:
        """Take nothing more and fail the Futures that are left; the rows stay."""
        with self._changed:
            self._closed = True
            self._timer.cancel()
            self._tidy.cancel()
            self._changed.notify_all()
        self._waits.forget()
        self._slow.close()
        self._turns.fail_all()

    def _job(self) -> None:
        with self._lock:
            self._queued = False
            if self._closed:
                return
            self._jobs += 1
        with self._pace.work() if self._pace is not None else nullcontext():
            self._work()

    def _work(self) -> None:
        try:
            self._outbox.flush_to_disk()
            failed, self._unreleased = self._unreleased, set()
            for hold in failed:
                self.release(hold)
            if self._unreleased:
                raise StateError("what is held back cannot be let go")
            self._fail_lost()
            most = MAX_BATCH if self._pace is None else self._pace.most_rows(MAX_BATCH)
            batch = self._outbox.claim(but=self._waiting_streams(), most=most)
            if batch is not None:
                self._send(batch)
                self._wake_neighbours()
            elif not self._outbox.adopt():
                self._idle()
                return
        except StateError as error:
            if not self._made_room(error):
                self._pause(error, self._waits.next(error))
                return
        except Closed:
            # The provider is closed, or the interpreter exits: the rows stay for whoever comes next.
            return
        self.pump()

    def _crashed(self, error: BaseException) -> None:
        with self._lock:
            self._queued = False
        unforeseen = HonchoExecError(f"unexpected {type(error).__name__} while delivering")
        self._pause(unforeseen, self._waits.next(unforeseen))

    def _waiting_streams(self) -> list[str]:
        """The streams whose sessions were deleted and are not asked for again yet."""
        now = self._clock.monotonic()
        return [stream for stream, (due, _) in self._deleted.items() if due > now]

    def _fail_deleted(self) -> None:
        """Fail the turns that wait for a deleted session; their rows stay."""
        for stream, (_, error) in list(self._deleted.items()):
            turns = self._outbox.turns_in([stream])
            self._turns.fail(turns, error)
            if not turns:
                del self._deleted[stream]

    def _idle(self) -> None:
        self._fail_deleted()
        waiting = self._turns.open()
        self._look_at(waiting)
        mine = self._outbox.pending()
        self._blocked = bool(mine or self._carried)
        if self._blocked:
            # The oldest row of the stream is another holder's, who may be another process.
            self._again_in(_LOOK_AT_OTHERS)
        else:
            self._sender.calm()
            self._waits.forget()
            # It may have been parked, dropped, or handed over.
            if self._no_longer_failing("what Honcho did not take is not waiting any more"):
                self._notice(None)
            # One of all that share these rows is enough to see that another process died and left some behind.
            spread = len(_neighbours[self._key]) * random.uniform(1, 2)  # noqa: S311 - spreads load only
            self._again_in(_LOOK_AROUND * spread, keep_alive=False)
            with self._lock:
                if self._untidy and not self._closed and not self._tidy.is_set:
                    self._tidy.set(_TIDY_AFTER, keep_alive=True)
        self._at_rest()

    def _look_at(self, turns: Sequence[str]) -> None:
        """Settle what others have done with turns of ours: delivered, parked or dropped their rows."""
        fates = {name: self._outbox.fate(name) for name in turns}
        # The outbox's file may be another one since; the rows that are missing in it were not dropped by a person.
        self._fail_lost()
        for name, (left, parked) in fates.items():
            if parked is not None:
                self._turns.fail([name], Rejected(parked, cause="refused"))
            elif left == 0:
                self._turns.close(name, delivered=name in self._carried)
            if left == 0 or parked is not None:
                self._carried.discard(name)

    def _fail_lost(self) -> None:
        """Fail the turns whose rows were in an outbox file that somebody removed, renamed or replaced."""
        newest = next(reversed(self._outbox.incidents()), None)
        if newest is None or newest is self._incident:
            return
        error = StateError(str(newest))
        self._turns.fail([name for name in self._turns.open() if self._outbox.fate(name)[0] == 0], error)
        self._outbox.note_error(str(error))
        self._incident = newest

    def _wake_neighbours(self) -> None:
        """Others of this process may have waited for the rows before theirs."""
        with _neighbours_lock():
            others = list(_neighbours[self._key])
        for other in others:
            if other is not self and other._blocked:  # noqa: SLF001 - of the same class
                other.pump()

    def _tidy_later(self) -> None:
        self._lane.post(self._tidy_up)

    def _tidy_up(self) -> None:
        if self._outbox.is_empty():
            self._outbox.tidy()
            self._untidy = False

    def _send(self, batch: Batch) -> None:
        self._breaker.knock()
        try:
            self._sender.deliver(batch)
            self._deleted.pop(batch.stream, None)
        except SessionDeleted as error:
            # Only this stream waits: other sessions, and what needs no session, are delivered meanwhile.
            self._outbox.note_error(str(error))
            self._deleted[batch.stream] = (self._clock.monotonic() + (error.retry_after or _LOOK_AROUND), error)
            self._turns.fail([row.turn for row in batch.rows], error)
        except (RequestError, StateError, ConfigurationError) as error:
            if self._made_room(error):
                return
            # Whoever waits for this batch is told; it is tried again when the time has come.
            with suppress(StateError):
                self._outbox.note_error(str(error))
            self._pause(error, self._patience(error))
            if isinstance(error, Rejected) and error.cause != "auth":
                # The server refuses the session, not these rows: they are kept, and tried again.
                error = Unavailable(str(error), cause=error.cause, status=error.status)
            self._turns.fail([row.turn for row in batch.rows], error)

    def _made_room(self, error: HonchoExecError) -> bool:
        """Whether the disk was full, and the reserved space was given back, so that it is worth trying at once."""
        return isinstance(error, StateError) and not isinstance(error, Busy) and self._outbox.make_room()

    def _patience(self, error: HonchoExecError) -> float:
        """Seconds until the next attempt."""
        if error.cause == "auth":
            # What is refused before anything is sent says itself when it is worth another look.
            return error.retry_after or _AUTH_PAUSE
        wait = self._waits.next(error)
        if isinstance(error, CircuitOpen):
            return wait
        return max(wait, min(error.retry_after or 0.0, _LONGEST_ASKED))

    def _pause(self, error: HonchoExecError, pause: float) -> None:
        begins = not self._health.failing and not self._closed
        self._health = Health(error, failing=True, retry_at=self._clock.monotonic() + pause)
        if begins:
            _log.warning("delivery to Honcho is failing; what is given is kept and tried again: %s", error)
        with self._lock:
            self._backing_off = True
        if not isinstance(error, StateError):
            self._outbox.reserve_space()
        self._again_in(pause)
        self._at_rest()
        if begins:
            self._notice(error)

    def _notice(self, error: HonchoExecError | None) -> None:
        self._notices.post(partial(self._given_notice, error))

    def _no_longer_failing(self, why: str) -> bool:
        failed = self._health.failing
        self._health = Health(self._health.error)
        if failed:
            _log.warning(why)
        return failed

    def _at_rest(self) -> None:
        """Tell whoever drains that nothing more is sent for now."""
        with self._changed:
            self._rested_in = self._jobs
            self._changed.notify_all()

    def _again_in(self, delay: float, *, keep_alive: bool = True) -> None:
        """Pump again then, and not when it was to be before."""
        with self._lock:
            self._due_at = self._clock.monotonic() + delay
            if not self._closed:
                self._timer.set(delay, keep_alive=keep_alive)

    def _sooner(self, delay: float) -> None:
        """Another has reached Honcho: what waits for that need not wait for longer than `delay`."""
        with self._lock:
            waits = self._backing_off and self._clock.monotonic() + delay < self._due_at
        if waits:
            self._again_in(delay)

    def _due(self) -> None:
        with self._lock:
            if self._timer.is_set:
                # It was set again while this call was due.
                return
            self._backing_off = False
        self.pump()
