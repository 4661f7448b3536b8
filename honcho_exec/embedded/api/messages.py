"""Requests about messages and conclusions: storing, listing, searching."""

from __future__ import annotations

import sqlite3

from honcho_exec.embedded.api.bodies import (
    ConclusionBatch,
    ConclusionQuery,
    MessageBatch,
    MessageSearch,
    MessageUpdate,
    WorkspaceSearch,
)
from honcho_exec.embedded.api.request import Answer, Call
from honcho_exec.embedded.query.filters import (
    CONCLUSION_COLUMNS,
    MESSAGE_COLUMNS,
    Condition,
    all_of,
    compile_filters,
)
from honcho_exec.embedded.query.listing import (
    CONCLUSION_ROWS,
    MESSAGE_ROWS,
    Page,
    conclusion,
    empty_page,
    message,
    page,
)
from honcho_exec.embedded.query.search import find_conclusions, find_messages, joint_sessions, member_window
from honcho_exec.embedded.store.resources import find
from honcho_exec.embedded.store.writing import add_conclusions, add_messages, delete_conclusion
from honcho_exec.embedded.wire import MEMBERS_FILTER, ApiError, dump

__all__ = [
    "get_message",
    "list_conclusions",
    "list_messages",
    "make_conclusions",
    "make_messages",
    "query_conclusions",
    "remove_conclusion",
    "search_peer",
    "search_session",
    "search_workspace",
    "update_message",
]


def make_messages(call: Call) -> Answer:
    """Append a batch of messages to a session."""
    workspace, session = call.new_id("workspace_id"), call.new_id("session_id")
    messages = call.body(MessageBatch).messages
    with call.store.writing() as writer:
        rows = add_messages(writer, workspace, session, messages)
    return Answer(201, [message(row) for row in rows])


def list_messages(call: Call) -> Answer:
    """List a session's messages in the order in which they were stored."""
    condition, asked = call.condition(MESSAGE_COLUMNS), call.page()
    with call.store.reading() as connection:
        workspace = find(connection, "workspace", call.workspace)
        session = workspace and find(connection, "session", call.ids["session_id"], workspace["key"])
        if session is None:
            return Answer(200, empty_page(asked))
        condition = all_of([Condition("message.session = ?", (session["key"],)), condition])
        return Answer(200, page(connection, MESSAGE_ROWS, "message", condition, asked=asked, shown=message))


def get_message(call: Call) -> Answer:
    """Get one message."""
    with call.store.reading() as connection:
        return Answer(200, message(_message(connection, call)))


def update_message(call: Call) -> Answer:
    """Replace one message's metadata."""
    metadata = call.body(MessageUpdate).metadata
    with call.store.writing() as writer:
        row = _message(writer.connection, call)
        if metadata is not None:
            writer.connection.execute("UPDATE message SET metadata = ? WHERE key = ?", (dump(metadata), row["key"]))
            row = _message(writer.connection, call)
    return Answer(200, message(row))


def search_workspace(call: Call) -> Answer:
    """Search a workspace's messages."""
    return _search(call, call.body(WorkspaceSearch), [])


def search_peer(call: Call) -> Answer:
    """Search what one peer said."""
    said = "message.peer = (SELECT key FROM peer WHERE id = ? AND workspace = message.workspace)"
    return _search(call, call.body(MessageSearch), [Condition(said, (call.ids["peer_id"],))])


def search_session(call: Call) -> Answer:
    """Search one session's messages."""
    inside = "message.session = (SELECT key FROM session WHERE id = ? AND workspace = message.workspace)"
    return _search(call, call.body(MessageSearch), [Condition(inside, (call.ids["session_id"],))])


def make_conclusions(call: Call) -> Answer:
    """Store a batch of conclusions."""
    conclusions = call.body(ConclusionBatch).conclusions
    with call.store.writing() as writer:
        rows = add_conclusions(writer, call.workspace, conclusions)
    return Answer(201, [conclusion(row) for row in rows])


def list_conclusions(call: Call) -> Answer:
    """List conclusions, the newest first unless reversed."""
    condition, asked = call.condition(CONCLUSION_COLUMNS), call.page()
    asked = Page(asked.number, asked.size, newest_first=not asked.newest_first)
    with call.store.reading() as connection:
        workspace = find(connection, "workspace", call.workspace)
        if workspace is None:
            return Answer(200, empty_page(asked))
        condition = all_of([Condition("conclusion.workspace = ?", (workspace["key"],)), condition])
        return Answer(200, page(connection, CONCLUSION_ROWS, "conclusion", condition, asked=asked, shown=conclusion))


def query_conclusions(call: Call) -> Answer:
    """Search the conclusions of an observer about an observed peer."""
    body = call.body(ConclusionQuery)
    filters = body.filters or {}
    for name in ("observer", "observed"):
        if not (filters.get(name) or filters.get(f"{name}_id")):
            raise ApiError(422, "observer and observed are required in the filters of a query")
    condition = compile_filters(filters, CONCLUSION_COLUMNS)
    with call.store.reading() as connection:
        workspace = find(connection, "workspace", call.workspace)
        if workspace is None:
            return Answer(200, [])
        condition = all_of([Condition("conclusion.workspace = ?", (workspace["key"],)), condition])
        rows = find_conclusions(connection, body.query, condition, limit=body.top_k)
    return Answer(200, [conclusion(row) for row in rows])


def remove_conclusion(call: Call) -> Answer:
    """Delete one conclusion."""
    with call.store.writing() as writer:
        delete_conclusion(writer, call.workspace, call.ids["conclusion_id"])
    call.store.flush()
    return Answer(204)


def _search(call: Call, body: MessageSearch, conditions: list[Condition]) -> Answer:
    filters = dict(body.filters or {})
    perspective = filters.pop("peer_perspective", None)
    if not isinstance(perspective, str | None):
        raise ApiError(422, "peer_perspective must be the id of a peer")
    members = filters.pop(MEMBERS_FILTER, [])
    if not isinstance(members, list) or not all(isinstance(peer, str) for peer in members):
        raise ApiError(422, f"{MEMBERS_FILTER} must be a list of the ids of peers")
    conditions = [*conditions, compile_filters(filters, MESSAGE_COLUMNS)]
    with call.store.reading() as connection:
        workspace = find(connection, "workspace", call.workspace)
        if workspace is None:
            return Answer(200, [])
        conditions.append(Condition("message.workspace = ?", (workspace["key"],)))
        if perspective is not None:
            conditions.append(member_window(workspace["key"], perspective))
        conditions.append(joint_sessions(workspace["key"], members))
        rows = find_messages(connection, body.query, all_of(conditions), limit=body.limit)
    return Answer(200, [message(row) for row in rows])


def _message(connection: sqlite3.Connection, call: Call) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute(
        f"{MESSAGE_ROWS} WHERE message.id = ? AND session.id = ? AND workspace.id = ?",
        (call.ids["message_id"], call.ids["session_id"], call.workspace),
    ).fetchone()
    if row is None:
        raise ApiError(404, f"Message {call.ids['message_id']} not found")
    return row
