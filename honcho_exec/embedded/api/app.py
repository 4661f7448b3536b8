"""The WSGI application: routes of Honcho's API, and answers to errors."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache, partial
from http import HTTPStatus
from typing import Any, Final

import falcon

from honcho_exec.embedded.api import messages, recall, resources
from honcho_exec.embedded.api.request import Handler, Request, Response
from honcho_exec.embedded.api.upload import upload
from honcho_exec.embedded.language_model import LanguageModel
from honcho_exec.embedded.limits import LARGE, body_limit
from honcho_exec.embedded.store.database import Store
from honcho_exec.embedded.wire import FILTERS_HEADER, MEMBERS_FILTER, ApiError
from honcho_exec.errors import StateError
from honcho_exec.forks import PerProcess
from honcho_exec.runtime.log import log_unexpected

__all__ = ["build_app"]

_log = logging.getLogger(__name__)

# A decoded body takes several times the memory of its JSON.
_one_large = PerProcess(threading.Lock)


def _health(_: Request) -> Response:
    return Response(200, {"status": "ok"})


def _unserved(_: Request, what: str) -> Response:
    raise ApiError(501, f"{what} is not served by the embedded Honcho; it needs a Honcho server")


_WORKSPACE: Final = "/v3/workspaces/{workspace_id}"
_PEER: Final = _WORKSPACE + "/peers/{peer_id}"
_SESSION: Final = _WORKSPACE + "/sessions/{session_id}"
_SCOPE: Final = _WORKSPACE + "/scopes/{scope_id}"

_ROUTES: Final[Mapping[str, Mapping[str, Handler]]] = {
    "/health": {"get": _health},
    "/v3/workspaces": {"post": resources.create_workspace},
    "/v3/workspaces/list": {"post": resources.list_workspaces},
    _WORKSPACE: {"put": resources.update_workspace, "delete": resources.delete_workspace},
    f"{_WORKSPACE}/chat": {"post": recall.chat_of_workspace},
    f"{_WORKSPACE}/search": {"post": messages.search_workspace},
    f"{_WORKSPACE}/queue/status": {"get": recall.queue_status},
    f"{_WORKSPACE}/peers": {"post": resources.create_peer},
    f"{_WORKSPACE}/peers/list": {"post": resources.list_peers},
    _PEER: {"put": resources.update_peer},
    f"{_PEER}/sessions": {"post": resources.list_peer_sessions},
    f"{_PEER}/chat": {"post": recall.chat},
    f"{_PEER}/representation": {"post": recall.representation},
    f"{_PEER}/card": {"get": recall.get_card, "put": recall.set_card},
    f"{_PEER}/context": {"get": recall.context_of_peer},
    f"{_PEER}/search": {"post": messages.search_peer},
    f"{_WORKSPACE}/sessions": {"post": resources.create_session},
    f"{_WORKSPACE}/sessions/list": {"post": resources.list_sessions},
    _SESSION: {"put": resources.update_session, "delete": resources.delete_session},
    f"{_SESSION}/clone": {"post": resources.clone_session},
    f"{_SESSION}/peers": {
        "get": resources.list_session_peers,
        "post": resources.add_session_peers,
        "put": resources.set_session_peers,
        "delete": resources.remove_session_peers,
    },
    f"{_SESSION}/peers/{{peer_id}}/config": {
        "get": resources.get_member_config,
        "put": resources.set_member_config,
    },
    f"{_SESSION}/context": {"get": recall.context_of_session},
    f"{_SESSION}/summaries": {"get": recall.summaries_of_session},
    f"{_SESSION}/search": {"post": messages.search_session},
    f"{_SESSION}/messages": {"post": messages.create_messages},
    f"{_SESSION}/messages/upload": {"post": upload},
    f"{_SESSION}/messages/list": {"post": messages.list_messages},
    f"{_SESSION}/messages/{{message_id}}": {"get": messages.get_message, "put": messages.update_message},
    f"{_WORKSPACE}/conclusions": {"post": messages.create_conclusions},
    f"{_WORKSPACE}/conclusions/list": {"post": messages.list_conclusions},
    f"{_WORKSPACE}/conclusions/query": {"post": messages.query_conclusions},
    f"{_WORKSPACE}/conclusions/{{conclusion_id}}": {"delete": messages.remove_conclusion},
}

_UNSERVED: Final[Mapping[str, tuple[str, ...]]] = {
    f"{_WORKSPACE}/schedule_dream": ("post",),
    f"{_WORKSPACE}/scopes": ("post",),
    f"{_WORKSPACE}/scopes/list": ("post",),
    _SCOPE: ("get",),
    f"{_SCOPE}/sessions": ("post",),
    f"{_SCOPE}/sessions/list": ("post",),
    f"{_SCOPE}/sessions/{{session_id}}": ("delete",),
    f"{_SCOPE}/status": ("get",),
    "/v3/keys": ("post",),
    f"{_WORKSPACE}/webhooks": ("post", "get"),
    f"{_WORKSPACE}/webhooks/test": ("get",),
    f"{_WORKSPACE}/webhooks/{{endpoint_id}}": ("delete",),
}


# The key in the WSGI environment for the function that makes a `Request`.
_REQUEST = "honcho_exec.request"


class _Resource:
    """A falcon resource with one `on_<method>` for each handler of a route."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        for method, handler in handlers.items():
            setattr(self, f"on_{method}", partial(self._answer, handler))

    @staticmethod
    def _answer(handler: Handler, http: falcon.Request, response: falcon.Response, **ids: str) -> None:
        raw = http.bounded_stream.read((most := body_limit(http.path)) + 1)
        if len(raw) > most:
            raise ApiError(413, f"The body has more than {most:,} bytes, which is the most that is taken here")
        request = http.env[_REQUEST](ids, http.params, raw, http.content_type or "")
        with _one_large() if len(raw) > LARGE else nullcontext():
            answer = handler(request)
        response.status = answer.status
        response.set_header(FILTERS_HEADER, MEMBERS_FILTER)
        if answer.events is not None:
            response.content_type = "text/event-stream"
            response.text = "".join(f"data: {_text(event)}\n\n" for event in answer.events)
        elif answer.value is not None:
            response.text = _text(answer.value)


def build_app(store: Store, model: LanguageModel | None = None) -> Callable[..., Any]:
    """Return a thread-safe WSGI application; `model` answers questions."""
    make_request = partial(Request, store, model=model)

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        environ[_REQUEST] = make_request
        return _routes()(environ, start_response)

    return serve


@cache
def _routes() -> falcon.App[falcon.Request, falcon.Response]:
    """Build the routes once: a gateway has hundreds of stores open."""
    app = falcon.App()
    app.add_error_handler(Exception, _unexpected_error)
    app.add_error_handler(falcon.HTTPError, _http_error)
    app.add_error_handler(StateError, _state_error)
    app.add_error_handler(ApiError, _api_error)
    for route in {**_ROUTES, **_UNSERVED}:
        handlers = dict(_ROUTES.get(route, {}))
        for method in _UNSERVED.get(route, ()):
            handlers[method] = partial(_unserved, what=f"{method.upper()} {route}")
        app.add_route(route, _Resource(handlers))
    return app


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _api_error(_: falcon.Request, response: falcon.Response, error: ApiError, __: Mapping[str, object]) -> None:
    response.status = error.status
    detail = error.detail
    if error.status == HTTPStatus.UNPROCESSABLE_ENTITY and isinstance(detail, str):
        # Every 422 has the shape that the document gives it.
        detail = [{"loc": ["body"], "msg": detail, "type": "value_error"}]
    response.text = _text({"detail": detail})


def _state_error(_: falcon.Request, response: falcon.Response, error: StateError, __: Mapping[str, object]) -> None:
    # Nothing was committed: 503 tells the client that a retry is safe.
    response.status = 503
    response.text = _text({"detail": str(error)})


def _unexpected_error(
    request: falcon.Request, response: falcon.Response, error: Exception, _: Mapping[str, object]
) -> None:
    log_unexpected(_log, f"{request.method} {request.uri_template}", error)
    response.status = 500
    response.text = _text({"detail": "An unexpected error occurred"})


def _http_error(
    _: falcon.Request, response: falcon.Response, error: falcon.HTTPError, __: Mapping[str, object]
) -> None:
    response.status = error.status_code
    response.set_headers(error.headers or {})
    response.text = _text({"detail": HTTPStatus(error.status_code).phrase})
