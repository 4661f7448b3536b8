"""What this machine has learnt of sessions on a server, kept so that the next process need not ask again."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from honcho_exec.clock import Clock
from honcho_exec.errors import Damaged, StateError
from honcho_exec.sqlite import Database, set_aside

__all__ = ["Known"]

_log = logging.getLogger(__name__)

# Somebody may have deleted a session and made it anew elsewhere, which shows nowhere: after this long (seconds) the
# server is asked again.
_TRUSTED = 7 * 86_400.0

_MIGRATIONS = (
    """
    CREATE TABLE members (
        destination TEXT NOT NULL,
        session TEXT NOT NULL,
        peer TEXT NOT NULL,
        since TEXT NOT NULL,
        at REAL NOT NULL,
        PRIMARY KEY (destination, session, peer)
    ) WITHOUT ROWID;
    """,
)


class Known:
    """Which peers have joined which sessions of one destination, in a file that all destinations share.

    Nothing here is needed: where the file cannot be used, nothing is known, and nothing is raised.

    Args:
        path: the database file; made and opened for each use.
        destination: backend and workspace.
    """

    def __init__(self, path: Path, *, destination: str, clock: Clock) -> None:
        self._path = path
        self._destination = destination
        self._clock = clock

    def members(self, session: str) -> tuple[frozenset[str], str]:
        """Who has joined a session, and since when the workspace was there then; nobody, where nothing is known."""
        try:
            with self._open() as database, database.connection() as connection:
                rows = connection.execute(
                    "SELECT peer, since FROM members WHERE destination = ? AND session = ? AND at > ?",
                    (self._destination, session, self._clock.now() - _TRUSTED),
                ).fetchall()
        except StateError as error:
            self._unusable(error)
            return frozenset(), ""
        since = max((row["since"] for row in rows), default="")
        return frozenset(row["peer"] for row in rows if row["since"] == since), since

    def joined(self, session: str, peers: Collection[str], since: str) -> None:
        """Remember that these peers are members.

        Args:
            session: the session.
            peers: who they are.
            since: when their workspace was made, which tells it from another of its name.
        """
        now = self._clock.now()
        try:
            with self._open() as database, database.transaction() as connection:
                connection.execute("DELETE FROM members WHERE at <= ?", (now - _TRUSTED,))
                connection.executemany(
                    "INSERT OR REPLACE INTO members (destination, session, peer, since, at) VALUES (?, ?, ?, ?, ?)",
                    [(self._destination, session, peer, since, now) for peer in peers],
                )
        except StateError as error:
            self._unusable(error)

    def forget(self, session: str) -> None:
        """Know nothing of a session any more."""
        try:
            with self._open() as database, database.writing() as connection:
                connection.execute(
                    "DELETE FROM members WHERE destination = ? AND session = ?", (self._destination, session)
                )
        except StateError as error:
            self._unusable(error)

    @contextmanager
    def _open(self) -> Iterator[Database]:
        # Once or twice a session: hundreds of providers need not keep the file open for that.
        database = Database(self._path, _MIGRATIONS)
        try:
            yield database
        finally:
            database.close()

    def _unusable(self, error: StateError) -> None:
        _log.info("the server is asked what this machine knew: %s", error)
        if isinstance(error, Damaged):
            set_aside(self._path, datetime.fromtimestamp(self._clock.now(), tz=UTC).strftime("%Y%m%dT%H%M%S"))
