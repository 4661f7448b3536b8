"""The wait of a tool call: `future.result(timeout)`, and a retryable error when the time is over."""

from __future__ import annotations

import logging
from contextlib import suppress

from honcho_exec.clock import Clock, Deadline
from honcho_exec.conversation.opening import SessionOpener
from honcho_exec.delivery.futures import TurnFuture
from honcho_exec.delivery.pump import Pump
from honcho_exec.errors import HonchoExecError, Queued, Rejected, RequestError, SessionDeleted, SyncPending
from honcho_exec.model import Receipt, SessionRef
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.runtime.metrics import Meter

__all__ = ["PendingSync"]

_log = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 2.0  # if it is not known when the sync ends
_BRIEF_SECONDS = 1.0  # for a session that was waited out before


class PendingSync:
    """Waits for the turns and the session that a tool call builds on.

    What was waited out once is not waited out again: the next call answers at once. `timeout` is the sync join timeout
    in seconds, `where` the Honcho in use.
    """

    def __init__(
        self,
        delivery: Pump,
        opener: SessionOpener,
        outbox: Outbox,
        *,
        timeout: float,
        where: str,
        clock: Clock,
        meter: Meter,
    ) -> None:
        self._delivery = delivery
        self._opener = opener
        self._outbox = outbox
        self._timeout = timeout
        self._where = where
        self._clock = clock
        self._meter = meter
        # The oldest turn at the last wait in vain, and the number of sessions opened before.
        self._waited_out: str | None = None
        self._session_waited_out: int | None = None

    def wait(self, deadline: Deadline) -> None:
        """Wait until each turn given before is delivered, or has failed.

        Raises:
            SyncPending: not in time, or delivery fails for now.
            RequestError, StateError: delivery fails, and waiting does not help.
        """
        oldest = self._delivery.turns.oldest()
        hopeless = self._is_hopeless(oldest)
        # Rows of an earlier process wait for the session alone.
        patience = deadline.remaining() if oldest is not None else self._session_patience(deadline)
        deadline = Deadline.after(0.0 if hopeless else patience, self._clock)
        if self._delivery.wait_until_tried(deadline):
            future = self._delivery.turns.last_sync
            with suppress(TimeoutError, HonchoExecError):
                if future is not None:
                    future.result(deadline.remaining())
            if (future is None or future.done()) and not self._delivery.health.failing:
                return
        health = self._delivery.health
        if health.failing and health.error is not None and not health.error.retryable:
            raise health.error
        if oldest is None and not health.failing and self._opener.is_missing:
            raise self._wait_out_session()
        self._waited_out = self._delivery.turns.oldest()
        raise self._timed_out("the sync", self._age(), again=hopeless)

    def wait_for_session(self, ref: SessionRef, deadline: Deadline) -> None:
        """Wait until the session is open, opening it again if that failed; raise `SyncPending` if it takes longer."""
        try:
            # Most reads need no session.
            with suppress(SessionDeleted):
                self._opener.begin(ref).result(self._session_patience(deadline))
        except TimeoutError:
            raise self._wait_out_session() from None

    def wait_for_write(self, future: TurnFuture) -> Receipt:
        """Wait for a write of a tool call; raise `Queued` if it is kept and not confirmed."""
        deadline = Deadline.after(self._timeout, self._clock)
        try:
            self.wait(deadline)
        except (SyncPending, RequestError) as error:
            if not future.done():
                raise Queued(error, durable=future.durable) from error
        try:
            return future.result(deadline.remaining())
        except TimeoutError:
            raise Queued(self.error("the write", self._age()), durable=future.durable) from None
        except RequestError as error:
            if isinstance(error, Rejected) and error.cause != "auth":
                raise
            raise Queued(error) from error

    def wait_for_turn(self, future: TurnFuture) -> None:
        """Wait for a turn, unless it is known to take longer."""
        oldest = self._delivery.turns.oldest()
        if not self._is_hopeless(oldest) and not future.wait(self._timeout):
            self._waited_out = oldest

    def error(self, what: str, age: float) -> SyncPending:
        """Return the error of a wait that is over: the age of `what`, and when to try again."""
        health, wait = self._delivery.health, _RETRY_AFTER_SECONDS
        if health.retry_at is not None:
            wait = max(1.0, health.retry_at - self._clock.monotonic())
        why = f" (last failure: {health.error})" if health.failing and health.error is not None else ""
        return SyncPending(
            f"{what} with {self._where} has been going for {age:.1f} s and is not done{why}; nothing is lost,"
            f" try again in {wait:.0f} s",
            age=age,
            retry_after=wait,
        )

    def _age(self) -> float:
        stored_at = self._outbox.inspection.counts().oldest_at
        return max(0.0 if stored_at is None else self._clock.now() - stored_at, self._delivery.turns.age() or 0.0)

    def _is_hopeless(self, oldest: str | None) -> bool:
        return self._delivery.health.failing or (oldest is not None and oldest == self._waited_out)

    def _session_patience(self, deadline: Deadline) -> float:
        waited_out = self._session_waited_out == self._opener.opened
        return min(deadline.remaining(), _BRIEF_SECONDS) if waited_out else deadline.remaining()

    def _wait_out_session(self) -> SyncPending:
        again, self._session_waited_out = self._session_waited_out == self._opener.opened, self._opener.opened
        return self._timed_out("opening the session", self._opener.age, again=again)

    def _timed_out(self, what: str, age: float, *, again: bool) -> SyncPending:
        error = self.error(what, age)
        if not again:
            self._meter.count("join_timeouts")
            _log.warning("the pending sync was not waited for any longer: %s", error)
        return error
