"""Create the tables of a SQLite file, and upgrade files of earlier versions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from honcho_exec.errors import StateError
from honcho_exec.storage.pool import retry_while_busy

__all__ = ["create_tables", "upgrade"]

# How long other processes of this version may take to see that the file must be upgraded, and to close it.
_IN_USE_SECONDS = 2.0


def create_tables(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> bool:
    """Create the tables of a new file; return whether the file has all migrations, or must be upgraded.

    The file's `user_version` counts the migrations it has had.

    Raises:
        StateError: the file was written by a newer version.
    """
    if _version(connection) == len(migrations):
        return True
    connection.execute("BEGIN IMMEDIATE")
    version = _version(connection)
    if version > len(migrations):
        raise StateError(
            f"{path} was written by a newer version of honcho_exec "
            f"(schema {version}, this one knows {len(migrations)}); upgrade honcho_exec"
        )
    if version == 0:
        _run(connection, migrations, len(migrations))
    connection.execute("COMMIT")
    return version in (0, len(migrations))


def upgrade(path: Path, migrations: Sequence[str]) -> None:
    """Run the migrations that an existing file has not had, after a backup of its rows.

    Another process of an earlier version would continue with tables that it does not know, so none may use the file.
    The caller lets one process at a time in here, and has closed its connections to the file.

    Raises:
        StateError: another process uses the file.
    """
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None)
    with closing(connection):
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA secure_delete=ON")
        # In this mode the first transaction locks out all other processes until the connection is closed.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        try:
            retry_while_busy(lambda: connection.execute("BEGIN EXCLUSIVE"), _IN_USE_SECONDS)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            raise StateError(
                f"{path} was written by an earlier version of honcho_exec and is in use by another process; stop that"
                " process (restart the host after the upgrade), then try again"
            ) from error
        version = _version(connection)
        connection.execute("COMMIT")
        if version == len(migrations):
            return
        if _has_rows(connection, migrations[:version]):
            _back_up(connection, path)
        connection.execute("BEGIN")
        _run(connection, migrations[version:], len(migrations))
        connection.execute("COMMIT")


def _run(connection: sqlite3.Connection, scripts: Sequence[str], version: int) -> None:
    for script in scripts:
        for statement in _statements(script):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version={version}")


def _has_rows(connection: sqlite3.Connection, migrations: Sequence[str]) -> bool:
    """Return whether a table has more rows than the migrations have put into it."""
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript("\n".join(migrations))
        names = empty.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return any(_count(connection, name) > _count(empty, name) for (name,) in names.fetchall())


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    """Copy the file, without its deleted rows, to a private file next to it."""
    backup = path.with_name(f"{path.name}.backup-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    file = os.open(backup, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        connection.execute("VACUUM INTO ?", (str(backup),))
        os.fsync(file)
    except BaseException:
        backup.unlink()
        raise
    finally:
        os.close(file)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
