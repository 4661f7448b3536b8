"""The page's files, the state of the outbox, and behind them the Honcho that is served."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from typing import Any

from honcho_exec.errors import HonchoExecError
from honcho_exec.web.guard import WSGIApplication

__all__ = ["Site", "is_open"]

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_OUTBOX = "/local/outbox"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def is_open(path: str) -> bool:
    """Whether a path holds nothing of anybody's: the page's own files, and whether the server is there."""
    return path in _FILES or path == "/health"


class Site:
    """Answers for the page, and hands everything else to `honcho`.

    Args:
        honcho: the WSGI application of the embedded Honcho.
        outbox: the state of the outbox as JSON values.
    """

    def __init__(self, honcho: WSGIApplication, outbox: Callable[[], Mapping[str, object]]) -> None:
        self._honcho = honcho
        self._outbox = outbox
        folder = files("honcho_exec.web") / "static"
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        path, reads = str(environ.get("PATH_INFO", "")), environ.get("REQUEST_METHOD") in {"GET", "HEAD"}
        if reads and path in self._files:
            body, kind = self._files[path]
            headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
            start_response("200 OK", [*headers, ("Content-Security-Policy", _POLICY)])
            return [body]
        if reads and path == _OUTBOX:
            return self._state(start_response)
        return self._honcho(environ, start_response)

    def _state(self, start_response: Callable[..., Any]) -> Iterable[bytes]:
        status = "200 OK"
        try:
            state = self._outbox()
        except HonchoExecError as error:
            status, state = "503 Service Unavailable", {"detail": str(error)}
        body = json.dumps(state).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]
