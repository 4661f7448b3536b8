"""How writes come into the outbox: as rows of its file, or beside it while somebody else locks that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from sqlite3 import Connection

from honcho_exec.clock import Clock
from honcho_exec.errors import Busy, Damaged, Overloaded
from honcho_exec.model import Card, Conclusion, Deletion, Message, Replacement, SessionRef, Write
from honcho_exec.outbox_file import OutboxFile
from honcho_exec.provenance import place_of, row_key
from honcho_exec.rows import Admitted, dump, dump_session_key
from honcho_exec.spill import Entry, Value

__all__ = ["PATIENCE", "Admission"]

PATIENCE = 0.2
"""How long whoever gives a turn waits for somebody else's write (seconds); then it is spilled."""

_Row = tuple[Value, ...]

_ADMITTED = (
    "destination",
    "stream",
    "owner",
    "kind",
    "workspace",
    "session",
    "user_peer",
    "ai_peer",
    "turn",
    "payload",
    "dedup",
    "admitted_at",
    "key",
    "admitted_by",
    "place",
    "admitted_boot",
    "admitted_seconds",
    "session_key",
)


class Admission:
    """Admits the writes of one destination; see `Outbox`."""

    def __init__(
        self,
        file: OutboxFile,
        destination: str,
        clock: Clock,
        *,
        max_rows: int,
    ) -> None:
        self._file = file
        self._destination = destination
        self._clock = clock
        self._max_rows = max_rows
        self._place = place_of(file.path.parent)

    def admit(self, turn: str, ref: SessionRef, writes: Sequence[Write], owner: str) -> Admitted:
        """Store `writes` durably as one turn of that holder, all or none; see `Outbox.admit`."""
        rows = [self._row(turn, position, ref, write, owner) for position, write in enumerate(writes)]
        self._file.reserve.check()
        if self._file.is_open and not self._file.spill:
            try:
                return self._admit(turn, rows)
            except Busy:
                pass
            except Damaged:
                self._file.begin_anew()
                return self._admit(turn, rows)
        return self._spill(turn, rows)

    def _row(self, turn: str, position: int, ref: SessionRef, write: Write, owner: str) -> _Row:
        payload, now, boot_time = dump(write), self._clock.now(), self._clock.boot_time()
        return (
            *self._columns(ref, write, owner),
            turn,
            payload,
            self._dedup(ref, write),
            now,
            row_key(turn, position, ref.session, payload, now),
            self._file.opening,
            self._place,
            boot_time.boot,
            boot_time.seconds,
            dump_session_key(ref),
        )

    def _admit(self, turn: str, rows: Sequence[_Row]) -> Admitted:
        one = f"({', '.join('?' * len(_ADMITTED))})"
        with self._file.writing(PATIENCE) as connection:
            added = connection.execute(
                f"INSERT INTO rows ({', '.join(_ADMITTED)}) SELECT * FROM (VALUES {', '.join([one] * len(rows))})"
                " WHERE (SELECT rows FROM size) + ? <= ? ON CONFLICT (dedup) DO NOTHING",
                [*(value for row in rows for value in row), len(rows), self._max_rows],
            ).rowcount
            if added:
                return Admitted(turn, added)
            waiting = _waiting(connection, rows)
        if waiting is None:
            raise self._full()
        return Admitted(waiting, 0)

    def _spill(self, turn: str, rows: Sequence[_Row]) -> Admitted:
        """Store a turn beside the file, which somebody else keeps locked."""
        spilled = [dict(row) for entry in self._file.spill.entries() for row in entry.rows]
        size, waiting = 0, None
        if self._file.is_open:
            with suppress(Busy), self._file.reading() as connection:
                size, waiting = connection.execute("SELECT rows FROM size").fetchone()[0], _waiting(connection, rows)
        keys = {row[_ADMITTED.index("dedup")] for row in rows} - {None}
        waiting = next((str(row["turn"]) for row in spilled if row["dedup"] in keys), waiting)
        if waiting is not None:
            return Admitted(waiting, 0)
        if size + len(spilled) + len(rows) > self._max_rows:
            raise self._full()
        self._file.spill.add([Entry(turn, [dict(zip(_ADMITTED, row, strict=True)) for row in rows])])
        return Admitted(turn, len(rows))

    def _full(self) -> Overloaded:
        return Overloaded(
            f"the outbox is full ({self._max_rows} rows); nothing was stored. It empties when Honcho takes the"
            " rows; HONCHO_OUTBOX_MAX_ROWS raises the limit"
        )

    def _columns(self, ref: SessionRef, write: Write, owner: str) -> tuple[str, ...]:
        kind = type(write).__name__.lower()
        # Conclusions need their session but none of its messages, so they do not wait behind a backlog of them;
        # one request carries conclusions of one observer about one peer.
        about = [write.observer, write.observed] if isinstance(write, Conclusion | Card | Replacement) else []
        # What one replacement writes another may take away, in whatever session that is.
        session = "" if isinstance(write, Replacement) else ref.scope
        stream = json.dumps([self._destination, session, kind, *about])
        return (
            self._destination,
            stream,
            owner,
            kind,
            ref.workspace,
            ref.session,
            ref.user_peer,
            ref.ai_peer,
        )

    def _dedup(self, ref: SessionRef, write: Write) -> str | None:
        match write:
            case Message(source_key=str() as key):
                return json.dumps([self._destination, "message", ref.scope, key])
            case Conclusion():
                return json.dumps([self._destination, "conclusion", write.observer, write.observed, write.content])
            case Deletion():
                return json.dumps([self._destination, "deletion", write.conclusion_id])
        return None


def _waiting(connection: Connection, rows: Sequence[_Row]) -> str | None:
    """The turn that writes what one of these rows would write again."""
    dedup = [row[_ADMITTED.index("dedup")] for row in rows]
    found = connection.execute(
        "SELECT turn FROM rows WHERE dedup IN (SELECT value FROM json_each(?)) ORDER BY id DESC LIMIT 1",
        (json.dumps(dedup),),
    ).fetchone()
    return None if found is None else str(found["turn"])
