"""Make rows of the writes of a turn, and store them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from sqlite3 import Connection, IntegrityError
from typing import Protocol

from honcho_exec.clock import Clock
from honcho_exec.errors import Busy, HonchoExecError
from honcho_exec.model import SessionRef, Write
from honcho_exec.outbox.change import Change, outbox_full
from honcho_exec.outbox.file import OutboxFile
from honcho_exec.outbox.rows import Admitted, Value, dump, dump_session_key, folder_id, row_key

__all__ = ["Enqueuer", "Listener", "Outcome", "columns_of"]

_Row = tuple[Value, ...]

# SQLite takes 32,766 parameters.
_MAX_ROWS_PER_STATEMENT = 100

_COLUMNS = (
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
    "dedup_key",
    "admitted_at",
    "key",
    "admitted_by",
    "place",
    "admitted_boot",
    "admitted_seconds",
    "session_key",
)


class Listener(Protocol):
    """Receives the outcome of a turn, on the writer's thread."""

    def begin(self) -> None:
        """Prepare for the turn to be stored; the turn fails with an error raised here."""

    def stored(self, admitted: Admitted) -> None:
        """Handle the commit of the turn, or of another one that carries its writes."""

    def failed(self, error: HonchoExecError) -> None:
        """Handle an error: nothing of the turn is stored, and nothing will be."""


class Outcome:
    """A listener that keeps the outcome of a turn."""

    def __init__(self) -> None:
        self._admitted: Admitted | None = None
        self._error: HonchoExecError | None = None

    def begin(self) -> None:
        """See `Listener`."""

    def stored(self, admitted: Admitted) -> None:
        """See `Listener`."""
        self._admitted = admitted

    def failed(self, error: HonchoExecError) -> None:
        """See `Listener`."""
        self._error = error

    def result(self) -> Admitted:
        """Return what was admitted, or raise the error that the turn failed with."""
        if self._error is not None:
            raise self._error
        if self._admitted is None:
            raise Busy("another process locks the outbox; the turn is stored when the lock is released")
        return self._admitted


class Enqueuer:
    """Makes rows of the writes for one destination; see `Outbox`."""

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
        self._folder_id = folder_id(file.path.parent)

    def turn(self, turn: str, ref: SessionRef, writes: Sequence[Write], owner: str, listener: Listener) -> Change:
        """Return the change that stores `writes` as one turn of the holder `owner`; see `Outbox.submit`."""
        rows = [self._row(turn, position, ref, write, owner) for position, write in enumerate(writes)]
        return _Turn(self._file, turn, rows, self._max_rows, listener)

    def _row(self, turn: str, position: int, ref: SessionRef, write: Write, owner: str) -> _Row:
        payload, now, boot_time = dump(write), self._clock.now(), self._clock.boot_time()
        dedup_key = write.dedup_key(ref.scope)
        return (
            self._destination,
            self._key(write.stream_key(ref.scope)),
            owner,
            write.kind,
            ref.workspace,
            ref.session,
            ref.user_peer,
            ref.ai_peer,
            turn,
            payload,
            None if dedup_key is None else self._key(dedup_key),
            now,
            row_key(turn, position, ref.session, payload, now),
            self._file.opening,
            self._folder_id,
            boot_time.boot,
            boot_time.seconds,
            dump_session_key(ref),
        )

    def _key(self, parts: Sequence[str]) -> str:
        return json.dumps([self._destination, *parts])


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
        added = _insert(connection, self.rows, self.max_rows, "ON CONFLICT (dedup_key) DO NOTHING")
        carrier = self.turn if added else _carrier(connection, self.rows)
        self.admitted = None if carrier is None else Admitted(carrier, added)

    @classmethod
    def apply_all(cls, connection: Connection, changes: Sequence[Change]) -> None:
        # Each statement releases the interpreter's lock, and gets it back 5 ms later if another thread computes.
        for turns in _chunks([change for change in changes if isinstance(change, _Turn)]):
            rows = [row for turn in turns for row in turn.rows]
            added = 0
            with suppress(IntegrityError):
                added = _insert(connection, rows, min(turn.max_rows for turn in turns))
            if added:
                for turn in turns:
                    turn.admitted = Admitted(turn.turn, len(turn.rows))
            else:
                super().apply_all(connection, turns)

    def stored(self) -> None:
        if self.admitted is None:
            self._listener.failed(outbox_full(self.max_rows))
        else:
            self._listener.stored(self.admitted)

    def failed(self, error: HonchoExecError) -> None:
        self._listener.failed(error)


def _insert(connection: Connection, rows: Sequence[_Row], max_rows: int, on_conflict: str = "") -> int:
    """Add rows, if the file has room for all of them; return how many were added."""
    one = f"({', '.join('?' * len(_COLUMNS))})"
    return connection.execute(
        f"INSERT INTO rows ({', '.join(_COLUMNS)}) SELECT * FROM (VALUES {', '.join([one] * len(rows))})"
        f" WHERE (SELECT rows FROM size) + ? <= ? {on_conflict}",
        [*(value for row in rows for value in row), len(rows), max_rows],
    ).rowcount


def _chunks(turns: Sequence[_Turn]) -> Iterator[list[_Turn]]:
    """Yield the turns in order, as many at a time as one statement can store."""
    chunk: list[_Turn] = []
    for turn in turns:
        if chunk and sum(len(one.rows) for one in chunk) + len(turn.rows) > _MAX_ROWS_PER_STATEMENT:
            yield chunk
            chunk = []
        chunk.append(turn)
    if chunk:
        yield chunk


def _carrier(connection: Connection, rows: Sequence[_Row]) -> str | None:
    """Return the pending turn that has a write of these rows already."""
    keys = [row[_COLUMNS.index("dedup_key")] for row in rows]
    found = connection.execute(
        "SELECT turn FROM rows WHERE dedup_key IN (SELECT value FROM json_each(?)) ORDER BY id DESC LIMIT 1",
        (json.dumps(keys),),
    ).fetchone()
    return None if found is None else str(found["turn"])


def columns_of(change: Change) -> list[dict[str, Value]]:
    """Return the rows that a change adds, as columns and values."""
    return [dict(zip(_COLUMNS, row, strict=True)) for row in change.rows]
