"""Handlers for representations, chat, cards, contexts and summaries."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from honcho_exec.embedded.api.bodies import CardBody, ChatBody, RecallQuery, RepresentationBody, ScopedBody
from honcho_exec.embedded.api.request import Request, Response
from honcho_exec.embedded.language_model import LanguageModel, ModelError
from honcho_exec.embedded.query import representation as recall
from honcho_exec.embedded.store.resources import ensure_peer, ensure_workspace, find, find_in, get_or_404
from honcho_exec.embedded.wire import ApiError, resource_id

__all__ = [
    "chat",
    "chat_of_workspace",
    "context_of_peer",
    "context_of_session",
    "get_card",
    "queue_status",
    "representation",
    "set_card",
    "summaries_of_session",
]

# How many conclusions and messages a language model gets, by reasoning level.
_QUOTES: Final = {"minimal": 10, "low": 20, "medium": 40, "high": 60, "max": 100}
_NO_WORK: Final = dict.fromkeys(
    ("total_work_units", "completed_work_units", "in_progress_work_units", "pending_work_units"), 0
)


def representation(request: Request) -> Response:
    """Return what a peer knows about a target, by default itself."""
    body = request.body(RepresentationBody)
    with request.store.reading() as connection:
        view = _view(connection, request, body.target, _sessions(body))
        text = view and recall.representation(
            connection,
            view,
            body.search_query,
            top=body.search_top_k or 100,
            most=body.max_conclusions or 25,
        )
    return Response(200, {"representation": text or ""})


def chat(request: Request) -> Response:
    """Answer a question about a target, by the model if any, else by quoting."""

    def find_material(connection: sqlite3.Connection, body: ChatBody, quotes: int) -> _Material | None:
        view = _view(connection, request, body.target, _sessions(body))
        if view is None:
            return None
        known = ""
        if request.model:
            known = recall.representation(connection, view, body.query, top=quotes, most=quotes, quotes=quotes)
        return _Material(recall.chat(connection, view, body.query), known, view.observed["id"])

    return _chat(request, find_material)


def chat_of_workspace(request: Request) -> Response:
    """Answer a question about any peer, as servers after 3.0.12 do."""

    def find_material(connection: sqlite3.Connection, body: ChatBody, quotes: int) -> _Material | None:
        workspace = find(connection, "workspace", request.workspace)
        if workspace is None:
            return None
        everyone = recall.Everyone(workspace["key"], _sessions(body))
        known = recall.chat(connection, everyone, body.query, quotes=quotes) if request.model else None
        return _Material(recall.chat(connection, everyone, body.query), known or "", "the people in it")

    return _chat(request, find_material)


@dataclass(frozen=True, slots=True)
class _Material:
    """Material for an answer: quotes, context for a model, and the subject."""

    quoted: str | None
    known: str
    observed: str


def _chat(request: Request, find_material: Callable[[sqlite3.Connection, ChatBody, int], _Material | None]) -> Response:
    body = request.body(ChatBody)
    with request.store.reading() as connection:
        material = find_material(connection, body, _QUOTES[body.reasoning_level])
    content = material.quoted if material else None
    if material and request.model and material.known:
        # The read transaction is over: the model takes long.
        content = _answered(request.model, body.query, material)
    if not body.stream:
        return Response(200, {"content": content})
    text = [{"delta": {"content": content}, "done": False}] if content else []
    return Response(200, events=(*text, {"delta": {}, "done": True}))


def _answered(model: LanguageModel, query: str, material: _Material) -> str | None:
    """Return the model's answer, or quotes if it fails; both name the source."""
    try:
        answer = model.answer(query, material.known, observed=material.observed)
    except ModelError as error:
        quotes = (material.quoted or "").removeprefix(recall.CHAT_PREFACE).strip()
        preface = f"From stored memory, without a language model ({model.name} {error})"
        return f"{preface}:\n\n{quotes or 'nothing that bears on the question'}"
    return answer and f"From stored memory, by {model.name}:\n\n{answer}"


def get_card(request: Request) -> Response:
    """Get a peer's card of a target, by default itself."""
    with request.store.reading() as connection:
        observer = get_or_404(connection, "peer", request.ids["peer_id"], request.workspace)
        lines = recall.card(connection, observer["key"], request.text("target") or observer["id"])
    return Response(200, {"peer_card": lines})


def set_card(request: Request) -> Response:
    """Replace a peer's card of a target, by default itself."""
    lines = request.body(CardBody).peer_card
    target = resource_id(request.text("target") or request.ids["peer_id"], "query", "target")
    with request.store.writing() as writer:
        workspace, _ = ensure_workspace(writer, request.new_id("workspace_id"))
        observer, _ = ensure_peer(writer, workspace, request.new_id("peer_id"))
        recall.set_card(writer.connection, observer, target, lines)
    return Response(200, {"peer_card": lines})


def context_of_peer(request: Request) -> Response:
    """Return a peer's representation and card of a target, by default itself."""
    query = request.query(RecallQuery)
    with request.store.reading() as connection:
        observer = get_or_404(connection, "peer", request.ids["peer_id"], request.workspace)
        target = request.text("target") or observer["id"]
        text, card = _known(connection, request, query, observer["id"], target)
    known = {"peer_id": observer["id"], "target_id": target, "representation": text, "peer_card": card}
    return Response(200, known)


def context_of_session(request: Request) -> Response:
    """Return a session's summary and messages, and knowledge of a target."""
    if request.text("scope"):
        raise ApiError(501, "'scope' is not served by the embedded Honcho; it needs a Honcho server")
    query = request.query(RecallQuery)
    target = request.text("peer_target")
    context: dict[str, Any] = {"id": request.ids["session_id"], "messages": [], "summary": None}
    text, card = None, None
    with request.store.reading() as connection:
        session = find_in(connection, "session", request.ids["session_id"], request.workspace)
        if session is not None:
            context["summary"], context["messages"] = recall.session_context(
                connection, session["key"], tokens=query.tokens, summarized=query.summary
            )
        if target:
            sessions = request.texts("sessions")
            if query.limit_to_session:
                sessions = [request.ids["session_id"]]
            observer = request.text("peer_perspective") or target
            text, card = _known(connection, request, query, observer, target, sessions=sessions)
    return Response(200, {**context, "peer_representation": text, "peer_card": card})


def summaries_of_session(request: Request) -> Response:
    """Return a session's summaries."""
    summaries: dict[str, dict[str, Any] | None] = {"short": None, "long": None}
    with request.store.reading() as connection:
        session = find_in(connection, "session", request.ids["session_id"], request.workspace)
        if session is not None:
            summaries = recall.session_summaries(connection, session["key"])
    return Response(
        200,
        {"id": request.ids["session_id"], "short_summary": summaries["short"], "long_summary": summaries["long"]},
    )


def queue_status(_: Request) -> Response:
    """Return an empty queue: the embedded Honcho derives nothing."""
    return Response(200, {**_NO_WORK, "sessions": {}})


def _view(
    connection: sqlite3.Connection, request: Request, target: str | None, sessions: list[str] | None, observer: str = ""
) -> recall.View | None:
    """Return a view, None if one of the two peers does not exist."""
    observer = observer or request.ids["peer_id"]
    rows = [find_in(connection, "peer", id_, request.workspace) for id_ in (observer, target or observer)]
    return recall.View(rows[0], rows[1], sessions) if rows[0] and rows[1] else None


def _known(
    connection: sqlite3.Connection,
    request: Request,
    query: RecallQuery,
    observer: str,
    target: str,
    *,
    sessions: list[str] | None = None,
) -> tuple[str | None, list[str] | None]:
    """Return a representation and a card, which may be of an unknown peer."""
    row = find_in(connection, "peer", observer, request.workspace)
    if row is None:
        return None, None
    card = recall.card(connection, row["key"], target)
    view = _view(connection, request, target, sessions, observer)
    if view is None:
        return "", card
    most = query.max_conclusions or 25
    return recall.representation(connection, view, query.search_query, top=query.search_top_k, most=most), card


def _sessions(body: ScopedBody) -> list[str] | None:
    """Return the sessions that a request is limited to, None for all."""
    one, filters = body.session_id, body.filters
    if filters is None:
        return None if one is None else [one]
    allowed = filters.get("session_id")
    if isinstance(allowed, dict) and set(allowed) == {"in"}:
        allowed = allowed["in"]
    if isinstance(allowed, str):
        allowed = [allowed]
    if set(filters) != {"session_id"} or not isinstance(allowed, list):
        raise ApiError(422, "filters must hold 'session_id' only: an id, a list of ids, or {\"in\": [...]}")
    allowed = [resource_id(id_, "body", "filters", "session_id") for id_ in allowed]
    if one is not None and one not in allowed:
        raise ApiError(422, "session_id is not among those of the filters")
    return allowed if one is None else [one]
