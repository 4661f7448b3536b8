"""Per-session recall usage and cadence state, persisted across restarts in `recall.db`."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from honcho_exec.clock import Clock, iso_time
from honcho_exec.errors import StateError, Unavailable
from honcho_exec.recall.cadence import Cadence
from honcho_exec.storage.database import Database
from honcho_exec.storage.folders import private_folder
from honcho_exec.text.purge_filter import PurgeFilter

__all__ = ["RecallUsage", "SessionCost"]

_log = logging.getLogger(__name__)

_MIGRATIONS = (
    """
    CREATE TABLE session (
        destination TEXT NOT NULL,
        name TEXT NOT NULL,
        turns INTEGER NOT NULL DEFAULT 0,
        llm_calls INTEGER NOT NULL DEFAULT 0,
        characters INTEGER NOT NULL DEFAULT 0,
        answered INTEGER,
        tried INTEGER NOT NULL DEFAULT 0,
        empty INTEGER NOT NULL DEFAULT 0,
        used_at REAL NOT NULL,
        PRIMARY KEY (destination, name)
    ) WITHOUT ROWID;
    """,
)
_BUSY_SECONDS = 1.0
# The sessions not used for longest are deleted.
_MAX_SESSIONS = 5_000
_MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class SessionCost:
    """The recall usage of one session.

    Attributes:
        turns: turns with recall.
        llm_calls: requests that a language model answered: the dialectic's, honcho_reasoning's, and rewritings.
        characters: characters put before turns.
        used_at: the last use, ISO 8601; None if nothing was recalled.
    """

    session: str
    turns: int = 0
    llm_calls: int = 0
    characters: int = 0
    used_at: str | None = None


class RecallUsage:
    """Counts in memory; `flush` writes to the disk.

    If the file cannot be used, only the usage of earlier runs is missing; that is logged once.

    Args:
        path: the database file, created by the first `flush`.
        destination: backend and workspace of the sessions.
        clock: the source of times.
    """

    def __init__(self, path: Path, *, destination: str, clock: Clock) -> None:
        self._path = path
        self._destination = destination
        self._clock = clock
        self._lock = threading.Lock()
        # Counting must not wait for the disk.
        self._disk = threading.Lock()
        self._opening = threading.Lock()
        self._counted: dict[str, Counter[str]] = {}
        self._database: Database | None = None
        self._closed = False
        self._logged = False

    def count(self, session: str, *, turns: int = 0, llm_calls: int = 0, characters: int = 0) -> None:
        """Add to the usage of a session."""
        with self._lock:
            counts = self._counted.setdefault(session, Counter())
            counts.update(turns=turns, llm_calls=llm_calls, characters=characters)

    @contextmanager
    def llm_call(self, session: str) -> Iterator[None]:
        """Count the request made inside, which a language model answers, unless it was certainly not made."""
        self.count(session, llm_calls=1)
        try:
            yield
        except Unavailable:
            self.count(session, llm_calls=-1)
            raise

    def restore(self, session: str, cadence: Cadence) -> int:
        """Restore a cadence, in turns counted from now on; return how many turns there were."""
        row = None
        try:
            if (database := self._opened(create=False)) is not None:
                with database.connection() as connection:
                    row = connection.execute(
                        "SELECT turns, answered, tried, empty FROM session WHERE destination = ? AND name = ?",
                        (self._destination, session),
                    ).fetchone()
        except StateError as error:
            self._log_once(error)
        if row is None:
            return 0
        turns = int(row["turns"])
        if row["answered"] is not None:
            cadence.answered = row["answered"] - turns
        cadence.tried, cadence.empty = row["tried"] - turns, row["empty"]
        return turns

    def flush(self, session: str | None = None, cadence: Cadence | None = None, *, before: int = 0) -> None:
        """Write the counts, and the cadence of a session.

        Args:
            session: the session of the cadence.
            cadence: the cadence, in turns of which the first came after `before` others.
            before: the number that `restore` returned.
        """
        with self._disk:
            with self._lock:
                counted, self._counted = self._counted, {}
            if not counted and cadence is None:
                return
            try:
                self._write(counted, session, cadence, before)
            except StateError as error:
                self._log_once(error)
                with self._lock:
                    for name, counts in counted.items():
                        self._counted.setdefault(name, Counter()).update(counts)

    def costs(self, session: str) -> tuple[SessionCost, list[SessionCost]]:
        """Return the usage of one session, and of the 20 sessions used last.

        Raises:
            StateError: the file cannot be read.
        """
        self.flush()
        rows = []
        if (database := self._opened(create=False)) is not None:
            with database.connection() as connection:
                rows = connection.execute(
                    "SELECT * FROM session WHERE destination = ? ORDER BY name = ? DESC, used_at DESC LIMIT ?",
                    (self._destination, session, _MAX_SHOWN),
                ).fetchall()
        costs = [
            SessionCost(row["name"], row["turns"], row["llm_calls"], row["characters"], iso_time(row["used_at"]))
            for row in rows
        ]
        own = next((cost for cost in costs if cost.session == session), SessionCost(session))
        return own, sorted(costs, key=lambda cost: cost.used_at or "", reverse=True)

    def purge(self, purge_filter: PurgeFilter) -> None:
        """Delete the usage of the sessions of a filter, whatever their destination.

        Raises:
            StateError: the file cannot be changed.
        """
        if (database := self._opened(create=False)) is not None:
            with database.writing() as connection:
                connection.execute(
                    "DELETE FROM session WHERE ? OR name = ?", (purge_filter.everything, purge_filter.session)
                )

    def close(self) -> None:
        """Close the file; later counts are lost."""
        with self._disk:
            self._closed = True
            if self._database is not None:
                self._database.close()

    def _opened(self, *, create: bool) -> Database | None:
        """Return the file; None if it is closed, or does not exist and must not be created."""
        with self._opening:
            if self._closed or (self._database is None and not create and not self._path.exists()):
                return None
            if self._database is None:
                private_folder(self._path.parent)
                self._database = Database(self._path, _MIGRATIONS, busy_timeout=_BUSY_SECONDS)
            return self._database

    def _write(
        self, counted: dict[str, Counter[str]], session: str | None, cadence: Cadence | None, before: int
    ) -> None:
        database = self._opened(create=True)
        if database is None:
            return
        now = self._clock.now()
        with database.transaction() as connection:
            connection.executemany(
                """
                INSERT INTO session (destination, name, turns, llm_calls, characters, used_at) VALUES (?, ?, ?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET turns = turns + excluded.turns, llm_calls = llm_calls + excluded.llm_calls,
                    characters = characters + excluded.characters, used_at = excluded.used_at
                """,
                [
                    (self._destination, name, counts["turns"], counts["llm_calls"], counts["characters"], now)
                    for name, counts in counted.items()
                ],
            )
            if cadence is not None:
                answered = None if cadence.answered is None else before + cadence.answered
                connection.execute(
                    "UPDATE session SET answered = ?, tried = ?, empty = ? WHERE destination = ? AND name = ?",
                    (answered, before + cadence.tried, cadence.empty, self._destination, session),
                )
            connection.execute(
                """
                DELETE FROM session WHERE (SELECT count(*) FROM session) > ? AND used_at <
                    (SELECT used_at FROM session ORDER BY used_at DESC LIMIT 1 OFFSET ?)
                """,
                (_MAX_SESSIONS, _MAX_SESSIONS - 1),
            )

    def _log_once(self, error: StateError) -> None:
        if not self._logged:
            self._logged = True
            _log.warning("what recall costs is not kept over a restart: %s", error)
