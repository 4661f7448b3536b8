"""Sessions on the server: which one a conversation goes to, and who has joined it. Only the lane can reach them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from honcho_exec.client.session_store import NamedSession, SessionStore
from honcho_exec.clock import Clock, Deadline
from honcho_exec.errors import Rejected, SessionDeleted, StateError, Unavailable
from honcho_exec.model import SessionRef
from honcho_exec.runtime.lane import Lane
from honcho_exec.settings import Settings
from honcho_exec.settings.identity import SessionChoice, choice_of
from honcho_exec.storage.file_lock import exclusive
from honcho_exec.storage.folders import private_folder

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi

__all__ = ["SessionCache"]

_log = logging.getLogger(__name__)


class SessionCache:
    """Makes sure that sessions exist and that their peers have joined, each once.

    What is learnt is remembered for the next process. No lock guards it: every method raises `LaneError` unless it
    runs on the lane.

    Args:
        home: the state folder, whose processes do not ask for one session at the same time.
        destination: backend and workspace.
        closing: whether to give up waiting for another process.
        speakers: the users whose rows wait for a session.
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
        self._patience = settings.timeout
        self._locks = home / "joining"
        self._destination = destination
        self._clock = clock
        self._closing = closing
        self._speakers = speakers
        self._known = SessionStore(home / "known.db", destination=destination, clock=clock)
        self._members: dict[str, frozenset[str]] = {}
        self._names: dict[str, str] = {}
        self._peers: set[str] = set()
        self._deletions = self._known.deletions()
        # When to ask again for the sessions that were deleted, on the monotonic clock.
        self._deleted: dict[str, float] = {}

    def session(self, ref: SessionRef) -> SessionRef:
        """Return `ref`, with the session that was decided on, when that is there and both its peers are members.

        Peers join only if they are not members yet: a second joining would hide what was said before it.

        Raises:
            LaneError: the caller is not on the lane.
            SessionDeleted: its name is not free yet; the server is asked again after a while only.
            RequestError: Honcho did not do it; nothing is remembered then.
        """
        ref = self.named(ref)
        wait = self._deleted.get(ref.session, 0.0) - self._clock.monotonic()
        if wait > 0:
            raise SessionDeleted(ref.session, retry_after=wait)
        wanted = {ref.user_peer: self._user, ref.ai_peer: self._assistant}
        self._notice_deletions()
        if not self._members.get(ref.session, frozenset()).issuperset(wanted):
            with self._known.at_hand():
                self._make(ref.session, wanted)
        return ref

    def named(self, ref: SessionRef) -> SessionRef:
        """Return `ref` with the session that its key goes to, decided once and remembered; creates nothing.

        A session that already exists is only used if no other person can be in it by mistake: names of earlier versions
        could be shared by several keys.

        Raises:
            LaneError: the caller is not on the lane.
            RequestError, StateError: it cannot be decided now.
        """
        self._lane.check()
        if not ref.key:
            return ref
        choice = choice_of(ref)
        if choice.own not in self._names:
            with self._known.at_hand():
                decided = self._known.named(choice.own) or self._known.name(self._decide(ref, choice))
            self._names[choice.own] = decided.session
        return replace(ref, session=self._names[choice.own], key="")

    def _decide(self, ref: SessionRef, choice: SessionChoice) -> NamedSession:
        own = choice.own
        if choice.is_open:
            return NamedSession(own, choice.earlier)
        if not choice.earlier or (not choice.is_new and self._members_of(own)[0]):
            # There was none, or this was decided before, by a process whose memory is lost.
            return NamedSession(own, own)
        members, complete = self._members_of(choice.earlier)
        members |= frozenset(self._speakers(choice.earlier))
        is_alone = complete and members <= {ref.user_peer, ref.ai_peer}
        if choice.is_new:
            return NamedSession(own, choice.earlier) if is_alone else NamedSession(own, own, choice.earlier)
        session = choice.earlier if is_alone and ref.user_peer in members else own
        return NamedSession(own, session, choice.earlier if members else "")

    def _members_of(self, session: str) -> tuple[frozenset[str], bool]:
        try:
            return self._api.members(session)
        except Rejected as error:
            if error.cause != "not_found":
                raise
            return frozenset(), True

    def _make(self, session: str, wanted: Mapping[str, tuple[bool, bool]]) -> None:
        if not self._has(session, wanted):
            with self._alone(session):
                # Another process may have joined them while this one waited.
                if not self._has(session, wanted):
                    self._join(session, wanted)

    def _notice_deletions(self) -> None:
        """Forget who is a member of what if another process deleted something, or met a deleted session."""
        deletions = self._known.deletions()
        if deletions != self._deletions:
            self._deletions = deletions
            self._members.clear()
            self._peers.clear()

    def peers(self, ref: SessionRef) -> None:
        """Make sure that both peers exist, in whichever session.

        Raises:
            LaneError: the caller is not on the lane.
            RequestError: Honcho did not do it.
        """
        self._lane.check()
        if missing := {ref.user_peer, ref.ai_peer} - self._peers:
            self._api.ensure_peers(missing)
            self._peers |= missing

    def forget(self, session: str) -> None:
        """Ask the server again next time."""
        self._lane.check()
        self._members.pop(session, None)
        self._known.forget(session)

    def _has(self, session: str, peers: Collection[str]) -> bool:
        """Whether these peers are known to be members."""
        if session not in self._members:
            members, since = self._known.members(session)
            # A workspace that was made later is another one: somebody began with an empty server.
            if not members.issuperset(peers) or self._api.workspace_since() != since:
                return False
            self._members[session] = members
        return self._members[session].issuperset(peers)

    def _join(self, session: str, wanted: Mapping[str, tuple[bool, bool]]) -> None:
        if session not in self._members:
            self._ensure(session)
            members, complete = self._api.members(session)
            # In a session too large to list, whoever is missing joins with their first message instead.
            self._members[session] = members if complete else members | set(wanted)
        missing = {peer: observes for peer, observes in wanted.items() if peer not in self._members[session]}
        if missing:
            self._api.join(session, missing)
            self._members[session] |= set(missing)
        self._known.joined(session, wanted, self._api.workspace_since())

    def _ensure(self, session: str) -> None:
        try:
            self._api.ensure_session(session)
        except SessionDeleted as error:
            self._deleted[session] = self._clock.monotonic() + (error.retry_after or 0.0)
            raise
        self._deleted.pop(session, None)

    @contextmanager
    def _alone(self, session: str) -> Iterator[None]:
        """Let no other process of this state folder ask for the session meanwhile: each would join its peers."""
        name = hashlib.sha256(f"{self._destination} {session}".encode()).hexdigest()[:32]
        deadline = Deadline.after(self._patience, self._clock)
        with ExitStack() as held:
            try:
                held.enter_context(exclusive(private_folder(self._locks) / name, deadline, stop=self._closing))
            except TimeoutError:
                text = "another process is just opening the session"
                raise Unavailable(text, cause="busy", retry_after=1.0) from None
            except (OSError, StateError) as error:
                _log.warning("two processes that open a session at once may join its peers twice: %s", error)
            yield
