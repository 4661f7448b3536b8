"""One batch on its way: looked for, sent, looked for again, and taken apart when Honcho refuses it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from honcho_exec.client.connection import Connection, Link
from honcho_exec.clock import Clock
from honcho_exec.delivery.dating import date_messages, in_iso_format
from honcho_exec.delivery.requests import known_sources, newest_message_at, stored, write
from honcho_exec.errors import (
    Ambiguous,
    Inconclusive,
    Rejected,
    RequestError,
    SessionDeleted,
    StateError,
    Unavailable,
)
from honcho_exec.model import Conclusion, Deletion, Message, SessionRef
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.retry import RetryPolicy
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.outbox.rows import Batch, OutboxRow
from honcho_exec.runtime.metrics import Meter

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi

__all__ = ["Outcome", "Sender"]

_log = logging.getLogger(__name__)

# The status of a server that failed at its work, and after how many rounds of retries the work is suspected.
_FAILED = 500
_CHOKES = 2
# What a server says of what is in a request; any other refusal (402, 407, a redirect to a login page, …) is of
# whoever asks, or of something that stands before Honcho, and says nothing of the rows.
_BLAMES_ROWS = {400, 404, 413, 415, 422, 501, None}
# How many are parked in a row, while nothing else is seen to pass, before more is needed than the server's word.
_BELIEVED = 3
# How many batches behind a suspect are tried in one round, and how many are suspects at a time: each stands alone in
# its request, so that a server that fails everything for hours must not make one of every row.
_PROBES = 8
_SUSPECTS = 16


class Outcome(Protocol):
    """Who is told what became of rows."""

    def on_delivered(self, rows: Sequence[OutboxRow], *, new: bool) -> None:
        """Honcho has these rows: written now, or (`new` is False) there before."""

    def on_refused(self, rows: Sequence[OutboxRow], error: RequestError) -> None:
        """Honcho did not take these rows: they are parked or dropped for good, or tried again later."""


class Sender:
    """Sends batches; on the lane only."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        connection: Connection,
        retry: RetryPolicy,
        breaker: Breaker,
        outcome: Outcome,
        meter: Meter,
        clock: Clock,
    ) -> None:
        self._outbox = outbox
        self._connection = connection
        self._retry = retry
        self._breaker = breaker
        self._outcome = outcome
        self._meter = meter
        self._clock = clock
        self._chokes: Counter[str] = Counter()
        self._probing = False
        self._refusals = 0
        self._reopened: set[str] = set()
        # Sessions of rows that this process has taken over, and those whose newest time it has asked for.
        self._taken_over: set[str] = set()
        self._verified: set[str] = set()

    def reset(self) -> None:
        """Drop all suspicions: everything has been delivered."""
        self._chokes.clear()
        self._reopened.clear()

    def deliver(self, batch: Batch) -> None:
        """Send a batch unless Honcho has it; find and set aside what it refuses.

        Raises:
            RequestError, StateError, ConfigurationError: it was not delivered, and not for what is in it: the
                server is away, the key is wrong, the disk fails.
        """
        self._breaker.allow_probe()
        # A session that cannot be made says nothing about the rows.
        link = self._open(batch)
        try:
            self._retry.call(lambda: self._attempt(link.api, batch))
        except Rejected as error:
            if self._was_done_after_all(link.api, batch, error):
                return
            if error.cause == "auth" or error.status not in _BLAMES_ROWS:
                raise
            if error.cause == "not_found" and batch.id not in self._reopened:
                # The session may have been deleted: it is made again before the rows are blamed.
                self._reopened.add(batch.id)
                link.cache.forget(link.cache.named(batch.rows[0].ref).session)
            elif self._is_blamed(link.api, batch):
                self._isolate(self._outbox.refresh(batch), error)
            else:
                raise
        except Ambiguous as error:
            if error.status != _FAILED or not self._isolates(link.api, batch, error):
                raise
        except Inconclusive as error:
            self._park_undecided(batch, error)

    def _open(self, batch: Batch) -> Link:
        """The connection, with every session and peer of the batch made.

        Raises:
            SessionDeleted: the batch needs a session whose name is not free yet; only messages need theirs.
        """
        link = self._connection.open()
        for ref in dict.fromkeys(row.ref for row in batch.rows):
            try:
                link.cache.session(ref)
            except SessionDeleted:
                # A new session of that name takes the rows once it is there; that they met a 404 is not their fault.
                self._reopened.discard(batch.id)
                if isinstance(batch.rows[0].write, Message):
                    raise
                link.cache.peers(ref)
        return link

    def _decided(self, batch: Batch) -> Batch:
        """The batch with the sessions that its rows go to."""
        cache = self._connection.open().cache
        return replace(batch, rows=tuple(_in_session(row, cache.named(row.ref)) for row in batch.rows))

    def _attempt(self, api: HonchoApi, batch: Batch) -> None:
        """Send what Honcho does not have of the batch; record what is known before and after."""
        if self._was_overtaken(api, batch):
            return
        current = self._decided(self._outbox.refresh(batch))
        if not current.rows:
            return
        if not all(map(self._outbox.is_own, current.rows)):
            self._taken_over.add(current.rows[0].ref.session)
        there = self._stored_rows(api, current)
        if len(there) == len(current.rows) and current.must_verify:
            self._settle(current, current.rows)
            return
        there += known_sources(api, [row for row in current.rows if row not in there])
        if there:
            self._complete(there, new=False)
        fresh = [row for row in current.rows if row not in there]
        if fresh:
            self._let_original_go_first(fresh)
            self._send(api, current, fresh)

    def _stored_rows(self, api: HonchoApi, batch: Batch) -> list[OutboxRow]:
        """The rows of a batch that Honcho has already; asks only if it may have one.

        Raises:
            Ambiguous: an attempt may still be done.
        """
        # A deletion may be sent again at once: the second time changes nothing. So may a card, but not before the first
        # attempt is over, since it must not land on top of the next card.
        if batch.must_verify and not isinstance(batch.rows[0].write, Deletion):
            return self._look_up(api, batch)
        doubtful = self._doubtful_rows(batch)
        return stored(api, batch, doubtful) if doubtful else []

    def _doubtful_rows(self, batch: Batch) -> list[OutboxRow]:
        """The rows that may have been sent without this process knowing of it, or that say again what was said before.

        A process that died, or a machine on which a copy of the file is, may have sent what it does not tell. Whatever
        is neither message nor conclusion means the same when it is sent again.
        """
        rows = [row for row in batch.rows if isinstance(row.write, Message | Conclusion)]
        before = self._outbox.history.delivered_before([row.write for row in rows if isinstance(row.write, Conclusion)])
        return [row for row in rows if not self._outbox.is_own(row) or row.write in before]

    def _let_original_go_first(self, rows: Sequence[OutboxRow]) -> None:
        wait = self._outbox.history.origin_wait(rows)
        if wait > 0:
            raise Unavailable(
                "this was stored under another path or on another machine; if a process is alive there, it sends first",
                cause="copied",
                retry_after=wait,
            )

    def _send(self, api: HonchoApi, batch: Batch, rows: Sequence[OutboxRow]) -> None:
        times = self._times(api, batch, rows)
        rows = self._outbox.mark_sent(rows, may_land_for=api.patience)
        if not rows:
            return
        try:
            write(api, batch, rows, {row: in_iso_format(at) for row, at in times.items()})
        except Ambiguous as error:
            self._outbox.mark_ambiguous(batch, str(error), may_land_for=error.late)
            raise
        except (Unavailable, Rejected) as error:
            if error.by_honcho:
                self._outbox.mark_not_sent(batch, str(error))
            else:
                self._outbox.mark_ambiguous(batch, str(error), may_land_for=0.0)
            raise
        self._settle(batch, rows)

    def _times(self, api: HonchoApi, batch: Batch, rows: Sequence[OutboxRow]) -> dict[int, float]:
        """What to date messages with; remembered before they are sent."""
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
            newest=lambda: newest_message_at(api, session),
            verify=verify,
        )
        if verify:
            self._verified.add(session)
        if times:
            self._outbox.history.record_date(session, max(times.values()))
        return times

    def _settle(self, batch: Batch, rows: Sequence[OutboxRow]) -> None:
        """Honcho has these rows of the batch; what they have overtaken is parked before anything else."""
        if self._probing:
            self._park_overtaken(batch)
        self._refusals = 0
        self._complete(rows, new=True)

    def _complete(self, rows: Sequence[OutboxRow], *, new: bool) -> None:
        self._outbox.delete_delivered(rows)
        self._meter.count("delivered", len(rows))
        self._outcome.on_delivered(rows, new=new)

    def _was_overtaken(self, api: HonchoApi, batch: Batch) -> bool:
        """Find out what became of an attempt with what is behind the batch; where it passed, the batch is parked."""
        behind = self._outbox.sent_behind(batch)
        if behind is None:
            return False
        try:
            if not self._arrived(api, behind):
                return False
        except Inconclusive as error:
            self._park_undecided(behind, error)
            return False
        parked = self._park_overtaken(behind)
        self._complete(behind.rows, new=True)
        return not parked.isdisjoint(row.id for row in batch.rows)

    def _park_overtaken(self, batch: Batch) -> set[int]:
        rows = self._outbox.park_overtaken(batch, "the server failed at it, and took what is behind it")
        for row in rows:
            self._parked([row], Rejected(row.error or "", cause="refused", status=_FAILED))
        return {row.id for row in rows}

    def _arrived(self, api: HonchoApi, batch: Batch) -> bool:
        """Whether an earlier attempt was done; raises `Ambiguous` while it may still be."""
        return len(self._look_up(api, batch)) == len(batch.rows)

    def _look_up(self, api: HonchoApi, batch: Batch) -> list[OutboxRow]:
        """The rows of a batch that was sent that are there; raises `Ambiguous` while the others may still arrive."""
        # What is done after the server has looked is not in its answer: it is the look's beginning that counts.
        batch = self._decided(batch)
        wait = batch.ambiguous_until.since(self._clock.boot_time()) or 0.0
        there = stored(api, batch, batch.rows)
        self._meter.count("reconciled", len(there))
        if wait > 0 and len(there) < len(batch.rows):
            raise Ambiguous(
                f"{batch.rows[0].error or 'an earlier process sent this and ended'}; it may still arrive and is"
                " looked for before it is sent again",
                cause="unconfirmed",
                retry_after=wait,
            )
        return there

    def _is_blamed(self, api: HonchoApi, batch: Batch) -> bool:
        """Whether it is this row that Honcho refuses: a server that refuses everything is not to park it all."""
        if len(batch.rows) > 1:
            return True
        try:
            api.ping()
        except RequestError:
            return False
        self._refusals += 1
        return self._refusals <= _BELIEVED or self._something_passes(batch)

    def _isolate(self, batch: Batch, error: RequestError) -> None:
        """Find the row that Honcho refuses, by halves, and set it aside."""
        if not batch.rows or batch.rows[0].parked_at is not None:
            return
        if len(batch.rows) > 1:
            self._outbox.bisect(batch)
            return
        if isinstance(batch.rows[0].write, Deletion):
            # There is nothing to keep of a deletion that Honcho refuses: the conclusion is not there.
            self._outbox.delete_delivered(batch.rows)
            self._outcome.on_refused(batch.rows, error)
        else:
            self._outbox.park(batch, str(error))
            self._parked(batch.rows, error)

    def _park_undecided(self, batch: Batch, error: Inconclusive) -> None:
        """Set aside what may be there and cannot be looked for: it is not sent again blindly, and holds nothing up."""
        rows = self._outbox.refresh(batch).rows
        reason = f"whether Honcho has this is not known: {error}"
        self._outbox.park(batch, reason)
        if rows:
            self._parked(rows, Rejected(reason, cause=error.cause))

    def _suspect(self, batch: Batch, error: RequestError) -> None:
        """Count one more failure of a row that is parked only when something behind it passes."""
        self._chokes[batch.id] += 1
        # It is told of before what is behind it.
        self._outcome.on_refused(batch.rows, error)

    def _parked(self, rows: Sequence[OutboxRow], error: RequestError) -> None:
        self._meter.count("parked", len(rows))
        self._outbox.history.record_error(str(error))
        _log.warning("a %s was parked: %s", type(rows[0].write).__name__.lower(), error)
        self._outcome.on_refused(rows, error)

    def _isolates(self, api: HonchoApi, batch: Batch, error: Ambiguous) -> bool:
        """Find the row that the server chokes on: one that fails while something else passes.

        Returns False when that is not known (yet), or when the server fails everything.
        """
        self._chokes[batch.stream] += 1
        if self._chokes[batch.stream] < _CHOKES:
            return False
        try:
            if self._was_done(api, batch):
                return True
        except RequestError:
            return False
        if len(batch.rows) == 1:
            if not self._something_passes(batch):
                return False
            batch = self._outbox.refresh(batch)
        self._isolate(batch, error)
        return True

    def _was_done_after_all(self, api: HonchoApi, batch: Batch, error: Rejected) -> bool:
        """Whether Honcho did what an intermediary refused; settles the batch then.

        Raises:
            Rejected: the same error, if that is not known.
        """
        try:
            return not error.by_honcho and self._was_done(api, batch)
        except RequestError:
            raise error from None

    def _was_done(self, api: HonchoApi, batch: Batch) -> bool:
        """Whether Honcho did what it is said to have failed at; settles the batch then."""
        current = self._outbox.refresh(batch)
        if not self._arrived(api, current):
            return False
        self._settle(current, current.rows)
        return True

    def _something_passes(self, suspect: Batch) -> bool:
        """Whether Honcho takes anything but the suspect: the heads of other streams, then what is behind it.

        What is refused or fails on the way is taken apart, so that the next round finds more.
        """
        suspects, passed_over, probes = [suspect], set[str](), 0
        while probes < _PROBES and len(suspects) < _SUSPECTS:
            behind = self._outbox.claim(after=suspects, skip_streams=passed_over)
            if behind is None:
                if suspect.stream not in passed_over:
                    # Whoever holds the row behind all of these can try it, and may not before these are gone.
                    self._outbox.hand_over(suspect)
                return False
            if self._chokes[behind.id] >= _CHOKES:
                suspects.append(behind)
                continue
            probes += 1
            try:
                if self._passes(behind):
                    return True
            except (RequestError, StateError):
                return False
            if self._chokes[behind.id]:
                passed_over.add(behind.stream)
        return False

    def _passes(self, batch: Batch) -> bool:
        """Try once; False when Honcho refused it or failed at it, which is counted, and it was taken apart."""
        self._probing = True
        try:
            api = self._open(batch).api
            self._attempt(api, batch)
        except Rejected as error:
            if self._was_done_after_all(api, batch, error):
                return True
            if error.cause != "refused" or error.status not in _BLAMES_ROWS:
                raise
            self._refusals += 1
            if len(batch.rows) > 1 or self._refusals <= _BELIEVED:
                self._isolate(batch, error)
            else:
                self._suspect(batch, error)
            return False
        except Ambiguous as error:
            if error.status != _FAILED:
                raise
            if self._was_done(api, batch):
                return True
            if len(batch.rows) > 1:
                self._isolate(batch, error)
            else:
                self._suspect(batch, error)
            return False
        finally:
            self._probing = False
        return True


def _in_session(row: OutboxRow, ref: SessionRef) -> OutboxRow:
    return row if row.ref == ref else replace(row, ref=ref)
