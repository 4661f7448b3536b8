"""The database under the embedded Honcho: snapshots to read from, one writer at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from honcho_exec.clock import Clock
from honcho_exec.embedded.query import metadata
from honcho_exec.embedded.store.schema import MIGRATIONS
from honcho_exec.embedded.wire import stored_time
from honcho_exec.storage.database import Database

__all__ = ["Store", "Writer"]

_BUSY: Final = 5.0


@dataclass(frozen=True, slots=True)
class Writer:
    """A write transaction: its connection, its time, and where new ids come from."""

    connection: sqlite3.Connection
    now: str
    clock: Clock

    def drop_words(self, index: str) -> None:
        """Leave nothing of deleted rows in a word index; it only marks them as deleted by itself."""
        self.connection.execute(f"INSERT INTO {index} ({index}) VALUES ('optimize')")

    def new_id(self) -> str:
        """An id for a message or a conclusion."""
        return self.clock.new_id()


class Store:
    """`memory.db`, used by many threads at once.

    Raises:
        StateError: the file cannot be used.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._database = Database(path, MIGRATIONS, busy_timeout=_BUSY)
        self._clock = clock

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that sees one state of the file throughout."""
        with self._database.connection() as connection:
            metadata.install(connection)
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Lend a write transaction: all of it happens, or nothing."""
        with self._database.transaction() as connection:
            metadata.install(connection)
            yield Writer(connection, stored_time(self._clock.now()), self._clock)

    def flush(self) -> None:
        """Empty the log beside the file, so that nothing deleted is left in it."""
        self._database.truncate_log()

    def shrink(self) -> bool:
        """Give the space of deleted rows back to the disk; return False if another process is in the way."""
        return self._database.shrink()

    def close(self) -> None:
        """Close the connections; requests that are running finish first."""
        self._database.close()
