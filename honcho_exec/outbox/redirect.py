"""Count the rows for other servers than the configured one, and move them to that one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from sqlite3 import Connection

__all__ = ["Elsewhere", "Redirected", "find_elsewhere", "redirect", "split_destination"]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The rows of one other destination.

    Attributes:
        destination: backend and workspace.
        movable: pending rows that certainly were not delivered and that no living process owns.
        ambiguous: pending rows that may have been delivered there.
        parked: rows that were refused there.
        held: pending rows that a living process owns.
        oldest_at: when the oldest of all was admitted, seconds since the epoch.
    """

    destination: str
    movable: int
    ambiguous: int
    parked: int
    held: int
    oldest_at: float

    @property
    def workspace(self) -> str:
        """The workspace, which a redirected row keeps."""
        return split_destination(self.destination)[1]


@dataclass(frozen=True, slots=True)
class Redirected:
    """The result of a redirection.

    Attributes:
        moved: rows that are pending for the configured server now.
        duplicates: rows that were dropped because an equal one is pending there.
    """

    moved: int
    duplicates: int


def split_destination(destination: str) -> tuple[str, str]:
    """Return the backend and the workspace of a destination."""
    backend, _, workspace = destination.rpartition(" ")
    return backend, workspace


def find_elsewhere(connection: Connection, backend: str, alive: Callable[[str], bool]) -> list[Elsewhere]:
    """Count the rows for other backends than `backend`, by destination, that of the oldest row first."""
    groups = connection.execute(
        "SELECT destination, owner, parked_at IS NOT NULL AS parked, must_verify, count(*) AS rows,"
        " min(admitted_at) AS oldest FROM rows GROUP BY destination, owner, parked, must_verify"
    ).fetchall()
    found = []
    for destination in dict.fromkeys(str(group["destination"]) for group in groups):
        if split_destination(destination)[0] == backend:
            continue
        counts = {"movable": 0, "ambiguous": 0, "parked": 0, "held": 0}
        own = [group for group in groups if group["destination"] == destination]
        for group in own:
            counts[_kind(group["parked"], alive(group["owner"]), group["must_verify"])] += int(group["rows"])
        found.append(Elsewhere(destination, **counts, oldest_at=min(group["oldest"] for group in own)))
    return sorted(found, key=lambda elsewhere: elsewhere.oldest_at)


def redirect(
    connection: Connection, source: str, backend: str, kinds: Iterable[str], alive: Callable[[str], bool]
) -> Redirected:
    """Move rows of `source` to the same workspace of `backend`.

    Rows keep their ids, and so their order, and their batches. An ambiguous row is still looked up before it is sent,
    so that nothing is doubled if both addresses lead to one server.

    Args:
        connection: inside a write transaction.
        source: the destination of the rows.
        backend: the configured backend.
        kinds: which rows are moved, as in `Elsewhere`: `movable`, `ambiguous`, `parked`.
        alive: returns whether the lease holder of that name is alive.
    """
    target = f"{backend} {split_destination(source)[1]}"
    wanted, living = set(kinds), dict[str, bool]()
    moved = duplicates = 0
    rows = connection.execute(
        "SELECT id, owner, parked_at IS NOT NULL AS parked, must_verify, stream, dedup_key FROM rows"
        " WHERE destination = ? ORDER BY id",
        (source,),
    ).fetchall()
    for row in rows:
        owner = str(row["owner"])
        if owner not in living:
            living[owner] = alive(owner)
        if _kind(row["parked"], living[owner], row["must_verify"]) not in wanted:
            continue
        dedup_key = None if row["dedup_key"] is None else _with_destination(row["dedup_key"], target)
        if dedup_key and connection.execute("SELECT 1 FROM rows WHERE dedup_key = ?", (dedup_key,)).fetchone():
            connection.execute("DELETE FROM rows WHERE id = ?", (row["id"],))
            duplicates += 1
            continue
        # The attempts were made at the other server: no batch of this one has overtaken these rows.
        connection.execute(
            "UPDATE rows SET destination = ?, stream = ?, dedup_key = ?, owner = '', attempts = 0 WHERE id = ?",
            (target, _with_destination(row["stream"], target), dedup_key, row["id"]),
        )
        moved += 1
    return Redirected(moved, duplicates)


def _kind(parked: int, living: bool, ambiguous: int) -> str:
    if parked:
        return "parked"
    if living:
        return "held"
    return "ambiguous" if ambiguous else "movable"


def _with_destination(key: str, destination: str) -> str:
    """Return a stream or deduplication key, which begins with its destination, for another one."""
    return json.dumps([destination, *json.loads(key)[1:]])
