"""Workspaces, peers, sessions and their members."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

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
    "find_in",
    "get_or_404",
    "member_config",
    "remove_all_members",
    "remove_members",
    "set_member_config",
    "update",
]

Kind = Literal["workspace", "peer", "session"]

_INSERT: Final[Mapping[Kind, str]] = {
    "workspace": "INSERT INTO workspace VALUES (NULL, ?, '{}', '{}', ?)",
    "peer": "INSERT INTO peer VALUES (NULL, ?, ?, '{}', '{}', ?)",
    "session": "INSERT INTO session VALUES (NULL, ?, ?, 1, '{}', '{}', ?)",
}


def find(connection: sqlite3.Connection, kind: Kind, id_: str, workspace: int | None = None) -> sqlite3.Row | None:
    """Return the row of a workspace, or of a peer or session of `workspace`."""
    where = "id = ?" if kind == "workspace" else "id = ? AND workspace = ?"
    values = (id_,) if kind == "workspace" else (id_, workspace)
    row: sqlite3.Row | None = connection.execute(f"SELECT * FROM {kind} WHERE {where}", values).fetchone()
    return row


def find_in(connection: sqlite3.Connection, kind: Kind, id_: str, workspace_id: str) -> sqlite3.Row | None:
    """Return the row of a peer or session of a workspace."""
    workspace = find(connection, "workspace", workspace_id)
    return workspace and find(connection, kind, id_, workspace["key"])


def get_or_404(connection: sqlite3.Connection, kind: Kind, id_: str, workspace_id: str) -> sqlite3.Row:
    """Return the row of a peer or session.

    Raises:
        ApiError: 404, it does not exist.
    """
    row = find_in(connection, kind, id_, workspace_id)
    if row is None:
        raise ApiError(404, f"{kind.capitalize()} {id_} not found in workspace {workspace_id}")
    return row


def ensure_workspace(writer: Writer, id_: str) -> tuple[int, bool]:
    """Return the key of a workspace, and whether it was created."""
    return _ensure(writer, "workspace", id_)


def ensure_peer(writer: Writer, workspace: int, id_: str) -> tuple[int, bool]:
    """Return the key of a peer, and whether it was created."""
    return _ensure(writer, "peer", id_, workspace)


def ensure_session(writer: Writer, workspace: int, id_: str) -> tuple[int, bool]:
    """Return the key of a session, and whether it was created."""
    return _ensure(writer, "session", id_, workspace)


def update(writer: Writer, kind: Kind, key: int, changes: Mapping[str, Any]) -> sqlite3.Row:
    """Replace the metadata, merge the configuration; return the new row."""
    connection = writer.connection
    if (metadata := changes.get("metadata")) is not None:
        connection.execute(f"UPDATE {kind} SET metadata = ? WHERE key = ?", (dump(metadata), key))
    if (configuration := changes.get("configuration")) is not None:
        stored = connection.execute(f"SELECT configuration FROM {kind} WHERE key = ?", (key,)).fetchone()
        # As on the real server, a peer's configuration is replaced, and those of the others are merged.
        merged = configuration if kind == "peer" else {**json.loads(stored["configuration"]), **configuration}
        connection.execute(f"UPDATE {kind} SET configuration = ? WHERE key = ?", (dump(merged), key))
    row: sqlite3.Row = connection.execute(f"SELECT * FROM {kind} WHERE key = ?", (key,)).fetchone()
    return row


def add_members(writer: Writer, workspace: int, session: int, peers: Mapping[str, Mapping[str, Any]]) -> None:
    """Make peers members, creating them as needed; present members join again."""
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
    """Return the authors' keys; new ones join, members keep their join time."""
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
    """Remove every member."""
    writer.connection.execute(
        "UPDATE member SET left_at = ? WHERE session = ? AND left_at IS NULL", (writer.now, session)
    )


def remove_members(writer: Writer, session: int, peers: Iterable[str]) -> None:
    """Remove members; they still see the messages of their time."""
    writer.connection.executemany(
        """
        UPDATE member SET left_at = ? WHERE session = ? AND left_at IS NULL AND peer IN
            (SELECT peer.key FROM peer JOIN session USING (workspace) WHERE session.key = ? AND peer.id = ?)
        """,
        [(writer.now, session, session, id_) for id_ in peers],
    )


def member_config(connection: sqlite3.Connection, session: int, peer: int) -> dict[str, bool | None] | None:
    """Return what a member observes, None if the peer is not a member."""
    row = connection.execute(
        "SELECT observe_me, observe_others FROM member WHERE session = ? AND peer = ? AND left_at IS NULL",
        (session, peer),
    ).fetchone()
    return row and {name: None if row[name] is None else bool(row[name]) for name in row.keys()}  # noqa: SIM118 - a Row iterates its values


def set_member_config(writer: Writer, session: int, peer: int, config: Mapping[str, Any]) -> bool:
    """Replace what a member observes; False if the peer is not a member."""
    cursor = writer.connection.execute(
        "UPDATE member SET observe_me = ?, observe_others = ? WHERE session = ? AND peer = ? AND left_at IS NULL",
        (config.get("observe_me"), config.get("observe_others"), session, peer),
    )
    return cursor.rowcount > 0


def delete_session(writer: Writer, session: int) -> None:
    """Delete a session with its content; its name can be used again."""
    connection = writer.connection
    for table in ("message", "conclusion"):
        connection.execute(
            f"DELETE FROM {table}_words WHERE rowid IN (SELECT key FROM {table} WHERE session = ?)", (session,)
        )
        writer.drop_words(f"{table}_words")
        connection.execute(f"DELETE FROM {table} WHERE session = ?", (session,))
    connection.execute("DELETE FROM member WHERE session = ?", (session,))
    connection.execute("DELETE FROM session WHERE key = ?", (session,))


def _ensure(writer: Writer, kind: Kind, id_: str, workspace: int | None = None) -> tuple[int, bool]:
    row = find(writer.connection, kind, id_, workspace)
    if row is not None:
        return row["key"], False
    values = (id_, writer.now) if workspace is None else (workspace, id_, writer.now)
    key = writer.connection.execute(_INSERT[kind], values).lastrowid
    if key is None:
        raise AssertionError("SQLite gives every inserted row a key")
    return key, True
