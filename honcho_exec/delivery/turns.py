"""Admit turns to the outbox and complete their Futures."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial

from honcho_exec.clock import Clock
from honcho_exec.delivery.futures import TurnFuture, closed_first
from honcho_exec.delivery.watchdog import SlowWatch
from honcho_exec.errors import Closed, HonchoExecError, Overloaded, Rejected, StateError
from honcho_exec.model import Receipt, SessionRef, Write
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.outbox.rows import Admitted
from honcho_exec.runtime.metrics import Meter
from honcho_exec.runtime.pace import Pace
from honcho_exec.runtime.timer import CallLater

__all__ = ["Turns"]

_log = logging.getLogger(__name__)


@lru_cache(maxsize=1000)
def _receipt(written: int, duplicates: int) -> Receipt:
    """Return the same receipt for equal counts: callers may keep many."""
    return Receipt(written, duplicates)


class _Admission:
    """The admission of one turn; see `enqueue.Listener`."""

    def __init__(self, turns: Turns, name: str, future: TurnFuture, rows: int, *, awaited: bool) -> None:
        self.name = name
        self.future = future
        self.rows = rows
        self.awaited = awaited
        self._turns = turns

    def begin(self) -> None:
        self._turns.on_begin(self)

    def stored(self, admitted: Admitted) -> None:
        self._turns.on_stored(self, admitted)

    def failed(self, error: HonchoExecError) -> None:
        self._turns.on_refused(self, error)


class Turns:
    """Keeps one Future a turn, from before its rows are stored until the last of them is delivered.

    No Future is completed while a lock is held, so that its callbacks may call back.

    Args:
        run: runs the callbacks of Futures, on a thread where they hold nothing up.
        on_change: called when rows were stored or released, or when that failed.
        failing: whether it is known already that delivery fails.
        call_later: the process's alarm, or a test's own.
        slow_after: seconds after which a pending sync is logged.
        pace: shares the processor with callers, if delivering is this process's own work.

    Attributes:
        last_sync: the Future of the last turn that tool calls wait for.
        refusal: why the last turn was not stored; None when it was.
    """

    def __init__(
        self,
        outbox: Outbox,
        clock: Clock,
        meter: Meter,
        *,
        run: Callable[[Callable[[], None]], object],
        on_change: Callable[[], None],
        failing: Callable[[], bool],
        call_later: CallLater,
        slow_after: float,
        pace: Pace | None,
    ) -> None:
        self.last_sync: TurnFuture | None = None
        self.refusal: StateError | None = None
        self._outbox = outbox
        self._clock = clock
        self._meter = meter
        self._run = run
        self._on_change = on_change
        self._watch = SlowWatch(self.age, after=slow_after, quiet=failing, call_later=call_later)
        self._pace = pace
        self._lock = threading.Lock()
        self._futures: dict[str, TurnFuture] = {}
        # Turns of other processes that write the same as one of ours.
        self._carriers: set[str] = set()
        self._unreleased: set[LeaseHolder] = set()
        self._incident = next(reversed(outbox.file.incidents()), None)
        self._closed = False

    def admit(
        self, ref: SessionRef, writes: Sequence[Write], *, hold: LeaseHolder | None = None, awaited: bool = False
    ) -> TurnFuture:
        """Store `writes` durably and return the Future of their delivery.

        While another process locks the outbox the Future is returned before they are durable; see `TurnFuture.durable`.
        The caller may be interrupted at any moment: nothing stays locked, and all of `writes` are stored or none.

        The Future fails with `StateError`, `Overloaded` or `Closed` when nothing was stored; with `RequestError`
        when delivery failed for now (the rows stay and are delivered later) or for good (they are parked).

        Args:
            ref: the session that they belong to.
            writes: what is stored, in order.
            hold: the holder that keeps them until `release`; none of them is sent before.
            awaited: whether `last_sync` is this turn from now on.
        """
        future = TurnFuture(self._run)
        if not writes:
            future.set_result(Receipt(0))
            return future
        future.since = math.inf if hold is not None else self._clock.monotonic()
        admission = _Admission(self, self._clock.new_id(), future, len(writes), awaited=awaited)
        self._outbox.submit(admission.name, ref, writes, admission, holder=hold)
        return admission.future

    def on_begin(self, admission: _Admission) -> None:
        """Follow a turn that is about to be stored: the lane may deliver its rows at once."""
        if self._closed:
            raise Closed("the provider is closed; nothing was stored")
        if self._pace is not None:
            self._pace.given()
        admission.future.remaining = admission.rows
        with self._lock:
            self._futures[admission.name] = admission.future
        if admission.awaited:
            self.last_sync = admission.future

    def on_stored(self, admission: _Admission, admitted: Admitted) -> None:
        """Record that the outbox has the rows of a turn, or has another turn that writes the same."""
        name = admission.name
        self.refusal = None
        self._meter.count("admitted", admitted.added)
        self._watch.arm()
        if admitted.turn == name:
            with self._lock:
                if (future := self._futures.get(name)) is not None:
                    future.durable = True
            self.on_delivered([name] * (admission.rows - admitted.added), new=False)
        else:
            admission.future = self._merge(name, admitted.turn)
            if admission.awaited:
                self.last_sync = admission.future
            self._carriers.add(admitted.turn)
            self._verify([admitted.turn])
        if self._closed:
            # The provider was closed meanwhile; another process delivers the rows.
            self.fail([name], closed_first())
        self._on_change()

    def on_refused(self, admission: _Admission, error: HonchoExecError) -> None:
        """Fail a turn of which nothing was stored."""
        if isinstance(error, StateError):
            self.refusal = error
        if isinstance(error, Overloaded):
            self._meter.count("overloaded")
        self.fail([admission.name], error)
        # It may have been refused before `on_begin`.
        if not admission.future.done():
            admission.future.set_exception(error)

    def release(self, hold: LeaseHolder) -> None:
        """Let what was admitted for that holder be sent, as soon as the outbox can be written."""
        now = self._clock.monotonic()
        with self._lock:
            for future in self._futures.values():
                if future.since == math.inf:
                    future.since = now
        self._watch.arm()
        self._outbox.release(hold, partial(self._on_released, hold))

    def _on_released(self, hold: LeaseHolder, error: HonchoExecError | None) -> None:
        if error is not None:
            _log.warning("the turns held back are released later: %s", error)
            self._unreleased.add(hold)
        self._on_change()

    def retry_releases(self) -> None:
        """Release what could not be released before; raises `StateError` if that fails again."""
        failed, self._unreleased = self._unreleased, set()
        for hold in failed:
            self.release(hold)
        if self._unreleased:
            raise StateError("the turns held back cannot be released")

    def _merge(self, name: str, carrier: str) -> TurnFuture:
        """Follow the turn `carrier` instead of `name`; return the Future of both."""
        with self._lock:
            future = self._futures.pop(name, None)
            if future is None:
                # The provider was closed meanwhile.
                future = TurnFuture(self._run)
                future.set_exception(closed_first())
                return future
            future.durable = True
            return self._futures.setdefault(carrier, future)

    def on_delivered(self, names: Iterable[str], *, new: bool) -> None:
        """Count one row of each named turn as written now (`new`) or there before; complete Futures of whole turns."""
        done: list[TurnFuture] = []
        with self._lock:
            for name in names:
                if (future := self._futures.get(name)) is None:
                    continue
                future.written += new
                future.duplicates += not new
                future.remaining -= 1
                if future.remaining <= 0:
                    done.append(self._futures.pop(name))
        now = self._clock.monotonic()
        for future in done:
            self._meter.sync_took(now - future.since)
            future.set_result(_receipt(future.written, future.duplicates))

    def verify(self) -> bool:
        """Complete the turns whose rows another process delivered, parked or dropped; return whether some are open."""
        self._verify(self._stored())
        return bool(self._carriers)

    def _verify(self, names: Sequence[str]) -> None:
        states = {name: self._outbox.turn_state(name) for name in names}
        # The outbox's file may be another one since; the rows that are missing in it were not dropped by a person.
        self.fail_lost()
        for name, (rows, parked) in states.items():
            if parked is not None:
                self.fail([name], Rejected(parked, cause="refused"))
            elif rows == 0:
                self._complete(name, delivered=name in self._carriers)
            if rows == 0 or parked is not None:
                self._carriers.discard(name)

    def _complete(self, name: str, *, delivered: bool) -> None:
        with self._lock:
            future = self._futures.pop(name, None)
        if future is not None and delivered:
            future.set_result(_receipt(future.written, future.duplicates + future.remaining))
        elif future is not None:
            future.set_exception(
                Rejected("the turn was taken out of the outbox before it was delivered", cause="dropped")
            )

    def fail_lost(self) -> None:
        """Fail the turns whose rows were in an outbox file that was removed, renamed or replaced."""
        newest = next(reversed(self._outbox.file.incidents()), None)
        if newest is None or newest is self._incident:
            return
        error = StateError(str(newest))
        self.fail([name for name in self._stored() if self._outbox.turn_state(name)[0] == 0], error)
        self._outbox.history.record_error(str(error))
        self._incident = newest

    def fail(self, names: Iterable[str], error: HonchoExecError) -> None:
        """Fail the named turns."""
        with self._lock:
            futures = [self._futures.pop(name) for name in dict.fromkeys(names) if name in self._futures]
        for future in futures:
            future.set_exception(error)

    def abandon(self) -> None:
        """Fail every turn that is stored: another process delivers it."""
        self.fail(self._stored(), closed_first())

    def close(self) -> None:
        """Admit nothing more and fail the turns that are stored; their rows stay."""
        self._closed = True
        self._watch.close()
        self.abandon()

    def _stored(self) -> list[str]:
        with self._lock:
            return [name for name, future in self._futures.items() if future.durable]

    def oldest(self) -> str | None:
        """Return the turn that has been pending longest; None if none is, or all are held back."""
        with self._lock:
            going = [name for name, future in self._futures.items() if future.since < math.inf]
            return min(going, key=lambda name: self._futures[name].since, default=None)

    def age(self) -> float | None:
        """Return for how many seconds the oldest turn has been pending; None if `oldest` is."""
        with self._lock:
            since = min((future.since for future in self._futures.values() if future.since < math.inf), default=None)
        return None if since is None else self._clock.monotonic() - since
