"""The database: snapshots to read, one writer at a time."""

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

_BUSY_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Writer:
    """A write transaction: connection, time, and source of new ids."""

    connection: sqlite3.Connection
    now: str
    clock: Clock

    def drop_words(self, index: str) -> None:
        """Erase deleted rows from a word index, which only marks them."""
        self.connection.execute(f"INSERT INTO {index} ({index}) VALUES ('optimize')")

    def new_id(self) -> str:
        """Return an id for a message or a conclusion."""
        return self.clock.new_id()


class Store:
    """`memory.db`, usable from many threads.

    Raises:
        StateError: the file cannot be used.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._database = Database(path, MIGRATIONS, busy_timeout=_BUSY_SECONDS)
        self._clock = clock

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that sees one snapshot of the file."""
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
        """Lend a write transaction, which is committed as a whole or not at all."""
        with self._database.transaction() as connection:
            metadata.install(connection)
            yield Writer(connection, stored_time(self._clock.now()), self._clock)

    def flush(self) -> None:
        """Empty the write-ahead log, so that no deleted row is left in it."""
        self._database.truncate_log()

    def shrink(self) -> bool:
        """Free the space of deleted rows; False if another process uses the file."""
        return self._database.shrink()

    def close(self) -> None:
        """Close the connections; running requests finish first."""
        self._database.close()
