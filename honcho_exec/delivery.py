"""The pump from the outbox to Honcho, and the Futures of what it carries."""

from __future__ import annotations

import logging
import random
import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from honcho_exec.clock import Clock, Deadline
from honcho_exec.connection import Connection, Link
from honcho_exec.errors import (
    Ambiguous,
    Closed,
    ConfigurationError,
    HonchoExecError,
    Rejected,
    RequestError,
    StateError,
    Unavailable,
)
from honcho_exec.lane import Lane
from honcho_exec.model import Card, Conclusion, Deletion, Message, Receipt, SessionRef, Write
from honcho_exec.outbox import Admitted, Batch, Outbox, OutboxRow
from honcho_exec.retry import Backoff, RetryPolicy
from honcho_exec.turns import Turns

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.honcho_api import HonchoApi

__all__ = ["Delivery", "Health"]

_log = logging.getLogger(__name__)

# Another process may die and leave its rows behind: they are looked for about this often (seconds), and this often
# when rows of ours wait behind them.
_LOOK_AROUND = 2.0
_LOOK_AT_OTHERS = 0.5
# A refused key is not hammered: a person has to change it.
_AUTH_PAUSE = 60.0
# The status of a server that failed at its work, and after how many rounds of retries the work is suspected.
_FAILED = 500
_CHOKES = 2
# How long after the last delivery the file is tidied (seconds): not in the middle of a conversation.
_TIDY_AFTER = 1.0
# A message that waited longer than this (seconds) is sent with the time it was said. Others take the server's
# time, since a message that seems older than its author's joining is hidden from a search by perspective.
_LONG_AGO = 60.0


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


_neighbours: defaultdict[Path, weakref.WeakSet[Delivery]] = defaultdict(weakref.WeakSet)


class Delivery:
    """Carries rows from the outbox to Honcho, in order within each stream, each once.

    `admit` may be called from any thread; everything that touches the cache or sends runs on the lane. One job
    of the lane sends one batch and then queues itself again, so that other jobs get their turn and an exiting
    interpreter is not held up by a backlog.
    """

    def __init__(
        self,
        *,
        lane: Lane,
        outbox: Outbox,
        connection: Connection,
        retry: RetryPolicy,
        clock: Clock,
    ) -> None:
        self._lane = lane
        self._outbox = outbox
        self._connection = connection
        self._retry = retry
        self._clock = clock
        self._backoff = Backoff(jitter=random.uniform)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._rests = 0
        self._turns = Turns(clock)
        self._chokes: Counter[str] = Counter()
        self._queued = False
        self._blocked = False
        self._backing_off = False
        self._timer: Callable[[], None] | None = None
        self._tidy: Callable[[], None] | None = None
        self._health = Health()
        self._closed = False
        _neighbours[outbox.path].add(self)

    @property
    def health(self) -> Health:
        """How delivery is doing, as a frozen value."""
        return self._health

    def oldest_wait(self) -> float | None:
        """Seconds for which the oldest unsettled turn of this process has been going; None when there is none."""
        return self._turns.age()

    def admit(self, ref: SessionRef, writes: Sequence[Write]) -> Future[Receipt]:
        """Store `writes` durably and return the Future of their delivery.

        The Future fails with `StateError`, `Overloaded` or `Closed` when nothing was stored; with `RequestError`
        when delivery failed for now (the rows stay and are delivered later) or for good (they are parked).
        """
        name = self._clock.new_id()
        # Whoever waits must be known before the lane can deliver the rows.
        future = self._turns.add(name, len(writes))
        try:
            if self._closed:
                raise Closed("the provider is closed; nothing was stored")
            admitted = self._outbox.admit(name, ref, writes) if writes else Admitted(name, 0)
        except HonchoExecError as error:
            self._turns.fail([name], error)
            return future
        if admitted.turn == name:
            self._turns.settle([name] * (len(writes) - admitted.added), new=False)
            if not writes:
                self._turns.expect(name, 0)
        else:
            future = self._turns.follow(name, admitted.turn)
            self._look_at_carried()
        self.pump()
        return future

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
            timer, self._timer, self._backing_off = self._timer, None, False
            rests = self._rests
        if timer is not None:
            timer()
        self.pump()
        while not deadline.passed:
            with self._changed:
                rested = self._rests > rests
                if self._closed or (rested and not patient):
                    break
            if rested and self._outbox.pending()[0] == 0:
                break
            with self._changed:
                if self._rests == rests or patient:
                    self._changed.wait(min(deadline.remaining(), _LOOK_AROUND))
        return self._outbox.pending()[0]

    def close(self) -> None:
        """Take nothing more and fail the Futures that are left; the rows stay."""
        with self._changed:
            self._closed = True
            timers = [timer for timer in (self._timer, self._tidy) if timer is not None]
            self._timer = self._tidy = None
            self._changed.notify_all()
        for take_back in timers:
            take_back()
        self._turns.fail_all(
            Closed("the provider was closed first; the turn is in the outbox and will be delivered later")
        )

    def _job(self) -> None:
        with self._lock:
            self._queued = False
            if self._closed:
                return
        try:
            self._outbox.flush_to_disk()
            batch = self._outbox.claim()
            if batch is not None:
                self._deliver(batch)
                self._wake_neighbours()
            elif not self._outbox.adopt():
                self._idle()
                return
        except StateError as error:
            self._pause(error, self._backoff.next())
            return
        self.pump()

    def _crashed(self, error: BaseException) -> None:
        with self._lock:
            self._queued = False
        self._pause(HonchoExecError(f"unexpected {type(error).__name__} while delivering"), self._backoff.next())

    def _idle(self) -> None:
        self._look_at_carried()
        mine, others = self._outbox.pending()
        self._blocked = bool(mine or self._turns.carried())
        if self._blocked:
            # The oldest row of the stream is another holder's, who may be another process.
            self._again_in(_LOOK_AT_OTHERS)
        elif others:
            self._again_in(_LOOK_AROUND * random.uniform(1, 2), weak=True)  # noqa: S311 - spreads load only
        else:
            self._chokes.clear()
            with self._lock:
                if self._tidy is None and not self._closed:
                    self._tidy = self._lane.post_later(_TIDY_AFTER, self._tidy_up)
        self._at_rest()

    def _look_at_carried(self) -> None:
        """Settle what another process has delivered for us."""
        for name in self._turns.carried():
            left, parked = self._outbox.fate(name)
            if parked is not None:
                self._turns.fail([name], Rejected(parked, cause="refused"))
            elif left == 0:
                self._turns.expect(name, 0)

    def _wake_neighbours(self) -> None:
        """Others of this process may have waited for the rows before theirs."""
        for other in list(_neighbours[self._outbox.path]):
            if other is not self and other._blocked:  # noqa: SLF001 - of the same class
                other.pump()

    def _tidy_up(self) -> None:
        self._tidy = None
        if not self._outbox.counts().pending:
            self._outbox.tidy()

    def _deliver(self, batch: Batch) -> None:
        try:
            link = self._open(batch)
        except (RequestError, StateError, ConfigurationError) as error:
            # A session that cannot be made says nothing about the rows: the server is away or the key is wrong.
            self._stop(batch, error)
            return
        try:
            self._retry.call(lambda: self._attempt(link.api, batch))
        except Rejected as error:
            if error.cause == "auth":
                self._stop(batch, error)
            else:
                link.cache.forget(batch.rows[0].ref.session)
                self._isolate(batch, error)
        except (RequestError, StateError) as error:
            if not (
                isinstance(error, Ambiguous) and error.status == _FAILED and self._isolates(link.api, batch, error)
            ):
                self._stop(batch, error)

    def _open(self, batch: Batch) -> Link:
        """The connection, with every session and peer of the batch made."""
        link = self._connection.open()
        for ref in dict.fromkeys(row.ref for row in batch.rows):
            link.cache.session(ref)
        return link

    def _attempt(self, api: HonchoApi, batch: Batch) -> None:
        """Send what Honcho does not have of the batch; record what is known before and after."""
        current = self._outbox.reread(batch)
        if current.rows and current.look and isinstance(current.rows[0].write, Message | Conclusion):
            # A card or a deletion may be sent again without looking: the second time changes nothing.
            if self._there(api, current):
                self._settle(current.rows, new=True)
                return
            wait = current.settle_at - self._clock.now()
            if wait > 0:
                raise Ambiguous(
                    f"{current.rows[0].error or 'an earlier process sent this and ended'}; it may still arrive and is"
                    " looked for before it is sent again",
                    cause="unconfirmed",
                    retry_after=wait,
                )
        known = self._known(api, current)
        if known:
            self._settle(known, new=False)
        fresh = [row for row in current.rows if row not in known]
        if fresh:
            self._send(api, current, fresh)

    def _send(self, api: HonchoApi, batch: Batch, rows: Sequence[OutboxRow]) -> None:
        self._outbox.sending(batch, settle_at=self._clock.now() + api.late)
        try:
            _write(api, batch, rows, self._clock.now())
        except Ambiguous as error:
            self._outbox.unknown(batch, str(error), settle_at=self._clock.now() + error.late)
            raise
        except (Unavailable, Rejected) as error:
            self._outbox.not_done(batch, str(error))
            raise
        self._settle(rows, new=True)

    def _there(self, api: HonchoApi, batch: Batch) -> bool:
        first = batch.rows[0]
        match first.write:
            case Message():
                return api.has_batch(first.ref.session, batch.id)
            case Conclusion():
                return api.has_conclusion(first.write, since=batch.first_sent_at)
        return False

    def _known(self, api: HonchoApi, batch: Batch) -> list[OutboxRow]:
        """The rows that came from somewhere else before and are there already."""
        keys = {
            row.write.source_key: row
            for row in batch.rows
            if isinstance(row.write, Message) and row.write.source_key is not None
        }
        if not keys:
            return []
        found = api.known_sources(batch.rows[0].ref.session, list(keys))
        return [row for key, row in keys.items() if key in found]

    def _isolate(self, batch: Batch, error: RequestError) -> None:
        """Find the row that Honcho refuses, by halves, and set it aside."""
        if len(batch.rows) > 1:
            self._outbox.halve(batch)
            return
        if isinstance(batch.rows[0].write, Deletion):
            # There is nothing to keep of a deletion that Honcho refuses: the conclusion is not there.
            self._outbox.settle(batch.rows)
        else:
            self._outbox.park(batch, str(error))
            self._outbox.note_error(str(error))
            _log.warning("a %s was parked: %s", type(batch.rows[0].write).__name__.lower(), error)
        self._turns.fail([row.turn for row in batch.rows], error)

    def _isolates(self, api: HonchoApi, batch: Batch, error: Ambiguous) -> bool:
        """Find the row that the server chokes on: one that fails while what is behind it passes.

        Returns False when that is not known (yet), or when the server fails everything.
        """
        self._chokes[batch.stream] += 1
        current = self._outbox.reread(batch)
        if self._chokes[batch.stream] < _CHOKES or current.settle_at > self._clock.now():
            return False
        try:
            if self._there(api, current):
                self._settle(current.rows, new=True)
                return True
        except RequestError:
            return False
        if len(current.rows) == 1:
            behind = self._outbox.claim(beyond=current)
            if behind is None or not self._passes(behind):
                return False
        self._isolate(current, error)
        return True

    def _passes(self, batch: Batch) -> bool:
        try:
            api = self._open(batch).api
            self._retry.call(lambda: self._attempt(api, batch))
        except (RequestError, StateError):
            return False
        return True

    def _stop(self, batch: Batch, error: HonchoExecError) -> None:
        """Tell whoever waits for this batch; try again when the time has come."""
        self._outbox.note_error(str(error))
        pause = _AUTH_PAUSE if error.cause == "auth" else max(self._backoff.next(), min(error.retry_after or 0.0, 30.0))
        self._pause(error, pause)
        self._turns.fail([row.turn for row in batch.rows], error)

    def _pause(self, error: HonchoExecError, pause: float) -> None:
        if not self._health.failing:
            _log.warning("delivery to Honcho is failing; what is given is kept and tried again: %s", error)
        self._health = Health(error, failing=True, retry_at=self._clock.monotonic() + pause)
        with self._lock:
            self._backing_off = True
        self._again_in(pause)
        self._at_rest()

    def _at_rest(self) -> None:
        """Tell whoever drains that nothing more is sent for now."""
        with self._changed:
            self._rests += 1
            self._changed.notify_all()

    def _again_in(self, delay: float, *, weak: bool = False) -> None:
        """Pump again later; `weak` does not keep this alive until then."""
        due = weakref.WeakMethod(self._due)
        with self._lock:
            if not self._closed and self._timer is None:
                self._timer = self._lane.post_later(delay, partial(_call, due) if weak else self._due)

    def _due(self) -> None:
        with self._lock:
            self._timer = None
            self._backing_off = False
        self.pump()

    def _settle(self, rows: Sequence[OutboxRow], *, new: bool) -> None:
        """Honcho has these rows: drop them and tell whoever waits."""
        self._outbox.settle(rows)
        if self._health.failing:
            _log.warning("delivery to Honcho works again")
        self._health = Health(self._health.error)
        self._backoff.reset()
        self._turns.settle([row.turn for row in rows], new=new)
        with self._changed:
            self._changed.notify_all()


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    if (alive := method()) is not None:
        alive()


def _write(api: HonchoApi, batch: Batch, rows: Sequence[OutboxRow], now: float) -> None:
    session = batch.rows[0].ref.session
    match batch.rows[0].write:
        case Message():
            api.add_messages(
                session, [_dated(row, row.write, now) for row in rows if isinstance(row.write, Message)], batch=batch.id
            )
        case Conclusion():
            api.add_conclusions(session, [row.write for row in rows if isinstance(row.write, Conclusion)])
        case Card() as card:
            api.set_card(card)
        case Deletion(conclusion_id):
            try:
                api.delete_conclusion(conclusion_id)
            except Rejected as error:
                # After an attempt whose outcome is unknown, «not there» is what was wanted.
                if error.cause != "not_found" or not batch.look:
                    raise


def _dated(row: OutboxRow, message: Message, now: float) -> Message:
    """The message with the time it was said, where the server's clock would be far off."""
    if message.created_at is not None or now - row.admitted_at < _LONG_AGO:
        return message
    return replace(message, created_at=datetime.fromtimestamp(row.admitted_at, tz=UTC).isoformat())
