"""What this machine has learnt and done on a server, kept so that the next process need not ask or do it again."""

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

# Somebody may have deleted a session and made it anew elsewhere, which shows nowhere: after this long (seconds) the
# server is asked again.
_TRUSTED = 7 * 86_400.0
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
        earlier: the session of earlier versions, if there is one: continued if it is `session`, else left alone.
    """

    own: str
    session: str
    earlier: str = ""


class SessionStore:
    """What is known of one destination, in a file that all destinations share: members, mirrored memory, jobs done.

    Nothing here is needed: where the file cannot be used, nothing is known, and nothing is raised.

    Args:
        path: the database file; made and opened for each use, or for what is `at_hand`.
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
        """Open the file once for all uses meanwhile."""
        with ExitStack() as stack:
            if self._database is None:
                try:
                    self._database = Database(self._path, _MIGRATIONS)
                except StateError:
                    # Whoever uses it will be told.
                    pass
                else:
                    stack.callback(self._put_away)
            yield

    def _put_away(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def members(self, session: str) -> tuple[frozenset[str], str]:
        """Who has joined a session, and since when the workspace was there then; nobody, where nothing is known."""
        rows = self._read(
            "SELECT peer, since FROM members WHERE destination = ? AND session = ? AND at > ?",
            (self._destination, session, self._clock.now() - _TRUSTED),
        )
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
        member = "INSERT OR REPLACE INTO members (destination, session, peer, since, at) VALUES (?, ?, ?, ?, ?)"
        self._write(
            ("DELETE FROM members WHERE at <= ?", (now - _TRUSTED,)),
            *((member, (self._destination, session, peer, since, now)) for peer in peers),
        )

    def forget(self, session: str) -> None:
        """Know nobody who has joined a session any more."""
        self._write(("DELETE FROM members WHERE destination = ? AND session = ?", (self._destination, session)))
        self._note_deletion()

    def deletions(self) -> int:
        """Return how many deletions were noted in this state folder, by any process.

        Costs one system call. What a process keeps in memory of a session is out of date when the number changes.
        """
        try:
            return self._deletions.stat().st_size
        except OSError:
            return 0

    def _note_deletion(self) -> None:
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
        """Which session was decided on for the key with this own name."""
        return next(iter(self._names("own = ?", own)), None)

    def name(self, wanted: NamedSession) -> NamedSession:
        """Remember a decision, unless there is one, and return the one that holds.

        That is `own` if another key has the session already.
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
        """Every decision about a session of earlier versions."""
        return self._names("earlier <> ''")

    def _names(self, condition: str, *values: str) -> list[NamedSession]:
        rows = self._read(
            f"SELECT own, session, earlier FROM names WHERE destination = ? AND ({condition}) ORDER BY session",
            (self._destination, *values),
        )
        return [NamedSession(*row) for row in rows]

    def entries(self, observer: str, observed: str) -> list[str]:
        """What of the host's built-in memory was given as conclusions of one peer about another."""
        rows = self._read(
            "SELECT content FROM entries WHERE destination = ? AND observer = ? AND observed = ?",
            (self._destination, observer, observed),
        )
        return [row["content"] for row in rows]

    def replaced(self, observer: str, observed: str, old: str, new: str) -> None:
        """Remember that `new` was given as such and `old` taken back; either may be empty."""
        about = (self._destination, observer, observed)
        self._write(
            ("DELETE FROM entries WHERE (destination, observer, observed) = (?, ?, ?) AND content = ?", (*about, old)),
            ("INSERT OR IGNORE INTO entries SELECT ?, ?, ?, ? WHERE ?", (*about, new, bool(new))),
        )

    def purge(self, chosen: PurgeFilter) -> None:
        """Know nothing any more of what a person wants forgotten, whatever the destination."""
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
        self._note_deletion()

    def is_done(self, what: str) -> bool:
        """Whether a job has been done that is done once."""
        return bool(self._read("SELECT 1 FROM done WHERE destination = ? AND what = ?", (self._destination, what)))

    def done(self, what: str) -> None:
        """Remember that it has been done."""
        self._write(("INSERT OR IGNORE INTO done (destination, what) VALUES (?, ?)", (self._destination, what)))

    def _read(self, statement: str, values: Sequence[object]) -> list[Row]:
        try:
            with self._opened() as database, database.connection() as connection:
                return connection.execute(statement, values).fetchall()
        except StateError as error:
            self._unusable(error)
            return []

    def _write(self, *steps: _Step) -> None:
        try:
            with self._opened() as database, database.transaction() as connection:
                for statement, values in steps:
                    connection.execute(statement, values)
        except StateError as error:
            self._unusable(error)

    @contextmanager
    def _opened(self) -> Iterator[Database]:
        if self._database is not None:
            yield self._database
            return
        # Once or twice a session: hundreds of providers need not keep the file open for that.
        with closing(Database(self._path, _MIGRATIONS)) as database:
            yield database

    def _unusable(self, error: StateError) -> None:
        _log.info("what this machine knew of the server cannot be used: %s", error)
        if isinstance(error, Damaged):
            set_aside(self._path, datetime.fromtimestamp(self._clock.now(), tz=UTC))
