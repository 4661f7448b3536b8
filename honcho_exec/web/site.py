"""The page, its login and outbox state, in front of the served Honcho."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from typing import Any

from honcho_exec.errors import HonchoExecError
from honcho_exec.web.guard import WSGIApplication

__all__ = ["Site", "is_public"]

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/dom.js": ("dom.js", "text/javascript; charset=utf-8"),
    "/plot.js": ("plot.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_OUTBOX = "/local/outbox"
_LOGIN = "/local/login"
_READS = frozenset({"GET", "HEAD"})
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def is_public(method: str, path: str) -> bool:
    """Return whether a request requires no key: page, health and login."""
    if method == "POST":
        return path == _LOGIN
    return method in _READS and (path in _FILES or path == "/health")


class Site:
    """Serve the page, and pass every other request to `honcho`.

    Args:
        honcho: the WSGI application of the embedded Honcho.
        outbox: returns the state of the outbox as JSON values.
        redeem: returns the key for a one-time code, or None if the code is not valid.
    """

    def __init__(
        self,
        honcho: WSGIApplication,
        outbox: Callable[[], Mapping[str, object]],
        redeem: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._honcho = honcho
        self._outbox = outbox
        self._redeem = redeem
        folder = files("honcho_exec.web") / "static"
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        path, method = str(environ.get("PATH_INFO", "")), str(environ.get("REQUEST_METHOD"))
        reads = method in _READS
        if reads and path in self._files:
            body, kind = self._files[path]
            headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
            start_response("200 OK", [*headers, ("Content-Security-Policy", _POLICY)])
            return [body]
        if reads and path == _OUTBOX:
            return self._outbox_state(start_response)
        if method == "POST" and path == _LOGIN:
            if (key := self._redeem(str(environ.get("HTTP_HONCHO_EXEC_CODE", "")))) is None:
                return _json(start_response, "401 Unauthorized", {"detail": "the code was used, or has expired"})
            return _json(start_response, "200 OK", {"key": key})
        return self._honcho(environ, start_response)

    def _outbox_state(self, start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            return _json(start_response, "200 OK", self._outbox())
        except HonchoExecError as error:
            return _json(start_response, "503 Service Unavailable", {"detail": str(error)})


def _json(start_response: Callable[..., Any], status: str, value: Mapping[str, object]) -> Iterable[bytes]:
    body = json.dumps(value).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
