"""Handlers for workspaces, peers, sessions and their members."""

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
    ResourceUpdate,
    SessionCreate,
    WorkspaceCreate,
)
from honcho_exec.embedded.api.request import Request, Response
from honcho_exec.embedded.query.filters import (
    PEER_COLUMNS,
    SESSION_COLUMNS,
    WORKSPACE_COLUMNS,
    Condition,
    all_of,
)
from honcho_exec.embedded.query.listing import empty_page, page, resource
from honcho_exec.embedded.store import resources as stored
from honcho_exec.embedded.store.purge import delete_matches
from honcho_exec.embedded.store.writing import clone_session as clone
from honcho_exec.embedded.wire import ApiError, JsonModel
from honcho_exec.text.purge_filter import PurgeFilter

__all__ = [
    "add_session_peers",
    "clone_session",
    "create_peer",
    "create_session",
    "create_workspace",
    "delete_session",
    "delete_workspace",
    "get_member_config",
    "list_peer_sessions",
    "list_peers",
    "list_session_peers",
    "list_sessions",
    "list_workspaces",
    "remove_session_peers",
    "set_member_config",
    "set_session_peers",
    "update_peer",
    "update_session",
    "update_workspace",
]


def create_workspace(request: Request) -> Response:
    """Get or create a workspace."""
    body = request.body(WorkspaceCreate)
    return _workspace(request, body.id, body)


def update_workspace(request: Request) -> Response:
    """Update a workspace, created if needed."""
    answer = _workspace(request, request.new_id("workspace_id"), request.body(ResourceUpdate))
    return Response(200, answer.value)


def delete_workspace(request: Request) -> Response:
    """Delete a workspace that has no sessions, with its content."""
    with request.store.writing() as writer:
        workspace = stored.find(writer.connection, "workspace", request.workspace)
        if workspace is None:
            raise ApiError(404, f"Workspace {request.workspace} not found")
        sessions = "SELECT count(*) FROM session WHERE workspace = ?"
        if count := writer.connection.execute(sessions, (workspace["key"],)).fetchone()[0]:
            raise ApiError(409, f"Workspace {request.workspace} has {count} sessions; delete them first")
        delete_matches(writer, PurgeFilter(workspace=request.workspace))
    request.store.flush()
    return Response(202, {"message": "Workspace deleted successfully"})


def list_workspaces(request: Request) -> Response:
    """List workspaces."""
    condition = request.condition(WORKSPACE_COLUMNS)
    with request.store.reading() as connection:
        return Response(
            200,
            page(
                connection, "SELECT * FROM workspace", "workspace", condition, request=request.page(), to_json=resource
            ),
        )


def create_peer(request: Request) -> Response:
    """Get or create a peer."""
    body = request.body(PeerCreate)
    return _peer(request, body.id, body)


def update_peer(request: Request) -> Response:
    """Update a peer, created if needed."""
    answer = _peer(request, request.new_id("peer_id"), request.body(PeerUpdate))
    return Response(200, answer.value)


def list_peers(request: Request) -> Response:
    """List a workspace's peers; none of them is a scope."""
    condition = request.condition(PEER_COLUMNS)
    if request.json is not None and request.body(PeerListBody).kind == "scope":
        condition = Condition("0")
    return _list(request, "peer", condition)


def list_peer_sessions(request: Request) -> Response:
    """List the sessions that a peer is a member of."""
    is_member = Condition(
        # The subquery is not correlated: it is evaluated once, not for each session.
        "session.key IN (SELECT session FROM member WHERE left_at IS NULL AND peer = (SELECT peer.key FROM peer "
        "JOIN workspace ON workspace.key = peer.workspace WHERE workspace.id = ? AND peer.id = ?))",
        (request.workspace, request.ids["peer_id"]),
    )
    return _list(request, "session", all_of([is_member, request.condition(SESSION_COLUMNS)]))


def create_session(request: Request) -> Response:
    """Get or create a session, and let peers join it."""
    body = request.body(SessionCreate)
    return _session(request, body.id, body, body.peers)


def update_session(request: Request) -> Response:
    """Update a session, created if needed."""
    answer = _session(request, request.new_id("session_id"), request.body(ResourceUpdate))
    return Response(200, answer.value)


def list_sessions(request: Request) -> Response:
    """List a workspace's sessions."""
    return _list(request, "session", request.condition(SESSION_COLUMNS))


def delete_session(request: Request) -> Response:
    """Delete a session with its content."""
    with request.store.writing() as writer:
        session = stored.get_or_404(writer.connection, "session", request.ids["session_id"], request.workspace)
        stored.delete_session(writer, session["key"])
    request.store.flush()
    return Response(202, {"message": "Session deleted successfully"})


def clone_session(request: Request) -> Response:
    """Copy a session, up to one of its messages if given."""
    with request.store.writing() as writer:
        session = stored.get_or_404(writer.connection, "session", request.ids["session_id"], request.workspace)
        key = clone(writer, session["key"], request.text("message_id"))
        row = writer.connection.execute("SELECT * FROM session WHERE key = ?", (key,)).fetchone()
    return Response(201, resource(row, request.workspace))


def list_session_peers(request: Request) -> Response:
    """List a session's members."""
    member = Condition(
        "peer.key IN (SELECT peer FROM member WHERE left_at IS NULL AND session = (SELECT session.key FROM session "
        "JOIN workspace ON workspace.key = session.workspace WHERE workspace.id = ? AND session.id = ?))",
        (request.workspace, request.ids["session_id"]),
    )
    return _list(request, "peer", member)


def add_session_peers(request: Request) -> Response:
    """Add peers to a session."""
    return _session(request, request.new_id("session_id"), ResourceUpdate(), request.body(Members).root)


def set_session_peers(request: Request) -> Response:
    """Replace a session's members."""
    return _session(
        request, request.new_id("session_id"), ResourceUpdate(), request.body(Members).root, replace_members=True
    )


def remove_session_peers(request: Request) -> Response:
    """Remove members from a session."""
    ids = request.body(PeerIds).root
    with request.store.writing() as writer:
        session = stored.get_or_404(writer.connection, "session", request.ids["session_id"], request.workspace)
        stored.remove_members(writer, session["key"], ids)
    return Response(200, resource(session, request.workspace))


def get_member_config(request: Request) -> Response:
    """Return what a member observes."""
    with request.store.reading() as connection:
        session, peer = _membership(connection, request)
        config = stored.member_config(connection, session, peer)
    if config is None:
        raise _not_a_member(request)
    return Response(200, config)


def set_member_config(request: Request) -> Response:
    """Set what a member observes."""
    config = request.body(MemberConfig)
    with request.store.writing() as writer:
        session, peer = _membership(writer.connection, request)
        if not stored.set_member_config(writer, session, peer, config.model_dump()):
            raise _not_a_member(request)
    return Response(204)


def _workspace(request: Request, id_: str, body: WorkspaceCreate | ResourceUpdate) -> Response:
    with request.store.writing() as writer:
        key, created = stored.ensure_workspace(writer, id_)
        row = stored.update(writer, "workspace", key, _changes(body))
    return Response(201 if created else 200, resource(row))


def _peer(request: Request, id_: str, body: PeerUpdate) -> Response:
    with request.store.writing() as writer:
        workspace, _ = stored.ensure_workspace(writer, request.new_id("workspace_id"))
        key, created = stored.ensure_peer(writer, workspace, id_)
        row = stored.update(writer, "peer", key, _changes(body))
    return Response(201 if created else 200, resource(row, request.workspace))


def _session(
    request: Request,
    id_: str,
    body: ResourceUpdate,
    peers: Mapping[str, MemberConfig] | None = None,
    *,
    replace_members: bool = False,
) -> Response:
    with request.store.writing() as writer:
        workspace, _ = stored.ensure_workspace(writer, request.new_id("workspace_id"))
        key, created = stored.ensure_session(writer, workspace, id_)
        if replace_members:
            stored.remove_all_members(writer, key)
        stored.add_members(writer, workspace, key, {id_: config.model_dump() for id_, config in (peers or {}).items()})
        row = stored.update(writer, "session", key, _changes(body))
    return Response(201 if created else 200, resource(row, request.workspace))


def _changes(body: JsonModel) -> Mapping[str, Any]:
    """Return the metadata and configuration of a request, without defaults."""
    return body.model_dump(include={"metadata", "configuration"}, exclude_unset=True)


def _list(request: Request, kind: Literal["peer", "session"], condition: Condition) -> Response:
    page_request = request.page()
    with request.store.reading() as connection:
        workspace = stored.find(connection, "workspace", request.workspace)
        if workspace is None:
            return Response(200, empty_page(page_request))
        own = Condition(f"{kind}.workspace = ?", (workspace["key"],))
        return Response(
            200,
            page(
                connection,
                f"SELECT * FROM {kind}",
                kind,
                all_of([own, condition]),
                request=page_request,
                to_json=lambda row: resource(row, request.workspace),
            ),
        )


def _membership(connection: sqlite3.Connection, request: Request) -> tuple[int, int]:
    session = stored.get_or_404(connection, "session", request.ids["session_id"], request.workspace)
    peer = stored.get_or_404(connection, "peer", request.ids["peer_id"], request.workspace)
    return session["key"], peer["key"]


def _not_a_member(request: Request) -> ApiError:
    return ApiError(404, f"Peer {request.ids['peer_id']} is not in session {request.ids['session_id']}")
