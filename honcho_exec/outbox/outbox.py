"""A durable first-in, first-out queue of writes, shared by processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from sqlite3 import Connection

from honcho_exec.clock import BootTime, Clock
from honcho_exec.errors import HonchoExecError
from honcho_exec.model import SessionRef, Write
from honcho_exec.outbox.change import Change
from honcho_exec.outbox.claim import MAX_BATCH, Claims
from honcho_exec.outbox.enqueue import Enqueuer, Listener, Outcome
from honcho_exec.outbox.file import OutboxFile
from honcho_exec.outbox.history import DeliveryHistory
from honcho_exec.outbox.inspection import HELD, Inspection
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.rows import Admitted, Batch, OutboxRow, read_batch, read_row
from honcho_exec.outbox.writer import writer_of

__all__ = ["HELD", "LONGEST_LATE", "MAX_BATCH", "Outbox"]

LONGEST_LATE = 6.0
"""Seconds after which no attempt can arrive any more, whatever became of it; see `HonchoApi.patience`."""


class Outbox:
    """The queue of one destination in a file that all destinations share.

    A row is durable when `admit` returns. It belongs to the lease holder that admitted it, and only that one sends it;
    the rows of a dead holder are adopted by a living one. Rows of one stream are sent in the order of their admission:
    only the holder of the oldest row may send.

    Args:
        path: the database file.
        destination: backend and workspace of the rows.
        holder: the lease holder whose rows are admitted and claimed.
        max_rows: how many rows the file may hold.

    Attributes:
        file: the database file, with its disk space and damage.
        inspection: counts and lists rows, and what a person does with them.
        history: what was delivered, and the last failure.
    """

    def __init__(
        self,
        path: Path,
        *,
        destination: str,
        holder: LeaseHolder,
        clock: Clock,
        max_rows: int,
    ) -> None:
        self.destination = destination
        self._holder = holder
        self._clock = clock
        self.file = OutboxFile(path, holder, clock)
        self.path = self.file.path
        self._enqueuer = Enqueuer(self.file, destination, clock, max_rows=max_rows)
        self._writer = writer_of(self.path)
        self._claims = Claims(self.file, destination, holder, clock, self._writer)
        self.inspection = Inspection(self.file, destination, holder, self._writer)
        self.history = DeliveryHistory(self.file, destination, clock, self._writer)
        self._writer.attach(self.file)

    def admit(
        self, turn: str, ref: SessionRef, writes: Sequence[Write], *, holder: LeaseHolder | None = None
    ) -> Admitted:
        """Store `writes` durably as one turn; see `submit`.

        Raises:
            Overloaded: the outbox is full.
            Busy: another process locks the file; the turn is stored when the lock is released.
            StateError: the file cannot be written.
        """
        outcome = Outcome()
        self.submit(turn, ref, writes, outcome, holder=holder)
        return outcome.result()

    def submit(
        self,
        turn: str,
        ref: SessionRef,
        writes: Sequence[Write],
        listener: Listener,
        *,
        holder: LeaseHolder | None = None,
    ) -> None:
        """Store `writes` durably as one turn, all or none; return when the listener was called.

        While another process locks the file, return after a short wait, and call the listener when the lock is
        released. A write that is pending already (a message with the same source key, the same conclusion or deletion)
        is not stored again. The caller may be interrupted at any moment: nothing stays locked, and the turn is stored
        as a whole or not at all.

        Args:
            turn: identifies the writes together.
            ref: the session and peers of the writes.
            writes: what to store, in order; not empty.
            listener: called on the writer's thread.
            holder: the owner of the rows; this outbox's own holder if None.
        """
        self._writer.submit(self._enqueuer.turn(turn, ref, writes, (holder or self._holder).name, listener))

    def turn_state(self, turn: str) -> tuple[int, str | None]:
        """Return how many rows of a turn are left, and why one of them is parked, if one is."""
        with self.file.reading() as connection:
            row = connection.execute(
                "SELECT count(*), max(error) FILTER (WHERE parked_at IS NOT NULL) FROM rows WHERE turn = ?", (turn,)
            ).fetchone()
        return int(row[0]), row[1]

    def turns_in(self, streams: Collection[str]) -> list[str]:
        """Return the turns that have rows in these streams which are not parked."""
        with self.file.reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT turn FROM rows WHERE stream IN (SELECT value FROM json_each(?)) AND parked_at IS NULL",
                (json.dumps(list(streams)),),
            ).fetchall()
        return [str(row["turn"]) for row in rows]

    def claim(
        self, *, after: Sequence[Batch] = (), skip_streams: Collection[str] = (), max_rows: int = MAX_BATCH
    ) -> Batch | None:
        """Return the next batch of this holder's oldest rows that may be sent now; None if there is none.

        A stream whose oldest row belongs to another holder is skipped.

        Args:
            after: skip these batches; return one of another stream, or else one behind them.
            skip_streams: skip these streams.
            max_rows: the size of a batch that is not frozen yet.
        """
        return self._claims.next(after, skip_streams, max_rows)

    def sent_behind(self, batch: Batch) -> Batch | None:
        """Return an ambiguous batch of this holder that is further back in the same stream."""
        with self.file.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM rows WHERE batch = (SELECT batch FROM rows INDEXED BY rows_under_way WHERE stream = ?"
                " AND parked_at IS NULL AND id > ? AND must_verify AND owner = ? AND batch <> ? ORDER BY id LIMIT 1)"
                " ORDER BY id",
                (batch.stream, batch.rows[-1].id, self._holder.name, batch.id),
            ).fetchall()
        return self._bounded(read_batch(rows)) if rows else None

    def refresh(self, batch: Batch) -> Batch:
        """Return the batch as the file has it now."""
        with self.file.reading() as connection:
            rows = connection.execute("SELECT * FROM rows WHERE batch = ? ORDER BY id", (batch.id,)).fetchall()
        return self._bounded(read_batch(rows)) if rows else replace(batch, rows=())

    def _bounded(self, batch: Batch) -> Batch:
        """Return the batch, ambiguous for no longer than an attempt can last.

        A time of another boot, or of a machine's snapshot, cannot be compared with this boot's clock. How long ago it
        was is not known, so the longest time is waited for once, from now on.
        """
        latest = self._in(LONGEST_LATE)
        left = batch.ambiguous_until.since(latest)
        if not batch.must_verify or (left is not None and left <= 0):
            return batch
        self._update(batch, "ambiguous_boot = ?, ambiguous_until = ?", latest.boot, latest.seconds)
        return replace(batch, ambiguous_until=latest)

    def _in(self, seconds: float) -> BootTime:
        now = self._clock.boot_time()
        return replace(now, seconds=now.seconds + seconds)

    def is_own(self, row: OutboxRow) -> bool:
        """Return whether only this process can have sent the row: it was admitted here, into the file in use."""
        return bool(row.admitted_by) and row.admitted_by == self.file.opening

    def mark_sent(self, rows: Sequence[OutboxRow], *, may_land_for: float) -> list[OutboxRow]:
        """Record that an attempt begins; return the rows that may be sent, without those that were dropped.

        If nothing more is recorded, the attempt may arrive for that many seconds.
        """
        until = self._in(may_land_for)

        def begin(connection: Connection) -> set[int]:
            found = connection.execute(
                "UPDATE rows SET attempts = attempts + 1, must_verify = 1, ambiguous_boot = ?, ambiguous_until = ?"
                f" WHERE {_THESE_ROWS} RETURNING id",
                (until.boot, until.seconds, _keys(rows)),
            ).fetchall()
            return {row["id"] for row in found}

        present = self._writer.run(self.file, begin)
        return [row for row in rows if row.id in present]

    def mark_not_sent(self, batch: Batch, error: str) -> None:
        """Record that the attempt certainly was not done."""
        self._update(batch, "must_verify = 0, ambiguous_until = 0, error = ?", error)

    def mark_ambiguous(self, batch: Batch, error: str, *, may_land_for: float) -> None:
        """Record that the attempt may have been done, or may be done within that many seconds."""
        until = self._in(may_land_for)
        self._update(
            batch,
            "must_verify = 1, ambiguous_boot = ?, ambiguous_until = ?, error = ?",
            until.boot,
            until.seconds,
            error,
        )

    def delete_delivered(self, rows: Sequence[OutboxRow]) -> None:
        """Delete rows that Honcho has, and record their delivery."""

        def delete(connection: Connection) -> None:
            connection.execute(f"DELETE FROM rows WHERE {_THESE_ROWS}", (_keys(rows),))
            self.history.record_delivery(connection, rows)

        self._writer.run(self.file, delete)

    def bisect(self, batch: Batch) -> None:
        """Make two batches of one that certainly was not done."""
        middle = batch.rows[len(batch.rows) // 2].id
        with self.file.writing() as connection:
            connection.execute(
                "UPDATE rows SET batch = CASE WHEN id < ? THEN ? ELSE ? END, must_verify = 0, ambiguous_until = 0"
                " WHERE batch = ?",
                (middle, self._clock.new_id(), self._clock.new_id(), batch.id),
            )

    def park(self, batch: Batch, reason: str) -> None:
        """Park the rows of a batch with the reason; they no longer block the rows behind them."""
        self._update(batch, "parked_at = ?, error = ?", self._clock.now(), reason)

    def park_overtaken(self, batch: Batch, reason: str) -> list[OutboxRow]:
        """Park and return the rows of the stream that were tried before the batch and are still pending."""
        with self.file.writing() as connection:
            found = connection.execute(
                "UPDATE rows SET parked_at = ?, error = coalesce(error, ?)"
                " WHERE stream = ? AND parked_at IS NULL AND attempts > 0 AND id < ? RETURNING *",
                (self._clock.now(), reason, batch.stream, batch.rows[0].id),
            ).fetchall()
        return [read_row(row) for row in found]

    def release(self, holder: LeaseHolder, then: Callable[[HonchoExecError | None], None]) -> None:
        """Take over the rows of another holder of this process, including those that wait in memory.

        Returns when that is done, has failed, or waits for another process's lock; `then` is called with the error, or
        with None, on the writer's thread.
        """
        self._writer.submit(_Release(self.file, holder.name, self._holder.name, then))

    def adopt(self) -> int:
        """Take over the rows of dead holders; return how many these were."""
        self._holder.renew()
        with self.file.reading() as connection:
            owners = [row[0] for row in connection.execute(_OWNERS, (self.destination,) * 2)]
        dead = [owner for owner in owners if owner != self._holder.name and not self._holder.alive(owner)]
        if not dead:
            return 0
        with self.file.writing() as connection:
            return connection.execute(
                "UPDATE rows SET owner = ? WHERE destination = ? AND owner IN (SELECT value FROM json_each(?))",
                (self._holder.name, self.destination, json.dumps(dead)),
            ).rowcount

    def hand_over(self, batch: Batch) -> list[int]:
        """Give a batch, and this holder's rows behind it, to the holder of the next row; return the ids."""
        with self.file.writing() as connection:
            found = connection.execute(
                "UPDATE rows SET owner = other.owner FROM (SELECT id, owner FROM rows WHERE stream = ?1"
                " AND parked_at IS NULL AND id > ?2 AND owner <> ?3 ORDER BY id LIMIT 1) AS other"
                " WHERE stream = ?1 AND parked_at IS NULL AND rows.owner = ?3 AND rows.id < other.id RETURNING rows.id",
                (batch.stream, batch.rows[-1].id, self._holder.name),
            ).fetchall()
        return [row[0] for row in found]

    def close(self) -> None:
        """Close the file; fail the turns that wait in memory."""
        self._writer.detach(self.file, self.file.close)

    def _update(self, batch: Batch, assignments: str, *values: object) -> None:
        with self.file.writing() as connection:
            connection.execute(f"UPDATE rows SET {assignments} WHERE batch = ?", (*values, batch.id))


# The owners of pending rows, found without reading every row: there may be many.
_OWNERS = """
    WITH RECURSIVE found(owner) AS (
        SELECT min(owner) FROM rows WHERE destination = ? AND parked_at IS NULL
        UNION ALL
        SELECT (SELECT min(owner) FROM rows WHERE destination = ? AND parked_at IS NULL AND owner > found.owner)
        FROM found WHERE owner IS NOT NULL
    )
    SELECT owner FROM found WHERE owner IS NOT NULL
"""


class _Release(Change):
    """The rows of one holder become those of another."""

    def __init__(
        self, file: OutboxFile, before: str, after: str, then: Callable[[HonchoExecError | None], None]
    ) -> None:
        super().__init__(file)
        self._before = before
        self._after = after
        self._then = then

    def begin(self) -> None:
        pass

    def apply(self, connection: Connection) -> None:
        connection.execute("UPDATE rows SET owner = ? WHERE owner = ?", (self._after, self._before))

    def stored(self) -> None:
        self._then(None)

    def failed(self, error: HonchoExecError) -> None:
        self._then(error)


# An id alone may be another row's if the file was replaced by another one.
_THESE_ROWS = "(id, turn) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"


def _keys(rows: Sequence[OutboxRow]) -> str:
    return json.dumps([[row.id, row.turn] for row in rows])
