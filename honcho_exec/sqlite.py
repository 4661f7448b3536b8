"""One way to open a SQLite file: private, in WAL mode, migrated, pooled and safe across fork."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from honcho_exec.errors import Damaged, StateError

__all__ = ["Database", "private_folder", "set_aside", "using_folder"]

_ADVICE = "make it writable or set HONCHO_EXEC_HOME"
_BARRED = {sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}


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
    """Rename a damaged file, and what belongs to it, so that a new one can be begun; returns where it is now."""
    aside = path.with_name(f"{path.name}.damaged-{moment}")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


class Database:
    """A SQLite file (mode 0600, WAL) with a pool of connections.

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
        self._background_checkpoints = background_checkpoints
        self._busy_timeout = busy_timeout
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._inherited: list[sqlite3.Connection] = []
        self._pid = os.getpid()
        self._closed = False
        private_folder(path.parent)
        try:
            with self._translated():
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                with self.writing() as connection:
                    self._migrate(connection, migrations)
        except StateError:
            self.close()
            raise

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection in autocommit mode: a single statement is its own transaction."""
        with self._translated():
            connection = self._take()
            try:
                yield connection
            finally:
                self._give(connection)

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
        """Close the idle connections; one that is lent is closed when it comes back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        if self._pid == os.getpid():
            for connection in idle:
                connection.close()

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._pid != os.getpid():
                # A connection inherited through fork must not even be closed: that would drop the parent's locks.
                self._inherited, self._idle, self._pid = self._idle, [], os.getpid()
            if self._closed:
                raise StateError(f"{self.path} is closed")
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _give(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            # Closing a connection that is still inside a transaction rolls it back, whatever state it is in.
            if not self._closed and not connection.in_transaction:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA secure_delete=ON")
            if self._background_checkpoints:
                connection.execute("PRAGMA wal_autocheckpoint=0")
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
        if self._version(connection) == len(migrations):
            return
        connection.execute("BEGIN IMMEDIATE")
        version = self._version(connection)
        if version > len(migrations):
            raise StateError(
                f"{self.path} was written by a newer version of honcho_exec "
                f"(schema {version}, this one knows {len(migrations)}); upgrade honcho_exec"
            )
        for script in migrations[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(migrations)}")
        connection.execute("COMMIT")

    @staticmethod
    def _version(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            # The low byte is the code; the rest says more of where it came from.
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            kind = Damaged if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB} else StateError
            barred = isinstance(error, PermissionError) or code in _BARRED
            advice = f"; {_ADVICE}" if barred else ""
            raise kind(f"the state file {self.path} cannot be used: {error}{advice}") from error


_turns: dict[tuple[int, Path], threading.Lock] = {}
_turns_lock = threading.Lock()


def _turn(path: Path) -> threading.Lock:
    """The lock that this process's writers of a file take; a forked child has locks of its own."""
    with _turns_lock:
        return _turns.setdefault((os.getpid(), path), threading.Lock())


def _after_fork() -> None:
    global _turns_lock  # noqa: PLW0603 - a thread of the parent may hold it for ever
    _turns_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
