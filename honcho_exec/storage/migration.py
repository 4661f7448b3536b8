"""Create the tables of a SQLite file, or bring those of an earlier version up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from honcho_exec.errors import StateError

__all__ = ["migrate"]


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Run the migrations that the file at `path` has not had; `user_version` counts those it has had.

    Raises:
        StateError: the file was written by a newer version.
    """
    if _version(connection) == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    version = _version(connection)
    if version > len(migrations):
        raise StateError(
            f"{path} was written by a newer version of honcho_exec "
            f"(schema {version}, this one knows {len(migrations)}); upgrade honcho_exec"
        )
    for script in migrations[version:]:
        for statement in _statements(script):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version={len(migrations)}")
    connection.execute("COMMIT")


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
