"""Which rows of the outbox may be sent now, and in which batch."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from sqlite3 import Connection

from honcho_exec.clock import Clock
from honcho_exec.outbox.file import OutboxFile
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.rows import Batch, Value, read_batch
from honcho_exec.outbox.writer import Writer

__all__ = ["MAX_BATCH", "Claims"]

MAX_BATCH = 100
"""Messages or conclusions in one request (Honcho's limit)."""

_MAX_BATCH_CHARS = 400_000


class Claims:
    """Freezes the oldest rows of one lease holder and destination as batches; see `Outbox`."""

    def __init__(self, file: OutboxFile, destination: str, holder: LeaseHolder, clock: Clock, writer: Writer) -> None:
        self._file = file
        self._writer = writer
        self._destination = destination
        self._holder = holder
        self._clock = clock

    def next(self, after: Sequence[Batch], skip_streams: Collection[str], max_rows: int) -> Batch | None:
        """See `Outbox.claim`."""
        ends = {batch.stream: batch.rows[-1].id for batch in after}
        skipped = [*ends, *skip_streams]
        while (stream := self._oldest_stream(skipped)) is not None:
            batch = self._batch_of(stream, max_rows)
            if batch is not None:
                return batch
            skipped.append(stream)
        behind = (
            self._batch_of(stream, max_rows, after=end) for stream, end in ends.items() if stream not in skip_streams
        )
        return next((batch for batch in behind if batch is not None), None)

    def _oldest_stream(self, skipped: Sequence[str]) -> str | None:
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT stream FROM rows WHERE destination = ? AND parked_at IS NULL AND owner = ?"
                " AND stream NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT 1",
                (self._destination, self._holder.name, json.dumps(skipped)),
            ).fetchone()
        return None if row is None else str(row["stream"])

    def _batch_of(self, stream: str, max_rows: int, *, after: int = 0) -> Batch | None:
        with self._file.reading() as connection:
            head = connection.execute(
                "SELECT id, owner, batch FROM rows WHERE stream = ? AND parked_at IS NULL AND id > ?"
                " ORDER BY id LIMIT 1",
                (stream, after),
            ).fetchone()
        if head is None or head["owner"] != self._holder.name:
            return None
        batch = head["batch"] or self._freeze(stream, max_rows, after)
        with self._file.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM rows WHERE batch = ? AND parked_at IS NULL ORDER BY id", (batch,)
            ).fetchall()
        return read_batch(rows) if rows else None

    def _freeze(self, stream: str, max_rows: int, after: int) -> str:
        """Give this holder's next rows of a stream a batch id, up to a row of another holder or batch."""
        batch, now = self._clock.new_id(), self._clock.now()
        values = (batch, now, self._holder.name, stream, after, max_rows, _MAX_BATCH_CHARS)
        self._writer.run(self._file, lambda connection: _freeze(connection, values))
        return batch


def _freeze(connection: Connection, values: Sequence[Value]) -> None:
    connection.execute(
        "UPDATE rows SET batch = ?, first_sent_at = ? WHERE batch IS NULL AND id IN ("
        " SELECT id FROM (SELECT id, kind, row_number() OVER (ORDER BY id) AS position,"
        " sum(length(payload)) OVER (ORDER BY id) AS size, sum(barred) OVER (ORDER BY id) AS barred_before"
        " FROM (SELECT id, kind, payload, owner <> ? OR batch IS NOT NULL AS barred FROM rows"
        " WHERE stream = ? AND parked_at IS NULL AND id > ? ORDER BY id LIMIT ?))"
        " WHERE barred_before = 0 AND (position = 1 OR (size <= ? AND kind IN ('message', 'conclusion'))))",
        values,
    )
