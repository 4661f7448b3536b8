"""One way to open a SQLite file: private, in WAL mode, migrated, pooled and safe across fork."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from honcho_exec.errors import Damaged, StateError

__all__ = ["Database", "private_folder", "set_aside", "using_folder"]

_ADVICE = "make it writable or set HONCHO_EXEC_HOME"
# A fork waits at most so long for threads to come out of SQLite (seconds).
_FORK_WAITS = 1.0
# How often a file that another process just begins is tried (seconds).
_TICK = 0.01
# How many connections to a file are kept for the next who asks.
_IDLE_CONNECTIONS = 4
_BARRED = {sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
# What may be over by itself, and when it is worth another try (seconds): another's write, a full or failing disk.
_PASSING = {
    sqlite3.SQLITE_BUSY: 2.0,
    sqlite3.SQLITE_LOCKED: 2.0,
    sqlite3.SQLITE_FULL: 30.0,
    sqlite3.SQLITE_IOERR: 30.0,
}


def private_folder(folder: Path) -> Path:
    """Make `folder` (mode 0700) unless it is there, and return it; folders above it get the default mode.

    Raises:
        StateError: it cannot be made or is not a folder.
    """
    with using_folder(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def using_folder(folder: Path) -> Iterator[None]:
    """Turn what the operating system says of a state folder into a `StateError` that names it."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        # Python 3.11 and 3.12 say RuntimeError of a loop of links; a path that no system takes is a ValueError.
        why = getattr(error, "strerror", None) or error
        if isinstance(error, FileExistsError):
            why = f"Not a directory: {error.filename}"
        raise StateError(f"the state folder {folder} cannot be used: {why}; {_ADVICE}") from error


def set_aside(path: Path, moment: str) -> Path:
    """Rename a damaged file, and what belongs to it, so that a new one can be begun; returns where it is now.

    Whoever uses it in this process goes on with the new one.
    """
    _retire(path.absolute())
    aside = path.with_name(f"{path.name}.damaged-{moment}")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


class Database:
    """A SQLite file (mode 0600, WAL), whose connections all users in this process share.

    A connection serves one thread at a time and is never carried over a fork. Commits survive the death of
    the process; after a power cut the file is whole and holds everything up to the last `checkpoint`.

    Args:
        path: the file; made when it is not there.
        migrations: SQL scripts, oldest first; the file's `user_version` says how many it has had.
        busy_timeout: seconds to wait for another process's write.
        background_checkpoints: True leaves moving commits into the file to whoever calls `checkpoint`, so that no
            commit pays for it.

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
    ) -> None:
        self.path = path.absolute()
        self._migrations = migrations
        self._busy_timeout = busy_timeout
        self._background_checkpoints = background_checkpoints
        self._lock = threading.Lock()
        self._closed = False
        self._pool = self._join()

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection in autocommit mode: a single statement is its own transaction."""
        with _forks.kept_off(), _translated(self.path):
            pool, connection = self._take()
            try:
                yield connection
            finally:
                pool.give(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection in autocommit mode to whoever writes; the writers of this process stand in line."""
        # SQLite lets writers poll for their turn, which takes milliseconds and may go on for ever.
        with _turn(self.path), self.connection() as connection:
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

    def check(self) -> None:
        """Raise `Damaged` when the file's structure is broken; reads all of it."""
        with self.connection() as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise Damaged(f"the state file {self.path} is damaged: {found}")

    def close(self) -> None:
        """Use it no more; the last user in this process closes the file. A connection that is lent is finished with."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        _leave(self._pool)

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self.close()

    def _take(self) -> tuple[_Pool, sqlite3.Connection]:
        while True:
            pool = self._present()
            if (connection := pool.take()) is not None:
                return pool, connection

    def _present(self) -> _Pool:
        pool = self._pool
        if pool.usable and not self._closed:
            return pool
        with self._lock:
            if self._closed:
                raise StateError(f"{self.path} is closed")
            if not self._pool.usable:
                # The process was forked off, or the file was damaged and is another one now.
                left, self._pool = self._pool, self._join()
                _leave(left)
            return self._pool

    def _join(self) -> _Pool:
        pool = _enter(self.path, busy_timeout=self._busy_timeout, background_checkpoints=self._background_checkpoints)
        try:
            private_folder(self.path.parent)
            with _forks.kept_off(), _translated(self.path):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
                # A writer may come here in its turn: beginning has a line of its own.
                with _turn(self.path, "begin"):
                    connection = pool.take()
                    if connection is not None:
                        try:
                            _persistently(partial(self._migrate, connection), self._busy_timeout)
                        finally:
                            pool.give(connection)
        except StateError:
            _leave(pool)
            raise
        return pool

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


class _Forks:
    """Keeps forks out of SQLite: a child in whose parent a thread was inside would wait for its locks for ever."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}
        self._forking: int | None = None

    @contextmanager
    def kept_off(self) -> Iterator[None]:
        """Around what uses SQLite; a fork waits for its end, and it for a fork's."""
        me = threading.get_ident()
        with self._changed:
            if me not in self._inside:
                # Whoever forks may come here by way of the garbage collection.
                self._changed.wait_for(lambda: self._forking in (None, me))
            self._inside[me] = self._inside.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                    if self._forking is not None:
                        self._changed.notify_all()

    def before(self) -> None:
        """Wait until nobody else is inside, at most a second, and let nobody in."""
        me = threading.get_ident()
        with self._changed:
            self._forking = me
            self._changed.wait_for(lambda: self._inside.keys() <= {me}, timeout=_FORK_WAITS)

    def after_in_parent(self) -> None:
        """Let everybody in again."""
        with self._changed:
            self._forking = None
            self._changed.notify_all()


_forks = _Forks()


class _Pool:
    """The connections of this process to one file."""

    def __init__(self, path: Path, *, busy_timeout: float, background_checkpoints: bool) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._background_checkpoints = background_checkpoints
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._pid = os.getpid()
        self.users = 0
        self.closed = False

    @property
    def key(self) -> tuple[Path, float, bool]:
        return self._path, self._busy_timeout, self._background_checkpoints

    @property
    def usable(self) -> bool:
        return not self.closed and self._pid == os.getpid()

    def take(self) -> sqlite3.Connection | None:
        """A connection of its own; None when the pool is closed."""
        with self._lock:
            if self.closed:
                return None
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def give(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            # Closing a connection that is still inside a transaction rolls it back, whatever state it is in.
            if not self.closed and not connection.in_transaction and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the idle connections; one that is lent is closed when it comes back."""
        if self._pid != os.getpid():
            # A connection inherited through fork must not even be closed: that would drop the parent's locks.
            _inherited.append(self)
            return
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
        with _forks.kept_off():
            for connection in idle:
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        # Only what was made private is opened: a file that was removed meanwhile is not begun anew, readable by others.
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.row_factory = sqlite3.Row
            _persistently(lambda: connection.execute("PRAGMA journal_mode=WAL"), self._busy_timeout)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA secure_delete=ON")
            if self._background_checkpoints:
                connection.execute("PRAGMA wal_autocheckpoint=0")
        except BaseException:
            connection.close()
            raise
        return connection


_pools: dict[tuple[Path, float, bool], _Pool] = {}
# Garbage collection may close a database at any moment, in a thread that is inside this lock.
_pools_lock = threading.RLock()
_inherited: list[_Pool] = []


def _enter(path: Path, *, busy_timeout: float, background_checkpoints: bool) -> _Pool:
    fresh = _Pool(path, busy_timeout=busy_timeout, background_checkpoints=background_checkpoints)
    with _pools_lock:
        pool = _pools.get(fresh.key, fresh)
        if not pool.usable:
            pool = fresh
        _pools[pool.key] = pool
        pool.users += 1
        return pool


def _leave(pool: _Pool) -> None:
    with _pools_lock:
        pool.users -= 1
        last = pool.users == 0
        if last and _pools.get(pool.key) is pool:
            del _pools[pool.key]
    if last:
        pool.close()


def _retire(path: Path) -> None:
    """Let nobody of this process use the file any more that was at `path` until now."""
    with _pools_lock:
        retired = [_pools.pop(key) for key in list(_pools) if key[0] == path]
    for pool in retired:
        pool.close()


def _persistently(action: Callable[[], object], seconds: float) -> None:
    """Do it, again and again while another process begins the same file.

    SQLite does not wait for its turn where two switch a new file to WAL, or one closes it as the other opens it.
    """
    ends = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        try:
            action()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= ends:
                raise
            pause.wait(_TICK)
        else:
            return


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        # The low byte is the code; the rest says more of where it came from.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        kind = Damaged if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB} else StateError
        barred = isinstance(error, PermissionError) or code in _BARRED
        advice = f"; {_ADVICE}" if barred else ""
        translated = kind(f"the state file {path} cannot be used: {error}{advice}")
        if code in _PASSING:
            translated.retryable, translated.retry_after = True, _PASSING[code]
        raise translated from error


_turns: dict[tuple[int, Path, str], threading.Lock] = {}
_turns_lock = threading.Lock()


def _turn(path: Path, what: str = "write") -> threading.Lock:
    """The lock of those in this process who do that with a file; a forked child has locks of its own."""
    with _turns_lock:
        return _turns.setdefault((os.getpid(), path, what), threading.Lock())


def _after_fork() -> None:
    global _turns_lock, _pools_lock, _forks  # noqa: PLW0603 - a thread of the parent may hold them for ever
    _turns_lock = threading.Lock()
    _pools_lock = threading.RLock()
    _forks = _Forks()
    # Kept, so that the parent's connections are never closed here.
    _inherited.extend(_pools.values())
    _pools.clear()


def _before_fork() -> None:
    _forks.before()


def _after_fork_in_parent() -> None:
    _forks.after_in_parent()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
