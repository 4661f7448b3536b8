"""The outbox: a durable first-in, first-out queue of writes, shared by processes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection

from honcho_exec.clock import Clock, Deadline
from honcho_exec.errors import Damaged, Overloaded, StateError
from honcho_exec.lease import Holder
from honcho_exec.locks import exclusive
from honcho_exec.model import Card, Conclusion, Deletion, Message, Replacement, SessionRef, Write
from honcho_exec.rows import Admitted, Batch, Counts, Delivery, History, OutboxRow, dump, read_batch, read_row
from honcho_exec.sqlite import Database, set_aside

__all__ = ["HELD", "LONGEST_LATE", "MAX_BATCH", "Outbox"]

HELD = ".held"
"""Ends the name of a holder whose rows nobody sends until they are released."""

MAX_BATCH = 100
"""Messages or conclusions in one request (Honcho's limit)."""

LONGEST_LATE = 6.0
"""Seconds after which no attempt lands any more, whatever became of it; see `HonchoApi.patience`."""

_MAX_BATCH_CHARS = 400_000

# A file up to this size (bytes) is checked when it is opened, which takes milliseconds.
_MAX_CHECKED = 4 * 1024 * 1024

_log = logging.getLogger(__name__)

_MIGRATIONS = (
    """
    CREATE TABLE rows (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        destination TEXT NOT NULL,
        stream TEXT NOT NULL,
        owner TEXT NOT NULL,
        turn TEXT NOT NULL,
        kind TEXT NOT NULL,
        workspace TEXT NOT NULL,
        session TEXT NOT NULL,
        user_peer TEXT NOT NULL,
        ai_peer TEXT NOT NULL,
        payload TEXT NOT NULL,
        dedup TEXT UNIQUE,
        admitted_at REAL NOT NULL,
        batch TEXT,
        attempts INTEGER NOT NULL DEFAULT 0,
        first_sent_at REAL,
        look INTEGER NOT NULL DEFAULT 0,
        settle_at REAL NOT NULL DEFAULT 0,
        error TEXT,
        parked_at REAL
    );
    CREATE INDEX rows_by_owner ON rows (destination, parked_at, owner, id);
    CREATE INDEX rows_by_stream ON rows (stream, parked_at, id);
    CREATE INDEX rows_by_batch ON rows (batch);
    CREATE INDEX rows_by_turn ON rows (turn);
    CREATE TABLE health (destination TEXT PRIMARY KEY, delivered_at REAL, error TEXT, error_at REAL);
    CREATE TABLE size (rows INTEGER NOT NULL);
    INSERT INTO size VALUES (0);
    CREATE TRIGGER row_added AFTER INSERT ON rows BEGIN UPDATE size SET rows = rows + 1; END;
    CREATE TRIGGER row_gone AFTER DELETE ON rows BEGIN UPDATE size SET rows = rows - 1; END;
    """,
    """
    CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY,
        destination TEXT NOT NULL,
        at REAL NOT NULL,
        waited REAL NOT NULL,
        rows INTEGER NOT NULL
    );
    CREATE TRIGGER delivery_added AFTER INSERT ON deliveries BEGIN
        DELETE FROM deliveries WHERE id <= new.id - 1000;
    END;
    """,
)


class Outbox:
    """The queue of one destination in a file that all destinations share.

    A row is durable when `admit` returns. It belongs to the holder that admitted it, and is sent by it alone; a dead
    holder's rows are adopted by a living one. Rows of one stream are sent in the order of their admission: only the
    holder of the oldest may send.

    Args:
        path: the database file.
        destination: whose rows this is about: backend and workspace.
        holder: whose rows are admitted and claimed.
        max_rows: how many rows the file may hold.
        prepare: changes every write before it is stored, such as to mask what must not be on a disk.
    """

    def __init__(
        self,
        path: Path,
        *,
        destination: str,
        holder: Holder,
        clock: Clock,
        max_rows: int,
        prepare: Callable[[Write], Write] | None = None,
    ) -> None:
        self.path = path.absolute()
        self.destination = destination
        self._holder = holder
        self._clock = clock
        self._max_rows = max_rows
        self._prepare = prepare
        self._db = self._begin()

    def admit(self, turn: str, ref: SessionRef, writes: Sequence[Write], *, holder: Holder | None = None) -> Admitted:
        """Store `writes` durably as one turn, all or none.

        A write that is waiting already (a message with the same source key, the same conclusion or deletion) is
        not stored again.

        Args:
            turn: what the writes are known by together.
            ref: where they belong.
            writes: what is stored, in order.
            holder: whose rows they are; this outbox's own holder when None.

        Raises:
            Overloaded: the outbox is full.
            StateError: the file cannot be written.
        """
        if self._prepare is not None:
            writes = [self._prepare(write) for write in writes]
        owner = (holder or self._holder).name
        try:
            return self._admit(turn, ref, writes, owner)
        except Damaged:
            self._db.close()
            self._db = self._begin_anew()
            return self._admit(turn, ref, writes, owner)

    def _admit(self, turn: str, ref: SessionRef, writes: Sequence[Write], owner: str) -> Admitted:
        now = self._clock.now()
        values = [
            (*self._columns(ref, write, owner), turn, dump(write), self._dedup(ref, write), now) for write in writes
        ]
        one = f"({', '.join('?' * len(values[0]))})"
        with self._db.writing() as connection:
            added = connection.execute(
                "INSERT INTO rows (destination, stream, owner, kind, workspace, session, user_peer, ai_peer, turn,"
                f" payload, dedup, admitted_at) SELECT * FROM (VALUES {', '.join([one] * len(values))})"
                " WHERE (SELECT rows FROM size) + ? <= ? ON CONFLICT (dedup) DO NOTHING",
                [*(value for row in values for value in row), len(values), self._max_rows],
            ).rowcount
            return Admitted(turn if added else self._waiting(connection, [str(row[-2]) for row in values]), added)

    def _waiting(self, connection: Connection, dedup: Sequence[str]) -> str:
        found = connection.execute(
            "SELECT turn FROM rows WHERE dedup IN (SELECT value FROM json_each(?)) ORDER BY id DESC LIMIT 1",
            (json.dumps(dedup),),
        ).fetchone()
        if found is None:
            raise Overloaded(
                f"the outbox is full ({self._max_rows} rows); nothing was stored. It empties when Honcho takes the"
                " rows; HONCHO_OUTBOX_MAX_ROWS raises the limit"
            )
        return str(found["turn"])

    def fate(self, turn: str) -> tuple[int, str | None]:
        """How many rows of a turn are not settled, and why one of them is parked, if one is."""
        with self._db.connection() as connection:
            row = connection.execute(
                "SELECT count(*), max(error) FILTER (WHERE parked_at IS NOT NULL) FROM rows WHERE turn = ?", (turn,)
            ).fetchone()
        return int(row[0]), row[1]

    def claim(self, *, beyond: Sequence[Batch] = (), but: Collection[str] = ()) -> Batch | None:
        """The next batch of this holder's oldest rows that may be sent now; None when there is none.

        A stream whose oldest row belongs to another holder is passed over.

        Args:
            beyond: pass these batches over and return what comes behind them, of another stream if there is one.
            but: pass these streams over.
        """
        ends = {batch.stream: batch.rows[-1].id for batch in beyond}
        passed = [*ends, *but]
        while (stream := self._oldest_stream(passed)) is not None:
            batch = self._batch_of(stream)
            if batch is not None:
                return batch
            passed.append(stream)
        behind = (self._batch_of(stream, after=end) for stream, end in ends.items() if stream not in but)
        return next((batch for batch in behind if batch is not None), None)

    def sent_behind(self, batch: Batch) -> Batch | None:
        """A batch of this holder, further back in the same stream, of which it is not known whether it was done."""
        with self._db.connection() as connection:
            rows = connection.execute(
                "SELECT * FROM rows WHERE batch = (SELECT batch FROM rows WHERE stream = ? AND parked_at IS NULL"
                " AND id > ? AND look AND owner = ? AND batch <> ? ORDER BY id LIMIT 1) ORDER BY id",
                (batch.stream, batch.rows[-1].id, self._holder.name, batch.id),
            ).fetchall()
        return self._soon_over(read_batch(rows)) if rows else None

    def park_overtaken(self, batch: Batch, reason: str) -> list[OutboxRow]:
        """Set aside what was tried before the batch, in its stream, and did not pass; returns these rows."""
        with self._db.writing() as connection:
            found = connection.execute(
                "UPDATE rows SET parked_at = ?, error = coalesce(error, ?)"
                " WHERE stream = ? AND parked_at IS NULL AND attempts > 0 AND id < ? RETURNING *",
                (self._clock.now(), reason, batch.stream, batch.rows[0].id),
            ).fetchall()
        return [read_row(row) for row in found]

    def release(self, holder: Holder) -> int:
        """Take over the rows of another holder of this process; returns how many these were."""
        with self._db.writing() as connection:
            return connection.execute(
                "UPDATE rows SET owner = ? WHERE owner = ?", (self._holder.name, holder.name)
            ).rowcount

    def adopt(self) -> int:
        """Take over the rows of holders that are dead; returns how many these were."""
        with self._db.writing() as connection:
            owners = connection.execute(
                "SELECT DISTINCT owner FROM rows WHERE destination = ? AND parked_at IS NULL AND owner <> ?",
                (self.destination, self._holder.name),
            ).fetchall()
            return sum(
                connection.execute(
                    "UPDATE rows SET owner = ? WHERE destination = ? AND owner = ?",
                    (self._holder.name, self.destination, owner),
                ).rowcount
                for (owner,) in owners
                if not self._holder.alive(owner)
            )

    def hand_over(self, batch: Batch) -> list[int]:
        """Give a batch, and what this holder has behind it, to whoever holds the next row; returns the ids."""
        with self._db.writing() as connection:
            found = connection.execute(
                "UPDATE rows SET owner = other.owner FROM (SELECT id, owner FROM rows WHERE stream = ?1"
                " AND parked_at IS NULL AND id > ?2 AND owner <> ?3 ORDER BY id LIMIT 1) AS other"
                " WHERE stream = ?1 AND parked_at IS NULL AND rows.owner = ?3 AND rows.id < other.id RETURNING rows.id",
                (batch.stream, batch.rows[-1].id, self._holder.name),
            ).fetchall()
        return [row[0] for row in found]

    def sending(self, rows: Sequence[OutboxRow], *, settle_at: float) -> list[OutboxRow]:
        """Record that an attempt begins, and return the rows that may be sent: those that nobody dropped meanwhile.

        If nothing more is recorded the attempt may land until `settle_at`.
        """
        with self._db.writing() as connection:
            found = connection.execute(
                "UPDATE rows SET attempts = attempts + 1, look = 1, settle_at = ?"
                " WHERE id IN (SELECT value FROM json_each(?)) RETURNING id",
                (settle_at, json.dumps([row.id for row in rows])),
            ).fetchall()
        present = {row["id"] for row in found}
        return [row for row in rows if row.id in present]

    def not_done(self, batch: Batch, error: str) -> None:
        """Record that the attempt surely was not done."""
        self._on_batch(batch, "look = 0, settle_at = 0, error = ?", error)

    def unknown(self, batch: Batch, error: str, *, settle_at: float) -> None:
        """Record that the attempt may have been done, or be done until `settle_at`."""
        self._on_batch(batch, "look = 1, settle_at = ?, error = ?", settle_at, error)

    def reread(self, batch: Batch) -> Batch:
        """The batch as the file has it now."""
        with self._db.connection() as connection:
            rows = connection.execute("SELECT * FROM rows WHERE batch = ? ORDER BY id", (batch.id,)).fetchall()
        return self._soon_over(read_batch(rows)) if rows else replace(batch, rows=())

    def _soon_over(self, batch: Batch) -> Batch:
        """The batch, which waits no longer for an attempt than one can last.

        What is to be waited for beyond that was reckoned by a clock that has been set back since. How long ago is not
        known, so that the longest is waited for once more, from the first look on.
        """
        latest = self._clock.now() + LONGEST_LATE
        if batch.settle_at <= latest:
            return batch
        self._on_batch(batch, "settle_at = min(settle_at, ?)", latest)
        return replace(batch, settle_at=latest)

    def settle(self, rows: Sequence[OutboxRow]) -> None:
        """Drop rows that Honcho has, and remember how long the oldest of them waited."""
        now = self._clock.now()
        with self._db.transaction() as connection:
            connection.execute(
                "DELETE FROM rows WHERE id IN (SELECT value FROM json_each(?))", (json.dumps([row.id for row in rows]),)
            )
            connection.execute(
                "INSERT INTO health (destination, delivered_at) VALUES (?, ?)"
                " ON CONFLICT (destination) DO UPDATE SET delivered_at = excluded.delivered_at",
                (self.destination, now),
            )
            if rows:
                waited = max(0.0, now - min(row.admitted_at for row in rows))
                connection.execute(
                    "INSERT INTO deliveries (destination, at, waited, rows) VALUES (?, ?, ?, ?)",
                    (self.destination, now, waited, len(rows)),
                )

    def deliveries(self, limit: int = 300) -> list[Delivery]:
        """The newest deliveries of any process, the oldest of them first; a thousand are remembered in all."""
        with self._db.connection() as connection:
            found = connection.execute(
                "SELECT at, waited, rows FROM deliveries WHERE destination = ? ORDER BY id DESC LIMIT ?",
                (self.destination, limit),
            ).fetchall()
        return [Delivery(*row) for row in reversed(found)]

    def note_error(self, error: str) -> None:
        """Remember the last failure, for whoever looks from another process."""
        with self._db.writing() as connection:
            connection.execute(
                "INSERT INTO health (destination, error, error_at) VALUES (?, ?, ?)"
                " ON CONFLICT (destination) DO UPDATE SET error = excluded.error, error_at = excluded.error_at",
                (self.destination, error, self._clock.now()),
            )

    def history(self) -> History:
        """The last delivery and the last failure of any process."""
        with self._db.connection() as connection:
            row = connection.execute(
                "SELECT delivered_at, error, error_at FROM health WHERE destination = ?", (self.destination,)
            ).fetchone()
        return History(*row) if row else History(None, None, None)

    def halve(self, batch: Batch) -> None:
        """Give each half of a batch that surely was not done an id of its own."""
        middle = batch.rows[len(batch.rows) // 2].id
        with self._db.writing() as connection:
            connection.execute(
                "UPDATE rows SET batch = CASE WHEN id < ? THEN ? ELSE ? END, look = 0, settle_at = 0 WHERE batch = ?",
                (middle, self._clock.new_id(), self._clock.new_id(), batch.id),
            )

    def park(self, batch: Batch, reason: str) -> None:
        """Set the rows of a batch aside, with the reason; they no longer hold anything up."""
        self._on_batch(batch, "parked_at = ?, error = ?", self._clock.now(), reason)

    def flush_to_disk(self) -> None:
        """Make what was admitted survive a power cut as well."""
        self._db.checkpoint()

    def probe(self) -> None:
        """Raise `StateError` when nothing can be written just now, or not to a file that is still there."""
        if self._file_there() is None:
            raise StateError(
                f"the state file {self.path} was removed while this process uses it, and what is given to it will not"
                " outlive the process; deliver what waits with flush(), then restart the process"
            )
        with self._db.transaction():
            pass

    def check(self) -> None:
        """Raise `Damaged` when the file is; reads all of it."""
        self._db.check()

    def tidy(self) -> None:
        """Leave nothing of delivered rows in the file or its log; for when nothing is going on."""
        self._db.truncate_log()

    def counts(self) -> Counts:
        """How much waits, is being sent, is parked, and waits for another destination."""
        with self._db.connection() as connection:
            row = connection.execute(
                "SELECT count(*) FILTER (WHERE here AND parked_at IS NULL) AS pending,"
                " count(*) FILTER (WHERE here AND parked_at IS NULL AND look) AS in_flight,"
                " count(*) FILTER (WHERE here AND parked_at IS NOT NULL) AS parked,"
                " count(*) FILTER (WHERE NOT here) AS elsewhere,"
                " count(*) FILTER (WHERE here AND parked_at IS NULL AND held) AS held,"
                " min(admitted_at) FILTER (WHERE here AND parked_at IS NULL AND NOT held) AS oldest_at"
                " FROM (SELECT destination = ? AS here, owner LIKE ? AS held, parked_at, look, admitted_at FROM rows)",
                (self.destination, f"%{HELD}"),
            ).fetchone()
        return Counts(*row)

    def pending(self) -> tuple[int, int]:
        """How many rows wait that are this holder's, and how many that are others'."""
        with self._db.connection() as connection:
            row = connection.execute(
                "SELECT count(*) FILTER (WHERE owner = ?), count(*) FILTER (WHERE owner <> ?)"
                " FROM rows WHERE destination = ? AND parked_at IS NULL",
                (self._holder.name, self._holder.name, self.destination),
            ).fetchone()
        return int(row[0]), int(row[1])

    def rows(
        self,
        *,
        ids: Sequence[int] | None = None,
        parked: bool | None = None,
        everywhere: bool = False,
        limit: int = 1000,
    ) -> list[OutboxRow]:
        """The oldest rows.

        Args:
            ids: only those.
            parked: only those that are parked (True) or waiting (False).
            everywhere: those for other destinations as well.
            limit: the most to return.
        """
        chosen = None if ids is None else json.dumps(list(ids))
        with self._db.connection() as connection:
            found = connection.execute(
                "SELECT * FROM rows WHERE (? OR destination = ?) AND (? IS NULL OR (parked_at IS NOT NULL) = ?)"
                " AND (? IS NULL OR id IN (SELECT value FROM json_each(?))) ORDER BY id LIMIT ?",
                (everywhere, self.destination, parked, parked, chosen, chosen, limit),
            ).fetchall()
        return [read_row(row) for row in found]

    def retry(self, ids: Sequence[int]) -> int:
        """Let parked rows be sent again, by whoever looks next; returns how many there were."""
        with self._db.writing() as connection:
            return connection.execute(
                "UPDATE rows SET parked_at = NULL, batch = NULL, look = 0, settle_at = 0, attempts = 0, owner = ''"
                " WHERE parked_at IS NOT NULL AND id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(ids)),),
            ).rowcount

    def drop(self, ids: Sequence[int]) -> int:
        """Delete rows for good, except those that are just being sent; returns how many there were."""
        with self._db.writing() as connection:
            return connection.execute(
                "DELETE FROM rows WHERE (parked_at IS NOT NULL OR NOT look) AND id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(ids)),),
            ).rowcount

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    def _begin(self) -> Database:
        """Open the file; one that is damaged is set aside, since turns must not be lost for it."""
        self._file = self._file_there()
        try:
            database = Database(self.path, _MIGRATIONS, background_checkpoints=True)
            if self.path.stat().st_size <= _MAX_CHECKED:
                database.check()
        except Damaged:
            return self._begin_anew()
        self._file = self._file_there()
        return database

    def _begin_anew(self) -> Database:
        """Set the damaged file aside and begin a new one, unless somebody else has done so meanwhile."""
        try:
            with exclusive(self.path.with_name(f"{self.path.name}.replacing"), Deadline.after(2.0, self._clock)):
                if self._file_there() == self._file:
                    moment = datetime.fromtimestamp(self._clock.now(), tz=UTC).strftime("%Y%m%dT%H%M%S")
                    aside = set_aside(self.path, moment)
                    _log.error(
                        "the outbox was damaged; it is kept as %s, and what waited in it was not delivered", aside
                    )
                database = Database(self.path, _MIGRATIONS, background_checkpoints=True)
        except (OSError, TimeoutError) as error:
            raise StateError(f"{self.path} is damaged and cannot be replaced just now: {error}") from error
        self._file = self._file_there()
        return database

    def _file_there(self) -> int | None:
        """Which file is there now."""
        try:
            return self.path.stat().st_ino
        except OSError:
            return None

    def set_aside(self) -> list[Path]:
        """Damaged files that were replaced and that a person should look at."""
        return sorted(self.path.parent.glob(f"{self.path.name}.damaged-*[0-9]"))

    def _columns(self, ref: SessionRef, write: Write, owner: str) -> tuple[str, ...]:
        kind = type(write).__name__.lower()
        # Conclusions need their session but none of its messages, so they do not wait behind a backlog of them;
        # one request carries conclusions of one observer about one peer.
        about = [write.observer, write.observed] if isinstance(write, Conclusion | Card | Replacement) else []
        # What one replacement writes another may take away, in whatever session that is.
        session = "" if isinstance(write, Replacement) else ref.session
        stream = json.dumps([self.destination, session, kind, *about])
        return (
            self.destination,
            stream,
            owner,
            kind,
            ref.workspace,
            ref.session,
            ref.user_peer,
            ref.ai_peer,
        )

    def _dedup(self, ref: SessionRef, write: Write) -> str | None:
        match write:
            case Message(source_key=str() as key):
                return json.dumps([self.destination, "message", ref.session, key])
            case Conclusion():
                return json.dumps([self.destination, "conclusion", write.observer, write.observed, write.content])
            case Deletion():
                return json.dumps([self.destination, "deletion", write.conclusion_id])
        return None

    def _oldest_stream(self, passed: Sequence[str]) -> str | None:
        with self._db.connection() as connection:
            row = connection.execute(
                "SELECT stream FROM rows WHERE destination = ? AND parked_at IS NULL AND owner = ?"
                " AND stream NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT 1",
                (self.destination, self._holder.name, json.dumps(passed)),
            ).fetchone()
        return None if row is None else str(row["stream"])

    def _batch_of(self, stream: str, *, after: int = 0) -> Batch | None:
        with self._db.writing() as connection:
            head = connection.execute(
                "SELECT id, owner, batch FROM rows WHERE stream = ? AND parked_at IS NULL AND id > ?"
                " ORDER BY id LIMIT 1",
                (stream, after),
            ).fetchone()
            if head is None or head["owner"] != self._holder.name:
                return None
            batch = head["batch"] or self._freeze(connection, stream, after)
            rows = connection.execute(
                "SELECT * FROM rows WHERE batch = ? AND parked_at IS NULL ORDER BY id", (batch,)
            ).fetchall()
        return read_batch(rows) if rows else None

    def _freeze(self, connection: Connection, stream: str, after: int) -> str:
        """Give this holder's next rows of a stream the id of a batch, up to a row of another holder or batch."""
        batch = self._clock.new_id()
        connection.execute(
            "UPDATE rows SET batch = ?, first_sent_at = ? WHERE batch IS NULL AND id IN ("
            " SELECT id FROM (SELECT id, kind, row_number() OVER (ORDER BY id) AS place,"
            " sum(length(payload)) OVER (ORDER BY id) AS size, sum(barred) OVER (ORDER BY id) AS barred_before"
            " FROM (SELECT id, kind, payload, owner <> ? OR batch IS NOT NULL AS barred FROM rows"
            " WHERE stream = ? AND parked_at IS NULL AND id > ? ORDER BY id LIMIT ?))"
            " WHERE barred_before = 0 AND (place = 1 OR (size <= ? AND kind IN ('message', 'conclusion'))))",
            (batch, self._clock.now(), self._holder.name, stream, after, MAX_BATCH, _MAX_BATCH_CHARS),
        )
        return batch

    def _on_batch(self, batch: Batch, change: str, *values: object) -> None:
        with self._db.writing() as connection:
            connection.execute(f"UPDATE rows SET {change} WHERE batch = ?", (*values, batch.id))
