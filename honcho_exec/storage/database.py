"""One way to open a SQLite file: private, in WAL mode, migrated, pooled and safe across fork."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

from honcho_exec.clock import Deadline, SystemClock
from honcho_exec.errors import Busy, Damaged, StateError
from honcho_exec.forks import ADVICE, PerProcess, fork_count, kept_off, on_fork_in_child
from honcho_exec.storage.file_lock import exclusive
from honcho_exec.storage.folders import ADVICE as UNUSABLE
from honcho_exec.storage.folders import private_folder, secure_file
from honcho_exec.storage.pool import Incident, Moved, Pool, PooledConnection, enter, leave, persistently, report, retire

__all__ = ["Database", "set_aside"]

# How long somebody else may take to begin a file, or to clear away what one left (seconds).
_BEGINNING = 5.0
_BARRED = {sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_KINDS: dict[int, type[StateError]] = {
    sqlite3.SQLITE_CORRUPT: Damaged,
    sqlite3.SQLITE_NOTADB: Damaged,
    sqlite3.SQLITE_BUSY: Busy,
    sqlite3.SQLITE_LOCKED: Busy,
}
# What may be over by itself, and when it is worth another try (seconds): another's write, a full or failing disk.
_PASSING = {
    sqlite3.SQLITE_BUSY: 2.0,
    sqlite3.SQLITE_LOCKED: 2.0,
    sqlite3.SQLITE_FULL: 30.0,
    sqlite3.SQLITE_IOERR: 30.0,
}


def set_aside(path: Path, moment: str) -> Path:
    """Rename a damaged file, and what belongs to it, so that a new one can be begun; returns where it is now.

    Whoever uses it in this process goes on with the new one.
    """
    retire(path.absolute())
    aside = path.with_name(f"{path.name}.damaged-{moment}")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


class Database:
    """A SQLite file (mode 0600, WAL), whose connections all users in this process share.

    A connection serves one thread at a time. In a forked child the databases of the parent cannot be used.

    Commits survive the death of the process; after a power cut the file is whole and holds everything up to the last
    `checkpoint`.

    A file that is removed, renamed or replaced while it is open is reported (see `connections.incidents`). Then the
    file at its path is used, which is created if there is none; the rows of the old file are gone.

    Args:
        path: the file; made when it is not there.
        migrations: SQL scripts, oldest first; the file's `user_version` says how many it has had.
        busy_timeout: seconds to wait for another process's write.
        background_checkpoints: True leaves moving commits into the file to whoever calls `checkpoint`, as long as the
            log is small, so that few commits pay for it.
        leaving: called before this process gives up a file that was removed, renamed or replaced, with a connection to
            that file if there is one; returns how many rows were pending in it, None if that is not known.

    Raises:
        StateError: the file cannot be opened, is not a database, or was written by a newer version.
    """

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str],
        *,
        busy_timeout: float = 2.0,
        background_checkpoints: bool = False,
        leaving: Callable[[sqlite3.Connection | None], int | None] | None = None,
    ) -> None:
        self.path = path.absolute()
        self._migrations = migrations
        self._busy_timeout = busy_timeout
        self._background_checkpoints = background_checkpoints
        self._leaving = leaving
        self._lock = threading.Lock()
        self._forks = fork_count()
        self._closed = False
        self._pool = self._join()

    @contextmanager
    def connection(self, patience: float | None = None) -> Iterator[sqlite3.Connection]:
        """Lend a connection in autocommit mode: a single statement is its own transaction.

        Args:
            patience: seconds to wait for another process's write; the busy timeout when None.
        """
        with kept_off(), _translated(self.path):
            pool, connection = self._take()
            try:
                connection.wait_at_most(self._busy_timeout if patience is None else patience)
                yield connection
            finally:
                pool.give(connection)

    @contextmanager
    def writing(self, patience: float | None = None) -> Iterator[sqlite3.Connection]:
        """Lend a connection in autocommit mode to whoever writes; the writers of this process stand in line.

        Args:
            patience: seconds to wait for others' writes; the busy timeout when None.

        Raises:
            Busy: others have not come to an end in that time.
        """
        # SQLite lets writers poll for their turn, which takes milliseconds and may go on for ever.
        with self._turn(patience) as left, self.connection(left) as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside one write transaction; commits at the end, rolls back on an exception."""
        with self.writing() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def checkpoint(self) -> None:
        """Move what is committed into the file itself and flush it to the disk; holds up nobody."""
        with self.connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def truncate_log(self) -> None:
        """Checkpoint and empty the log beside the file, so that nothing deleted is left in it; holds up writers."""
        self.checkpoint()
        with self.writing() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def shrink(self) -> bool:
        """Give the space of deleted rows back to the disk; return False if another process is in the way."""
        try:
            with self.writing() as connection:
                connection.execute("VACUUM")
                # The file itself shrinks when the log is emptied into it, which waits for others who read.
                return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except Busy:
            return False

    def unused_bytes(self) -> int:
        """Return how much of the file deleted rows have left."""
        with self.connection() as connection:
            pages, size = connection.execute(
                "SELECT freelist_count, page_size FROM pragma_freelist_count, pragma_page_size"
            ).fetchone()
        return int(pages) * int(size)

    def check(self) -> None:
        """Raise `Damaged` when the file's structure is broken; reads all of it."""
        with self.connection() as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise Damaged(f"the state file {self.path} is damaged: {found}")

    @property
    def file(self) -> int | None:
        """Which file is in use: its inode."""
        return self._pool.file

    @property
    def opening(self) -> str:
        """Identifies this process and the file in use: another process, and another file at the path, have another."""
        return self._pool.id

    def close(self) -> None:
        """Use it no more; the last user in this process closes the file. A connection that is lent is finished with."""
        if self._forks != fork_count():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        leave(self._pool)

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self.close()

    @contextmanager
    def _turn(self, patience: float | None) -> Iterator[float | None]:
        """Be the one writer of this process; yields how much is left of the patience."""
        turn, ends = _turn(self.path), time.monotonic() + (patience or 0.0)
        if not turn.acquire(timeout=-1 if patience is None else patience):
            raise Busy(f"the state file {self.path} cannot be used: somebody else writes to it")
        try:
            yield None if patience is None else max(0.0, ends - time.monotonic())
        finally:
            turn.release()

    def _take(self) -> tuple[Pool, PooledConnection]:
        while True:
            pool, connection = self._present(), None
            with suppress(Moved):
                connection = pool.take()
            if not pool.moved:
                if connection is not None:
                    return pool, connection
                continue
            try:
                self._leave(pool, connection)
            finally:
                if connection is not None:
                    pool.give(connection)

    def _leave(self, pool: Pool, connection: sqlite3.Connection | None) -> None:
        """Report that the file was removed, renamed or replaced, and let this process use the one at the path."""
        with _turn(self.path):
            if pool.closed:
                return
            pending = None
            if self._leaving is not None:
                with suppress(sqlite3.Error):
                    pending = self._leaving(connection)
            what = "replaced by another file" if self.path.exists() else "removed or renamed"
            private_folder(self.path.parent)
            with self._alone():
                pool.remove_log()
            report(Incident(self.path, what, pending))
            retire(self.path)

    def _alone(self) -> AbstractContextManager[None]:
        """Around what begins the file, or takes away what another left in its place; one process at a time."""
        lock = self.path.with_name(f"{self.path.name}.replacing")
        return exclusive(lock, Deadline.after(_BEGINNING, SystemClock()))

    def _present(self) -> Pool:
        if self._forks != fork_count():
            raise StateError(f"{self.path} cannot be used: {ADVICE}")
        pool = self._pool
        if not pool.closed and not self._closed:
            return pool
        with self._lock:
            if self._closed:
                raise StateError(f"{self.path} is closed")
            if self._pool.closed:
                # The file is another one now.
                left, self._pool = self._pool, self._join()
                leave(left)
            return self._pool

    def _join(self) -> Pool:
        deadline = Deadline.after(_BEGINNING, SystemClock())
        while not deadline.passed:
            pool = enter(
                self.path,
                busy_timeout=self._busy_timeout,
                background_checkpoints=self._background_checkpoints,
            )
            try:
                private_folder(self.path.parent)
                # A writer may come here in its turn: beginning has a line of its own.
                with kept_off(), _translated(self.path), _turn(self.path, "begin"):
                    self._begin(pool)
            except Moved:
                leave(pool)
                retire(self.path)
            except StateError:
                leave(pool)
                if not pool.moved:
                    raise
                retire(self.path)
            else:
                return pool
        raise StateError(f"the state file {self.path} cannot be used: it is removed or replaced again and again")

    def _begin(self, pool: Pool) -> None:
        if not self._secure():
            with self._alone():
                if not self._secure():
                    # What is there of a log is of a file that was removed.
                    for suffix in ("-wal", "-shm"):
                        self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
                    os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        # A file that is there is opened by SQLite alone: whoever else closes it gives up this process's locks on it,
        # and the next process to close it would take itself for the last, and the log away.
        connection = pool.take()
        if connection is not None:
            try:
                persistently(partial(self._migrate, connection), self._busy_timeout)
            finally:
                pool.give(connection)

    def _secure(self) -> bool:
        """Make the file and its logs private; return whether it is there."""
        for suffix in ("-wal", "-shm"):
            secure_file(self.path.with_name(self.path.name + suffix))
        return secure_file(self.path)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if self._version(connection) == len(self._migrations):
            return
        connection.execute("BEGIN IMMEDIATE")
        version = self._version(connection)
        if version > len(self._migrations):
            raise StateError(
                f"{self.path} was written by a newer version of honcho_exec "
                f"(schema {version}, this one knows {len(self._migrations)}); upgrade honcho_exec"
            )
        for script in self._migrations[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(self._migrations)}")
        connection.execute("COMMIT")

    @staticmethod
    def _version(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        # The low byte is the code; the rest says more of where it came from.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        kind = _KINDS.get(code, StateError)
        barred = isinstance(error, PermissionError) or code in _BARRED
        advice = f"; {UNUSABLE}" if barred else ""
        translated = kind(f"the state file {path} cannot be used: {error}{advice}")
        if code in _PASSING:
            translated.retryable, translated.retry_after = True, _PASSING[code]
        raise translated from error


_turns: dict[tuple[Path, str], threading.RLock] = {}
_turns_lock = PerProcess(threading.Lock)


def _turn(path: Path, what: str = "write") -> threading.RLock:
    """The lock of those in this process who do that with a file."""
    with _turns_lock():
        return _turns.setdefault((path, what), threading.RLock())


@on_fork_in_child
def _after_fork() -> None:
    _turns.clear()


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
