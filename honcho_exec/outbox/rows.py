"""The outbox's rows as frozen values, and how a write is kept in one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from sqlite3 import Row

from honcho_exec.clock import BootTime
from honcho_exec.model import Card, Conclusion, Deletion, Message, Replacement, SessionRef, Write

__all__ = [
    "Admitted",
    "Batch",
    "Counts",
    "Delivery",
    "History",
    "OutboxRow",
    "Value",
    "dump",
    "dump_session_key",
    "read_batch",
    "read_row",
]

Value = str | int | float | None
"""What a column of a row holds."""

_KINDS: dict[str, type[Write]] = {
    "message": Message,
    "conclusion": Conclusion,
    "card": Card,
    "deletion": Deletion,
    "replacement": Replacement,
}


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One write that waits, or is parked, in the outbox.

    Attributes:
        destination: backend and workspace that it is meant for.
        admitted_at, parked_at: seconds since the epoch.
        in_flight: whether an attempt may have arrived and has not been confirmed.
        key: unique, and kept in the message's metadata; None if an earlier version may have sent it without one.
        admitted_by: the opening of the file in which it was admitted; empty if that is not to be relied on.
        place: the state folder and machine where it was admitted; None if that is not known.
        admitted_boot, admitted_seconds: see `admitted`.
    """

    id: int
    destination: str
    turn: str
    ref: SessionRef
    write: Write
    admitted_at: float
    attempts: int
    in_flight: bool
    error: str | None
    parked_at: float | None
    key: str | None
    admitted_by: str
    place: str | None
    admitted_boot: str
    admitted_seconds: float

    @property
    def admitted(self) -> BootTime:
        """When, on a clock that does not jump."""
        return BootTime(self.admitted_boot, self.admitted_seconds)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are sent in one request, frozen when they were first sent.

    Attributes:
        id: kept over every attempt.
        stream: what the rows are in order with.
        first_sent_at: when the first attempt began, seconds since the epoch.
        look: whether an attempt may have been done, so that the server must be asked first.
        settled: from when on no attempt can land any more.
    """

    id: str
    stream: str
    rows: tuple[OutboxRow, ...]
    attempts: int
    first_sent_at: float
    look: bool
    settled: BootTime

    @property
    def writes(self) -> tuple[Write, ...]:
        """What the rows write, in order."""
        return tuple(row.write for row in self.rows)


@dataclass(frozen=True, slots=True)
class History:
    """When something was last delivered, and what failed last; seconds since the epoch."""

    delivered_at: float | None
    error: str | None
    error_at: float | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """Rows that arrived together: when (seconds since the epoch), and how long the oldest had waited (seconds)."""

    at: float
    waited: float
    rows: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """How many rows an admission added, and the turn that carries the writes: another one when it added none."""

    turn: str
    added: int


@dataclass(frozen=True, slots=True)
class Counts:
    """How much the outbox holds.

    Attributes:
        held: how many of the pending are held back on purpose.
        unstored: how many of all wait in memory, because another process locks the file.
        oldest_at: when the oldest of the others that are pending was admitted.
    """

    pending: int
    in_flight: int
    parked: int
    elsewhere: int
    held: int
    oldest_at: float | None
    unstored: int = 0


def dump(write: Write) -> str:
    """A write as a row's payload."""
    # Not `asdict`, which copies everything first.
    return json.dumps({field.name: getattr(write, field.name) for field in fields(write)})


def dump_session_key(ref: SessionRef) -> str:
    """A session's key as a row holds it: in ASCII, since a host's id may hold what SQLite cannot encode."""
    return json.dumps(ref.key) if ref.key else ""


@lru_cache(maxsize=1000)
def _ref(workspace: str, session: str, user_peer: str, ai_peer: str, session_key: str) -> SessionRef:
    """One object for the rows of a session."""
    return SessionRef(workspace, session, user_peer, ai_peer, str(json.loads(session_key)) if session_key else "")


def _load(kind: str, payload: str) -> Write:
    fields = json.loads(payload)
    if kind == "card":
        fields["facts"] = tuple(fields["facts"])
    return _KINDS[kind](**fields)


def read_row(row: Row) -> OutboxRow:
    """A row of the file as a value."""
    return OutboxRow(
        id=row["id"],
        destination=row["destination"],
        turn=row["turn"],
        ref=_ref(row["workspace"], row["session"], row["user_peer"], row["ai_peer"], row["session_key"]),
        write=_load(row["kind"], row["payload"]),
        admitted_at=row["admitted_at"],
        attempts=row["attempts"],
        in_flight=bool(row["look"]),
        error=row["error"],
        parked_at=row["parked_at"],
        key=row["key"],
        admitted_by=row["admitted_by"],
        place=row["place"],
        admitted_boot=row["admitted_boot"],
        admitted_seconds=row["admitted_seconds"],
    )


def read_batch(rows: Sequence[Row]) -> Batch:
    """The rows of one batch, in order, as a value."""
    first = rows[0]
    return Batch(
        id=first["batch"],
        stream=first["stream"],
        rows=tuple(read_row(row) for row in rows),
        attempts=first["attempts"],
        first_sent_at=first["first_sent_at"],
        look=bool(first["look"]),
        settled=BootTime(first["ambiguous_boot"], first["settle_at"]),
    )
