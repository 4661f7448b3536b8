"""A WSGI app that hands every request on to a server, so that a real one can misbehave on demand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["Proxy"]

_HOPS = {"connection", "content-encoding", "content-length", "transfer-encoding"}


class Proxy:
    """Hands requests on to `url`, with `api_key` if one is given; a WSGI application."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=30)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        answer = self._client.request(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            params=environ.get("QUERY_STRING", ""),
            content=environ["wsgi.input"].read(length),
            headers={"content-type": environ.get("CONTENT_TYPE", "application/json")},
        )
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOPS]
        start_response(f"{answer.status_code} {answer.reason_phrase}", kept)
        return [answer.content]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
