"""Handlers for messages and conclusions."""

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
from honcho_exec.embedded.api.request import Request, Response
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
    empty_page,
    item,
    page,
)
from honcho_exec.embedded.query.search import find_conclusions, find_messages, joint_sessions, member_window
from honcho_exec.embedded.store.resources import find, find_in
from honcho_exec.embedded.store.writing import add_conclusions, add_messages, delete_conclusion
from honcho_exec.embedded.wire import MEMBERS_FILTER, ApiError, dump

__all__ = [
    "create_conclusions",
    "create_messages",
    "get_message",
    "list_conclusions",
    "list_messages",
    "query_conclusions",
    "remove_conclusion",
    "search_peer",
    "search_session",
    "search_workspace",
    "update_message",
]


def create_messages(request: Request) -> Response:
    """Append a batch of messages to a session."""
    workspace, session = request.new_id("workspace_id"), request.new_id("session_id")
    messages = request.body(MessageBatch).messages
    with request.store.writing() as writer:
        rows = add_messages(writer, workspace, session, messages)
    return Response(201, [item(row) for row in rows])


def list_messages(request: Request) -> Response:
    """List a session's messages in insertion order."""
    condition, page_request = request.condition(MESSAGE_COLUMNS), request.page()
    with request.store.reading() as connection:
        session = find_in(connection, "session", request.ids["session_id"], request.workspace)
        if session is None:
            return Response(200, empty_page(page_request))
        condition = all_of([Condition("message.session = ?", (session["key"],)), condition])
        return Response(200, page(connection, MESSAGE_ROWS, "message", condition, request=page_request, to_json=item))


def get_message(request: Request) -> Response:
    """Get one message."""
    with request.store.reading() as connection:
        return Response(200, item(_message(connection, request)))


def update_message(request: Request) -> Response:
    """Replace one message's metadata."""
    metadata = request.body(MessageUpdate).metadata
    with request.store.writing() as writer:
        row = _message(writer.connection, request)
        if metadata is not None:
            writer.connection.execute("UPDATE message SET metadata = ? WHERE key = ?", (dump(metadata), row["key"]))
            row = _message(writer.connection, request)
    return Response(200, item(row))


def search_workspace(request: Request) -> Response:
    """Search a workspace's messages."""
    return _search(request, request.body(WorkspaceSearch), [])


def search_peer(request: Request) -> Response:
    """Search one peer's messages."""
    author = "message.peer = (SELECT key FROM peer WHERE id = ? AND workspace = message.workspace)"
    return _search(request, request.body(MessageSearch), [Condition(author, (request.ids["peer_id"],))])


def search_session(request: Request) -> Response:
    """Search one session's messages."""
    in_session = "message.session = (SELECT key FROM session WHERE id = ? AND workspace = message.workspace)"
    return _search(request, request.body(MessageSearch), [Condition(in_session, (request.ids["session_id"],))])


def create_conclusions(request: Request) -> Response:
    """Store a batch of conclusions."""
    conclusions = request.body(ConclusionBatch).conclusions
    with request.store.writing() as writer:
        rows = add_conclusions(writer, request.workspace, conclusions)
    return Response(201, [item(row) for row in rows])


def list_conclusions(request: Request) -> Response:
    """List conclusions, the newest first unless reversed."""
    condition, page_request = request.condition(CONCLUSION_COLUMNS), request.page()
    page_request = Page(page_request.number, page_request.size, newest_first=not page_request.newest_first)
    with request.store.reading() as connection:
        workspace = find(connection, "workspace", request.workspace)
        if workspace is None:
            return Response(200, empty_page(page_request))
        condition = all_of([Condition("conclusion.workspace = ?", (workspace["key"],)), condition])
        return Response(
            200, page(connection, CONCLUSION_ROWS, "conclusion", condition, request=page_request, to_json=item)
        )


def query_conclusions(request: Request) -> Response:
    """Search an observer's conclusions about another peer."""
    body = request.body(ConclusionQuery)
    filters = body.filters or {}
    for name in ("observer", "observed"):
        if not (filters.get(name) or filters.get(f"{name}_id")):
            raise ApiError(422, "observer and observed are required in the filters of a query")
    condition = compile_filters(filters, CONCLUSION_COLUMNS)
    with request.store.reading() as connection:
        workspace = find(connection, "workspace", request.workspace)
        if workspace is None:
            return Response(200, [])
        condition = all_of([Condition("conclusion.workspace = ?", (workspace["key"],)), condition])
        rows = find_conclusions(connection, body.query, condition, limit=body.top_k)
    return Response(200, [item(row) for row in rows])


def remove_conclusion(request: Request) -> Response:
    """Delete one conclusion."""
    with request.store.writing() as writer:
        delete_conclusion(writer, request.workspace, request.ids["conclusion_id"])
    request.store.flush()
    return Response(204)


def _search(request: Request, body: MessageSearch, conditions: list[Condition]) -> Response:
    filters = dict(body.filters or {})
    perspective = filters.pop("peer_perspective", None)
    if not isinstance(perspective, str | None):
        raise ApiError(422, "peer_perspective must be the id of a peer")
    members = filters.pop(MEMBERS_FILTER, [])
    if not isinstance(members, list) or not all(isinstance(peer, str) for peer in members):
        raise ApiError(422, f"{MEMBERS_FILTER} must be a list of the ids of peers")
    conditions = [*conditions, compile_filters(filters, MESSAGE_COLUMNS)]
    with request.store.reading() as connection:
        workspace = find(connection, "workspace", request.workspace)
        if workspace is None:
            return Response(200, [])
        conditions.append(Condition("message.workspace = ?", (workspace["key"],)))
        if perspective is not None:
            conditions.append(member_window(workspace["key"], perspective))
        conditions.append(joint_sessions(workspace["key"], members))
        rows = find_messages(connection, body.query, all_of(conditions), limit=body.limit)
    return Response(200, [item(row) for row in rows])


def _message(connection: sqlite3.Connection, request: Request) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute(
        f"{MESSAGE_ROWS} WHERE message.id = ? AND session.id = ? AND workspace.id = ?",
        (request.ids["message_id"], request.ids["session_id"], request.workspace),
    ).fetchone()
    if row is None:
        raise ApiError(404, f"Message {request.ids['message_id']} not found")
    return row
