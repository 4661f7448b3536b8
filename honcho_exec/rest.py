"""A server's API as it is, over all of its workspaces; the errors say what became of a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from honcho_exec.backend import Backend
from honcho_exec.errors import Ambiguous, Rejected, Unavailable
from honcho_exec.server_words import server_words

__all__ = ["Rest", "part", "workspace_path"]

_LATE = 3.0
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class Rest:
    """Makes requests to one server; every method raises Rejected, Unavailable or Ambiguous when one fails."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Turn an answer in which something is missing into the error that it is."""
        try:
            yield
        except (ValueError, KeyError, TypeError) as error:
            text = f"{self._backend.shown} gave an answer that is not Honcho's"
            raise Ambiguous(text, cause="bad_answer") from error

    def ids(self, path: str) -> set[str]:
        """The ids of all that is below a path."""
        return {str(item["id"]) for item in self.pages("POST", f"{path}/list", {})}

    def pages(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
        """Every item of a list."""
        number = pages = 1
        while number <= pages:
            found = self.request(method, f"{path}?page={number}&size=100", body).json()
            yield from found["items"]
            number, pages = number + 1, found["pages"]

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """Make one request; its answer is a success."""
        key, shown = self._backend.api_key, self._backend.shown
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            answer = self._backend.http.request(method, self._backend.url + path, json=body, headers=headers)
        except _UNSENT as error:
            raise Unavailable(f"{shown} cannot be reached: {error}", cause="connection") from error
        except httpx.HTTPError as error:
            text = f"{shown} did not answer: {type(error).__name__}"
            raise Ambiguous(text, cause="connection", retry_after=_LATE, late=_LATE) from error
        _check(answer, shown)
        return answer


def part(id_: str) -> str:
    """An id as a part of a path."""
    return quote(id_, safe="")


def workspace_path(id_: str) -> str:
    """Where a workspace is."""
    return f"/v3/workspaces/{part(id_)}"


def _check(answer: httpx.Response, shown: str) -> None:
    """Raise what the status means."""
    status = answer.status_code
    if answer.is_success:
        return
    if status in {401, 403}:
        raise Rejected(f"{shown} refused the key ({status}); set HONCHO_API_KEY", cause="auth", status=status)
    if status in {408, 425, 429}:
        raise Unavailable(f"{shown} asks to wait ({status})", cause="rate_limited", status=status, retry_after=_LATE)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR and status != httpx.codes.NOT_IMPLEMENTED:
        text = f"{shown} failed ({status})"
        raise Ambiguous(text, cause="server_error", status=status, retry_after=_LATE, late=_LATE)
    cause = "not_found" if status == httpx.codes.NOT_FOUND else "refused"
    said = server_words(answer.text, answer.request.content)
    raise Rejected(f"{shown} refused it ({status}): {said}", cause=cause, status=status)
