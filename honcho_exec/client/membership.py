"""Create sessions and join their peers, each once, on any process of this machine."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from honcho_exec.client.session_store import SessionStore
from honcho_exec.clock import Clock, Deadline
from honcho_exec.errors import SessionDeleted, StateError, Unavailable
from honcho_exec.storage.file_lock import exclusive
from honcho_exec.storage.folders import private_folder

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi

__all__ = ["Membership"]

_log = logging.getLogger(__name__)


class Membership:
    """Knows the members of sessions, and joins those that are missing; for the cache alone.

    Peers join only if they are not members yet: a second joining would hide what was said before it.

    Args:
        locks: a folder of lock files, shared by processes that must not open one session at the same time.
        destination: backend and workspace.
        patience: seconds to wait for another process.
        closing: whether to give up that wait.
    """

    def __init__(
        self,
        api: HonchoApi,
        store: SessionStore,
        *,
        locks: Path,
        destination: str,
        patience: float,
        clock: Clock,
        closing: Callable[[], bool],
    ) -> None:
        self._api = api
        self._store = store
        self._locks = locks
        self._destination = destination
        self._patience = patience
        self._clock = clock
        self._closing = closing
        self._members: dict[str, frozenset[str]] = {}
        self._peers: set[str] = set()
        self._deletions = store.deletions()
        # When to ask again for sessions that were deleted, on the monotonic clock.
        self._deleted: dict[str, float] = {}

    def ensure(self, session: str, wanted: Mapping[str, tuple[bool, bool]]) -> None:
        """Create the session and join the wanted peers, as (observe_me, observe_others), unless that was done.

        Raises:
            SessionDeleted: its name is not free yet; the server is asked again only after a while.
            RequestError: Honcho did not do it; nothing is remembered then.
        """
        wait = self._deleted.get(session, 0.0) - self._clock.monotonic()
        if wait > 0:
            raise SessionDeleted(session, retry_after=wait)
        self._reset_after_deletions()
        if self._members.get(session, frozenset()).issuperset(wanted):
            return
        with self._store.at_hand():
            if self._is_stored(session, wanted):
                return
            with self._lock(session):
                # Another process may have joined them during the wait.
                if not self._is_stored(session, wanted):
                    self._join(session, wanted)

    def ensure_peers(self, peers: Collection[str]) -> None:
        """Create peers without a session, unless that was done; raises `RequestError` if Honcho did not do it."""
        if missing := set(peers) - self._peers:
            self._api.ensure_peers(missing)
            self._peers |= missing

    def invalidate(self, session: str) -> None:
        """Ask the server again next time."""
        self._members.pop(session, None)
        self._store.invalidate(session)

    def _reset_after_deletions(self) -> None:
        """Drop all members from memory if a process deleted something, or met a deleted session."""
        deletions = self._store.deletions()
        if deletions != self._deletions:
            self._deletions = deletions
            self._members.clear()
            self._peers.clear()

    def _is_stored(self, session: str, peers: Collection[str]) -> bool:
        """Return whether these peers are known to be members."""
        if session not in self._members:
            members, since = self._store.members(session)
            # A workspace that was created later is another one: the server was emptied.
            if not members.issuperset(peers) or self._api.workspace_since() != since:
                return False
            self._members[session] = members
        return self._members[session].issuperset(peers)

    def _join(self, session: str, wanted: Mapping[str, tuple[bool, bool]]) -> None:
        if session not in self._members:
            self._create(session)
            members, complete = self._api.members(session)
            # In a session too large to list, a missing peer joins with its first message instead.
            self._members[session] = members if complete else members | set(wanted)
        missing = {peer: observes for peer, observes in wanted.items() if peer not in self._members[session]}
        if missing:
            self._api.join(session, missing)
            self._members[session] |= set(missing)
        self._store.joined(session, wanted, self._api.workspace_since())

    def _create(self, session: str) -> None:
        try:
            self._api.ensure_session(session)
        except SessionDeleted as error:
            self._deleted[session] = self._clock.monotonic() + (error.retry_after or 0.0)
            raise
        self._deleted.pop(session, None)

    @contextmanager
    def _lock(self, session: str) -> Iterator[None]:
        """Keep other processes of this state folder from opening the session: each would join its peers."""
        name = hashlib.sha256(f"{self._destination} {session}".encode()).hexdigest()[:32]
        deadline = Deadline.after(self._patience, self._clock)
        with ExitStack() as locks:
            try:
                locks.enter_context(exclusive(private_folder(self._locks) / name, deadline, stop=self._closing))
            except TimeoutError:
                text = "another process is just opening the session"
                raise Unavailable(text, cause="busy", retry_after=1.0) from None
            except (OSError, StateError) as error:
                _log.warning("two processes that open a session at once may join its peers twice: %s", error)
            yield
