"""Make one attempt at a batch: verify what Honcho has of it, send the rest, and record the outcome."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from honcho_exec.client.connection import Connection
from honcho_exec.clock import Clock, iso_time
from honcho_exec.delivery.dating import date_messages
from honcho_exec.delivery.requests import already_stored, exists, newest_message_at, send
from honcho_exec.errors import (
    Ambiguous,
    Inconclusive,
    Rejected,
    RequestError,
    SessionDeleted,
    Unavailable,
)
from honcho_exec.model import Deletion, Message, SessionRef
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.outbox.rows import Batch, OutboxRow
from honcho_exec.runtime.metrics import Meter

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi

__all__ = ["SERVER_FAILED", "Attempts", "Outcome"]

_log = logging.getLogger(__name__)

SERVER_FAILED = 500
"""The status of a server that failed at its work."""


class Outcome(Protocol):
    """Receives the outcome of rows."""

    def on_delivered(self, rows: Sequence[OutboxRow], *, new: bool) -> None:
        """Honcho has these rows: written now, or (`new` is False) there before; they are out of the outbox."""

    def on_refused(self, rows: Sequence[OutboxRow], error: RequestError) -> None:
        """Honcho did not take these rows: they are parked or dropped for good, or sent again later."""


class Attempts:
    """Makes single attempts at batches; on the lane only.

    Attributes:
        refusals: how many single rows Honcho refused since it last took something.
    """

    def __init__(self, *, outbox: Outbox, connection: Connection, outcome: Outcome, meter: Meter, clock: Clock) -> None:
        self.refusals = 0
        self._outbox = outbox
        self._connection = connection
        self._outcome = outcome
        self._meter = meter
        self._clock = clock
        # Batches whose session was created again.
        self._reopened: set[str] = set()
        # Sessions of rows that this process has taken over, and those whose newest time it has asked for.
        self._taken_over: set[str] = set()
        self._verified: set[str] = set()

    @property
    def api(self) -> HonchoApi:
        """The API; the connection is open after `open`."""
        return self._connection.open().api

    def reset(self) -> None:
        """Forget which sessions were created again: everything has been delivered."""
        self._reopened.clear()

    def open(self, batch: Batch) -> None:
        """Open the connection and create every session and peer of the batch.

        Raises:
            SessionDeleted: the batch needs a session whose name is not free yet; only messages need theirs.
        """
        cache = self._connection.open().cache
        for ref in dict.fromkeys(row.ref for row in batch.rows):
            try:
                cache.session(ref)
            except SessionDeleted:
                # A new session of that name takes the rows once it exists; that they met a 404 is not their fault.
                self._reopened.discard(batch.id)
                if isinstance(batch.rows[0].write, Message):
                    raise
                cache.peers(ref)

    def reopen(self, batch: Batch) -> bool:
        """Have the batch's session created again; return False if that was done for this batch before."""
        if batch.id in self._reopened:
            return False
        self._reopened.add(batch.id)
        cache = self._connection.open().cache
        cache.invalidate(cache.named(batch.rows[0].ref).session)
        return True

    def attempt(self, batch: Batch, *, probe: bool = False) -> None:
        """Send what Honcho does not have of the batch; record what is known before and after.

        Args:
            batch: what is sent.
            probe: whether rows before it, in its stream, were tried and did not pass; they are parked if it does.
        """
        if self._was_overtaken(batch):
            return
        current = self._decided(self._outbox.refresh(batch))
        if not current.rows:
            return
        if not all(map(self._outbox.is_own, current.rows)):
            self._taken_over.add(current.rows[0].ref.session)
        stored = self._stored_rows(current)
        if len(stored) == len(current.rows) and current.must_verify:
            self._on_passed(current, current.rows, probe=probe)
            return
        stored += already_stored(self.api, [row for row in current.rows if row not in stored])
        if stored:
            self._complete(stored, new=False)
        fresh = [row for row in current.rows if row not in stored]
        if fresh:
            self._let_original_go_first(fresh)
            self._send(current, fresh, probe=probe)

    def was_done(self, batch: Batch, *, probe: bool = False) -> bool:
        """Return whether Honcho did what it reports to have failed at; the batch is complete then."""
        current = self._outbox.refresh(batch)
        if not self._arrived(current):
            return False
        self._on_passed(current, current.rows, probe=probe)
        return True

    def was_done_after_all(self, batch: Batch, error: Rejected, *, probe: bool = False) -> bool:
        """Return whether Honcho did what an intermediary refused; the batch is complete then.

        Raises:
            Rejected: the same error, if that is not known.
        """
        try:
            return not error.by_honcho and self.was_done(batch, probe=probe)
        except RequestError:
            raise error from None

    def park(self, batch: Batch, error: RequestError) -> None:
        """Set a batch aside, with the reason."""
        self._outbox.park(batch, str(error))
        if batch.rows:
            self._on_parked(batch.rows, error)

    def park_undecided(self, batch: Batch, error: Inconclusive) -> None:
        """Park what may be stored and cannot be verified: it is not sent again blindly, and holds nothing up."""
        reason = f"whether Honcho has this is not known: {error}"
        self.park(self._outbox.refresh(batch), Rejected(reason, cause=error.cause))

    def _decided(self, batch: Batch) -> Batch:
        """Return the batch with the sessions that its rows go to."""
        cache = self._connection.open().cache
        return replace(batch, rows=tuple(_in_session(row, cache.named(row.ref)) for row in batch.rows))

    def _stored_rows(self, batch: Batch) -> list[OutboxRow]:
        """Return the rows of a batch that Honcho has already; asks only if it may have one.

        Raises:
            Ambiguous: an attempt may still be done.
        """
        # A deletion may be sent again at once: the second time changes nothing. So may a card, but not before the first
        # attempt is over, since it must not land on top of the next card.
        if batch.must_verify and not isinstance(batch.rows[0].write, Deletion):
            return self._verify(batch)
        doubtful = self._doubtful_rows(batch)
        return exists(self.api, batch, doubtful) if doubtful else []

    def _doubtful_rows(self, batch: Batch) -> list[OutboxRow]:
        """Return the rows that may have been sent without a record of it, or that repeat what was stored before.

        A process that died, or a machine on which a copy of the file is, may have sent them.
        """
        rows = [row for row in batch.rows if not row.write.is_idempotent]
        before = self._outbox.history.delivered_before([it for row in rows for it in row.write.conclusions])
        return [row for row in rows if not self._outbox.is_own(row) or row.write in before]

    def _let_original_go_first(self, rows: Sequence[OutboxRow]) -> None:
        wait = self._outbox.history.origin_wait(rows)
        if wait > 0:
            raise Unavailable(
                "this was stored under another path or on another machine; if a process is alive there, it sends first",
                cause="copied",
                retry_after=wait,
            )

    def _send(self, batch: Batch, rows: Sequence[OutboxRow], *, probe: bool) -> None:
        times = self._times(batch, rows)
        rows = self._outbox.mark_sent(rows, may_land_for=self.api.patience)
        if not rows:
            return
        try:
            send(self.api, batch, rows, {row: iso_time(at, "auto") for row, at in times.items()})
        except Ambiguous as error:
            self._outbox.mark_ambiguous(batch, str(error), may_land_for=error.late)
            raise
        except (Unavailable, Rejected) as error:
            if error.by_honcho:
                self._outbox.mark_not_sent(batch, str(error))
            else:
                self._outbox.mark_ambiguous(batch, str(error), may_land_for=0.0)
            raise
        self._on_passed(batch, rows, probe=probe)

    def _times(self, batch: Batch, rows: Sequence[OutboxRow]) -> dict[int, float]:
        """Return what to date messages with; it is recorded before they are sent."""
        if not isinstance(rows[0].write, Message):
            return {}
        session = batch.rows[0].ref.session
        dated = self._outbox.history.latest_date(session)
        # What is known here of a session is old if this is a backup that was restored, or a copy.
        verify = session not in self._verified and (dated is not None or session in self._taken_over)
        times = date_messages(
            rows,
            self._clock,
            dated=dated,
            newest=lambda: newest_message_at(self.api, session),
            verify=verify,
        )
        if verify:
            self._verified.add(session)
        if times:
            self._outbox.history.record_date(session, max(times.values()))
        return times

    def _on_passed(self, batch: Batch, rows: Sequence[OutboxRow], *, probe: bool) -> None:
        """Complete these rows of the batch; the rows that they have overtaken are parked before anything else."""
        if probe:
            self._park_overtaken(batch)
        self.refusals = 0
        self._complete(rows, new=True)

    def _complete(self, rows: Sequence[OutboxRow], *, new: bool) -> None:
        self._outbox.delete_delivered(rows)
        self._meter.count("delivered", len(rows))
        self._outcome.on_delivered(rows, new=new)

    def _was_overtaken(self, batch: Batch) -> bool:
        """Check whether a later batch of this stream was delivered; if so, park this one."""
        behind = self._outbox.sent_behind(batch)
        if behind is None:
            return False
        try:
            if not self._arrived(behind):
                return False
        except Inconclusive as error:
            self.park_undecided(behind, error)
            return False
        parked = self._park_overtaken(behind)
        self._complete(behind.rows, new=True)
        return not parked.isdisjoint(row.id for row in batch.rows)

    def _park_overtaken(self, batch: Batch) -> set[int]:
        rows = self._outbox.park_overtaken(batch, "the server failed at it, and took what is behind it")
        for row in rows:
            self._on_parked([row], Rejected(row.error or "", cause="refused", status=SERVER_FAILED))
        return {row.id for row in rows}

    def _arrived(self, batch: Batch) -> bool:
        """Return whether an earlier attempt was done; raises `Ambiguous` while it may still be."""
        return len(self._verify(batch)) == len(batch.rows)

    def _verify(self, batch: Batch) -> list[OutboxRow]:
        """Return the rows of a batch that was sent that exist; raises `Ambiguous` while the others may still arrive."""
        batch = self._decided(batch)
        # What is done after the server has looked is not in its answer: the wait is measured before the question.
        wait = batch.ambiguous_until.since(self._clock.boot_time()) or 0.0
        stored = exists(self.api, batch, batch.rows)
        self._meter.count("reconciled", len(stored))
        if wait > 0 and len(stored) < len(batch.rows):
            raise Ambiguous(
                f"{batch.rows[0].error or 'an earlier process sent this and ended'}; it may still arrive and is"
                " looked for before it is sent again",
                cause="unconfirmed",
                retry_after=wait,
            )
        return stored

    def _on_parked(self, rows: Sequence[OutboxRow], error: RequestError) -> None:
        self._meter.count("parked", len(rows))
        self._outbox.history.record_error(str(error))
        _log.warning("a %s was parked: %s", rows[0].write.kind, error)
        self._outcome.on_refused(rows, error)


def _in_session(row: OutboxRow, ref: SessionRef) -> OutboxRow:
    return row if row.ref == ref else replace(row, ref=ref)
