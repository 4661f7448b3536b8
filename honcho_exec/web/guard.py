"""Who may ask: the key, the name under which the server is reached, and no other web page.

A browser lets any web page send requests to this machine. A page of another origin is told apart by what the browser
itself says of it (Origin, Sec-Fetch-Site); one that had its own name point here (DNS rebinding) by that name.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

__all__ = ["Guard", "WSGIApplication", "is_loopback"]

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::[0-9]+)?")
_PORTS = {"http": ":80", "https": ":443"}
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)


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
    """Lets a request through to `app`, or refuses it.

    Args:
        app: what is guarded.
        key: the bearer key; None lets everybody in who comes by a loopback name.
        loopback_only: whether only this machine can reach the server, and only under its own names.
        is_open: whether a path may be read without a key: what holds nothing of anybody's.
    """

    def __init__(
        self, app: WSGIApplication, *, key: str | None, loopback_only: bool, is_open: Callable[[str], bool]
    ) -> None:
        self._app = app
        self._expected = None if key is None else f"Bearer {key}".encode()
        self._loopback_only = loopback_only
        self._is_open = is_open

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, or refuse it."""

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, *_HEADERS], *rest)

        if (refusal := self._refusal(environ)) is None:
            answer = self._app(environ, start)
        else:
            answer = self._refuse(start, *refusal)
        if environ.get("REQUEST_METHOD") != "HEAD":
            return answer
        # What follows the head would be taken for the next answer.
        if (close := getattr(answer, "close", None)) is not None:
            close()
        return []

    @staticmethod
    def _refuse(start: Callable[..., Any], status: HTTPStatus, detail: str) -> Iterable[bytes]:
        body = json.dumps({"detail": detail}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        if status is HTTPStatus.UNAUTHORIZED:
            headers.append(("WWW-Authenticate", "Bearer"))
        start(f"{status.value} {status.phrase}", headers)
        return [body]

    def _refusal(self, environ: dict[str, Any]) -> tuple[HTTPStatus, str] | None:
        host = str(environ.get("HTTP_HOST", ""))
        name = _HOST.fullmatch(host)
        if self._loopback_only and (name is None or not is_loopback(name[1])):
            return HTTPStatus.FORBIDDEN, "this server is reached as localhost or 127.0.0.1 only"
        reads = environ.get("REQUEST_METHOD") in {"GET", "HEAD"}
        is_open = reads and self._is_open(str(environ.get("PATH_INFO", "")))
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and not _is_of(str(origin), host):
            return HTTPStatus.FORBIDDEN, "a web page of another origin may not ask here"
        if environ.get("HTTP_SEC_FETCH_SITE", "none") not in {"none", "same-origin"} and not is_open:
            return HTTPStatus.FORBIDDEN, "a web page of another origin may not ask here"
        if is_open or self._expected is None:
            return None
        shown = str(environ.get("HTTP_AUTHORIZATION", "")).encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(shown, self._expected):
            return HTTPStatus.UNAUTHORIZED, "a valid key is needed: Authorization: Bearer KEY"
        return None
