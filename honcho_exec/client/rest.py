"""A server's API without the SDK, over all of its workspaces."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from honcho_exec.client.backend import Backend
from honcho_exec.errors import Unavailable
from honcho_exec.net.failures import connection_failed, from_status, timed_out, unexpected_response

__all__ = ["RawApi", "quote_segment", "workspace_path"]

# The largest page that Honcho gives, and where a list is taken for endless (pages, seconds).
_PAGE = 100
_LIST_PAGES = 1_000
_LIST_SECONDS = 60.0


class RawApi:
    """Makes requests to one server; every method raises Rejected, Unavailable or Ambiguous when one fails."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Raise the package's error if a field of a response is missing inside."""
        try:
            yield
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise unexpected_response(self._backend.shown) from error

    def ids(self, path: str, filters: Mapping[str, Any] | None = None) -> set[str]:
        """Return the ids of all resources below a path that the filters match."""
        body = {"filters": filters} if filters else {}
        return {str(item["id"]) for item in self.pages("POST", f"{path}/list", body)}

    def pages(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
        """Yield every item of a list once, whatever number of pages the server reports.

        Raises:
            Unavailable: the list does not end within a thousand pages or a minute; the items before are yielded.
        """
        seen: set[str] = set()
        until = time.monotonic() + _LIST_SECONDS
        for number in range(1, _LIST_PAGES + 1):
            found = self.request(method, f"{path}?page={number}&size={_PAGE}", body).json()
            fresh = [item for item in found["items"] if str(item["id"]) not in seen]
            seen.update(str(item["id"]) for item in fresh)
            yield from fresh
            more = number < found["pages"] or len(seen) < found.get("total", 0) or len(found["items"]) >= _PAGE
            if not (fresh and more):
                return
            if time.monotonic() > until:
                break
        raise Unavailable(
            f"a list of {self._backend.shown} does not end: {len(seen)} items were read, and the rest was left out",
            cause="endless_list",
        )

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """Make one request and return its response, which is a success."""
        key, shown = self._backend.api_key, self._backend.shown
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        begun = time.monotonic()
        try:
            answer = self._backend.http.request(method, self._backend.url + path, json=body, headers=headers)
        except httpx.TimeoutException as error:
            raise timed_out(shown, error, time.monotonic() - begun) from error
        except httpx.HTTPError as error:
            raise connection_failed(shown, error) from error
        if not answer.is_success:
            raise from_status(shown, answer)
        return answer


def quote_segment(id_: str) -> str:
    """Return an id as a segment of a path."""
    return quote(id_, safe="")


def workspace_path(id_: str) -> str:
    """Return the path of a workspace."""
    return f"/v3/workspaces/{quote_segment(id_)}"
