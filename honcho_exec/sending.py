"""One batch on its way: looked for, sent, looked for again, and taken apart when Honcho refuses it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from honcho_exec.clock import Clock
from honcho_exec.connection import Connection, Link
from honcho_exec.errors import Ambiguous, Rejected, RequestError, StateError, Unavailable
from honcho_exec.model import Card, Conclusion, Deletion, Message
from honcho_exec.outbox import Outbox
from honcho_exec.retry import RetryPolicy
from honcho_exec.rows import Batch, OutboxRow
from honcho_exec.stats import Meter

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.honcho_api import HonchoApi

__all__ = ["Outcome", "Sender"]

_log = logging.getLogger(__name__)

# The status of a server that failed at its work, and after how many rounds of retries the work is suspected.
_FAILED = 500
_CHOKES = 2
# A message that waited longer than this (seconds) is sent with the time it was said. Others take the server's
# time, since a message that seems older than its author's joining is hidden from a search by perspective.
_LONG_AGO = 60.0


class Outcome(Protocol):
    """Who is told what became of rows."""

    def settled(self, rows: Sequence[OutboxRow], *, new: bool) -> None:
        """Honcho has these rows: written now, or (`new` is False) there before."""

    def refused(self, rows: Sequence[OutboxRow], error: RequestError) -> None:
        """These rows are parked or dropped for good."""


class Sender:
    """Sends batches; on the lane only."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        connection: Connection,
        retry: RetryPolicy,
        outcome: Outcome,
        meter: Meter,
        clock: Clock,
    ) -> None:
        self._outbox = outbox
        self._connection = connection
        self._retry = retry
        self._outcome = outcome
        self._meter = meter
        self._clock = clock
        self._chokes: Counter[str] = Counter()
        self._reopened: set[str] = set()

    def calm(self) -> None:
        """Forget suspicions: everything has been delivered."""
        self._chokes.clear()
        self._reopened.clear()

    def deliver(self, batch: Batch) -> None:
        """Send a batch unless Honcho has it; find and set aside what it refuses.

        Raises:
            RequestError, StateError, ConfigurationError: it was not delivered, and not for what is in it: the
                server is away, the key is wrong, the disk fails.
        """
        # A session that cannot be made says nothing about the rows.
        link = self._open(batch)
        try:
            self._retry.call(lambda: self._attempt(link.api, batch))
        except Rejected as error:
            if error.cause == "auth":
                raise
            if error.cause == "not_found" and batch.id not in self._reopened:
                # The session may have been deleted: it is made again before the rows are blamed.
                self._reopened.add(batch.id)
                link.cache.forget(batch.rows[0].ref.session)
            else:
                self._isolate(batch, error)
        except Ambiguous as error:
            if error.status != _FAILED or not self._isolates(link.api, batch, error):
                raise

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
                self._reconciled(current)
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
            self._outcome.settled(known, new=False)
        fresh = [row for row in current.rows if row not in known]
        if fresh:
            self._send(api, current, fresh)

    def _send(self, api: HonchoApi, batch: Batch, rows: Sequence[OutboxRow]) -> None:
        rows = self._outbox.sending(rows, settle_at=self._clock.now() + api.patience)
        if not rows:
            return
        try:
            _write(api, batch, rows, self._clock.now())
        except Ambiguous as error:
            self._outbox.unknown(batch, str(error), settle_at=self._clock.now() + error.late)
            raise
        except (Unavailable, Rejected) as error:
            self._outbox.not_done(batch, str(error))
            raise
        self._outcome.settled(rows, new=True)

    def _reconciled(self, batch: Batch) -> None:
        """The answer was lost, and the rows are there."""
        self._meter.count("reconciled", len(batch.rows))
        self._outcome.settled(batch.rows, new=True)

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
            self._meter.count("parked", len(batch.rows))
            self._outbox.note_error(str(error))
            _log.warning("a %s was parked: %s", type(batch.rows[0].write).__name__.lower(), error)
        self._outcome.refused(batch.rows, error)

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
                self._reconciled(current)
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
