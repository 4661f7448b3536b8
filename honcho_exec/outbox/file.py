"""The database file of the outbox, and what is done if it is damaged, locked or replaced."""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection

from honcho_exec.clock import Clock, Deadline
from honcho_exec.errors import Busy, Damaged, StateError
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.migrations import MIGRATIONS, import_spill
from honcho_exec.runtime.offload import post
from honcho_exec.storage.database import Database, set_aside
from honcho_exec.storage.file_lock import exclusive
from honcho_exec.storage.pool import Incident, incidents
from honcho_exec.storage.reserve import Reserve

__all__ = ["OutboxFile"]

# A file up to this size is checked when it is opened, which takes milliseconds.
_MAX_CHECKED_BYTES = 4 * 1024 * 1024
# An emptied outbox keeps at most this much space for the next rows.
_MAX_UNUSED_BYTES = 1024 * 1024

_log = logging.getLogger(__name__)


class OutboxFile:
    """The database of all destinations and processes of a state folder.

    An `outbox.spill` that an earlier version left next to it is imported when the file is opened.

    A damaged file is set aside and a new one is created. A file that is removed, renamed or replaced while it is open
    is closed, and the one at its path is used: its rows are gone, and `incidents` reports how many were pending.

    Args:
        path: the database file.
        holder: a lease holder of this process.
    """

    def __init__(self, path: Path, holder: LeaseHolder, clock: Clock) -> None:
        self.path = path.absolute()
        self._spill = self.path.with_suffix(".spill")
        self.reserve = Reserve(self.path.with_suffix(".reserve"))
        self._holder = holder
        self._clock = clock
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._open_error: StateError | None = None
        self._opened: Database | None = None
        with suppress(Busy):
            # Another process locks it exclusively; it is opened later.
            self._opened = self._begin()

    def usable(self) -> bool:
        """Return whether the file is open; if it is not, let another thread try again.

        Raises:
            StateError: it cannot be opened, and not because another process locks it.
        """
        if self._opened is None and self._opening.acquire(blocking=False):
            error, self._open_error = self._open_error, None
            post(self._try_to_open)
            if error is not None:
                raise error
        return self._opened is not None

    def _try_to_open(self) -> None:
        try:
            _ = self._db
        except Busy:
            pass
        except StateError as error:
            self._open_error = error
        finally:
            self._opening.release()

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

    def writing(self) -> AbstractContextManager[Connection]:
        """Lend a connection in autocommit mode to write with; see `Database.writing`."""
        return self._db.writing()

    def transaction(self, patience: float | None = None) -> AbstractContextManager[Connection]:
        """Lend a connection inside one write transaction; see `Database.transaction`."""
        return self._db.transaction(patience)

    def size(self) -> int:
        """Return how many rows the file holds; 0 if it cannot be read now."""
        if self._opened is not None:
            with suppress(StateError), self.reading() as connection:
                return int(connection.execute("SELECT rows FROM size").fetchone()[0])
        return 0

    def flush(self) -> None:
        """Make committed rows survive a power cut."""
        self._db.checkpoint()

    def probe(self) -> None:
        """Raise `StateError` if the file cannot be written now."""
        with self.transaction():
            pass

    def vacuum(self) -> None:
        """Remove deleted rows from the file and its log, and free most of their space."""
        if self._db.unused_bytes() > _MAX_UNUSED_BYTES:
            self._db.shrink()
        self._db.truncate_log()
        self.reserve.remove()

    def make_room(self) -> bool:
        """Free the reserved space on a full disk, so that rows can be completed; return False if there is none."""
        if not self.reserve.free():
            return False
        with suppress(StateError):
            self._db.checkpoint()
        return True

    def shrink(self) -> bool:
        """Free the space of deleted rows; return False if another process prevents it."""
        return self._db.shrink()

    def check(self) -> None:
        """Raise `Damaged` if the file is damaged; reads all of it."""
        self._db.check()

    def replace_damaged(self) -> None:
        """Set this damaged file aside and create a new one."""
        self._inode = self._db.inode
        self._db.close()
        self._opened = self._replace_damaged()

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()

    def incidents(self) -> list[Incident]:
        """Return what has happened to the file while this process had it open."""
        return incidents(self.path)

    def damaged_files(self) -> list[Path]:
        """Return the damaged files that were set aside."""
        names = (self.path.name, self._spill.name)
        return sorted(found for name in names for found in self.path.parent.glob(f"{name}.damaged-*[0-9]"))

    def _open(self) -> Database:
        return Database(self.path, MIGRATIONS, background_checkpoints=True, on_moved=self._count_lost)

    def _begin(self) -> Database:
        """Open the file, or create a new one if it is damaged: the next turns must be stored."""
        self._inode = self._current_inode()
        try:
            database = self._open()
            if self.path.stat().st_size <= _MAX_CHECKED_BYTES:
                database.check()
        except Damaged:
            database = self._replace_damaged()
        if self._spill.exists():
            with database.writing() as connection:
                import_spill(self._spill, connection, self._clock.now())
        return database

    def _replace_damaged(self) -> Database:
        """Set the damaged file aside and create a new one, unless another process has done so."""
        try:
            with exclusive(self.path.with_name(f"{self.path.name}.replacing"), Deadline.after(2.0, self._clock)):
                if self._current_inode() == self._inode:
                    aside = set_aside(self.path, datetime.fromtimestamp(self._clock.now(), tz=UTC))
                    _log.error(
                        "the outbox was damaged; it is kept as %s, and what waited in it was not delivered", aside
                    )
            return self._open()
        except (OSError, TimeoutError) as error:
            raise StateError(f"{self.path} is damaged and cannot be replaced now: {error}") from error

    def _current_inode(self) -> int | None:
        try:
            return self.path.stat().st_ino
        except OSError:
            return None

    def _count_lost(self, connection: Connection | None) -> int | None:
        """Count the pending rows of a file that was removed, renamed or replaced."""
        # The files that mark living processes may have been removed too. Without one, another process would take over
        # the rows that this process stores next.
        self._holder.renew()
        if connection is None:
            return None
        return int(connection.execute("SELECT count(*) FROM rows WHERE parked_at IS NULL").fetchone()[0])
