"""Read requests through the SDK: search, conclusions, cards, contexts and questions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Any, TypeVar, cast

import honcho

from honcho_exec.client.guard import RequestGuard
from honcho_exec.client.reconciliation import PAGE_SIZE
from honcho_exec.embedded.wire import MEMBERS_FILTER
from honcho_exec.errors import Rejected
from honcho_exec.model import Conclusion, Context, Found, Hit

__all__ = ["Reads"]

T = TypeVar("T")

# A search names at most this many sessions; older ones are searched by what the server knows of their members.
_NAMED_SESSIONS = PAGE_SIZE
_SHOWN_PEERS = 50
_PEER_NAME = re.compile(r"[a-zA-Z0-9_-]{1,512}")


class Reads:
    """Reads one workspace; usable from any thread. Its methods raise what those of `HonchoApi` raise."""

    def __init__(self, sdk: honcho.Honcho, guard: RequestGuard) -> None:
        self._sdk = sdk
        self._guard = guard

    def deriving(self) -> int:
        """Return how many pieces are stored and not yet derived."""
        with self._guard.request():
            queue = self._sdk.queue_status()
            return queue.pending_work_units + queue.in_progress_work_units

    def conclusions(
        self, observer: str, observed: str, *, query: str | None, limit: int, session: str | None = None
    ) -> list[Conclusion]:
        """Return the conclusions nearest to `query`, or the newest; from one session if one is named."""
        with self._guard.request():
            scope = self._scope(observer, observed)
            if query:
                filters = None if session is None else {"session_id": session}
                found = cast("Sequence[Any]", scope.query(query, top_k=limit, filters=filters))
                self._guard.check_list()
            else:
                found = scope.list(size=limit, session=session).items
                self._guard.check_answer("items")
            return [
                Conclusion(one.content, one.observer_id, one.observed_id, one.id, _iso(one.created_at)) for one in found
            ]

    def search(self, query: str, *, members: Sequence[str], limit: int) -> Found:
        """Return the messages that match best, from the sessions that have all of these peers as members.

        One request to an embedded Honcho, and at most seven to a server, however many sessions there are. A server
        names no filter by membership without a trap: `peer_perspective` hides what was said before the peer joined
        (again). So the newest sessions are named, and only older ones are searched by that and by what the peer said.
        """
        if self._guard.has_filter(MEMBERS_FILTER):
            return Found(self._search(query, {MEMBERS_FILTER: list(members)}, limit))
        first, *others = members
        page = self._sessions(first, size=_NAMED_SESSIONS)
        if self._guard.has_filter(MEMBERS_FILTER):
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
        """Search the workspace, or the messages of one peer."""
        with self._guard.request():
            where = self._sdk if by is None else honcho.Peer(by, self._sdk)
            found = [_hit(message) for message in where.search(query, filters=filters, limit=limit)]
            self._guard.check_list()
        return found

    def _common(self, sessions: Collection[str], peers: Sequence[str]) -> frozenset[str]:
        """Return those of the sessions that have all of these peers as members."""
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
        """Return the newest sessions that a peer is a member of, in one request."""
        with self._guard.request():
            page = honcho.Peer(peer, self._sdk).sessions(filters, size=size, reverse=True)
            ids = frozenset(str(session.id) for session in page.items)
            self._guard.check_answer("items")
        return _SessionPage(ids, complete=not page.has_next_page() and (page.total or 0) <= len(page))

    def peers(self, wanted: str) -> tuple[bool, list[str]]:
        """Return whether a peer of this name exists, and if not the newest 50 of the workspace."""
        with self._guard.request():
            if _PEER_NAME.fullmatch(wanted):
                # A server fails at names that no peer can have.
                page = self._sdk.peers(filters={"id": wanted}, size=1)
                self._guard.check_answer("items")
                if wanted in {peer.id for peer in page.items}:
                    return True, []
            page = self._sdk.peers(size=_SHOWN_PEERS, reverse=True)
            self._guard.check_answer("items")
            newest = [peer.id for peer in page.items]
        return wanted in newest, newest

    def chat(self, query: str, *, observer: str, target: str | None, level: str, session: str | None = None) -> str:
        """Ask what `observer` knows of `target` (of itself if None), from one session if one is named.

        Returns an empty text if it knows nothing.
        """

        def ask() -> str:
            answer = honcho.Peer(observer, self._sdk).chat(query, target=target, session=session, reasoning_level=level)  # type: ignore[call-overload,unused-ignore] # the level is checked where it enters
            self._guard.check_answer("content")
            return answer if isinstance(answer, str) else ""

        return self._known(ask, "", counts_for_breaker=False)

    def card(self, observer: str, target: str | None) -> tuple[str, ...]:
        """Return the card that `observer` keeps of `target` (of itself if None)."""

        def ask() -> tuple[str, ...]:
            facts = honcho.Peer(observer, self._sdk).get_card(target=target)
            self._guard.check_answer("peer_card")
            return tuple(facts or ())

        return self._known(ask, ())

    def peer_context(self, observer: str, target: str | None, *, query: str | None = None) -> Context:
        """Return representation and card of `target` as `observer` sees it (of itself if None)."""

        def ask() -> Context:
            found = honcho.Peer(observer, self._sdk).context(target=target, search_query=query or None)
            return Context(representation=found.representation or "", card=tuple(found.peer_card or ()))

        return self._known(ask, Context())

    def self_context(self, peer: str, session: str, viewer: str) -> Context:
        """Return what a peer knows of itself from one session, with the card that `viewer` keeps of it, or its own."""

        def ask() -> str:
            representation = honcho.Peer(peer, self._sdk).representation(session=session) or ""
            self._guard.check_answer("representation")
            return representation

        return Context(representation=self._known(ask, ""), card=self.card(viewer, peer) or self.card(peer, None))

    def session_context(
        self, session: str, *, target: str | None = None, observer: str | None = None, tokens: int | None = None
    ) -> Context:
        """Return summary and last messages of a session, with representation and card of `target` if one is given.

        `tokens` bounds summary and messages together, of which Honcho gives the summary two fifths at most.
        """

        def ask(target: str | None, observer: str | None) -> Context:
            found = honcho.Session(session, self._sdk).context(
                summary=True, peer_target=target, peer_perspective=observer, tokens=tokens
            )
            self._guard.check_answer("messages")
            return Context(
                summary=found.summary.content if found.summary else "",
                representation=found.peer_representation or "",
                card=tuple(found.peer_card or ()),
                messages=tuple(_hit(message) for message in found.messages),
            )

        known = self._known(lambda: ask(target, observer), None)
        # A peer that the server does not know yet: the session may have messages of others.
        return known or self._known(lambda: ask(None, None), Context())

    def _known(self, ask: Callable[[], T], nothing: T, *, counts_for_breaker: bool = True) -> T:
        """Return the answer of one read, or `nothing` if the server does not know the peer or session."""
        try:
            with self._guard.request(counts_for_breaker=counts_for_breaker):
                return ask()
        except Rejected as error:
            if error.cause != "not_found" or not self._guard.has_detail():
                raise
            return nothing

    def _scope(self, observer: str, observed: str) -> honcho.ConclusionScope:
        return honcho.ConclusionScope(self._sdk, self._sdk.workspace_id, observer, observed)


@dataclass(frozen=True, slots=True)
class _SessionPage:
    """The sessions of one page, and whether there are no more."""

    ids: frozenset[str]
    complete: bool


def _fused(rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
    """Merge rankings without scores: the best of each, then the second of each."""
    in_turn = (hit for hits in zip_longest(*rankings) for hit in hits if hit is not None)
    return list({hit.id: hit for hit in in_turn}.values())


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
