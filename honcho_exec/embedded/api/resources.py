"""Requests about workspaces, peers, sessions and their members."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Literal

from honcho_exec.embedded.api.bodies import (
    MemberConfig,
    Members,
    PeerCreate,
    PeerIds,
    PeerListBody,
    PeerUpdate,
    SessionCreate,
    SessionUpdate,
    WorkspaceCreate,
    WorkspaceUpdate,
)
from honcho_exec.embedded.api.request import Answer, Call
from honcho_exec.embedded.query.filters import (
    PEER_COLUMNS,
    SESSION_COLUMNS,
    WORKSPACE_COLUMNS,
    Condition,
    all_of,
)
from honcho_exec.embedded.query.listing import empty_page, page, place
from honcho_exec.embedded.store import resources as places
from honcho_exec.embedded.store.purge import forget_chosen
from honcho_exec.embedded.store.writing import clone_session as clone
from honcho_exec.embedded.wire import ApiError, JsonModel
from honcho_exec.text.purge_filter import PurgeFilter

__all__ = [
    "add_session_peers",
    "clone_session",
    "delete_session",
    "delete_workspace",
    "get_member_config",
    "list_peer_sessions",
    "list_peers",
    "list_session_peers",
    "list_sessions",
    "list_workspaces",
    "make_peer",
    "make_session",
    "make_workspace",
    "remove_session_peers",
    "set_member_config",
    "set_session_peers",
    "update_peer",
    "update_session",
    "update_workspace",
]


def make_workspace(call: Call) -> Answer:
    """Get or make a workspace."""
    body = call.body(WorkspaceCreate)
    return _workspace(call, body.id, body)


def update_workspace(call: Call) -> Answer:
    """Update a workspace, made when it is not there."""
    answer = _workspace(call, call.new_id("workspace_id"), call.body(WorkspaceUpdate))
    return Answer(200, answer.value)


def delete_workspace(call: Call) -> Answer:
    """Delete a workspace that has no session any more, and all it holds."""
    with call.store.writing() as writer:
        workspace = places.find(writer.connection, "workspace", call.workspace)
        if workspace is None:
            raise ApiError(404, f"Workspace {call.workspace} not found")
        sessions = "SELECT count(*) FROM session WHERE workspace = ?"
        if count := writer.connection.execute(sessions, (workspace["key"],)).fetchone()[0]:
            raise ApiError(409, f"Workspace {call.workspace} has {count} sessions; delete them first")
        forget_chosen(writer, PurgeFilter(workspace=call.workspace))
    call.store.flush()
    return Answer(202, {"message": "Workspace deleted successfully"})


def list_workspaces(call: Call) -> Answer:
    """List workspaces."""
    condition = call.condition(WORKSPACE_COLUMNS)
    with call.store.reading() as connection:
        return Answer(
            200, page(connection, "SELECT * FROM workspace", "workspace", condition, asked=call.page(), shown=place)
        )


def make_peer(call: Call) -> Answer:
    """Get or make a peer."""
    body = call.body(PeerCreate)
    return _peer(call, body.id, body)


def update_peer(call: Call) -> Answer:
    """Update a peer, made when it is not there."""
    answer = _peer(call, call.new_id("peer_id"), call.body(PeerUpdate))
    return Answer(200, answer.value)


def list_peers(call: Call) -> Answer:
    """List a workspace's peers; there are no scopes among them."""
    condition = call.condition(PEER_COLUMNS)
    if call.json is not None and call.body(PeerListBody).kind == "scope":
        condition = Condition("0")
    return _list(call, "peer", condition)


def list_peer_sessions(call: Call) -> Answer:
    """List the sessions in which a peer takes part."""
    takes_part = Condition(
        # Not correlated with the row: it is evaluated once, however many sessions there are.
        "session.key IN (SELECT session FROM member WHERE left_at IS NULL AND peer = (SELECT peer.key FROM peer "
        "JOIN workspace ON workspace.key = peer.workspace WHERE workspace.id = ? AND peer.id = ?))",
        (call.workspace, call.ids["peer_id"]),
    )
    return _list(call, "session", all_of([takes_part, call.condition(SESSION_COLUMNS)]))


def make_session(call: Call) -> Answer:
    """Get or make a session and let peers join it."""
    body = call.body(SessionCreate)
    return _session(call, body.id, body, body.peers)


def update_session(call: Call) -> Answer:
    """Update a session, made when it is not there."""
    answer = _session(call, call.new_id("session_id"), call.body(SessionUpdate))
    return Answer(200, answer.value)


def list_sessions(call: Call) -> Answer:
    """List a workspace's sessions."""
    return _list(call, "session", call.condition(SESSION_COLUMNS))


def delete_session(call: Call) -> Answer:
    """Delete a session and all it holds."""
    with call.store.writing() as writer:
        session = places.need(writer.connection, "session", call.ids["session_id"], call.workspace)
        places.delete_session(writer, session["key"])
    call.store.flush()
    return Answer(202, {"message": "Session deleted successfully"})


def clone_session(call: Call) -> Answer:
    """Make a copy of a session, up to one of its messages where one is named."""
    with call.store.writing() as writer:
        session = places.need(writer.connection, "session", call.ids["session_id"], call.workspace)
        key = clone(writer, session["key"], call.text("message_id"))
        row = writer.connection.execute("SELECT * FROM session WHERE key = ?", (key,)).fetchone()
    return Answer(201, place(row, call.workspace))


def list_session_peers(call: Call) -> Answer:
    """List a session's members."""
    member = Condition(
        "peer.key IN (SELECT peer FROM member WHERE left_at IS NULL AND session = (SELECT session.key FROM session "
        "JOIN workspace ON workspace.key = session.workspace WHERE workspace.id = ? AND session.id = ?))",
        (call.workspace, call.ids["session_id"]),
    )
    return _list(call, "peer", member)


def add_session_peers(call: Call) -> Answer:
    """Let peers join a session."""
    return _session(call, call.new_id("session_id"), SessionUpdate(), call.body(Members).root)


def set_session_peers(call: Call) -> Answer:
    """Replace a session's members."""
    return _session(call, call.new_id("session_id"), SessionUpdate(), call.body(Members).root, only=True)


def remove_session_peers(call: Call) -> Answer:
    """Let members leave a session."""
    ids = call.body(PeerIds).root
    with call.store.writing() as writer:
        session = places.need(writer.connection, "session", call.ids["session_id"], call.workspace)
        places.remove_members(writer, session["key"], ids)
    return Answer(200, place(session, call.workspace))


def get_member_config(call: Call) -> Answer:
    """Say what a member observes."""
    with call.store.reading() as connection:
        session, peer = _membership(connection, call)
        config = places.member_config(connection, session, peer)
    if config is None:
        raise _no_member(call)
    return Answer(200, config)


def set_member_config(call: Call) -> Answer:
    """Set what a member observes."""
    config = call.body(MemberConfig)
    with call.store.writing() as writer:
        session, peer = _membership(writer.connection, call)
        if not places.set_member_config(writer, session, peer, config.model_dump()):
            raise _no_member(call)
    return Answer(204)


def _workspace(call: Call, id_: str, body: WorkspaceCreate | WorkspaceUpdate) -> Answer:
    with call.store.writing() as writer:
        key, made = places.ensure_workspace(writer, id_)
        row = places.update(writer, "workspace", key, _changes(body))
    return Answer(201 if made else 200, place(row))


def _peer(call: Call, id_: str, body: PeerUpdate) -> Answer:
    with call.store.writing() as writer:
        workspace, _ = places.ensure_workspace(writer, call.new_id("workspace_id"))
        key, made = places.ensure_peer(writer, workspace, id_)
        row = places.update(writer, "peer", key, _changes(body))
    return Answer(201 if made else 200, place(row, call.workspace))


def _session(
    call: Call,
    id_: str,
    body: SessionUpdate,
    peers: Mapping[str, MemberConfig] | None = None,
    *,
    only: bool = False,
) -> Answer:
    with call.store.writing() as writer:
        workspace, _ = places.ensure_workspace(writer, call.new_id("workspace_id"))
        key, made = places.ensure_session(writer, workspace, id_)
        if only:
            places.remove_all_members(writer, key)
        places.add_members(writer, workspace, key, {id_: config.model_dump() for id_, config in (peers or {}).items()})
        row = places.update(writer, "session", key, _changes(body))
    return Answer(201 if made else 200, place(row, call.workspace))


def _changes(body: JsonModel) -> Mapping[str, Any]:
    """Return the metadata and configuration that a request has, without defaults."""
    return body.model_dump(include={"metadata", "configuration"}, exclude_unset=True)


def _list(call: Call, kind: Literal["peer", "session"], condition: Condition) -> Answer:
    asked = call.page()
    with call.store.reading() as connection:
        workspace = places.find(connection, "workspace", call.workspace)
        if workspace is None:
            return Answer(200, empty_page(asked))
        own = Condition(f"{kind}.workspace = ?", (workspace["key"],))
        return Answer(
            200,
            page(
                connection,
                f"SELECT * FROM {kind}",
                kind,
                all_of([own, condition]),
                asked=asked,
                shown=lambda row: place(row, call.workspace),
            ),
        )


def _membership(connection: sqlite3.Connection, call: Call) -> tuple[int, int]:
    session = places.need(connection, "session", call.ids["session_id"], call.workspace)
    peer = places.need(connection, "peer", call.ids["peer_id"], call.workspace)
    return session["key"], peer["key"]


def _no_member(call: Call) -> ApiError:
    return ApiError(404, f"Peer {call.ids['peer_id']} is not in session {call.ids['session_id']}")
