"""Workspaces, peers, sessions and who is in them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from honcho_exec.embedded.store.database import Writer
from honcho_exec.embedded.wire import ApiError, dump

__all__ = [
    "add_members",
    "delete_session",
    "ensure_authors",
    "ensure_peer",
    "ensure_session",
    "ensure_workspace",
    "find",
    "member_config",
    "need",
    "remove_all_members",
    "remove_members",
    "set_member_config",
    "update",
]

Kind = Literal["workspace", "peer", "session"]


def find(connection: sqlite3.Connection, kind: Kind, id_: str, workspace: int | None = None) -> sqlite3.Row | None:
    """The row of a workspace, or of a peer or session of `workspace`."""
    where = "id = ?" if kind == "workspace" else "id = ? AND workspace = ?"
    values = (id_,) if kind == "workspace" else (id_, workspace)
    row: sqlite3.Row | None = connection.execute(f"SELECT * FROM {kind} WHERE {where}", values).fetchone()
    return row


def need(connection: sqlite3.Connection, kind: Kind, id_: str, workspace_id: str) -> sqlite3.Row:
    """The row of a peer or session.

    Raises:
        ApiError: 404, it is not there.
    """
    workspace = find(connection, "workspace", workspace_id)
    row = workspace and find(connection, kind, id_, workspace["key"])
    if row is None:
        raise ApiError(404, f"{kind.capitalize()} {id_} not found in workspace {workspace_id}")
    return row


def ensure_workspace(writer: Writer, id_: str) -> tuple[int, bool]:
    """The key of a workspace, made when it is not there, and whether it was made."""
    row = find(writer.connection, "workspace", id_)
    if row is not None:
        return row["key"], False
    return _insert(writer, "INSERT INTO workspace VALUES (NULL, ?, '{}', '{}', ?)", id_, writer.now), True


def ensure_peer(writer: Writer, workspace: int, id_: str) -> tuple[int, bool]:
    """The key of a peer, made when it is not there, and whether it was made."""
    row = find(writer.connection, "peer", id_, workspace)
    if row is not None:
        return row["key"], False
    statement = "INSERT INTO peer VALUES (NULL, ?, ?, '{}', '{}', ?)"
    return _insert(writer, statement, workspace, id_, writer.now), True


def ensure_session(writer: Writer, workspace: int, id_: str) -> tuple[int, bool]:
    """The key of a session, created if there is none, and whether it was created."""
    row = find(writer.connection, "session", id_, workspace)
    if row is not None:
        return row["key"], False
    statement = "INSERT INTO session VALUES (NULL, ?, ?, 1, '{}', '{}', ?)"
    return _insert(writer, statement, workspace, id_, writer.now), True


def update(writer: Writer, kind: Kind, key: int, changes: Mapping[str, Any]) -> sqlite3.Row:
    """Replace the `metadata` and merge the `configuration` of `changes`; return the updated row."""
    connection = writer.connection
    if (metadata := changes.get("metadata")) is not None:
        connection.execute(f"UPDATE {kind} SET metadata = ? WHERE key = ?", (dump(metadata), key))
    if (configuration := changes.get("configuration")) is not None:
        stored = connection.execute(f"SELECT configuration FROM {kind} WHERE key = ?", (key,)).fetchone()
        # A peer's configuration is replaced, as on the real server; the others keep what is not named.
        merged = configuration if kind == "peer" else {**json.loads(stored["configuration"]), **configuration}
        connection.execute(f"UPDATE {kind} SET configuration = ? WHERE key = ?", (dump(merged), key))
    row: sqlite3.Row = connection.execute(f"SELECT * FROM {kind} WHERE key = ?", (key,)).fetchone()
    return row


def add_members(writer: Writer, workspace: int, session: int, peers: Mapping[str, Mapping[str, Any]]) -> None:
    """Make peers members, and the peers when they are not there; who is a member already joins anew."""
    for id_, config in peers.items():
        peer, _ = ensure_peer(writer, workspace, id_)
        writer.connection.execute(
            """
            INSERT INTO member (session, peer, observe_me, observe_others, joined_at) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT DO UPDATE SET left_at = NULL, joined_at = excluded.joined_at,
                observe_me = excluded.observe_me, observe_others = excluded.observe_others
            """,
            (session, peer, config.get("observe_me"), config.get("observe_others"), writer.now),
        )


def ensure_authors(writer: Writer, workspace: int, session: int, peers: Iterable[str]) -> dict[str, int]:
    """The keys of authors; those who are not members become members, the others keep when they joined."""
    keys = {id_: ensure_peer(writer, workspace, id_)[0] for id_ in peers}
    writer.connection.executemany(
        """
        INSERT INTO member (session, peer, joined_at) VALUES (?, ?, ?)
        ON CONFLICT DO UPDATE SET left_at = NULL, joined_at = excluded.joined_at WHERE left_at IS NOT NULL
        """,
        [(session, peer, writer.now) for peer in keys.values()],
    )
    return keys


def remove_all_members(writer: Writer, session: int) -> None:
    """Let every member leave."""
    writer.connection.execute(
        "UPDATE member SET left_at = ? WHERE session = ? AND left_at IS NULL", (writer.now, session)
    )


def remove_members(writer: Writer, session: int, peers: Iterable[str]) -> None:
    """Let members leave; they keep seeing what was said while they were there."""
    writer.connection.executemany(
        """
        UPDATE member SET left_at = ? WHERE session = ? AND left_at IS NULL AND peer IN
            (SELECT peer.key FROM peer JOIN session USING (workspace) WHERE session.key = ? AND peer.id = ?)
        """,
        [(writer.now, session, session, id_) for id_ in peers],
    )


def member_config(connection: sqlite3.Connection, session: int, peer: int) -> dict[str, bool | None] | None:
    """What a member observes, None when the peer is not a member."""
    row = connection.execute(
        "SELECT observe_me, observe_others FROM member WHERE session = ? AND peer = ? AND left_at IS NULL",
        (session, peer),
    ).fetchone()
    return row and {name: None if row[name] is None else bool(row[name]) for name in row.keys()}  # noqa: SIM118 - a Row iterates its values


def set_member_config(writer: Writer, session: int, peer: int, config: Mapping[str, Any]) -> bool:
    """Replace what a member observes; False when the peer is not a member."""
    cursor = writer.connection.execute(
        "UPDATE member SET observe_me = ?, observe_others = ? WHERE session = ? AND peer = ? AND left_at IS NULL",
        (config.get("observe_me"), config.get("observe_others"), session, peer),
    )
    return cursor.rowcount > 0


def delete_session(writer: Writer, session: int) -> None:
    """Delete a session and all it holds; the next use of its name creates a new, empty session."""
    connection = writer.connection
    for table in ("message", "conclusion"):
        connection.execute(
            f"DELETE FROM {table}_words WHERE rowid IN (SELECT key FROM {table} WHERE session = ?)", (session,)
        )
        writer.drop_words(f"{table}_words")
        connection.execute(f"DELETE FROM {table} WHERE session = ?", (session,))
    connection.execute("DELETE FROM member WHERE session = ?", (session,))
    connection.execute("DELETE FROM session WHERE key = ?", (session,))


def _insert(writer: Writer, statement: str, *values: object) -> int:
    key = writer.connection.execute(statement, values).lastrowid
    if key is None:
        raise AssertionError("SQLite gives every inserted row a key")
    return key
