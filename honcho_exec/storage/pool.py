"""The connections of this process to SQLite files, which all who use a file share."""

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

from honcho_exec.forks import PerProcess, before_fork, kept_off, on_fork_in_child

__all__ = [
    "Incident",
    "Moved",
    "Pool",
    "PooledConnection",
    "enter",
    "incidents",
    "leave",
    "persistently",
    "report",
    "retire",
]

_log = logging.getLogger(__name__)

# How often a file that another process just begins is tried (seconds).
_TICK = 0.01
# The log beside a file is emptied into it from this size on (pages), by the commit that reaches it.
_MOST_LOG_PAGES = 512
# How many connections to a file are kept for the next who asks.
_IDLE_CONNECTIONS = 4


class Moved(Exception):  # noqa: N818 - reads as the state it reports
    """The file that the connections are to is not at its path any more."""


@dataclass(frozen=True, slots=True)
class Incident:
    """A file that was removed, renamed or replaced while this process had it open.

    Attributes:
        path: where the file was.
        what: what happened to it.
        pending: how many rows were waiting in it; None if that is not known.
    """

    path: Path
    what: str
    pending: int | None

    def __str__(self) -> str:
        lost = {None: "", 0: "; no row was pending in it"}
        rest = lost.get(self.pending, f"; {self.pending} rows that were pending in it are lost")
        return f"{self.path} was {self.what} while it was open{rest}"


class PooledConnection(sqlite3.Connection):
    """A connection that remembers its busy timeout: each statement gives up the interpreter's lock."""

    busy_timeout = -1.0

    def wait_at_most(self, seconds: float) -> None:
        """Wait so long for another process's lock, in hundredths of a second."""
        seconds = math.ceil(100 * seconds) / 100
        if seconds != self.busy_timeout:
            self.execute(f"PRAGMA busy_timeout={1000 * seconds:.0f}")
            self.busy_timeout = seconds


class Pool:
    """The connections of this process to one file, identified by device and inode.

    The file at the path is compared with the open one before each use, so that nothing is written to a file that
    is not at the path any more.
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
    def file(self) -> int | None:
        """Which file it is: its inode."""
        identity = self._open.get(self._path)
        return None if identity is None else identity[1]

    @property
    def key(self) -> tuple[Path, float, bool]:
        """What all its users have in common."""
        return self._path, self._busy_timeout, self._background_checkpoints

    @property
    def moved(self) -> bool:
        """Whether the file was removed, renamed or replaced since it was opened."""
        try:
            return bool(self._open) and _identity(self._path) != self._open[self._path]
        except OSError:
            # Not to know is no reason to leave the file.
            return False

    def remove_log(self) -> None:
        """Remove the log that a moved file left at the path: SQLite would read it into the next file there."""
        for path, identity in self._open.items():
            if path != self._path and _identity(path) == identity:
                path.unlink(missing_ok=True)

    def take(self) -> PooledConnection | None:
        """A connection of its own; None when the pool is closed.

        Raises:
            Moved: another file, or none, is where a connection would be opened.
        """
        with self._lock:
            if self.closed:
                return None
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def give(self, connection: PooledConnection) -> None:
        """Take a connection back."""
        with self._lock:
            # Closing a connection that is still inside a transaction rolls it back, whatever state it is in.
            if not self.closed and not connection.in_transaction and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the idle connections; one that is lent is closed when it comes back."""
        self.closed = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close unused connections; the next use opens another."""
        with self._lock:
            idle, self._idle = self._idle, []
        with kept_off():
            for connection in idle:
                connection.close()

    def _connect(self) -> PooledConnection:
        there = _identity(self._path)
        if self.moved:
            raise Moved
        try:
            # Only what was made private is opened: a file that was removed is not begun anew, readable by others.
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode=rw",
                uri=True,
                timeout=self._busy_timeout,
                isolation_level=None,
                check_same_thread=False,
                factory=PooledConnection,
            )
        except sqlite3.Error as error:
            if there is None or _identity(self._path) != there:
                raise Moved from error
            raise
        try:
            connection.row_factory = sqlite3.Row
            persistently(lambda: connection.execute("PRAGMA journal_mode=WAL"), self._busy_timeout)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA secure_delete=ON")
            if self._background_checkpoints:
                connection.execute(f"PRAGMA wal_autocheckpoint={_MOST_LOG_PAGES}")
            # The log is opened by the first who reads, and may be another's by then.
            connection.execute("PRAGMA schema_version").fetchone()
            if _identity(self._path) != there:
                raise Moved
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error) and _identity(self._path) != there:
                raise Moved from error
            raise
        logs = (self._path.with_name(self._path.name + suffix) for suffix in ("-wal", "-shm"))
        self._open = {self._path: there} | {path: _identity(path) for path in logs}
        return connection


_Identity = tuple[int, int] | None


def _identity(path: Path) -> _Identity:
    """Which file is at a path; None when none is."""
    try:
        # A link that leads to the file is another one: SQLite would look for the log next to the file.
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


_pools: dict[tuple[Path, float, bool], Pool] = {}
# Garbage collection may close a database at any moment, in a thread that is inside this lock.
_pools_lock = PerProcess(threading.RLock)
_incidents: deque[Incident] = deque(maxlen=100)


def enter(path: Path, *, busy_timeout: float, background_checkpoints: bool) -> Pool:
    """The pool of a file, for one more user; `leave` follows."""
    fresh = Pool(path, busy_timeout=busy_timeout, background_checkpoints=background_checkpoints)
    with _pools_lock():
        pool = _pools.get(fresh.key, fresh)
        if pool.closed:
            pool = fresh
        _pools[pool.key] = pool
        pool.users += 1
        return pool


def leave(pool: Pool) -> None:
    """One user less; the last one closes the pool."""
    with _pools_lock():
        pool.users -= 1
        last = pool.users == 0
        if last and _pools.get(pool.key) is pool:
            del _pools[pool.key]
    if last:
        pool.close()


def retire(path: Path) -> None:
    """Let nobody of this process use the file any more that was at `path` until now."""
    with _pools_lock():
        retired = [_pools.pop(key) for key in list(_pools) if key[0] == path]
    for pool in retired:
        pool.close()


def report(incident: Incident) -> None:
    """Remember, and log, that a file was removed, renamed or replaced."""
    _incidents.append(incident)
    _log.error("%s", incident)


def incidents(path: Path) -> list[Incident]:
    """What has happened to a file, or to the files of a folder, since this process began; the newest hundred."""
    # A copy, since any thread may append meanwhile.
    return [incident for incident in _incidents.copy() if path in (incident.path, incident.path.parent)]


def persistently(action: Callable[[], object], seconds: float) -> None:
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


@before_fork
def _close_idle() -> None:
    """Leave a child no connection: SQLite's locks are not inherited, but what SQLite remembers of them is."""
    for pool in list(_pools.values()):
        pool.close_idle()


@on_fork_in_child
def _after_fork() -> None:
    _pools.clear()
    _incidents.clear()
