"""The connections of this process to a SQLite file, shared by all its users."""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from honcho_exec.forks import PerProcess, before_fork, block_forks, on_fork_in_child

__all__ = [
    "Incident",
    "Moved",
    "Pool",
    "PooledConnection",
    "close_pools",
    "incidents",
    "join_pool",
    "leave_pool",
    "report",
    "retry_while_busy",
]

T = TypeVar("T")

_log = logging.getLogger(__name__)

# The pause between two attempts at a file that another process is creating.
_RETRY_SECONDS = 0.01
# The commit that makes the log this long moves it into the file.
_MAX_LOG_PAGES = 512
_MAX_IDLE_CONNECTIONS = 4


class Moved(Exception):  # noqa: N818 - reads as the state it reports
    """The open file is no longer at its path."""


@dataclass(frozen=True, slots=True)
class Incident:
    """A file that was removed, renamed or replaced while this process had it open.

    Attributes:
        path: where the file was.
        what: what happened to it.
        pending: how many rows were pending in it; None if that is not known.
    """

    path: Path
    what: str
    pending: int | None

    def __str__(self) -> str:
        lost = {None: "", 0: "; no row was pending in it"}
        rest = lost.get(self.pending, f"; {self.pending} rows that were pending in it are lost")
        return f"{self.path} was {self.what} while it was open{rest}"


class PooledConnection(sqlite3.Connection):
    """A connection that remembers its busy timeout: each statement releases the interpreter's lock."""

    busy_timeout = -1.0

    def wait_at_most(self, seconds: float) -> None:
        """Set how long to wait for another process's lock, in hundredths of a second."""
        seconds = math.ceil(100 * seconds) / 100
        if seconds != self.busy_timeout:
            self.execute(f"PRAGMA busy_timeout={1000 * seconds:.0f}")
            self.busy_timeout = seconds


class Pool:
    """The connections of this process to one file, identified by device and inode.

    The file at the path is compared with the open one before each use, so that nothing is written to a file that
    is no longer at the path.
    """

    def __init__(self, path: Path, *, busy_timeout: float, background_checkpoints: bool) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._background_checkpoints = background_checkpoints
        self._lock = threading.Lock()
        self._idle: list[PooledConnection] = []
        self.id = uuid.uuid4().hex
        self._open: dict[Path, _Identity] = {}
        self.users = 0
        self.closed = False

    @property
    def inode(self) -> int | None:
        """The inode of the file."""
        identity = self._open.get(self._path)
        return None if identity is None else identity[1]

    @property
    def key(self) -> tuple[Path, float, bool]:
        """The path and the options that all users of the pool share."""
        return self._path, self._busy_timeout, self._background_checkpoints

    @property
    def moved(self) -> bool:
        """Whether the file was removed, renamed or replaced since it was opened."""
        try:
            return bool(self._open) and _identity(self._path) != self._open[self._path]
        except OSError:
            # Unknown: keep using the file.
            return False

    def remove_log(self) -> None:
        """Remove the log that a moved file left at the path: SQLite would read it into the next file there."""
        for path, identity in self._open.items():
            if path != self._path and _identity(path) == identity:
                path.unlink(missing_ok=True)

    def acquire(self) -> PooledConnection | None:
        """Return an idle connection or a new one; None if the pool is closed.

        Raises:
            Moved: another file, or none, is at the path.
        """
        with self._lock:
            if self.closed:
                return None
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def release(self, connection: PooledConnection) -> None:
        """Keep a connection for the next use, or close it."""
        with self._lock:
            # Closing a connection inside a transaction rolls that back, whatever its state.
            if not self.closed and not connection.in_transaction and len(self._idle) < _MAX_IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the idle connections; a lent one is closed when it is released."""
        self.closed = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close unused connections; the next use opens another."""
        with self._lock:
            idle, self._idle = self._idle, []
        with block_forks():
            for connection in idle:
                connection.close()

    def _connect(self) -> PooledConnection:
        expected = _identity(self._path)
        if self.moved:
            raise Moved
        try:
            # Not created here: a file that was removed would get a mode that lets others read it.
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode=rw",
                uri=True,
                timeout=self._busy_timeout,
                isolation_level=None,
                check_same_thread=False,
                factory=PooledConnection,
            )
        except sqlite3.Error as error:
            if expected is None or _identity(self._path) != expected:
                raise Moved from error
            raise
        try:
            connection.row_factory = sqlite3.Row
            retry_while_busy(lambda: connection.execute("PRAGMA journal_mode=WAL"), self._busy_timeout)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA secure_delete=ON")
            if self._background_checkpoints:
                connection.execute(f"PRAGMA wal_autocheckpoint={_MAX_LOG_PAGES}")
            # The first read opens the log, which may be of another file by then.
            connection.execute("PRAGMA schema_version").fetchone()
            if _identity(self._path) != expected:
                raise Moved
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error) and _identity(self._path) != expected:
                raise Moved from error
            raise
        logs = (self._path.with_name(self._path.name + suffix) for suffix in ("-wal", "-shm"))
        self._open = {self._path: expected} | {path: _identity(path) for path in logs}
        return connection


_Identity = tuple[int, int] | None


def _identity(path: Path) -> _Identity:
    """Return device and inode of the file at a path; None if there is none."""
    try:
        # Not of a link's target: SQLite would look for the log next to that.
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


_pools: dict[tuple[Path, float, bool], Pool] = {}
# Garbage collection may close a database at any moment, in a thread that is inside this lock.
_pools_lock = PerProcess(threading.RLock)
_incidents: deque[Incident] = deque(maxlen=100)


def join_pool(path: Path, *, busy_timeout: float, background_checkpoints: bool) -> Pool:
    """Return the pool of a file for one more user, who calls `leave_pool` later."""
    fresh = Pool(path, busy_timeout=busy_timeout, background_checkpoints=background_checkpoints)
    with _pools_lock():
        pool = _pools.get(fresh.key, fresh)
        if pool.closed:
            pool = fresh
        _pools[pool.key] = pool
        pool.users += 1
        return pool


def leave_pool(pool: Pool) -> None:
    """Remove a user; the last one closes the pool."""
    with _pools_lock():
        pool.users -= 1
        last = pool.users == 0
        if last and _pools.get(pool.key) is pool:
            del _pools[pool.key]
    if last:
        pool.close()


def close_pools(path: Path) -> None:
    """Close all pools of the file that was at `path` until now."""
    with _pools_lock():
        closed = [_pools.pop(key) for key in list(_pools) if key[0] == path]
    for pool in closed:
        pool.close()


def report(incident: Incident) -> None:
    """Record and log that a file was removed, renamed or replaced."""
    _incidents.append(incident)
    _log.error("%s", incident)


def incidents(path: Path) -> list[Incident]:
    """Return the incidents of a file, or of the files of a folder, in this process; the newest hundred."""
    # A copy: any thread may append at the same time.
    return [incident for incident in _incidents.copy() if path in (incident.path, incident.path.parent)]


def retry_while_busy(action: Callable[[], T], seconds: float) -> T:
    """Call `action` again while another process creates the same file.

    SQLite does not wait when two processes switch a new file to WAL, or one closes it as the other opens it.
    """
    ends = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= ends:
                raise
            pause.wait(_RETRY_SECONDS)


@before_fork
def _close_idle() -> None:
    """Leave a child no connection: SQLite's locks are not inherited, but its memory of them is."""
    for pool in list(_pools.values()):
        pool.close_idle()


@on_fork_in_child
def _after_fork() -> None:
    _pools.clear()
    _incidents.clear()
