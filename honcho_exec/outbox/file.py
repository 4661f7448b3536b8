"""The outbox's file: its tables, what is done if it is damaged, locked or replaced, and what is beside it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection

from honcho_exec.clock import Clock, Deadline
from honcho_exec.errors import Busy, Damaged, StateError
from honcho_exec.outbox.lease import Holder
from honcho_exec.outbox.spill import import_spill
from honcho_exec.runtime.offload import post
from honcho_exec.storage.database import Database, set_aside
from honcho_exec.storage.file_lock import exclusive
from honcho_exec.storage.pool import Incident, incidents
from honcho_exec.storage.reserve import Reserve

__all__ = ["OutboxFile"]

# A file up to this size (bytes) is checked when it is opened, which takes milliseconds.
_MAX_CHECKED = 4 * 1024 * 1024
# An outbox that was emptied keeps at most this much for the next rows.
_MOST_UNUSED_BYTES = 1024 * 1024

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
    """
    CREATE TABLE origin (id TEXT NOT NULL);
    INSERT INTO origin VALUES (lower(hex(randomblob(8))));
    CREATE TABLE places (origin TEXT PRIMARY KEY, behind INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE taken (key TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
    """,
    """
    DROP TABLE origin;
    DROP TABLE places;
    """,
    # Rows that an earlier version has sent carry no key in Honcho.
    """
    ALTER TABLE rows ADD COLUMN key TEXT;
    ALTER TABLE rows ADD COLUMN admitted_by TEXT NOT NULL DEFAULT '';
    ALTER TABLE rows ADD COLUMN place TEXT;
    ALTER TABLE rows ADD COLUMN admitted_boot TEXT NOT NULL DEFAULT '';
    ALTER TABLE rows ADD COLUMN admitted_seconds REAL NOT NULL DEFAULT 0;
    ALTER TABLE rows ADD COLUMN ambiguous_boot TEXT NOT NULL DEFAULT '';
    UPDATE rows SET key = turn || '.' || id WHERE NOT look;
    CREATE TABLE stored_conclusions (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE);
    CREATE TRIGGER stored_conclusion_added AFTER INSERT ON stored_conclusions BEGIN
        DELETE FROM stored_conclusions WHERE id <= new.id - 10000;
    END;
    CREATE TABLE dated_sessions (
        id INTEGER PRIMARY KEY,
        destination TEXT NOT NULL,
        session TEXT NOT NULL,
        latest REAL NOT NULL,
        UNIQUE (destination, session)
    );
    CREATE TRIGGER dated_session_added AFTER INSERT ON dated_sessions BEGIN
        DELETE FROM dated_sessions WHERE id <= new.id - 10000;
    END;
    CREATE TABLE arrivals (
        origin TEXT NOT NULL,
        place TEXT NOT NULL,
        boot TEXT NOT NULL,
        seconds REAL NOT NULL,
        PRIMARY KEY (origin, place)
    ) WITHOUT ROWID;
    """,
    "ALTER TABLE rows ADD COLUMN session_key TEXT NOT NULL DEFAULT '';",
    # Few rows are under way: looking for those behind a batch does not read the backlog.
    "CREATE INDEX rows_under_way ON rows (stream, id) WHERE look;",
)


class OutboxFile:
    """The database of all destinations and processes of a state folder.

    An `outbox.spill` that an earlier version left beside it is imported when the file is opened.

    A damaged file is set aside and a new one is created. A file that is removed, renamed or replaced while it is open
    is given up for the one at its path: its rows are gone, and `incidents` reports how many were pending.

    Args:
        path: the database file.
        holder: one of this process.
    """

    def __init__(self, path: Path, holder: Holder, clock: Clock) -> None:
        self.path = path.absolute()
        self._spill = self.path.with_suffix(".spill")
        self.reserve = Reserve(self.path.with_suffix(".reserve"))
        self._holder = holder
        self._clock = clock
        self._lock = threading.Lock()
        self._trying = threading.Lock()
        self._trouble: StateError | None = None
        self._opened: Database | None = None
        with suppress(Busy):
            # Another process locks it exclusively; it is opened later.
            self._opened = self._begin()

    def usable(self) -> bool:
        """Whether the file is open; if it could not be opened before, another thread tries again meanwhile.

        Raises:
            StateError: it cannot be opened, and not because another process locks it.
        """
        if self._opened is None and self._trying.acquire(blocking=False):
            trouble, self._trouble = self._trouble, None
            post(self._try)
            if trouble is not None:
                raise trouble
        return self._opened is not None

    def _try(self) -> None:
        try:
            _ = self._db
        except Busy:
            pass
        except StateError as error:
            self._trouble = error
        finally:
            self._trying.release()

    @property
    def opening(self) -> str:
        """Identifies this process and the file that it has open; empty if it has none open yet."""
        return "" if self._opened is None else self._opened.opening

    @property
    def _db(self) -> Database:
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    self._opened = self._begin()
        return self._opened

    def reading(self) -> AbstractContextManager[Connection]:
        """Lend a connection to read with."""
        return self._db.connection()

    def writing(self, patience: float | None = None) -> AbstractContextManager[Connection]:
        """Lend a connection in autocommit mode to write with; see `Database.writing`."""
        return self._db.writing(patience)

    @contextmanager
    def transaction(self, patience: float | None = None) -> Iterator[Connection]:
        """Lend a connection inside one write transaction; commits at the end, rolls back on an exception."""
        with self.writing(patience) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def size(self) -> int:
        """How many rows the file holds; 0 if it cannot be read now."""
        if self._opened is not None:
            with suppress(StateError), self.reading() as connection:
                return int(connection.execute("SELECT rows FROM size").fetchone()[0])
        return 0

    def flush(self) -> None:
        """Make what is committed survive a power cut as well."""
        self._db.checkpoint()

    def tidy(self) -> None:
        """Leave nothing of deleted rows in the file or its log, nor much of the space they had."""
        if self._db.unused_bytes() > _MOST_UNUSED_BYTES:
            self._db.shrink()
        self._db.truncate_log()
        self.reserve.remove()

    def make_room(self) -> bool:
        """Give the reserved space back on a full disk, so that rows can be completed; return False if there is none."""
        if not self.reserve.give_back():
            return False
        with suppress(StateError):
            self._db.checkpoint()
        return True

    def shrink(self) -> bool:
        """Give the space of deleted rows back; return False if another process is in the way."""
        return self._db.shrink()

    def check(self) -> None:
        """Raise `Damaged` when the file is; reads all of it."""
        self._db.check()

    def begin_anew(self) -> None:
        """Go on with a new file, since this one is damaged."""
        self._file = self._db.file
        self._db.close()
        self._opened = self._begin_anew()

    def close(self) -> None:
        """Give the file back."""
        if self._opened is not None:
            self._opened.close()

    def incidents(self) -> list[Incident]:
        """What has happened to the file while this process had it open."""
        return incidents(self.path)

    def damaged(self) -> list[Path]:
        """Damaged files that were replaced and that a person should look at."""
        names = (self.path.name, self._spill.name)
        return sorted(found for name in names for found in self.path.parent.glob(f"{name}.damaged-*[0-9]"))

    def _open(self) -> Database:
        return Database(self.path, _MIGRATIONS, background_checkpoints=True, leaving=self._give_up)

    def _begin(self) -> Database:
        """Open the file; one that is damaged is set aside, since turns must not be lost for it."""
        self._file = self._file_there()
        try:
            database = self._open()
            if self.path.stat().st_size <= _MAX_CHECKED:
                database.check()
        except Damaged:
            database = self._begin_anew()
        if self._spill.exists():
            with database.writing() as connection:
                import_spill(self._spill, connection, self._clock.now())
        return database

    def _begin_anew(self) -> Database:
        """Set the damaged file aside and begin a new one, unless somebody else has done so meanwhile."""
        try:
            with exclusive(self.path.with_name(f"{self.path.name}.replacing"), Deadline.after(2.0, self._clock)):
                if self._file_there() == self._file:
                    aside = set_aside(self.path, self._moment())
                    _log.error(
                        "the outbox was damaged; it is kept as %s, and what waited in it was not delivered", aside
                    )
            return self._open()
        except (OSError, TimeoutError) as error:
            raise StateError(f"{self.path} is damaged and cannot be replaced just now: {error}") from error

    def _file_there(self) -> int | None:
        """Which file is there now."""
        try:
            return self.path.stat().st_ino
        except OSError:
            return None

    def _moment(self) -> str:
        return datetime.fromtimestamp(self._clock.now(), tz=UTC).strftime("%Y%m%dT%H%M%S")

    def _give_up(self, connection: Connection | None) -> int | None:
        """Count the pending rows of a file that was removed, renamed or replaced."""
        # The marks of living processes are beside the file and may have been removed with it. Others would take over
        # the rows that this process stores next.
        self._holder.renew()
        if connection is None:
            return None
        return int(connection.execute("SELECT count(*) FROM rows WHERE parked_at IS NULL").fetchone()[0])
