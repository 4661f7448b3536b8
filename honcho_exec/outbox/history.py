"""What was delivered from this outbox, and what failed last, for this process and others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from sqlite3 import Connection

from honcho_exec.clock import BootTime, Clock
from honcho_exec.model import Conclusion
from honcho_exec.outbox.file import OutboxFile
from honcho_exec.outbox.rows import DeliveryRecord, History, OutboxRow, folder_id
from honcho_exec.outbox.writer import Writer
from honcho_exec.text.purge_filter import PurgeFilter

__all__ = ["DeliveryHistory"]

# How long rows that were admitted under another path, or on another machine, wait for a process that may run there.
_ORIGIN_WAIT_SECONDS = 3.0


class DeliveryHistory:
    """The deliveries and failures of one destination; see `Outbox`."""

    def __init__(self, file: OutboxFile, destination: str, clock: Clock, writer: Writer) -> None:
        self._file = file
        self._destination = destination
        self._clock = clock
        self._writer = writer

    def last(self) -> History:
        """Return the last delivery and the last failure of any process."""
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT delivered_at, error, error_at FROM health WHERE destination = ?", (self._destination,)
            ).fetchone()
        return History(*row) if row else History(None, None, None)

    def deliveries(self, limit: int = 300) -> list[DeliveryRecord]:
        """Return the newest deliveries of any process, the oldest first; the file keeps a thousand."""
        with self._file.reading() as connection:
            found = connection.execute(
                "SELECT at, waited, rows FROM deliveries WHERE destination = ? ORDER BY id DESC LIMIT ?",
                (self._destination, limit),
            ).fetchall()
        return [DeliveryRecord(*row) for row in reversed(found)]

    def record_error(self, error: str) -> None:
        """Store the last failure."""
        with self._file.writing() as connection:
            connection.execute(
                "INSERT INTO health (destination, error, error_at) VALUES (?, ?, ?)"
                " ON CONFLICT (destination) DO UPDATE SET error = excluded.error, error_at = excluded.error_at",
                (self._destination, error, self._clock.now()),
            )

    def record_delivery(self, connection: Connection, rows: Sequence[OutboxRow]) -> None:
        """Store that rows were delivered, in the caller's transaction."""
        now = self._clock.now()
        digests = [(self._digest(conclusion),) for row in rows for conclusion in row.write.conclusions]
        connection.executemany("INSERT INTO stored_conclusions (digest) VALUES (?) ON CONFLICT DO NOTHING", digests)
        connection.execute(
            "INSERT INTO health (destination, delivered_at) VALUES (?, ?)"
            " ON CONFLICT (destination) DO UPDATE SET delivered_at = excluded.delivered_at",
            (self._destination, now),
        )
        if rows:
            waited = max(0.0, now - min(row.admitted_at for row in rows))
            connection.execute(
                "INSERT INTO deliveries (destination, at, waited, rows) VALUES (?, ?, ?, ?)",
                (self._destination, now, waited, len(rows)),
            )

    def delivered_before(self, conclusions: Sequence[Conclusion]) -> list[Conclusion]:
        """Return those of these conclusions that were delivered from this state folder before."""
        digests = {self._digest(conclusion): conclusion for conclusion in conclusions}
        if not digests:
            return []
        with self._file.reading() as connection:
            found = connection.execute(
                "SELECT digest FROM stored_conclusions WHERE digest IN (SELECT value FROM json_each(?))",
                (json.dumps(list(digests)),),
            ).fetchall()
        return [digests[row["digest"]] for row in found]

    def latest_date(self, session: str) -> float | None:
        """Return the latest date given to a message of a session, in seconds since the epoch."""
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT latest FROM dated_sessions WHERE destination = ? AND session = ?", (self._destination, session)
            ).fetchone()
        return None if row is None else float(row["latest"])

    def record_date(self, session: str, latest: float) -> None:
        """Store the latest date given to a message of a session."""

        def store(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO dated_sessions (destination, session, latest) VALUES (?, ?, ?)"
                " ON CONFLICT (destination, session) DO UPDATE SET latest = max(latest, excluded.latest)",
                (self._destination, session, latest),
            )

        self._writer.run(self._file, store)

    def origin_wait(self, rows: Sequence[OutboxRow]) -> float:
        """Return the seconds that rows admitted elsewhere must wait for a process that may run there.

        The wait begins when the first of them is seen here, and continues when no process runs.
        """
        here = folder_id(self._file.path.parent)
        origins = {row.folder_id for row in rows} - {here, None}
        if not origins:
            return 0.0
        now = self._clock.boot_time()
        with self._file.writing() as connection:
            for origin in origins:
                connection.execute(
                    "INSERT INTO arrivals (origin, place, boot, seconds) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (origin, here, now.boot, now.seconds),
                )
            begun = connection.execute(
                "SELECT boot, seconds FROM arrivals WHERE place = ? AND origin IN (SELECT value FROM json_each(?))",
                (here, json.dumps(list(origins))),
            ).fetchall()
        # A reboot since then has taken longer than the wait.
        waited = [now.since(BootTime(*row)) for row in begun]
        left = (_ORIGIN_WAIT_SECONDS - seconds for seconds in waited if seconds is not None and seconds >= 0)
        return max(left, default=0.0)

    def purge(self, chosen: PurgeFilter) -> None:
        """Delete what is remembered of deliveries for the chosen session, or for all."""
        with self._file.writing() as connection:
            connection.execute("DELETE FROM dated_sessions WHERE ? OR session = ?", (chosen.everything, chosen.session))
            # A digest does not tell whose conclusion it is of.
            connection.execute("DELETE FROM stored_conclusions")

    def _digest(self, conclusion: Conclusion) -> str:
        parts = [self._destination, conclusion.observer, conclusion.observed, conclusion.content]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
