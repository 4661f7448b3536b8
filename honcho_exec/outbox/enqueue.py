"""How writes come into the outbox: as rows of its file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from sqlite3 import Connection, IntegrityError
from typing import Protocol

from honcho_exec.clock import Clock
from honcho_exec.errors import HonchoExecError
from honcho_exec.model import Card, Conclusion, Deletion, Message, Replacement, SessionRef, Write
from honcho_exec.outbox.file import OutboxFile
from honcho_exec.outbox.provenance import place_of, row_key
from honcho_exec.outbox.rows import Admitted, Value, dump, dump_session_key
from honcho_exec.outbox.writer import Change, full

__all__ = ["Admission", "Listener", "columns_of"]

_Row = tuple[Value, ...]

# Rows in one statement; SQLite takes 32,766 parameters.
_MOST_TOGETHER = 100

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


class Listener(Protocol):
    """Is told what becomes of a turn, on the writer's thread."""

    def begin(self) -> None:
        """The turn is about to be stored; what this raises is what the turn fails with."""

    def stored(self, admitted: Admitted) -> None:
        """The turn is stored, or another one carries its writes."""

    def failed(self, error: HonchoExecError) -> None:
        """Nothing of the turn is stored, and nothing will be."""


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

    def turn(self, turn: str, ref: SessionRef, writes: Sequence[Write], owner: str, listener: Listener) -> Change:
        """The change that stores `writes` as one turn of that holder, all or none; see `Outbox.submit`."""
        rows = [self._row(turn, position, ref, write, owner) for position, write in enumerate(writes)]
        return _Turn(self._file, turn, rows, self._max_rows, listener)

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


class _Turn(Change):
    """The rows of one turn."""

    def __init__(self, file: OutboxFile, turn: str, rows: Sequence[_Row], max_rows: int, listener: Listener) -> None:
        super().__init__(file, rows=rows, max_rows=max_rows)
        self.turn = turn
        self._listener = listener
        self.admitted: Admitted | None = None

    def begin(self) -> None:
        self._listener.begin()

    def apply(self, connection: Connection) -> None:
        added = _insert(connection, self.rows, self.max_rows, "ON CONFLICT (dedup) DO NOTHING")
        carrier = self.turn if added else _carrier(connection, self.rows)
        self.admitted = None if carrier is None else Admitted(carrier, added)

    @classmethod
    def apply_all(cls, connection: Connection, changes: Sequence[Change]) -> None:
        # Each statement gives up the interpreter's lock, and gets it back 5 ms later if another thread computes.
        for some in _portions([change for change in changes if isinstance(change, _Turn)]):
            rows = [row for turn in some for row in turn.rows]
            added = 0
            with suppress(IntegrityError):
                added = _insert(connection, rows, min(turn.max_rows for turn in some))
            if added:
                for turn in some:
                    turn.admitted = Admitted(turn.turn, len(turn.rows))
            else:
                super().apply_all(connection, some)

    def stored(self) -> None:
        if self.admitted is None:
            self._listener.failed(full(self.max_rows))
        else:
            self._listener.stored(self.admitted)

    def failed(self, error: HonchoExecError) -> None:
        self._listener.failed(error)


def _insert(connection: Connection, rows: Sequence[_Row], max_rows: int, otherwise: str = "") -> int:
    """Add rows, if the file has room for all of them; return how many were added."""
    one = f"({', '.join('?' * len(_ADMITTED))})"
    return connection.execute(
        f"INSERT INTO rows ({', '.join(_ADMITTED)}) SELECT * FROM (VALUES {', '.join([one] * len(rows))})"
        f" WHERE (SELECT rows FROM size) + ? <= ? {otherwise}",
        [*(value for row in rows for value in row), len(rows), max_rows],
    ).rowcount


def _portions(turns: Sequence[_Turn]) -> Iterator[list[_Turn]]:
    """The turns in order, as many at a time as one statement can store."""
    portion: list[_Turn] = []
    for turn in turns:
        if portion and sum(len(one.rows) for one in portion) + len(turn.rows) > _MOST_TOGETHER:
            yield portion
            portion = []
        portion.append(turn)
    if portion:
        yield portion


def _carrier(connection: Connection, rows: Sequence[_Row]) -> str | None:
    """The pending turn that writes what one of these rows would write again."""
    dedup = [row[_ADMITTED.index("dedup")] for row in rows]
    found = connection.execute(
        "SELECT turn FROM rows WHERE dedup IN (SELECT value FROM json_each(?)) ORDER BY id DESC LIMIT 1",
        (json.dumps(dedup),),
    ).fetchone()
    return None if found is None else str(found["turn"])


def columns_of(change: Change) -> list[dict[str, Value]]:
    """The rows that a change adds, as columns and what they hold."""
    return [dict(zip(_ADMITTED, row, strict=True)) for row in change.rows]
