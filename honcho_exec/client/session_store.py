"""What is known of a server's sessions, stored for the next process."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Row

from honcho_exec.clock import Clock
from honcho_exec.errors import Damaged, StateError
from honcho_exec.storage.database import Database, set_aside
from honcho_exec.text.purge_filter import PurgeFilter

__all__ = ["NamedSession", "SessionStore"]

_log = logging.getLogger(__name__)

# A session may be deleted and created again from another machine, which shows nowhere: then the server is asked again.
_TRUSTED_SECONDS = 7 * 86_400.0
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

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
    """
    CREATE TABLE entries (
        destination TEXT NOT NULL,
        observer TEXT NOT NULL,
        observed TEXT NOT NULL,
        content TEXT NOT NULL,
        PRIMARY KEY (destination, observer, observed, content)
    ) WITHOUT ROWID;
    CREATE TABLE done (destination TEXT NOT NULL, what TEXT NOT NULL, PRIMARY KEY (destination, what)) WITHOUT ROWID;
    """,
    """
    CREATE TABLE names (
        destination TEXT NOT NULL,
        own TEXT NOT NULL,
        session TEXT NOT NULL,
        earlier TEXT NOT NULL,
        PRIMARY KEY (destination, own),
        UNIQUE (destination, session)
    ) WITHOUT ROWID;
    """,
)

_Step = tuple[str, Sequence[object]]


@dataclass(frozen=True, slots=True)
class NamedSession:
    """Which session a key goes to.

    Attributes:
        own: the name that no other key has.
        session: the session in use.
        earlier: the session of earlier versions, if there is one: continued if it is `session`, else not used.
    """

    own: str
    session: str
    earlier: str = ""


class SessionStore:
    """Members, names, mirrored memory and finished jobs of one destination, in a file that all destinations share.

    The file is a cache: if it cannot be used, nothing is known, and nothing is raised.

    Args:
        path: the database file; opened for each use, or for all uses inside `at_hand`.
        destination: backend and workspace.
    """

    def __init__(self, path: Path, *, destination: str, clock: Clock) -> None:
        self._path = path
        self._deletions = path.with_name(f"{path.name}-deletions")
        self._destination = destination
        self._clock = clock
        self._database: Database | None = None

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Open the file once for all uses inside."""
        with ExitStack() as stack:
            if self._database is None:
                try:
                    self._database = Database(self._path, _MIGRATIONS)
                except StateError:
                    # Each use reports it.
                    pass
                else:
                    stack.callback(self._close)
            yield

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def members(self, session: str) -> tuple[frozenset[str], str]:
        """Return the known members of a session, and when their workspace was created."""
        rows = self._read(
            "SELECT peer, since FROM members WHERE destination = ? AND session = ? AND at > ?",
            (self._destination, session, self._clock.now() - _TRUSTED_SECONDS),
        )
        since = max((row["since"] for row in rows), default="")
        return frozenset(row["peer"] for row in rows if row["since"] == since), since

    def joined(self, session: str, peers: Collection[str], since: str) -> None:
        """Store that these peers are members of a workspace that was created at `since`.

        The time tells the workspace from a later one of the same name.
        """
        now = self._clock.now()
        member = "INSERT OR REPLACE INTO members (destination, session, peer, since, at) VALUES (?, ?, ?, ?, ?)"
        self._write(
            ("DELETE FROM members WHERE at <= ?", (now - _TRUSTED_SECONDS,)),
            *((member, (self._destination, session, peer, since, now)) for peer in peers),
        )

    def invalidate(self, session: str) -> None:
        """Delete the members of a session."""
        self._write(("DELETE FROM members WHERE destination = ? AND session = ?", (self._destination, session)))
        self._record_deletion()

    def deletions(self) -> int:
        """Return how many deletions the processes of this state folder have recorded; costs one system call.

        What a process keeps in memory of a session is out of date when the number changes.
        """
        try:
            return self._deletions.stat().st_size
        except OSError:
            return 0

    def _record_deletion(self) -> None:
        # A byte for each: appended by all processes without a lock, and it only grows.
        try:
            file = os.open(self._deletions, _APPEND, 0o600)
            try:
                os.write(file, b"-")
            finally:
                os.close(file)
        except OSError as error:
            _log.info("other processes do not learn that a session was deleted: %s", error)

    def named(self, own: str) -> NamedSession | None:
        """Return the decision about the key with this own name."""
        return next(iter(self._names("own = ?", own)), None)

    def name(self, wanted: NamedSession) -> NamedSession:
        """Store a decision, unless there is one, and return the one that holds.

        Its session is `own` if another key has the wanted session already.
        """
        row = "INSERT OR IGNORE INTO names (destination, own, session, earlier) VALUES (?, ?, ?, ?)"
        own = wanted.own
        self._write(
            (row, (self._destination, own, wanted.session, wanted.earlier)),
            # Does nothing, unless the session is another key's.
            (row, (self._destination, own, own, wanted.session)),
        )
        return self.named(own) or wanted

    def names(self) -> list[NamedSession]:
        """Return every decision about a session of earlier versions."""
        return self._names("earlier <> ''")

    def _names(self, condition: str, *values: str) -> list[NamedSession]:
        rows = self._read(
            f"SELECT own, session, earlier FROM names WHERE destination = ? AND ({condition}) ORDER BY session",
            (self._destination, *values),
        )
        return [NamedSession(*row) for row in rows]

    def entries(self, observer: str, observed: str) -> list[str]:
        """Return the entries of the host's built-in memory that were stored as conclusions."""
        rows = self._read(
            "SELECT content FROM entries WHERE destination = ? AND observer = ? AND observed = ?",
            (self._destination, observer, observed),
        )
        return [row["content"] for row in rows]

    def replaced(self, observer: str, observed: str, old: str, new: str) -> None:
        """Record that the entry `new` was stored and `old` deleted; either may be empty."""
        about = (self._destination, observer, observed)
        self._write(
            ("DELETE FROM entries WHERE (destination, observer, observed) = (?, ?, ?) AND content = ?", (*about, old)),
            ("INSERT OR IGNORE INTO entries SELECT ?, ?, ?, ? WHERE ?", (*about, new, bool(new))),
        )

    def purge(self, chosen: PurgeFilter) -> None:
        """Delete what the filter matches, for any destination."""
        everything, names = chosen.everything, (chosen.session, chosen.peer)
        held = [
            row["content"] for row in self._read("SELECT content FROM entries", ()) if chosen.matches(row["content"])
        ]
        self._write(
            ("DELETE FROM members WHERE ? OR session = ? OR peer = ?", (everything, *names)),
            ("DELETE FROM names WHERE ? OR session = ?", (everything, chosen.session)),
            ("DELETE FROM entries WHERE ? OR ? IN (observer, observed)", (everything, chosen.peer)),
            ("DELETE FROM entries WHERE content IN (SELECT value FROM json_each(?))", (json.dumps(held),)),
        )
        self._record_deletion()

    def is_done(self, what: str) -> bool:
        """Return whether a job that is done once has been done."""
        return bool(self._read("SELECT 1 FROM done WHERE destination = ? AND what = ?", (self._destination, what)))

    def done(self, what: str) -> None:
        """Record that a job has been done."""
        self._write(("INSERT OR IGNORE INTO done (destination, what) VALUES (?, ?)", (self._destination, what)))

    def _read(self, statement: str, values: Sequence[object]) -> list[Row]:
        try:
            with self._opened() as database, database.connection() as connection:
                return connection.execute(statement, values).fetchall()
        except StateError as error:
            self._report(error)
            return []

    def _write(self, *steps: _Step) -> None:
        try:
            with self._opened() as database, database.transaction() as connection:
                for statement, values in steps:
                    connection.execute(statement, values)
        except StateError as error:
            self._report(error)

    @contextmanager
    def _opened(self) -> Iterator[Database]:
        if self._database is not None:
            yield self._database
            return
        # It is used once or twice a session: hundreds of providers need not keep it open.
        with closing(Database(self._path, _MIGRATIONS)) as database:
            yield database

    def _report(self, error: StateError) -> None:
        _log.info("what this machine knew of the server cannot be used: %s", error)
        if isinstance(error, Damaged):
            set_aside(self._path, datetime.fromtimestamp(self._clock.now(), tz=UTC))
