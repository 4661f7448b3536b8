"""SQLite files that are private, in WAL mode, migrated, pooled, and safe across fork."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from honcho_exec.clock import Deadline, SystemClock
from honcho_exec.errors import Busy, Damaged, StateError
from honcho_exec.forks import ADVICE, PerProcess, block_forks, fork_count, on_fork_in_child
from honcho_exec.storage.error_translation import translated_errors
from honcho_exec.storage.file_lock import exclusive
from honcho_exec.storage.folders import private_folder, secure_file
from honcho_exec.storage.migration import create_tables, upgrade
from honcho_exec.storage.pool import (
    Incident,
    Moved,
    Pool,
    PooledConnection,
    close_pools,
    join_pool,
    leave_pool,
    report,
    retry_while_busy,
)

__all__ = ["Database", "set_aside"]

# How long another process may take to create a file, or to remove what a moved one left.
_CREATION_SECONDS = 5.0


def set_aside(path: Path, at: datetime) -> Path:
    """Rename a damaged file and its logs, so that a new one can be created; return its new path.

    Databases of this process go on with the new file.
    """
    close_pools(path.absolute())
    aside = path.with_name(f"{path.name}.damaged-{at:%Y%m%dT%H%M%S}")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


class Database:
    """A SQLite file (mode 0600, WAL) whose connections all its users in this process share.

    A connection serves one thread at a time. In a forked child the databases of the parent cannot be used.

    Commits survive the death of the process; after a power cut the file is whole and holds everything up to the last
    `checkpoint`.

    A file that is removed, renamed or replaced while it is open is reported (see `pool.incidents`). Then the file at
    its path is used, which is created if there is none; the rows of the old file are gone.

    Args:
        path: the file; created if it does not exist.
        migrations: SQL scripts, oldest first; the file's `user_version` says how many it has had.
        busy_timeout: seconds to wait for another process's write.
        background_checkpoints: True leaves moving commits into the file to calls of `checkpoint`, while the log is
            small, so that few commits pay for it.
        on_moved: called before this process leaves a file that was removed, renamed or replaced, with a connection to
            that file if there is one; returns how many rows were pending in it, None if that is not known.

    Raises:
        StateError: the file cannot be opened, is not a database, was written by a newer version, or must be upgraded
            while another process uses it.
    """

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str],
        *,
        busy_timeout: float = 2.0,
        background_checkpoints: bool = False,
        on_moved: Callable[[sqlite3.Connection | None], int | None] | None = None,
    ) -> None:
        self.path = path.absolute()
        self._migrations = migrations
        self._busy_timeout = busy_timeout
        self._background_checkpoints = background_checkpoints
        self._on_moved = on_moved
        self._lock = threading.Lock()
        self._forks = fork_count()
        self._closed = False
        self._pool = self._open()

    @contextmanager
    def connection(self, patience: float | None = None) -> Iterator[sqlite3.Connection]:
        """Lend a connection in autocommit mode: a single statement is its own transaction.

        Args:
            patience: seconds to wait for another process's write; the busy timeout if None.
        """
        with block_forks(), translated_errors(self.path):
            pool, connection = self._acquire()
            try:
                connection.wait_at_most(self._busy_timeout if patience is None else patience)
                yield connection
            finally:
                pool.release(connection)

    @contextmanager
    def writing(self, patience: float | None = None) -> Iterator[sqlite3.Connection]:
        """Lend a connection in autocommit mode to write with; the writers of this process wait for each other.

        Args:
            patience: seconds to wait for other writers; the busy timeout if None.

        Raises:
            Busy: other writers have not finished in that time.
        """
        # SQLite's writers poll for the lock, which takes milliseconds and may starve one of them.
        with self._write_turn(patience) as left, self.connection(left) as connection:
            yield connection

    @contextmanager
    def transaction(self, patience: float | None = None) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside one write transaction; commits at the end, rolls back on an exception."""
        with self.writing(patience) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def checkpoint(self) -> None:
        """Move committed rows into the file itself and flush it to the disk, without blocking others."""
        with self.connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def truncate_log(self) -> None:
        """Checkpoint and empty the log, so that no deleted row is left in it; blocks writers."""
        self.checkpoint()
        with self.writing() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def shrink(self) -> bool:
        """Free the space of deleted rows; return False if another process prevents it."""
        try:
            with self.writing() as connection:
                connection.execute("VACUUM")
                # The file itself shrinks when the log is emptied into it, which waits for readers.
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
        """Raise `Damaged` if the file's structure is broken; reads all of it."""
        with self.connection() as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise Damaged(f"the state file {self.path} is damaged: {found}")

    @property
    def inode(self) -> int | None:
        """The inode of the file in use."""
        return self._pool.inode

    @property
    def opening(self) -> str:
        """Identifies this process and the file in use; differs for another process, or another file at the path."""
        return self._pool.id

    def close(self) -> None:
        """Stop using the file; the last user in this process closes it. A lent connection may still be used."""
        if self._forks != fork_count():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        leave_pool(self._pool)

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self.close()

    @contextmanager
    def _write_turn(self, patience: float | None) -> Iterator[float | None]:
        """Be the one writer of this process; yield the rest of the patience."""
        lock, ends = _lock_of(self.path), time.monotonic() + (patience or 0.0)
        if not lock.acquire(timeout=-1 if patience is None else patience):
            raise Busy(f"the state file {self.path} cannot be used: another thread writes to it")
        try:
            yield None if patience is None else max(0.0, ends - time.monotonic())
        finally:
            lock.release()

    def _acquire(self) -> tuple[Pool, PooledConnection]:
        while True:
            pool, connection = self._current_pool(), None
            with suppress(Moved):
                connection = pool.acquire()
            if not pool.moved:
                if connection is not None:
                    return pool, connection
                continue
            try:
                self._leave_moved(pool, connection)
            finally:
                if connection is not None:
                    pool.release(connection)

    def _leave_moved(self, pool: Pool, connection: sqlite3.Connection | None) -> None:
        """Report that the file was removed, renamed or replaced, and let this process use the one at the path."""
        with _lock_of(self.path):
            if pool.closed:
                return
            pending = None
            if self._on_moved is not None:
                with suppress(sqlite3.Error):
                    pending = self._on_moved(connection)
            what = "replaced by another file" if self.path.exists() else "removed or renamed"
            private_folder(self.path.parent)
            with self._creation_lock():
                pool.remove_log()
            report(Incident(self.path, what, pending))
            close_pools(self.path)

    def _creation_lock(self) -> AbstractContextManager[None]:
        """Let one process at a time create the file, or remove what a moved one left."""
        lock = self.path.with_name(f"{self.path.name}.replacing")
        return exclusive(lock, Deadline.after(_CREATION_SECONDS, SystemClock()))

    def _current_pool(self) -> Pool:
        if self._forks != fork_count():
            raise StateError(f"{self.path} cannot be used: {ADVICE}")
        pool = self._pool
        if not pool.closed and not self._closed:
            return pool
        with self._lock:
            if self._closed:
                raise StateError(f"{self.path} is closed")
            if self._pool.closed:
                old, self._pool = self._pool, self._open()
                leave_pool(old)
            return self._pool

    def _open(self) -> Pool:
        deadline = Deadline.after(_CREATION_SECONDS, SystemClock())
        while not deadline.passed:
            pool = join_pool(
                self.path,
                busy_timeout=self._busy_timeout,
                background_checkpoints=self._background_checkpoints,
            )
            try:
                private_folder(self.path.parent)
                # Not the lock of writers, who may open the file while they have it.
                with block_forks(), translated_errors(self.path), _lock_of(self.path, "open"):
                    self._prepare(pool)
            except Moved:
                leave_pool(pool)
                close_pools(self.path)
            except StateError:
                leave_pool(pool)
                if not pool.moved:
                    raise
                close_pools(self.path)
            else:
                return pool
        raise StateError(f"the state file {self.path} cannot be used: it is removed or replaced repeatedly")

    def _prepare(self, pool: Pool) -> None:
        """Create the file and its tables, or upgrade a file of an earlier version."""
        if not self._secure():
            with self._creation_lock():
                if not self._secure():
                    # A log without its file is of a file that was removed.
                    for suffix in ("-wal", "-shm"):
                        self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
                    os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        # Only SQLite opens a file that exists: closing it again would drop this process's locks on it. The next process
        # to close it would then take itself for the last one, and remove the log.
        connection = pool.acquire()
        if connection is None:
            return
        try:
            complete = retry_while_busy(
                partial(create_tables, connection, self.path, self._migrations), self._busy_timeout
            )
        finally:
            pool.release(connection)
        if not complete:
            pool.close_idle()
            with self._creation_lock():
                upgrade(self.path, self._migrations)

    def _secure(self) -> bool:
        """Make the file and its logs private; return whether the file exists."""
        for suffix in ("-wal", "-shm"):
            secure_file(self.path.with_name(self.path.name + suffix))
        return secure_file(self.path)


_locks: dict[tuple[Path, str], threading.RLock] = {}
_locks_lock = PerProcess(threading.Lock)


def _lock_of(path: Path, purpose: str = "write") -> threading.RLock:
    """Return the lock of this process's threads for one purpose and file."""
    with _locks_lock():
        return _locks.setdefault((path, purpose), threading.RLock())


@on_fork_in_child
def _after_fork() -> None:
    _locks.clear()
