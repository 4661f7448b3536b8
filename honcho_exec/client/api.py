"""Requests to Honcho through its SDK, which only this module, `reads` and `guard` import."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

import honcho
import httpx
from honcho.api_types import MessageCreateParams, SessionPeerConfig

from honcho_exec.client.backend import Backend
from honcho_exec.client.guard import RequestGuard
from honcho_exec.client.reads import Reads
from honcho_exec.client.reconciliation import PAGE_SIZE, Reconciliation
from honcho_exec.clock import Clock, Deadline
from honcho_exec.errors import Rejected, SessionDeleted
from honcho_exec.model import Card, Conclusion, Message
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.failures import LATE_SECONDS
from honcho_exec.net.transport import request_deadline
from honcho_exec.runtime.metrics import Meter

__all__ = ["BATCH_KEY", "ROW_KEY", "SOURCE_KEY", "HonchoApi"]

BATCH_KEY = "honcho_exec_batch"
"""Message metadata: the id of the frozen batch that the message was sent in."""

ROW_KEY = "honcho_exec_row"
"""Message metadata: the key of the message's row in the outbox."""

SOURCE_KEY = "honcho_exec_source"
"""Message metadata: the source key of a message that has one."""

_MEMBERS_PER_PAGE = 50
# The wait before a deleted session is asked for again: the server needs a few seconds to delete it, and up to 300 s if
# it was asked for meanwhile.
_NAME_FREED_AFTER_SECONDS = 20.0


class HonchoApi:
    """One workspace of one Honcho; usable from any thread.

    Every method makes at least one request, and raises:
        Rejected, Unavailable, Ambiguous: the request failed; the class says what became of it.
        StateError: the embedded backend's file cannot be used.

    Attributes:
        reads: the requests that tools and recall make.
    """

    def __init__(
        self, backend: Backend, workspace: str, *, timeout: float, clock: Clock, breaker: Breaker, meter: Meter
    ) -> None:
        self._backend = backend
        self._base_url = backend.url
        self._http = backend.http
        self._workspace = workspace
        self._timeout = timeout
        self._clock = clock
        self._guard = RequestGuard(backend.shown, clock=clock, breaker=breaker, meter=meter)
        self._reconciliation = Reconciliation(lambda: self._guard.check_answer("items"), clock)
        self._workspace_since = ""
        # Sessions whose names were not free when they were asked for last; for the lane.
        self._deleted: set[str] = set()
        backend.http.event_hooks = {"response": [self._guard.note_answer, self._note_workspace]}
        self._sdk = self._client(httpx.Client(transport=_WithoutWorkspace(backend.http)))
        self.reads = Reads(self._sdk, self._guard)

    @property
    def patience(self) -> float:
        """Seconds from the start of a request in which it may still arrive although its caller has given up."""
        return min(self._timeout, LATE_SECONDS) + LATE_SECONDS

    @staticmethod
    def within(deadline: Deadline) -> AbstractContextManager[None]:
        """Bound every request made inside by `deadline` as well as by the request timeout."""
        return request_deadline(deadline)

    def ping(self) -> None:
        """Verify that the server answers and accepts the key, also while the breaker is open."""
        with self._guard.request(ignore_breaker=True):
            self._sdk.peers(size=1)
            self._guard.check_answer("items")

    def workspace_since(self) -> str:
        """Return when the workspace was created, by the server's clock; creates it, in at most one request.

        Another time for the same name means another server, or one that was emptied.
        """
        if not self._workspace_since:
            with self._guard.request():
                # The SDK has no public name for it; of what is public, this begins with it.
                client = self._client(self._http)
                getattr(client, "_ensure_workspace", client.get_metadata)()
        return self._workspace_since

    def server_version(self, deadline: Deadline) -> str | None:
        """Return the server's title and version, None if it does not report them; the SDK has no request for it."""
        with self.within(deadline):
            try:
                answer = self._http.get(f"{self._base_url}/openapi.json", timeout=self._timeout)
                info = answer.json()["info"]
                return f"{info['title']} {info['version']}"[:80]
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                return None

    def ensure_session(self, session: str) -> None:
        """Get or create the session, joining nobody.

        Raises:
            SessionDeleted: it was deleted, and its name is not free yet.
        """
        self.workspace_since()
        try:
            with self._guard.request():
                self._sdk.session(session)
        except Rejected as error:
            if error.cause != "not_found":
                raise
            self._deleted.add(session)
            raise SessionDeleted(session, retry_after=_NAME_FREED_AFTER_SECONDS) from error
        self._deleted.discard(session)

    def ensure_peers(self, peers: Collection[str]) -> None:
        """Get or create peers in no session."""
        for peer in sorted(peers):
            with self._guard.request():
                self._sdk.peer(peer)

    def members(self, session: str) -> tuple[frozenset[str], bool]:
        """Return the session's members, and whether these are all."""
        with self._guard.request():
            found = frozenset(peer.id for peer in honcho.Session(session, self._sdk).peers())
            self._guard.check_answer("items")
            total = self._guard.answer.json().get("total")
        # One request, however many there are: a list may never end, and a page may be smaller than it was asked for.
        return found, len(found) < _MEMBERS_PER_PAGE and total in (None, len(found))

    def join(self, session: str, peers: Mapping[str, tuple[bool, bool]]) -> None:
        """Join peers as (observe_me, observe_others); joining a member again hides what was said before."""
        # Two requests that name peers in opposite orders can deadlock in the server.
        joining: list[tuple[honcho.PeerBase | str, SessionPeerConfig]] = [
            (peer, SessionPeerConfig(observe_me=me, observe_others=others))
            for peer, (me, others) in sorted(peers.items())
        ]
        with self._guard.request():
            honcho.Session(session, self._sdk).add_peers(joining)
            self._guard.check_answer("id")

    def add_messages(
        self, session: str, messages: Sequence[Message], *, batch: str, keys: Sequence[str | None] = ()
    ) -> None:
        """Write at most 100 messages, all or none, marked with the batch's id and each with its row's key."""
        marks = [*keys, *[None] * (len(messages) - len(keys))]
        try:
            params = [_message_params(message, batch, key) for message, key in zip(messages, marks, strict=True)]
        except ValueError as error:
            raise Rejected("a message cannot be put into a request", cause="refused") from error
        with self._guard.request():
            _check_count(honcho.Session(session, self._sdk).add_messages(params), len(params))

    def has_batch(self, session: str, batch: str) -> bool:
        """Return whether Honcho has the messages of a batch."""
        return bool(self._marked(session, BATCH_KEY, {batch}, batch))

    def known_rows(self, session: str, keys: Collection[str]) -> frozenset[str]:
        """Return those of at most 100 row keys that messages of the session carry."""
        return self._marked(session, ROW_KEY, keys, {"in": sorted(keys)})

    def known_sources(self, session: str, keys: Collection[str]) -> frozenset[str]:
        """Return those of at most 100 source keys that messages of the session carry."""
        return self._marked(session, SOURCE_KEY, keys, {"in": sorted(keys)})

    def _marked(self, session: str, mark: str, wanted: Collection[str], condition: object) -> frozenset[str]:
        """Return the wanted marks that messages of the session carry in their metadata.

        Each message is checked itself: a server may ignore filters.
        """
        with self._guard.request():
            page = honcho.Session(session, self._sdk).messages(
                filters={"metadata": {mark: condition}}, size=PAGE_SIZE, reverse=True
            )
            return self._reconciliation.marks(page, mark, wanted)

    def newest_message_at(self, session: str) -> datetime | None:
        """Return when the newest message of a session was created, by the server's clock; None if there is none."""
        with self._guard.request():
            page = honcho.Session(session, self._sdk).messages(size=1, reverse=True)
            self._guard.check_answer("items")
            return max((message.created_at for message in page.items), default=None)

    def add_conclusions(self, session: str, conclusions: Sequence[Conclusion]) -> None:
        """Write at most 100 conclusions of one observer about one peer, all or none.

        They belong to no session if theirs was deleted and its name is not free yet.
        """
        first = conclusions[0]
        location: dict[str, str] = {} if session in self._deleted else {"session_id": session}
        with self._guard.request():
            written = self._scope(first.observer, first.observed).create(
                [{"content": conclusion.content, **location} for conclusion in conclusions]
            )
            _check_count(written, len(conclusions))

    def known_conclusions(self, observer: str, observed: str, contents: Collection[str]) -> frozenset[str]:
        """Return those of these contents that `observer` holds about `observed`, however old."""
        return frozenset(self._conclusion_ids(observer, observed, contents, until_found=True))

    def conclusion_ids(self, observer: str, observed: str, contents: Collection[str]) -> dict[str, list[str]]:
        """Return the ids of all conclusions with one of these contents, by content."""
        return self._conclusion_ids(observer, observed, contents, until_found=False)

    def _conclusion_ids(
        self, observer: str, observed: str, contents: Collection[str], *, until_found: bool
    ) -> dict[str, list[str]]:
        with self._guard.request():
            page = self._scope(observer, observed).list(size=PAGE_SIZE)
            return self._reconciliation.conclusion_ids(page, observer, observed, contents, until_found=until_found)

    def has_conclusion(self, conclusion_id: str, observer: str, observed: str, *, session: str | None) -> bool:
        """Return whether `observer` holds this conclusion about `observed`; from one session if one is named.

        Raises:
            Inconclusive: the list has no end within the bounds of a look-up.
        """
        with self._guard.request():
            page = self._scope(observer, observed).list(size=PAGE_SIZE, session=session)
            return self._reconciliation.has_conclusion(page, conclusion_id, observer, observed, session=session)

    def delete_conclusion(self, conclusion_id: str) -> None:
        """Delete a conclusion; raises `Rejected` with cause `not_found` if there is none."""
        with self._guard.request():
            self._scope("any", "any").delete(conclusion_id)
            if self._guard.answer.content:
                raise ValueError("an answer without content was expected")

    def set_card(self, card: Card) -> None:
        """Overwrite a card."""
        target = None if card.observed == card.observer else card.observed
        with self._guard.request():
            honcho.Peer(card.observer, self._sdk).set_card(list(card.facts), target=target)
            self._guard.check_answer("peer_card")

    def _client(self, http: httpx.Client) -> honcho.Honcho:
        return honcho.Honcho(
            workspace_id=self._workspace,
            base_url=self._base_url,
            api_key=self._backend.api_key or "local",
            timeout=self._timeout,
            max_retries=0,
            http_client=http,
        )

    def _scope(self, observer: str, observed: str) -> honcho.ConclusionScope:
        return honcho.ConclusionScope(self._sdk, self._sdk.workspace_id, observer, observed)

    def _note_workspace(self, response: httpx.Response) -> None:
        request = response.request
        if request.method == "POST" and request.url.path.endswith("/workspaces") and response.is_success:
            # Older versions of the SDK take any answer for the workspace's.
            self._workspace_since = str(json.loads(response.read())["created_at"])


class _WithoutWorkspace(httpx.BaseTransport):
    """Sends what the SDK asks for, except for the workspace, which is answered here.

    The SDK gets or creates it before the first request of each client, a read included. Only `workspace_since` does.
    """

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        if request.method == "POST" and request.url.path.endswith("/v3/workspaces"):
            asked = json.loads(request.read())
            return httpx.Response(200, json={"id": asked["id"], "created_at": "1970-01-01T00:00:00Z"})
        return self._http.send(request, stream=True)


def _check_count(written: Sequence[object], sent: int) -> None:
    """Raise unless as much was written as was sent: the SDK takes an empty answer for nothing written."""
    if len(written) != sent:
        raise ValueError("the answer does not hold what was sent")


def _message_params(message: Message, batch: str, key: str | None) -> MessageCreateParams:
    metadata = {**message.metadata, BATCH_KEY: batch}
    if key is not None:
        metadata[ROW_KEY] = key
    if message.source_key is not None:
        metadata[SOURCE_KEY] = message.source_key
    created_at = datetime.fromisoformat(message.created_at) if message.created_at else None
    return MessageCreateParams(peer_id=message.peer, content=message.content, metadata=metadata, created_at=created_at)
