"""The outbox's rows as frozen values, and their form in the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from pathlib import Path
from sqlite3 import Row

from honcho_exec.clock import BootTime
from honcho_exec.model import Card, Conclusion, Deletion, Message, Replacement, SessionRef, Write

__all__ = [
    "Admitted",
    "Batch",
    "Counts",
    "DeliveryRecord",
    "History",
    "OutboxRow",
    "Value",
    "dump",
    "dump_session_key",
    "folder_id",
    "read_batch",
    "read_row",
    "row_key",
]

Value = str | int | float | None
"""The value of a column."""

_KINDS: dict[str, type[Write]] = {kind.kind: kind for kind in (Message, Conclusion, Card, Deletion, Replacement)}


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One write that is pending or parked.

    Attributes:
        destination: backend and workspace.
        admitted_at, parked_at: seconds since the epoch.
        in_flight: whether an attempt may have arrived and is not confirmed.
        key: unique, and kept in the message's metadata; None if an earlier version may have sent it without one.
        admitted_by: the `OutboxFile.opening` that it was admitted with; empty if another process may have sent it.
        folder_id: the state folder and machine where it was admitted; None if that is not known.
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
    folder_id: str | None
    admitted_boot: str
    admitted_seconds: float

    @property
    def admitted(self) -> BootTime:
        """When the row was admitted, on a clock that does not jump."""
        return BootTime(self.admitted_boot, self.admitted_seconds)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are sent in one request, chosen when they are first sent.

    Attributes:
        id: the same for every attempt.
        stream: rows of one stream are sent in order.
        first_sent_at: when the first attempt began, seconds since the epoch.
        must_verify: whether an attempt may have been done, so that the server must be asked first.
        ambiguous_until: when no attempt can arrive any more.
    """

    id: str
    stream: str
    rows: tuple[OutboxRow, ...]
    attempts: int
    first_sent_at: float
    must_verify: bool
    ambiguous_until: BootTime

    @property
    def writes(self) -> tuple[Write, ...]:
        """The writes of the rows, in order."""
        return tuple(row.write for row in self.rows)


@dataclass(frozen=True, slots=True)
class History:
    """The last delivery and the last failure; times in seconds since the epoch."""

    delivered_at: float | None
    error: str | None
    error_at: float | None


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """Rows that arrived together: when (seconds since the epoch), and how long the oldest had waited (seconds)."""

    at: float
    waited: float
    rows: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """How many rows were added, and the turn that carries the writes: another one if none were added."""

    turn: str
    added: int


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows the outbox holds.

    Attributes:
        elsewhere: rows of other destinations.
        held: pending rows that are not sent until they are released.
        unstored: rows that wait in memory because another process locks the file.
        oldest_at: when the oldest pending row that is not held was admitted.
    """

    pending: int
    in_flight: int
    parked: int
    elsewhere: int
    held: int
    oldest_at: float | None
    unstored: int = 0


def dump(write: Write) -> str:
    """Return a write as the payload of a row."""
    # Not `asdict`, which copies everything first.
    return json.dumps({field.name: getattr(write, field.name) for field in fields(write)})


def dump_session_key(ref: SessionRef) -> str:
    """Return a session's key in ASCII: a host's id may hold characters that SQLite cannot encode."""
    return json.dumps(ref.key) if ref.key else ""


@lru_cache(maxsize=1000)
def _ref(workspace: str, session: str, user_peer: str, ai_peer: str, session_key: str) -> SessionRef:
    """Return one object for all rows of a session."""
    return SessionRef(workspace, session, user_peer, ai_peer, str(json.loads(session_key)) if session_key else "")


def _load(kind: str, payload: str) -> Write:
    fields = json.loads(payload)
    if kind == "card":
        fields["facts"] = tuple(fields["facts"])
    return _KINDS[kind](**fields)


def read_row(row: Row) -> OutboxRow:
    """Return a row of the file as a value."""
    return OutboxRow(
        id=row["id"],
        destination=row["destination"],
        turn=row["turn"],
        ref=_ref(row["workspace"], row["session"], row["user_peer"], row["ai_peer"], row["session_key"]),
        write=_load(row["kind"], row["payload"]),
        admitted_at=row["admitted_at"],
        attempts=row["attempts"],
        in_flight=bool(row["must_verify"]),
        error=row["error"],
        parked_at=row["parked_at"],
        key=row["key"],
        admitted_by=row["admitted_by"],
        folder_id=row["place"],
        admitted_boot=row["admitted_boot"],
        admitted_seconds=row["admitted_seconds"],
    )


def read_batch(rows: Sequence[Row]) -> Batch:
    """Return the rows of one batch, in order, as a value."""
    first = rows[0]
    return Batch(
        id=first["batch"],
        stream=first["stream"],
        rows=tuple(read_row(row) for row in rows),
        attempts=first["attempts"],
        first_sent_at=first["first_sent_at"],
        must_verify=bool(first["must_verify"]),
        ambiguous_until=BootTime(first["ambiguous_boot"], first["ambiguous_until"]),
    )


def folder_id(folder: Path) -> str:
    """Identify a state folder on a machine; copied and moved folders have other ids.

    The inode tells two volumes apart that are mounted under one path.
    """
    try:
        inode = folder.stat().st_ino
    except OSError:
        inode = 0
    return _digest(_machine(), str(folder.resolve()), inode)


def row_key(turn: str, position: int, session: str, payload: str, admitted_at: float) -> str:
    """Return a key that no other row of any process has.

    The content is part of it: a restored snapshot of a running machine generates the same turn ids again.
    """
    return _digest(turn, position, session, payload, admitted_at)


@cache
def _machine() -> str:
    """Identify this machine, or the image that a container was made from; empty if that is not possible."""
    for file in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        try:
            return file.read_text("ascii").strip()
        except (OSError, ValueError):
            continue
    return ""


def _digest(*parts: str | float) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()
