"""Requests for what is known about a peer or a session."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from honcho_exec.embedded.api.bodies import CardBody, ChatBody, RecallQuery, RepresentationBody, ScopedBody
from honcho_exec.embedded.api.request import Answer, Call
from honcho_exec.embedded.language_model import LanguageModel, ModelError
from honcho_exec.embedded.query import representation as recall
from honcho_exec.embedded.store.resources import ensure_peer, ensure_workspace, find, need
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

# How many conclusions and messages a language model is given to answer from.
_QUOTES_AT: Final = {"minimal": 10, "low": 20, "medium": 40, "high": 60, "max": 100}
_NO_WORK: Final = dict.fromkeys(
    ("total_work_units", "completed_work_units", "in_progress_work_units", "pending_work_units"), 0
)


def representation(call: Call) -> Answer:
    """What a peer knows about a target, itself when none is named."""
    body = call.body(RepresentationBody)
    with call.store.reading() as connection:
        view = _view(connection, call, body.target, _sessions(body))
        text = view and recall.representation(
            connection,
            view,
            body.search_query,
            top=body.search_top_k or 100,
            most=body.max_conclusions or 25,
        )
    return Answer(200, {"representation": text or ""})


def chat(call: Call) -> Answer:
    """Answer a question about a target: by the language model where there is one, else by quoting what is stored."""

    def found(connection: sqlite3.Connection, body: ChatBody, quotes: int) -> _Found | None:
        view = _view(connection, call, body.target, _sessions(body))
        if view is None:
            return None
        known = ""
        if call.model:
            known = recall.representation(connection, view, body.query, top=quotes, most=quotes, quotes=quotes)
        return _Found(recall.chat(connection, view, body.query), known, view.observed["id"])

    return _chat(call, found)


def chat_of_workspace(call: Call) -> Answer:
    """Answer a question about anybody in a workspace; newer servers than 3.0.12 have this."""

    def found(connection: sqlite3.Connection, body: ChatBody, quotes: int) -> _Found | None:
        workspace = find(connection, "workspace", call.workspace)
        if workspace is None:
            return None
        everyone = recall.Everyone(workspace["key"], _sessions(body))
        known = recall.chat(connection, everyone, body.query, quotes=quotes) if call.model else None
        return _Found(recall.chat(connection, everyone, body.query), known or "", "the people in it")

    return _chat(call, found)


@dataclass(frozen=True, slots=True)
class _Found:
    """What answers a question: quoted, and as a language model is given it, about whom."""

    quoted: str | None
    known: str
    observed: str


def _chat(call: Call, find_in: Callable[[sqlite3.Connection, ChatBody, int], _Found | None]) -> Answer:
    body = call.body(ChatBody)
    with call.store.reading() as connection:
        found = find_in(connection, body, _QUOTES_AT[body.reasoning_level])
    content = found.quoted if found else None
    if found and call.model and found.known:
        # Nothing is read from the file while the model is at it: that takes long.
        content = _answered(call.model, body.query, found)
    if not body.stream:
        return Answer(200, {"content": content})
    text = [{"delta": {"content": content}, "done": False}] if content else []
    return Answer(200, events=(*text, {"delta": {}, "done": True}))


def _answered(model: LanguageModel, query: str, found: _Found) -> str | None:
    """The model's answer, or what is quoted where it fails; both say who answered."""
    try:
        answer = model.answer(query, found.known, observed=found.observed)
    except ModelError as error:
        quoted = (found.quoted or "").removeprefix(recall.CHAT_PREFACE).strip() or "nothing that bears on the question"
        return f"From stored memory, without a language model ({model.name} {error}):\n\n{quoted}"
    return answer and f"From stored memory, by {model.name}:\n\n{answer}"


def get_card(call: Call) -> Answer:
    """Get a peer's card of a target, its own when none is named."""
    with call.store.reading() as connection:
        observer = need(connection, "peer", call.ids["peer_id"], call.workspace)
        lines = recall.card(connection, observer["key"], call.text("target") or observer["id"])
    return Answer(200, {"peer_card": lines})


def set_card(call: Call) -> Answer:
    """Replace a peer's card of a target, its own when none is named."""
    lines = call.body(CardBody).peer_card
    target = resource_id(call.text("target") or call.ids["peer_id"], "query", "target")
    with call.store.writing() as writer:
        workspace, _ = ensure_workspace(writer, call.new_id("workspace_id"))
        observer, _ = ensure_peer(writer, workspace, call.new_id("peer_id"))
        recall.set_card(writer.connection, observer, target, lines)
    return Answer(200, {"peer_card": lines})


def context_of_peer(call: Call) -> Answer:
    """A peer's representation and card of a target, of itself when none is named."""
    query = call.query(RecallQuery)
    with call.store.reading() as connection:
        observer = need(connection, "peer", call.ids["peer_id"], call.workspace)
        target = call.text("target") or observer["id"]
        text, card = _known(connection, call, query, observer["id"], target)
    known = {"peer_id": observer["id"], "target_id": target, "representation": text, "peer_card": card}
    return Answer(200, known)


def context_of_session(call: Call) -> Answer:
    """A session's summary and latest messages, and what is known about a target."""
    if call.text("scope"):
        raise ApiError(501, "'scope' is not served by the embedded Honcho; it needs a Honcho server")
    query = call.query(RecallQuery)
    target = call.text("peer_target")
    shown: dict[str, Any] = {"id": call.ids["session_id"], "messages": [], "summary": None}
    text, card = None, None
    with call.store.reading() as connection:
        workspace = find(connection, "workspace", call.workspace)
        session = workspace and find(connection, "session", call.ids["session_id"], workspace["key"])
        if session is not None:
            shown["summary"], shown["messages"] = recall.session_context(
                connection, session["key"], tokens=query.tokens, summarized=query.summary
            )
        if target:
            sessions = call.texts("sessions")
            if query.limit_to_session:
                sessions = [call.ids["session_id"]]
            observer = call.text("peer_perspective") or target
            text, card = _known(connection, call, query, observer, target, sessions=sessions)
    return Answer(200, {**shown, "peer_representation": text, "peer_card": card})


def summaries_of_session(call: Call) -> Answer:
    """A session's summaries."""
    found: dict[str, dict[str, Any] | None] = {"short": None, "long": None}
    with call.store.reading() as connection:
        workspace = find(connection, "workspace", call.workspace)
        session = workspace and find(connection, "session", call.ids["session_id"], workspace["key"])
        if session is not None:
            found = recall.session_summaries(connection, session["key"])
    return Answer(
        200,
        {"id": call.ids["session_id"], "short_summary": found["short"], "long_summary": found["long"]},
    )


def queue_status(_: Call) -> Answer:
    """Nothing is derived here, so nothing is ever waiting."""
    return Answer(200, {**_NO_WORK, "sessions": {}})


def _view(
    connection: sqlite3.Connection, call: Call, target: str | None, sessions: list[str] | None, observer: str = ""
) -> recall.View | None:
    """None when one of the two peers is not there: then nothing is known."""
    workspace = find(connection, "workspace", call.workspace)
    if workspace is None:
        return None
    observer = observer or call.ids["peer_id"]
    seer = find(connection, "peer", observer, workspace["key"])
    seen = find(connection, "peer", target or observer, workspace["key"])
    if seer is None or seen is None:
        return None
    return recall.View(workspace["key"], seer, seen, sessions)


def _known(
    connection: sqlite3.Connection,
    call: Call,
    query: RecallQuery,
    observer: str,
    target: str,
    *,
    sessions: list[str] | None = None,
) -> tuple[str | None, list[str] | None]:
    """A representation and a card; a card may be set of a peer that is not there yet."""
    seer = _view(connection, call, observer, None, observer)
    if seer is None:
        return None, None
    card = recall.card(connection, seer.observer["key"], target)
    view = _view(connection, call, target, sessions, observer)
    if view is None:
        return "", card
    text = recall.representation(
        connection,
        view,
        query.search_query,
        top=query.search_top_k,
        most=query.max_conclusions or 25,
    )
    return text, card


def _sessions(body: ScopedBody) -> list[str] | None:
    """The sessions to which a representation or a chat is confined, None for all."""
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
