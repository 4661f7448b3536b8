"""Count and list rows of the outbox, and let a person retry, drop or redirect them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from honcho_exec.outbox.enqueue import columns_of
from honcho_exec.outbox.file import OutboxFile
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.redirect import Elsewhere, Redirected, find_elsewhere, redirect, split_destination
from honcho_exec.outbox.rows import Counts, OutboxRow, Value, read_row
from honcho_exec.outbox.writer import Writer

__all__ = ["HELD", "Inspection"]

HELD = ".held"
"""Ends the name of a holder whose rows are not sent until they are released."""


class Inspection:
    """The rows of one destination, of all lease holders; see `Outbox`."""

    def __init__(self, file: OutboxFile, destination: str, holder: LeaseHolder, writer: Writer) -> None:
        self._file = file
        self._destination = destination
        self._holder = holder
        self._writer = writer

    def rows(
        self,
        *,
        ids: Sequence[int] | None = None,
        parked: bool | None = None,
        everywhere: bool = False,
        limit: int = 1000,
    ) -> list[OutboxRow]:
        """Return the oldest rows that are stored.

        Args:
            ids: only these.
            parked: only those that are parked (True) or pending (False).
            everywhere: also those of other destinations.
            limit: the most to return.
        """
        wanted = None if ids is None else json.dumps(list(ids))
        with self._file.reading() as connection:
            found = connection.execute(
                "SELECT * FROM rows WHERE (? OR destination = ?) AND (? IS NULL OR (parked_at IS NOT NULL) = ?)"
                " AND (? IS NULL OR id IN (SELECT value FROM json_each(?))) ORDER BY id LIMIT ?",
                (everywhere, self._destination, parked, parked, wanted, wanted, limit),
            ).fetchall()
        return [read_row(row) for row in found]

    def counts(self) -> Counts:
        """Count the rows that are pending, in flight, parked, held, and for other destinations."""
        unstored = self._unstored_rows()
        here = [row for row in unstored if row["destination"] == self._destination]
        held = [row for row in here if str(row["owner"]).endswith(HELD)]
        oldest = [float(row["admitted_at"] or 0.0) for row in here if row not in held]
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT count(*) FILTER (WHERE here AND parked_at IS NULL) AS pending,"
                " count(*) FILTER (WHERE here AND parked_at IS NULL AND must_verify) AS in_flight,"
                " count(*) FILTER (WHERE here AND parked_at IS NOT NULL) AS parked,"
                " count(*) FILTER (WHERE NOT here) AS elsewhere,"
                " count(*) FILTER (WHERE here AND parked_at IS NULL AND held) AS held,"
                " min(admitted_at) FILTER (WHERE here AND parked_at IS NULL AND NOT held) AS oldest_at"
                " FROM (SELECT destination = ? AS here, owner LIKE ? AS held, parked_at, must_verify, admitted_at"
                " FROM rows)",
                (self._destination, f"%{HELD}"),
            ).fetchone()
        counts = Counts(*row)
        if not unstored:
            return counts
        return replace(
            counts,
            unstored=len(unstored),
            pending=counts.pending + len(here),
            elsewhere=counts.elsewhere + len(unstored) - len(here),
            held=counts.held + len(held),
            oldest_at=min([*oldest, *([] if counts.oldest_at is None else [counts.oldest_at])], default=None),
        )

    def pending(self) -> int:
        """Count the pending rows of this holder."""
        unstored = sum(
            row["owner"] == self._holder.name and row["destination"] == self._destination
            for row in self._unstored_rows()
        )
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT count(*) FROM rows WHERE destination = ? AND parked_at IS NULL AND owner = ?",
                (self._destination, self._holder.name),
            ).fetchone()
        return int(row[0]) + unstored

    def unstored(self) -> int:
        """Count the rows of this outbox that wait in memory because another process locks the file."""
        return sum(len(change.rows) for change in self._writer.unstored() if change.file is self._file)

    def is_empty(self) -> bool:
        """Return whether no row of any holder is pending."""
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT 1 FROM rows WHERE destination = ? AND parked_at IS NULL LIMIT 1", (self._destination,)
            ).fetchone()
        return row is None and not self._unstored_rows()

    def users(self, session: str) -> frozenset[str]:
        """Return the user peers that have rows for a session whose name is final."""
        with self._file.reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT user_peer FROM rows WHERE destination = ? AND session = ? AND session_key = ''",
                (self._destination, session),
            ).fetchall()
        return frozenset(row["user_peer"] for row in rows)

    def retry(self, ids: Sequence[int]) -> int:
        """Let parked rows be sent again, by any process; return how many there were."""
        with self._file.writing() as connection:
            return connection.execute(
                "UPDATE rows SET parked_at = NULL, batch = NULL, must_verify = 0, ambiguous_until = 0, attempts = 0,"
                " owner = '', admitted_by = ''"
                " WHERE parked_at IS NOT NULL AND id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(ids)),),
            ).rowcount

    def drop(self, ids: Sequence[int]) -> int:
        """Delete rows, except those that are being sent; return how many there were."""
        with self._file.writing() as connection:
            return connection.execute(
                "DELETE FROM rows WHERE (parked_at IS NOT NULL OR NOT must_verify)"
                " AND id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(ids)),),
            ).rowcount

    def elsewhere(self) -> list[Elsewhere]:
        """Count the rows for other servers by destination, that of the oldest row first."""
        with self._file.reading() as connection:
            return find_elsewhere(connection, split_destination(self._destination)[0], self._holder.alive)

    def redirect(self, source: str, kinds: Collection[str]) -> Redirected:
        """Move rows of another destination to this outbox's server, all or none; see `redirect.redirect`."""
        with self._file.transaction() as connection:
            return redirect(connection, source, split_destination(self._destination)[0], kinds, self._holder.alive)

    def _unstored_rows(self) -> list[Mapping[str, Value]]:
        return [row for change in self._writer.unstored() for row in columns_of(change)]
