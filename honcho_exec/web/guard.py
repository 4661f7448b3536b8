"""Decide which requests are answered: the key, the host name, and no other web page.

A browser lets any web page send requests to this machine. A page of another origin is recognised by what the browser
itself reports (Origin, Sec-Fetch-Site); one whose own name resolves to this machine (DNS rebinding) by that name.
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
    """An answer in the form of Honcho's errors, given instead of what was asked for."""

    status: HTTPStatus
    detail: str

    def to_response(self, _: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return status line, headers and body; waitress calls this for a request that is not passed on."""
        body = json.dumps({"detail": self.detail}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *_HEADERS]
        if self.status is HTTPStatus.UNAUTHORIZED:
            headers.append(("WWW-Authenticate", "Bearer"))
        if self.status is HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append(("Retry-After", "1"))
        return f"{self.status.value} {self.status.phrase}", headers, body


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine's own name, or an address that only this machine can reach."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_of(origin: str, host: str) -> bool:
    """Whether a page of `origin` came from the server that is asked as `host`.

    Either scheme will do: behind a proxy with TLS the page's is https, and the server sees http. A page of the same
    name and port with the other scheme is of whoever answers under that name; without the key it learns nothing.
    """
    scheme, _, place = origin.partition("://")
    if scheme not in _PORTS:
        return False
    return place.removesuffix(_PORTS[scheme]) == host.lower().removesuffix(_PORTS[scheme])


class Guard:
    """Pass a request on to `app`, or refuse it.

    Args:
        app: the application that is guarded.
        key: the bearer key; None admits everybody who comes by a loopback name.
        loopback_only: whether only this machine can reach the server, and only under its own names.
        needs_no_key: whether a method on a path is answered without a key, because it reveals nothing.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        key: str | None,
        loopback_only: bool,
        needs_no_key: Callable[[str, str], bool],
    ) -> None:
        self._app = app
        self._key = None if key is None else key.encode()
        self._loopback_only = loopback_only
        self._needs_no_key = needs_no_key

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
        # What follows the head would be taken for the next answer.
        if (close := getattr(answer, "close", None)) is not None:
            close()
        return []

    def shows_key(self, environ: Mapping[str, Any]) -> bool:
        """Whether the request carries the key, or none is required."""
        if self._key is None:
            return True
        scheme, _, shown = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
        token = shown.strip(" ").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(token, self._key) and scheme.lower() == "bearer"

    def refusal(self, environ: Mapping[str, Any]) -> Refusal | None:
        """Return why a request is refused, judged by its head alone; None if it is admitted."""
        host = str(environ.get("HTTP_HOST", ""))
        name = _HOST.fullmatch(host)
        if self._loopback_only and (name is None or not is_loopback(name[1])):
            return Refusal(HTTPStatus.FORBIDDEN, "this server is reached as localhost or 127.0.0.1 only")
        method = str(environ.get("REQUEST_METHOD"))
        keyless = self._needs_no_key(method, str(environ.get("PATH_INFO", "")))
        origin = environ.get("HTTP_ORIGIN")
        foreign = Refusal(HTTPStatus.FORBIDDEN, "a web page of another origin may not ask here")
        if origin is not None and not _is_of(str(origin), host):
            return foreign
        may_link = keyless and method in {"GET", "HEAD"}
        if environ.get("HTTP_SEC_FETCH_SITE", "none") not in {"none", "same-origin"} and not may_link:
            return foreign
        if keyless or self.shows_key(environ):
            return None
        return Refusal(HTTPStatus.UNAUTHORIZED, "a valid key is needed: Authorization: Bearer KEY")
