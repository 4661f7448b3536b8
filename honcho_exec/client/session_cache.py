"""The session cache, guarded by the lane: every method raises `LaneError` on any other thread."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from honcho_exec.client.membership import Membership
from honcho_exec.client.session_store import NamedSession, SessionStore
from honcho_exec.clock import Clock
from honcho_exec.errors import Rejected
from honcho_exec.model import SessionRef
from honcho_exec.runtime.lane import Lane
from honcho_exec.settings import Settings
from honcho_exec.settings.identity import SessionChoice, choice_of

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi

__all__ = ["SessionCache"]


class SessionCache:
    """Which session each conversation goes to, and who has joined it; no lock guards it.

    It is stored for the next process as well.

    Args:
        home: the state folder.
        destination: backend and workspace.
        closing: whether to give up waiting for another process.
        speakers: returns the users whose rows wait for a session.
    """

    def __init__(
        self,
        lane: Lane,
        api: HonchoApi,
        settings: Settings,
        *,
        home: Path,
        destination: str,
        clock: Clock,
        closing: Callable[[], bool],
        speakers: Callable[[str], Collection[str]] = lambda _: (),
    ) -> None:
        self._lane = lane
        self._api = api
        self._user = settings.observes(ai=False)
        self._assistant = settings.observes(ai=True)
        self._speakers = speakers
        self._names: dict[str, str] = {}
        self._store = SessionStore(home / "known.db", destination=destination, clock=clock)
        self._membership = Membership(
            api,
            self._store,
            locks=home / "joining",
            destination=destination,
            patience=settings.timeout,
            clock=clock,
            closing=closing,
        )

    def session(self, ref: SessionRef) -> SessionRef:
        """Return `ref` with the session that its key goes to, after both its peers have joined that.

        Raises:
            SessionDeleted: its name is not free yet; the server is asked again only after a while.
            RequestError: Honcho did not do it; nothing is remembered then.
        """
        ref = self.named(ref)
        self._membership.ensure(ref.session, {ref.user_peer: self._user, ref.ai_peer: self._assistant})
        return ref

    def named(self, ref: SessionRef) -> SessionRef:
        """Return `ref` with the session that its key goes to, decided once and stored; creates nothing.

        A session that already exists is only used if no other person can be in it by mistake: names of earlier versions
        could be shared by several keys.

        Raises:
            RequestError, StateError: it cannot be decided now.
        """
        self._lane.check()
        if not ref.key:
            return ref
        choice = choice_of(ref)
        if choice.own not in self._names:
            with self._store.at_hand():
                decided = self._store.named(choice.own) or self._store.name(self._decide(ref, choice))
            self._names[choice.own] = decided.session
        return replace(ref, session=self._names[choice.own], key="")

    def peers(self, ref: SessionRef) -> None:
        """Create both peers, in no session; raises `RequestError` if Honcho did not do it."""
        self._lane.check()
        self._membership.ensure_peers({ref.user_peer, ref.ai_peer})

    def invalidate(self, session: str) -> None:
        """Ask the server for the session's members again."""
        self._lane.check()
        self._membership.invalidate(session)

    def _decide(self, ref: SessionRef, choice: SessionChoice) -> NamedSession:
        own = choice.own
        if choice.is_open:
            return NamedSession(own, choice.earlier)
        if not choice.earlier or (not choice.is_new and self._members(own)[0]):
            # There was none, or this was decided before, by a process whose memory is lost.
            return NamedSession(own, own)
        members, complete = self._members(choice.earlier)
        members |= frozenset(self._speakers(choice.earlier))
        is_alone = complete and members <= {ref.user_peer, ref.ai_peer}
        if choice.is_new:
            return NamedSession(own, choice.earlier) if is_alone else NamedSession(own, own, choice.earlier)
        session = choice.earlier if is_alone and ref.user_peer in members else own
        return NamedSession(own, session, choice.earlier if members else "")

    def _members(self, session: str) -> tuple[frozenset[str], bool]:
        try:
            return self._api.members(session)
        except Rejected as error:
            if error.cause != "not_found":
                raise
            return frozenset(), True
