"""Decide which requests are answered, by key, host name and origin.

A browser lets any web page send requests to this machine. A page of another origin is recognised by the headers that
the browser sets (Origin, Sec-Fetch-Site); a page whose name resolves to this machine (DNS rebinding) by that name.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

__all__ = ["Guard", "Refusal", "WSGIApplication", "is_loopback"]

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::[0-9]+)?")
_PORTS = {"http": ":80", "https": ":443"}
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer in the form of Honcho's errors, in place of the requested one."""

    status: HTTPStatus
    detail: str

    def to_response(self, _: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return status line, headers and body; called by waitress, too."""
        body = json.dumps({"detail": self.detail}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *_HEADERS]
        if self.status is HTTPStatus.UNAUTHORIZED:
            headers.append(("WWW-Authenticate", "Bearer"))
        if self.status is HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append(("Retry-After", "1"))
        return f"{self.status.value} {self.status.phrase}", headers, body


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`, a name or an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _same_origin(origin: str, host: str) -> bool:
    """Return whether `origin` is the server addressed as `host`.

    The scheme may differ: behind a TLS proxy the page's is https, and the server sees http. A page of the same name and
    port with the other scheme comes from the owner of that name; without the key it learns nothing.
    """
    scheme, _, authority = origin.partition("://")
    if scheme not in _PORTS:
        return False
    return authority.removesuffix(_PORTS[scheme]) == host.lower().removesuffix(_PORTS[scheme])


class Guard:
    """Pass a request to `app`, or refuse it.

    Args:
        app: the guarded application.
        key: the bearer key; None if none is required.
        loopback_only: admit only requests to a loopback name or address.
        is_public: returns whether a method on a path is answered without a key.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        key: str | None,
        loopback_only: bool,
        is_public: Callable[[str, str], bool],
    ) -> None:
        self._app = app
        self._key = None if key is None else key.encode()
        self._loopback_only = loopback_only
        self._is_public = is_public

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, or refuse it."""

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, *_HEADERS], *rest)

        answer: Iterable[bytes]
        if (refusal := self.refusal(environ)) is None:
            answer = self._app(environ, start)
        else:
            status, headers, body = refusal.to_response()
            start_response(status, headers)
            answer = [body]
        if environ.get("REQUEST_METHOD") != "HEAD":
            return answer
        # A body after the head would be taken for the next answer.
        if (close := getattr(answer, "close", None)) is not None:
            close()
        return []

    def has_key(self, environ: Mapping[str, Any]) -> bool:
        """Return whether the request has the key, or none is required."""
        if self._key is None:
            return True
        scheme, _, credentials = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
        token = credentials.strip(" ").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(token, self._key) and scheme.lower() == "bearer"

    def refusal(self, environ: Mapping[str, Any]) -> Refusal | None:
        """Return why a request is refused by its head; None if it is admitted."""
        host = str(environ.get("HTTP_HOST", ""))
        name = _HOST.fullmatch(host)
        if self._loopback_only and (name is None or not is_loopback(name[1])):
            return Refusal(HTTPStatus.FORBIDDEN, "this server is reached as localhost or 127.0.0.1 only")
        method = str(environ.get("REQUEST_METHOD"))
        public = self._is_public(method, str(environ.get("PATH_INFO", "")))
        origin = environ.get("HTTP_ORIGIN")
        cross_origin = Refusal(HTTPStatus.FORBIDDEN, "a web page of another origin may not ask here")
        if origin is not None and not _same_origin(str(origin), host):
            return cross_origin
        may_link = public and method in {"GET", "HEAD"}
        if environ.get("HTTP_SEC_FETCH_SITE", "none") not in {"none", "same-origin"} and not may_link:
            return cross_origin
        if public or self.has_key(environ):
            return None
        return Refusal(HTTPStatus.UNAUTHORIZED, "a valid key is required: Authorization: Bearer KEY")
