"""Store messages and conclusions, a batch as a whole or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from honcho_exec.embedded.query.listing import CONCLUSION_ROWS, MESSAGE_ROWS
from honcho_exec.embedded.query.words import day_words, estimated_tokens, indexed
from honcho_exec.embedded.store.database import Writer
from honcho_exec.embedded.store.resources import ensure_authors, ensure_session, ensure_workspace, find, get_or_404
from honcho_exec.embedded.wire import ApiError, NewConclusion, NewMessage, dump

__all__ = ["add_conclusions", "add_messages", "clone_session", "delete_conclusion"]

_INSERT_MESSAGE: Final = "INSERT INTO message VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def add_messages(
    writer: Writer, workspace_id: str, session_id: str, messages: Sequence[NewMessage]
) -> list[sqlite3.Row]:
    """Append messages, creating workspace, session and authors as needed."""
    connection = writer.connection
    workspace, _ = ensure_workspace(writer, workspace_id)
    session, _ = ensure_session(writer, workspace, session_id)
    authors = ensure_authors(writer, workspace, session, sorted({message.peer_id for message in messages}))
    last = connection.execute("SELECT max(position) FROM message WHERE session = ?", (session,)).fetchone()[0]
    start = (last or 0) + 1
    connection.executemany(
        _INSERT_MESSAGE,
        [
            (
                writer.new_id(), workspace, session, position, authors[message.peer_id], message.content,
                dump(message.metadata or {}), estimated_tokens(message.content), message.created_at or writer.now,
            )
            for position, message in enumerate(messages, start)
        ],
    )  # fmt: skip
    return _index_messages(connection, session, start)


def clone_session(writer: Writer, session: int, last: str | None) -> int:
    """Copy a session with members and messages, up to `last` if given.

    Raises:
        ApiError: 404, the session has no such message.
    """
    connection = writer.connection
    cursor = connection.execute(
        "INSERT INTO session SELECT NULL, workspace, ?, 1, metadata, configuration, ? FROM session WHERE key = ?",
        (writer.new_id(), writer.now, session),
    )
    clone = cursor.lastrowid
    if clone is None:
        raise AssertionError("SQLite gives every inserted row a key")
    connection.execute(
        "INSERT INTO member SELECT ?, peer, observe_me, observe_others, joined_at, left_at FROM member"
        " WHERE session = ?",
        (clone, session),
    )
    rows = connection.execute(
        "SELECT id, workspace, position, peer, content, metadata, token_count, created_at FROM message"
        " WHERE session = ? ORDER BY position",
        (session,),
    ).fetchall()
    if last is not None:
        ids = [row["id"] for row in rows]
        if last not in ids:
            raise ApiError(404, f"Message {last} not found")
        rows = rows[: ids.index(last) + 1]
    connection.executemany(
        _INSERT_MESSAGE, [(writer.new_id(), workspace, clone, *rest) for _, workspace, *rest in rows]
    )
    _index_messages(connection, clone, 0)
    return clone


def add_conclusions(writer: Writer, workspace_id: str, conclusions: Sequence[NewConclusion]) -> list[sqlite3.Row]:
    """Store conclusions.

    Raises:
        ApiError: 404, an observer, an observed peer or a session does not exist.
    """
    connection = writer.connection
    workspace = find(connection, "workspace", workspace_id)
    if workspace is None:
        raise ApiError(404, f"Workspace {workspace_id} not found")
    keys: list[int | None] = []
    for conclusion in conclusions:
        observer = get_or_404(connection, "peer", conclusion.observer_id, workspace_id)["key"]
        observed = get_or_404(connection, "peer", conclusion.observed_id, workspace_id)["key"]
        session = None
        if conclusion.session_id is not None:
            session = get_or_404(connection, "session", conclusion.session_id, workspace_id)["key"]
        cursor = connection.execute(
            """
            INSERT INTO conclusion (id, workspace, observer, observed, session, content, created_at)
            VALUES (?, ?, ?, ?, ?, ?, ?)
            """,
            (writer.new_id(), workspace["key"], observer, observed, session, conclusion.content, writer.now),
        )
        keys.append(cursor.lastrowid)
        connection.execute(
            "INSERT INTO conclusion_words (rowid, content) VALUES (?, ?)",
            (cursor.lastrowid, indexed(conclusion.content)),
        )
    return connection.execute(
        f"{CONCLUSION_ROWS} WHERE conclusion.key IN (SELECT value FROM json_each(?)) ORDER BY conclusion.key",
        (dump(keys),),
    ).fetchall()


def delete_conclusion(writer: Writer, workspace_id: str, id_: str) -> None:
    """Delete a conclusion.

    Raises:
        ApiError: 404, it does not exist.
    """
    deleted = writer.connection.execute(
        "SELECT conclusion.key FROM conclusion JOIN workspace ON workspace.key = conclusion.workspace "
        "WHERE workspace.id = ? AND conclusion.id = ?",
        (workspace_id, id_),
    ).fetchone()
    if deleted is None:
        raise ApiError(404, "Conclusion not found")
    writer.connection.execute("DELETE FROM conclusion WHERE key = ?", (deleted["key"],))
    writer.connection.execute("DELETE FROM conclusion_words WHERE rowid = ?", (deleted["key"],))
    writer.drop_words("conclusion_words")


def _index_messages(connection: sqlite3.Connection, session: int, start: int) -> list[sqlite3.Row]:
    """Index a session's messages from a position on, and return them."""
    rows = connection.execute(
        f"{MESSAGE_ROWS} WHERE message.session = ? AND message.position >= ? ORDER BY message.position",
        (session, start),
    ).fetchall()
    connection.executemany(
        "INSERT INTO message_words (rowid, content, day) VALUES (?, ?, ?)",
        [(row["key"], indexed(row["content"]), day_words(row["created_at"])) for row in rows],
    )
    return rows
