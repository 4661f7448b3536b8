"""Requests to Honcho through its SDK.

This module and the door that its requests go through are the only ones that import `honcho`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Any, TypeVar, cast

import honcho
import httpx
from honcho.api_types import MessageCreateParams, SessionPeerConfig

from honcho_exec.client.backend import Backend
from honcho_exec.client.guard import Door
from honcho_exec.client.reconciliation import PAGE_SIZE, Reconciliation
from honcho_exec.clock import Clock, Deadline
from honcho_exec.embedded.wire import MEMBERS_FILTER
from honcho_exec.errors import Rejected, SessionDeleted
from honcho_exec.model import Card, Conclusion, Context, Found, Hit, Message
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.failures import LATE
from honcho_exec.net.transport import request_deadline
from honcho_exec.runtime.metrics import Meter

__all__ = ["BATCH_KEY", "ROW_KEY", "SOURCE_KEY", "HonchoApi"]

BATCH_KEY = "honcho_exec_batch"
"""Message metadata: the id of the frozen batch that the message was sent in."""

ROW_KEY = "honcho_exec_row"
"""Message metadata: the key that the message's row was given at its admission."""

SOURCE_KEY = "honcho_exec_source"
"""Message metadata: the source key of a message that has one."""

T = TypeVar("T")

_MEMBERS_PER_PAGE = 50
# A search names at most this many sessions; older ones are searched by what the server knows of their members.
_NAMED_SESSIONS = PAGE_SIZE
_SHOWN_PEERS = 50
# How long to wait before a deleted session is asked for again (seconds): the server needs a few seconds to delete it,
# and up to 300 s if somebody asked for it meanwhile.
_NAME_FREED_AFTER = 20.0
_PEER_NAME = re.compile(r"[a-zA-Z0-9_-]{1,512}")


class HonchoApi:
    """One workspace of one Honcho; usable from any thread.

    Every method makes at least one request, and raises:
        Rejected, Unavailable, Ambiguous: the request failed; the class says what became of it.
        StateError: the embedded backend's file cannot be used.
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
        self._door = Door(backend.shown, clock=clock, breaker=breaker, meter=meter)
        self._reconciliation = Reconciliation(lambda: self._door.check_answer("items"), clock)
        self._workspace_since = ""
        # Sessions whose names were not free when they were asked for last; for the lane.
        self._deleted: set[str] = set()
        backend.http.event_hooks = {"response": [self._door.note_answer, self._note_workspace]}
        self._sdk = self._client(httpx.Client(transport=_WithoutWorkspace(backend.http)))

    @property
    def patience(self) -> float:
        """Seconds from the start of a request for which it may land although nobody waits for its answer any more."""
        return min(self._timeout, LATE) + LATE

    @staticmethod
    def within(deadline: Deadline) -> AbstractContextManager[None]:
        """Bound every request made inside by `deadline` as well as by the request timeout."""
        return request_deadline(deadline)

    def ping(self) -> None:
        """Make sure that the server answers and takes the key, also while the breaker is open."""
        with self._door.open(anyway=True):
            self._sdk.peers(size=1)
            self._door.check_answer("items")

    def workspace_since(self) -> str:
        """When the workspace was made, by the server's clock; makes it, and at most one request.

        Another time for the same name means another server, or one that somebody emptied.
        """
        if not self._workspace_since:
            with self._door.open():
                # The SDK has no public name for it; of what is public, this begins with it.
                client = self._client(self._http)
                getattr(client, "_ensure_workspace", client.get_metadata)()
        return self._workspace_since

    def deriving(self) -> int:
        """How many pieces are stored and not yet derived."""
        with self._door.open():
            queue = self._sdk.queue_status()
            return queue.pending_work_units + queue.in_progress_work_units

    def server_version(self, deadline: Deadline) -> str | None:
        """What the server calls its version, None when it does not say; the SDK has no question for it."""
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
            with self._door.open():
                self._sdk.session(session)
        except Rejected as error:
            if error.cause != "not_found":
                raise
            self._deleted.add(session)
            raise SessionDeleted(session, retry_after=_NAME_FREED_AFTER) from error
        self._deleted.discard(session)

    def ensure_peers(self, peers: Collection[str]) -> None:
        """Get or create peers, which join no session."""
        for peer in sorted(peers):
            with self._door.open():
                self._sdk.peer(peer)

    def members(self, session: str) -> tuple[frozenset[str], bool]:
        """The session's members, and whether these are all."""
        with self._door.open():
            found = frozenset(peer.id for peer in honcho.Session(session, self._sdk).peers())
            self._door.check_answer("items")
            total = self._door.answer.json().get("total")
        # One request, however many there are: a list may never end, and a page may be smaller than it was asked for.
        return found, len(found) < _MEMBERS_PER_PAGE and total in (None, len(found))

    def join(self, session: str, peers: Mapping[str, tuple[bool, bool]]) -> None:
        """Join peers as (observe_me, observe_others). Joining a member again hides what was said before."""
        # Two requests that name peers in opposite orders can deadlock in the server.
        joining: list[tuple[honcho.PeerBase | str, SessionPeerConfig]] = [
            (peer, SessionPeerConfig(observe_me=me, observe_others=others))
            for peer, (me, others) in sorted(peers.items())
        ]
        with self._door.open():
            honcho.Session(session, self._sdk).add_peers(joining)
            self._door.check_answer("id")

    def add_messages(
        self, session: str, messages: Sequence[Message], *, batch: str, keys: Sequence[str | None] = ()
    ) -> None:
        """Write at most 100 messages, all or none, marked with the batch's id and each with its row's key."""
        marks = [*keys, *[None] * (len(messages) - len(keys))]
        try:
            params = [_message_params(message, batch, key) for message, key in zip(messages, marks, strict=True)]
        except ValueError as error:
            raise Rejected("a message cannot be put into a request", cause="refused") from error
        with self._door.open():
            _check_count(honcho.Session(session, self._sdk).add_messages(params), len(params))

    def has_batch(self, session: str, batch: str) -> bool:
        """Whether the messages of a batch are there."""
        return bool(self._marked(session, BATCH_KEY, {batch}, batch))

    def known_rows(self, session: str, keys: Collection[str]) -> frozenset[str]:
        """Which of at most 100 row keys the session has messages of."""
        return self._marked(session, ROW_KEY, keys, {"in": sorted(keys)})

    def known_sources(self, session: str, keys: Collection[str]) -> frozenset[str]:
        """Which of at most 100 source keys the session has messages of."""
        return self._marked(session, SOURCE_KEY, keys, {"in": sorted(keys)})

    def _marked(self, session: str, mark: str, wanted: Collection[str], condition: object) -> frozenset[str]:
        """Which of the wanted marks the session's messages carry in their metadata, the newest first.

        Only what a message carries itself counts: a server may ignore filters.
        """
        with self._door.open():
            page = honcho.Session(session, self._sdk).messages(
                filters={"metadata": {mark: condition}}, size=PAGE_SIZE, reverse=True
            )
            return self._reconciliation.marks(page, mark, wanted)

    def newest_message_at(self, session: str) -> datetime | None:
        """When the newest message of a session was created, as the server says; None if there is none."""
        with self._door.open():
            page = honcho.Session(session, self._sdk).messages(size=1, reverse=True)
            self._door.check_answer("items")
            return max((message.created_at for message in page.items), default=None)

    def add_conclusions(self, session: str, conclusions: Sequence[Conclusion]) -> None:
        """Write at most 100 conclusions of one observer about one peer, all or none.

        They belong to no session if theirs was deleted and its name is not free yet.
        """
        first = conclusions[0]
        place: dict[str, str] = {} if session in self._deleted else {"session_id": session}
        with self._door.open():
            written = self._scope(first.observer, first.observed).create(
                [{"content": conclusion.content, **place} for conclusion in conclusions]
            )
            _check_count(written, len(conclusions))

    def known_conclusions(self, observer: str, observed: str, contents: Collection[str]) -> frozenset[str]:
        """Which of these contents `observer` holds about `observed`, the newest first, however old they are."""
        return frozenset(self._conclusion_ids(observer, observed, contents, until_found=True))

    def conclusion_ids(self, observer: str, observed: str, contents: Collection[str]) -> dict[str, list[str]]:
        """The ids of all conclusions with one of these contents, by content."""
        return self._conclusion_ids(observer, observed, contents, until_found=False)

    def _conclusion_ids(
        self, observer: str, observed: str, contents: Collection[str], *, until_found: bool
    ) -> dict[str, list[str]]:
        with self._door.open():
            page = self._scope(observer, observed).list(size=PAGE_SIZE)
            return self._reconciliation.conclusion_ids(page, observer, observed, contents, until_found=until_found)

    def has_conclusion(self, conclusion_id: str, observer: str, observed: str, *, session: str | None) -> bool:
        """Whether `observer` holds this conclusion about `observed`; from one session where one is named.

        Raises:
            Inconclusive: the list has no end within the bounds of a look-up.
        """
        with self._door.open():
            page = self._scope(observer, observed).list(size=PAGE_SIZE, session=session)
            return self._reconciliation.has_conclusion(page, conclusion_id, observer, observed, session=session)

    def delete_conclusion(self, conclusion_id: str) -> None:
        """Delete a conclusion; Rejected with cause `not_found` when there is none."""
        with self._door.open():
            self._scope("any", "any").delete(conclusion_id)
            if self._door.answer.content:
                raise ValueError("an answer without content was expected")

    def conclusions(
        self, observer: str, observed: str, *, query: str | None, limit: int, session: str | None = None
    ) -> list[Conclusion]:
        """The conclusions nearest to `query`, or the newest; those of one session where one is named."""
        with self._door.open():
            scope = self._scope(observer, observed)
            if query:
                filters = None if session is None else {"session_id": session}
                found = cast("Sequence[Any]", scope.query(query, top_k=limit, filters=filters))
                self._door.check_list()
            else:
                found = scope.list(size=limit, session=session).items
                self._door.check_answer("items")
            return [
                Conclusion(one.content, one.observer_id, one.observed_id, one.id, _iso(one.created_at)) for one in found
            ]

    def search(self, query: str, *, members: Sequence[str], limit: int) -> Found:
        """The messages that match the query best, of the sessions that have all of these peers as members.

        One request to an embedded Honcho, and at most seven to a server, however many sessions there are. A server
        names no filter by membership without a trap: `peer_perspective` hides what was said before the peer joined
        (again). So the newest sessions are named, and only older ones are searched by that and by what the peer said.
        """
        if self._door.has_filter(MEMBERS_FILTER):
            return Found(self._search(query, {MEMBERS_FILTER: list(members)}, limit))
        first, *others = members
        page = self._sessions(first, size=_NAMED_SESSIONS)
        if self._door.has_filter(MEMBERS_FILTER):
            return Found(self._search(query, {MEMBERS_FILTER: list(members)}, limit))
        newest = self._common(page.ids, others)
        hits = self._search(query, {"session_id": {"in": sorted(newest)}}, limit) if newest else []
        hits = [hit for hit in hits if hit.session in newest]
        if page.complete:
            return Found(hits)
        left_out = f"only the newest {len(page.ids)} sessions of {first} were searched completely; of older ones"
        said = self._search(query, None, limit, by=first)
        try:
            heard = self._search(query, {"peer_perspective": first}, limit)
            left_out += f", what others said before {first} joined, or joined again, was left out"
        except Rejected as error:
            if error.cause == "auth":
                raise
            heard = []
            left_out += f" only what {first} said"
        older = sorted({hit.session for hit in (*said, *heard)} - newest)
        allowed = newest | self._common(older, members)
        rankings = [[hit for hit in found if hit.session in allowed] for found in (hits, said, heard)]
        return Found(_fused(rankings)[:limit], left_out)

    def _search(self, query: str, filters: dict[str, object] | None, limit: int, *, by: str | None = None) -> list[Hit]:
        """One search: of the workspace, or of what one peer said."""
        with self._door.open():
            where = self._sdk if by is None else honcho.Peer(by, self._sdk)
            found = [_hit(message) for message in where.search(query, filters=filters, limit=limit)]
            self._door.check_list()
        return found

    def _common(self, sessions: Collection[str], peers: Sequence[str]) -> frozenset[str]:
        """Those of the sessions that have all of these peers as members."""
        common = frozenset(sessions)
        for peer in peers:
            ids = sorted(common)
            pages = [ids[start : start + PAGE_SIZE] for start in range(0, len(ids), PAGE_SIZE)]
            # Intersected, since a server that ignores filters lists other sessions.
            common &= frozenset().union(
                *(self._sessions(peer, {"id": {"in": page}}, size=PAGE_SIZE).ids for page in pages)
            )
        return common

    def _sessions(self, peer: str, filters: dict[str, object] | None = None, *, size: int) -> _SessionPage:
        """The newest sessions that a peer is a member of, in one request."""
        with self._door.open():
            page = honcho.Peer(peer, self._sdk).sessions(filters, size=size, reverse=True)
            ids = frozenset(str(session.id) for session in page.items)
            self._door.check_answer("items")
        return _SessionPage(ids, complete=not page.has_next_page() and (page.total or 0) <= len(page))

    def peers(self, wanted: str) -> tuple[bool, list[str]]:
        """Whether there is a peer of this name, and the newest 50 of the workspace if there is not."""
        with self._door.open():
            if _PEER_NAME.fullmatch(wanted):
                # A server fails at names that no peer can have.
                page = self._sdk.peers(filters={"id": wanted}, size=1)
                self._door.check_answer("items")
                if wanted in {peer.id for peer in page.items}:
                    return True, []
            page = self._sdk.peers(size=_SHOWN_PEERS, reverse=True)
            self._door.check_answer("items")
            newest = [peer.id for peer in page.items]
        return wanted in newest, newest

    def chat(self, query: str, *, observer: str, target: str | None, level: str, session: str | None = None) -> str:
        """Ask what `observer` knows of `target` (of itself when None), from one session where one is named.

        Empty when it knows nothing.
        """

        def ask() -> str:
            answer = honcho.Peer(observer, self._sdk).chat(query, target=target, session=session, reasoning_level=level)  # type: ignore[call-overload,unused-ignore] # the level is checked where it enters
            self._door.check_answer("content")
            return answer if isinstance(answer, str) else ""

        return self._known(ask, "", by_model=True)

    def card(self, observer: str, target: str | None) -> tuple[str, ...]:
        """The card that `observer` keeps of `target` (of itself when None)."""

        def ask() -> tuple[str, ...]:
            facts = honcho.Peer(observer, self._sdk).get_card(target=target)
            self._door.check_answer("peer_card")
            return tuple(facts or ())

        return self._known(ask, ())

    def set_card(self, card: Card) -> None:
        """Overwrite a card."""
        target = None if card.observed == card.observer else card.observed
        with self._door.open():
            honcho.Peer(card.observer, self._sdk).set_card(list(card.facts), target=target)
            self._door.check_answer("peer_card")

    def peer_context(self, observer: str, target: str | None, *, query: str | None = None) -> Context:
        """Representation and card of `target` as `observer` sees it (of itself when None)."""

        def ask() -> Context:
            found = honcho.Peer(observer, self._sdk).context(target=target, search_query=query or None)
            return Context(representation=found.representation or "", card=tuple(found.peer_card or ()))

        return self._known(ask, Context())

    def self_context(self, peer: str, session: str, viewer: str) -> Context:
        """What a peer knows of itself from one session, and the card that `viewer` keeps of it, or else its own."""

        def ask() -> str:
            representation = honcho.Peer(peer, self._sdk).representation(session=session) or ""
            self._door.check_answer("representation")
            return representation

        return Context(representation=self._known(ask, ""), card=self.card(viewer, peer) or self.card(peer, None))

    def session_context(
        self, session: str, *, target: str | None = None, observer: str | None = None, tokens: int | None = None
    ) -> Context:
        """Summary and last messages of a session, with representation and card of `target` if one is given.

        `tokens` bounds summary and messages together, of which Honcho gives the summary two fifths at most.
        """

        def ask(target: str | None, observer: str | None) -> Context:
            found = honcho.Session(session, self._sdk).context(
                summary=True, peer_target=target, peer_perspective=observer, tokens=tokens
            )
            self._door.check_answer("messages")
            return Context(
                summary=found.summary.content if found.summary else "",
                representation=found.peer_representation or "",
                card=tuple(found.peer_card or ()),
                messages=tuple(_hit(message) for message in found.messages),
            )

        known = self._known(lambda: ask(target, observer), None)
        # A peer that the server does not know yet: the session may have messages of others.
        return known or self._known(lambda: ask(None, None), Context())

    def _client(self, http: httpx.Client) -> honcho.Honcho:
        return honcho.Honcho(
            workspace_id=self._workspace,
            base_url=self._base_url,
            api_key=self._backend.api_key or "local",
            timeout=self._timeout,
            max_retries=0,
            http_client=http,
        )

    def _known(self, ask: Callable[[], T], nothing: T, *, by_model: bool = False) -> T:
        """The answer of one read, or `nothing` if the server does not know whom it is about."""
        try:
            with self._door.open(by_model=by_model):
                return ask()
        except Rejected as error:
            if error.cause != "not_found" or not self._door.has_detail():
                raise
            return nothing

    def _scope(self, observer: str, observed: str) -> honcho.ConclusionScope:
        return honcho.ConclusionScope(self._sdk, self._sdk.workspace_id, observer, observed)

    def _note_workspace(self, response: httpx.Response) -> None:
        request = response.request
        if request.method == "POST" and request.url.path.endswith("/workspaces") and response.is_success:
            # Older versions of the SDK take any answer for the workspace's.
            self._workspace_since = str(json.loads(response.read())["created_at"])


@dataclass(frozen=True, slots=True)
class _SessionPage:
    """One page of sessions, and whether there are no more."""

    ids: frozenset[str]
    complete: bool


def _fused(rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
    """One ranking of several whose scores are not known: the best of each, then the second of each."""
    in_turn = (hit for hits in zip_longest(*rankings) for hit in hits if hit is not None)
    return list({hit.id: hit for hit in in_turn}.values())


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


def _hit(message: honcho.Message) -> Hit:
    return Hit(
        id=message.id,
        content=message.content,
        peer=message.peer_id,
        session=message.session_id,
        created_at=_iso(message.created_at),
        metadata=message.metadata,
    )


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
