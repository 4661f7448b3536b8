"""The outbox: a durable first-in, first-out queue of writes, shared by processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from sqlite3 import Connection

from honcho_exec.clock import BootTime, Clock
from honcho_exec.errors import Busy, HonchoExecError
from honcho_exec.model import Conclusion, Replacement, SessionRef, Write
from honcho_exec.outbox.claim import MAX_BATCH, Claims
from honcho_exec.outbox.enqueue import Admission, Listener, columns_of
from honcho_exec.outbox.file import OutboxFile
from honcho_exec.outbox.lease import Holder
from honcho_exec.outbox.provenance import place_of
from honcho_exec.outbox.redirect import Elsewhere, Redirected, find_elsewhere, redirect, split_destination
from honcho_exec.outbox.rows import Admitted, Batch, Counts, Delivery, History, OutboxRow, Value, read_batch, read_row
from honcho_exec.outbox.writer import Change, writer_of
from honcho_exec.storage.pool import Incident
from honcho_exec.text.purge_filter import PurgeFilter

__all__ = ["HELD", "LONGEST_LATE", "MAX_BATCH", "Outbox"]

HELD = ".held"
"""Ends the name of a holder whose rows nobody sends until they are released."""

LONGEST_LATE = 6.0
"""Seconds after which no attempt lands any more, whatever became of it; see `HonchoApi.patience`."""

# How long rows that were admitted under another path, or on another machine, wait for whoever may be alive there.
_ORIGINAL_FIRST = 3.0


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
    """

    def __init__(
        self,
        path: Path,
        *,
        destination: str,
        holder: Holder,
        clock: Clock,
        max_rows: int,
    ) -> None:
        self.destination = destination
        self._holder = holder
        self._clock = clock
        self._file = OutboxFile(path, holder, clock)
        self._admission = Admission(self._file, destination, clock, max_rows=max_rows)
        self.path = self._file.path
        self._writer = writer_of(self.path)
        self._claims = Claims(self._file, destination, holder, clock, self._writer)
        self._writer.enter(self._file)

    def admit(self, turn: str, ref: SessionRef, writes: Sequence[Write], *, holder: Holder | None = None) -> Admitted:
        """Store `writes` durably as one turn; see `submit`.

        Raises:
            Overloaded: the outbox is full.
            Busy: another process locks the file; the turn is stored when the lock is released.
            StateError: the file cannot be written.
        """
        told = _Told()
        self.submit(turn, ref, writes, told, holder=holder)
        return told.outcome()

    def submit(
        self, turn: str, ref: SessionRef, writes: Sequence[Write], listener: Listener, *, holder: Holder | None = None
    ) -> None:
        """Store `writes` durably as one turn, all or none; return when the listener was told.

        While another process locks the file, return after a short wait, and tell the listener when the lock is
        released. A write that is waiting already (a message with the same source key, the same conclusion or deletion)
        is not stored again. The caller may be interrupted at any moment: nothing stays locked, and the turn is stored
        as a whole or not at all.

        Args:
            turn: what the writes are known by together.
            ref: where they belong.
            writes: what is stored, in order; not empty.
            listener: told on the writer's thread what became of the turn.
            holder: whose rows they are; this outbox's own holder if None.
        """
        self._writer.put(self._admission.turn(turn, ref, writes, (holder or self._holder).name, listener))

    def fate(self, turn: str) -> tuple[int, str | None]:
        """How many rows of a turn are not settled, and why one of them is parked, if one is."""
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT count(*), max(error) FILTER (WHERE parked_at IS NOT NULL) FROM rows WHERE turn = ?", (turn,)
            ).fetchone()
        return int(row[0]), row[1]

    def turns_in(self, streams: Collection[str]) -> list[str]:
        """The turns that have rows in these streams which are not parked."""
        with self._file.reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT turn FROM rows WHERE stream IN (SELECT value FROM json_each(?)) AND parked_at IS NULL",
                (json.dumps(list(streams)),),
            ).fetchall()
        return [str(row["turn"]) for row in rows]

    def _unstored(self) -> list[Mapping[str, Value]]:
        """The rows that wait in memory because another process locks the file."""
        return [row for change in self._writer.unstored() for row in columns_of(change)]

    def unstored(self) -> int:
        """How many rows that were given to this outbox wait in memory because another process locks the file."""
        return sum(len(change.rows) for change in self._writer.unstored() if change.file is self._file)

    def claim(self, *, beyond: Sequence[Batch] = (), but: Collection[str] = (), most: int = MAX_BATCH) -> Batch | None:
        """The next batch of this holder's oldest rows that may be sent now; None when there is none.

        A stream whose oldest row belongs to another holder is passed over.

        Args:
            beyond: pass these batches over and return what comes behind them, of another stream if there is one.
            but: pass these streams over.
            most: rows in a batch that is not frozen yet.
        """
        return self._claims.next(beyond, but, most)

    def sent_behind(self, batch: Batch) -> Batch | None:
        """A batch of this holder, further back in the same stream, of which it is not known whether it was done."""
        with self._file.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM rows WHERE batch = (SELECT batch FROM rows INDEXED BY rows_under_way WHERE stream = ?"
                " AND parked_at IS NULL AND id > ? AND look AND owner = ? AND batch <> ? ORDER BY id LIMIT 1)"
                " ORDER BY id",
                (batch.stream, batch.rows[-1].id, self._holder.name, batch.id),
            ).fetchall()
        return self._soon_over(read_batch(rows)) if rows else None

    def park_overtaken(self, batch: Batch, reason: str) -> list[OutboxRow]:
        """Set aside what was tried before the batch, in its stream, and did not pass; returns these rows."""
        with self._file.writing() as connection:
            found = connection.execute(
                "UPDATE rows SET parked_at = ?, error = coalesce(error, ?)"
                " WHERE stream = ? AND parked_at IS NULL AND attempts > 0 AND id < ? RETURNING *",
                (self._clock.now(), reason, batch.stream, batch.rows[0].id),
            ).fetchall()
        return [read_row(row) for row in found]

    def speakers(self, session: str) -> frozenset[str]:
        """The users whose rows wait for a session that is final, whoever holds them."""
        with self._file.reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT user_peer FROM rows WHERE destination = ? AND session = ? AND session_key = ''",
                (self.destination, session),
            ).fetchall()
        return frozenset(row["user_peer"] for row in rows)

    def release(self, holder: Holder, then: Callable[[HonchoExecError | None], None]) -> None:
        """Take over the rows of another holder of this process, also those that wait in memory.

        Returns when that is done, has failed, or waits for another process's lock; `then` is told with the error, or
        with None, on the writer's thread.
        """
        self._writer.put(_Release(self._file, holder.name, self._holder.name, then))

    def adopt(self) -> int:
        """Take over the rows of holders that are dead; returns how many these were."""
        self._holder.renew()
        with self._file.reading() as connection:
            owners = [row[0] for row in connection.execute(_OWNERS, (self.destination,) * 2)]
        dead = [owner for owner in owners if owner != self._holder.name and not self._holder.alive(owner)]
        if not dead:
            return 0
        with self._file.writing() as connection:
            return connection.execute(
                "UPDATE rows SET owner = ? WHERE destination = ? AND owner IN (SELECT value FROM json_each(?))",
                (self._holder.name, self.destination, json.dumps(dead)),
            ).rowcount

    def hand_over(self, batch: Batch) -> list[int]:
        """Give a batch, and what this holder has behind it, to whoever holds the next row; returns the ids."""
        with self._file.writing() as connection:
            found = connection.execute(
                "UPDATE rows SET owner = other.owner FROM (SELECT id, owner FROM rows WHERE stream = ?1"
                " AND parked_at IS NULL AND id > ?2 AND owner <> ?3 ORDER BY id LIMIT 1) AS other"
                " WHERE stream = ?1 AND parked_at IS NULL AND rows.owner = ?3 AND rows.id < other.id RETURNING rows.id",
                (batch.stream, batch.rows[-1].id, self._holder.name),
            ).fetchall()
        return [row[0] for row in found]

    def sending(self, rows: Sequence[OutboxRow], *, may_land_for: float) -> list[OutboxRow]:
        """Record that an attempt begins, and return the rows that may be sent: those that nobody dropped meanwhile.

        If nothing more is recorded the attempt may land for so many seconds.
        """
        until = self._in(may_land_for)

        def begin(connection: Connection) -> set[int]:
            found = connection.execute(
                "UPDATE rows SET attempts = attempts + 1, look = 1, ambiguous_boot = ?, settle_at = ?"
                f" WHERE {_THESE} RETURNING id",
                (until.boot, until.seconds, _these(rows)),
            ).fetchall()
            return {row["id"] for row in found}

        present = self._writer.run(self._file, begin)
        return [row for row in rows if row.id in present]

    def not_done(self, batch: Batch, error: str) -> None:
        """Record that the attempt surely was not done."""
        self._on_batch(batch, "look = 0, settle_at = 0, error = ?", error)

    def unknown(self, batch: Batch, error: str, *, may_land_for: float) -> None:
        """Record that the attempt may have been done, or be done within so many seconds."""
        until = self._in(may_land_for)
        self._on_batch(
            batch, "look = 1, ambiguous_boot = ?, settle_at = ?, error = ?", until.boot, until.seconds, error
        )

    def reread(self, batch: Batch) -> Batch:
        """The batch as the file has it now."""
        with self._file.reading() as connection:
            rows = connection.execute("SELECT * FROM rows WHERE batch = ? ORDER BY id", (batch.id,)).fetchall()
        return self._soon_over(read_batch(rows)) if rows else replace(batch, rows=())

    def _soon_over(self, batch: Batch) -> Batch:
        """The batch, which waits no longer for an attempt than one can last.

        What another boot, or a machine's snapshot, says of the wait cannot be compared with this boot's clock: how long
        ago it was is not known, so that the longest is waited for once, from the first look on.
        """
        latest = self._in(LONGEST_LATE)
        left = batch.settled.since(latest)
        if not batch.look or (left is not None and left <= 0):
            return batch
        self._on_batch(batch, "ambiguous_boot = ?, settle_at = ?", latest.boot, latest.seconds)
        return replace(batch, settled=latest)

    def _in(self, seconds: float) -> BootTime:
        now = self._clock.boot_time()
        return replace(now, seconds=now.seconds + seconds)

    def is_own(self, row: OutboxRow) -> bool:
        """Whether only this process can have sent the row: it was admitted here, into the file as it is open now."""
        return bool(row.admitted_by) and row.admitted_by == self._file.opening

    def stored_before(self, conclusions: Sequence[Conclusion]) -> list[Conclusion]:
        """Those of these conclusions that were delivered from this state folder before."""
        digests = {self._digest(conclusion): conclusion for conclusion in conclusions}
        if not digests:
            return []
        with self._file.reading() as connection:
            found = connection.execute(
                "SELECT digest FROM stored_conclusions WHERE digest IN (SELECT value FROM json_each(?))",
                (json.dumps(list(digests)),),
            ).fetchall()
        return [digests[row["digest"]] for row in found]

    def _digest(self, conclusion: Conclusion) -> str:
        parts = [self.destination, conclusion.observer, conclusion.observed, conclusion.content]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def original_first(self, rows: Sequence[OutboxRow]) -> float:
        """Seconds for which rows that were admitted elsewhere are to wait, for whoever may be alive there.

        The wait begins when the first of them is seen here, and goes on when no process runs.
        """
        here = place_of(self.path.parent)
        origins = {row.place for row in rows} - {here, None}
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
        # Another boot has taken longer to come up.
        waited = [now.since(BootTime(*row)) for row in begun]
        return max((_ORIGINAL_FIRST - seconds for seconds in waited if seconds is not None and seconds >= 0), default=0)

    def forget_delivered(self, chosen: PurgeFilter) -> None:
        """Remember nothing any more of what was delivered for those whom a person wants forgotten."""
        with self._file.writing() as connection:
            connection.execute("DELETE FROM dated_sessions WHERE ? OR session = ?", (chosen.everything, chosen.session))
            # Whose conclusions the digests are of does not show.
            connection.execute("DELETE FROM stored_conclusions")

    def dated(self, session: str) -> float | None:
        """The latest time that messages of a session were dated with here, seconds since the epoch."""
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT latest FROM dated_sessions WHERE destination = ? AND session = ?", (self.destination, session)
            ).fetchone()
        return None if row is None else float(row["latest"])

    def note_dated(self, session: str, latest: float) -> None:
        """Remember the latest time that messages of a session are dated with."""

        def note(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO dated_sessions (destination, session, latest) VALUES (?, ?, ?)"
                " ON CONFLICT (destination, session) DO UPDATE SET latest = max(latest, excluded.latest)",
                (self.destination, session, latest),
            )

        self._writer.run(self._file, note)

    def settle(self, rows: Sequence[OutboxRow]) -> None:
        """Drop rows that Honcho has, and remember how long the oldest of them waited."""
        now = self._clock.now()
        stored = [(self._digest(conclusion),) for row in rows for conclusion in _conclusions(row.write)]

        def drop(connection: Connection) -> None:
            connection.execute(f"DELETE FROM rows WHERE {_THESE}", (_these(rows),))
            connection.executemany("INSERT INTO stored_conclusions (digest) VALUES (?) ON CONFLICT DO NOTHING", stored)
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

        self._writer.run(self._file, drop)

    def deliveries(self, limit: int = 300) -> list[Delivery]:
        """The newest deliveries of any process, the oldest of them first; a thousand are remembered in all."""
        with self._file.reading() as connection:
            found = connection.execute(
                "SELECT at, waited, rows FROM deliveries WHERE destination = ? ORDER BY id DESC LIMIT ?",
                (self.destination, limit),
            ).fetchall()
        return [Delivery(*row) for row in reversed(found)]

    def note_error(self, error: str) -> None:
        """Remember the last failure, for whoever looks from another process."""
        with self._file.writing() as connection:
            connection.execute(
                "INSERT INTO health (destination, error, error_at) VALUES (?, ?, ?)"
                " ON CONFLICT (destination) DO UPDATE SET error = excluded.error, error_at = excluded.error_at",
                (self.destination, error, self._clock.now()),
            )

    def history(self) -> History:
        """The last delivery and the last failure of any process."""
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT delivered_at, error, error_at FROM health WHERE destination = ?", (self.destination,)
            ).fetchone()
        return History(*row) if row else History(None, None, None)

    def halve(self, batch: Batch) -> None:
        """Give each half of a batch that surely was not done an id of its own."""
        middle = batch.rows[len(batch.rows) // 2].id
        with self._file.writing() as connection:
            connection.execute(
                "UPDATE rows SET batch = CASE WHEN id < ? THEN ? ELSE ? END, look = 0, settle_at = 0 WHERE batch = ?",
                (middle, self._clock.new_id(), self._clock.new_id(), batch.id),
            )

    def park(self, batch: Batch, reason: str) -> None:
        """Set the rows of a batch aside, with the reason; they no longer hold anything up."""
        self._on_batch(batch, "parked_at = ?, error = ?", self._clock.now(), reason)

    def flush_to_disk(self) -> None:
        """Make what was admitted survive a power cut as well."""
        self._file.flush()

    def probe(self) -> None:
        """Raise `StateError` when nothing can be written just now."""
        with self._file.transaction():
            pass

    def check(self) -> None:
        """Raise `Damaged` when the file is; reads all of it."""
        self._file.check()

    def tidy(self) -> None:
        """Leave nothing of delivered rows in the file or its log; for when nothing is going on."""
        self._file.tidy()

    def reserve_space(self) -> None:
        """Reserve disk space to complete pending rows with."""
        self._file.reserve.keep()

    def make_room(self) -> bool:
        """Give the reserved space back on a full disk; return False if there is none."""
        return self._file.make_room()

    def shrink(self) -> bool:
        """Give the space of delivered rows back to the disk; return False if another process is in the way."""
        return self._file.shrink()

    def counts(self) -> Counts:
        """How much waits, is being sent, is parked, and waits for another destination."""
        unstored = self._unstored()
        here = [row for row in unstored if row["destination"] == self.destination]
        held = [row for row in here if str(row["owner"]).endswith(HELD)]
        oldest = [float(row["admitted_at"] or 0.0) for row in here if row not in held]
        with self._file.reading() as connection:
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
        """How many rows of this holder wait."""
        unstored = sum(
            row["owner"] == self._holder.name and row["destination"] == self.destination for row in self._unstored()
        )
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT count(*) FROM rows WHERE destination = ? AND parked_at IS NULL AND owner = ?",
                (self.destination, self._holder.name),
            ).fetchone()
        return int(row[0]) + unstored

    def is_empty(self) -> bool:
        """Whether no row of any holder waits."""
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT 1 FROM rows WHERE destination = ? AND parked_at IS NULL LIMIT 1", (self.destination,)
            ).fetchone()
        return row is None and not self._unstored()

    def rows(
        self,
        *,
        ids: Sequence[int] | None = None,
        parked: bool | None = None,
        everywhere: bool = False,
        limit: int = 1000,
    ) -> list[OutboxRow]:
        """The oldest rows that are stored.

        Args:
            ids: only those.
            parked: only those that are parked (True) or waiting (False).
            everywhere: those for other destinations as well.
            limit: the most to return.
        """
        chosen = None if ids is None else json.dumps(list(ids))
        with self._file.reading() as connection:
            found = connection.execute(
                "SELECT * FROM rows WHERE (? OR destination = ?) AND (? IS NULL OR (parked_at IS NOT NULL) = ?)"
                " AND (? IS NULL OR id IN (SELECT value FROM json_each(?))) ORDER BY id LIMIT ?",
                (everywhere, self.destination, parked, parked, chosen, chosen, limit),
            ).fetchall()
        return [read_row(row) for row in found]

    def retry(self, ids: Sequence[int]) -> int:
        """Let parked rows be sent again, by whoever looks next; returns how many there were."""
        with self._file.writing() as connection:
            return connection.execute(
                "UPDATE rows SET parked_at = NULL, batch = NULL, look = 0, settle_at = 0, attempts = 0, owner = '',"
                " admitted_by = ''"
                " WHERE parked_at IS NOT NULL AND id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(ids)),),
            ).rowcount

    def elsewhere(self) -> list[Elsewhere]:
        """What waits for other servers than this outbox's, by destination; the longest waiting first."""
        with self._file.reading() as connection:
            return find_elsewhere(connection, split_destination(self.destination)[0], self._holder.alive)

    def redirect(self, source: str, kinds: Collection[str]) -> Redirected:
        """Let rows of another destination wait for this outbox's server, all or none; see `redirect.redirect`."""
        with self._file.transaction() as connection:
            return redirect(connection, source, split_destination(self.destination)[0], kinds, self._holder.alive)

    def drop(self, ids: Sequence[int]) -> int:
        """Delete rows for good, except those that are just being sent; returns how many there were."""
        with self._file.writing() as connection:
            return connection.execute(
                "DELETE FROM rows WHERE (parked_at IS NOT NULL OR NOT look) AND id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(ids)),),
            ).rowcount

    def close(self) -> None:
        """Give the file back; fail what waits in memory."""
        self._writer.leave(self._file, self._file.close)

    def incidents(self) -> list[Incident]:
        """What has happened to the file while this process had it open."""
        return self._file.incidents()

    def set_aside(self) -> list[Path]:
        """Damaged files that were replaced and that a person should look at."""
        return self._file.damaged()

    def _on_batch(self, batch: Batch, change: str, *values: object) -> None:
        with self._file.writing() as connection:
            connection.execute(f"UPDATE rows SET {change} WHERE batch = ?", (*values, batch.id))


def _conclusions(write: Write) -> list[Conclusion]:
    """What observers hold once a write is done."""
    match write:
        case Conclusion():
            return [write]
        case Replacement(new=str() as new) if new:
            return [Conclusion(new, write.observer, write.observed)]
    return []


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


class _Told:
    """Keeps what a listener is told."""

    def __init__(self) -> None:
        self._admitted: Admitted | None = None
        self._error: HonchoExecError | None = None

    def begin(self) -> None:
        """See `admission.Listener`."""

    def stored(self, admitted: Admitted) -> None:
        """See `admission.Listener`."""
        self._admitted = admitted

    def failed(self, error: HonchoExecError) -> None:
        """See `admission.Listener`."""
        self._error = error

    def outcome(self) -> Admitted:
        if self._error is not None:
            raise self._error
        if self._admitted is None:
            raise Busy("another process locks the outbox; the turn is stored when the lock is released")
        return self._admitted


class _Release(Change):
    """Another holder's rows become this one's."""

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


# Rows by their ids: in a file that was brought to the place of another the same id may be another row's.
_THESE = "(id, turn) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"


def _these(rows: Sequence[OutboxRow]) -> str:
    return json.dumps([[row.id, row.turn] for row in rows])
