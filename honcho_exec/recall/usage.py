"""What recall has cost in each session and where its cadence stands, kept over restarts in `recall.db`."""

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
_BUSY = 1.0

# Sessions that are remembered; the ones not used for longest are forgotten.
_MOST = 5_000
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class SessionCost:
    """What recall has cost in one session.

    Attributes:
        turns: how many turns were recalled for.
        llm_calls: requests that a language model answered: the dialectic's, honcho_reasoning's, and rewritings.
        characters: how many were put before turns.
        used_at: when it was last used, ISO 8601; None for a session in which nothing was recalled.
    """

    session: str
    turns: int = 0
    llm_calls: int = 0
    characters: int = 0
    used_at: str | None = None


class RecallUsage:
    """Counts in memory, at no cost for the caller; `flush` writes to the disk.

    A file that cannot be used costs the memory of earlier runs and nothing else: that is logged once.

    Args:
        path: the database file; made by the first `flush`.
        destination: whose sessions these are: backend and workspace.
        clock: where times come from.
    """

    def __init__(self, path: Path, *, destination: str, clock: Clock) -> None:
        self._path = path
        self._destination = destination
        self._clock = clock
        self._lock = threading.Lock()
        # Who counts must not wait for the disk.
        self._disk = threading.Lock()
        self._opening = threading.Lock()
        self._counted: dict[str, Counter[str]] = {}
        self._database: Database | None = None
        self._closed = False
        self._told = False

    def count(self, session: str, *, turns: int = 0, llm_calls: int = 0, characters: int = 0) -> None:
        """Add to what a session has cost."""
        with self._lock:
            counts = self._counted.setdefault(session, Counter())
            counts.update(turns=turns, llm_calls=llm_calls, characters=characters)

    @contextmanager
    def llm_call(self, session: str) -> Iterator[None]:
        """Count a request that a language model answers, made inside, unless it surely was not done."""
        self.count(session, llm_calls=1)
        try:
            yield
        except Unavailable:
            self.count(session, llm_calls=-1)
            raise

    def restore(self, session: str, cadence: Cadence) -> int:
        """Set a cadence to where it stood, in turns counted from now on; returns how many turns there were."""
        row = None
        try:
            if (database := self._opened(make=False)) is not None:
                with database.connection() as connection:
                    row = connection.execute(
                        "SELECT turns, answered, tried, empty FROM session WHERE destination = ? AND name = ?",
                        (self._destination, session),
                    ).fetchone()
        except StateError as error:
            self._tell(error)
        if row is None:
            return 0
        turns = int(row["turns"])
        if row["answered"] is not None:
            cadence.answered = row["answered"] - turns
        cadence.tried, cadence.empty = row["tried"] - turns, row["empty"]
        return turns

    def flush(self, session: str | None = None, cadence: Cadence | None = None, *, before: int = 0) -> None:
        """Write what was counted, and where a session's cadence stands.

        Args:
            session: whose cadence it is.
            cadence: where it stands, in turns of which the first came after `before` others.
            before: what `restore` returned.
        """
        with self._disk:
            with self._lock:
                counted, self._counted = self._counted, {}
            if not counted and cadence is None:
                return
            try:
                self._write(counted, session, cadence, before)
            except StateError as error:
                self._tell(error)
                with self._lock:
                    for name, counts in counted.items():
                        self._counted.setdefault(name, Counter()).update(counts)

    def costs(self, session: str) -> tuple[SessionCost, list[SessionCost]]:
        """What one session has cost, and the 20 sessions that were used last.

        Raises:
            StateError: the file cannot be read.
        """
        self.flush()
        rows = []
        if (database := self._opened(make=False)) is not None:
            with database.connection() as connection:
                rows = connection.execute(
                    "SELECT * FROM session WHERE destination = ? ORDER BY name = ? DESC, used_at DESC LIMIT ?",
                    (self._destination, session, _SHOWN),
                ).fetchall()
        found = [
            SessionCost(row["name"], row["turns"], row["llm_calls"], row["characters"], iso_time(row["used_at"]))
            for row in rows
        ]
        own = next((cost for cost in found if cost.session == session), SessionCost(session))
        return own, sorted(found, key=lambda cost: cost.used_at or "", reverse=True)

    def purge(self, chosen: PurgeFilter) -> None:
        """Forget the costs of sessions that a person wants forgotten, whatever the destination.

        Raises:
            StateError: the file cannot be changed.
        """
        if (database := self._opened(make=False)) is not None:
            with database.writing() as connection:
                connection.execute("DELETE FROM session WHERE ? OR name = ?", (chosen.everything, chosen.session))

    def close(self) -> None:
        """Close the file; what is counted after that is lost."""
        with self._disk:
            self._closed = True
            if self._database is not None:
                self._database.close()

    def _opened(self, *, make: bool) -> Database | None:
        """The file; None when it is not there and must not be made, or is closed."""
        with self._opening:
            if self._closed or (self._database is None and not make and not self._path.exists()):
                return None
            if self._database is None:
                private_folder(self._path.parent)
                self._database = Database(self._path, _MIGRATIONS, busy_timeout=_BUSY)
            return self._database

    def _write(
        self, counted: dict[str, Counter[str]], session: str | None, cadence: Cadence | None, before: int
    ) -> None:
        database = self._opened(make=True)
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
                (_MOST, _MOST - 1),
            )

    def _tell(self, error: StateError) -> None:
        if not self._told:
            self._told = True
            _log.warning("what recall costs is not kept over a restart: %s", error)
