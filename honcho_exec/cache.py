"""What is known of sessions on the server: a plain dictionary that only the lane can reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from honcho_exec.lane import Lane
from honcho_exec.model import SessionRef
from honcho_exec.settings import Settings

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.honcho_api import HonchoApi

__all__ = ["SessionCache"]


class SessionCache:
    """Makes sure that sessions exist and that their peers have joined, each once.

    No lock guards it: every method raises `LaneError` unless it runs on the lane.
    """

    def __init__(self, lane: Lane, api: HonchoApi, settings: Settings) -> None:
        self._lane = lane
        self._api = api
        self._user = settings.observes(ai=False)
        self._assistant = settings.observes(ai=True)
        self._members: dict[str, frozenset[str]] = {}

    def session(self, ref: SessionRef) -> SessionRef:
        """Return `ref` when its session is there and both its peers are members.

        Peers join only if they are not members yet: a second joining would hide what was said before it.

        Raises:
            LaneError: the caller is not on the lane.
            RequestError: Honcho did not do it; nothing is remembered then.
        """
        self._lane.check()
        wanted = {ref.user_peer: self._user, ref.ai_peer: self._assistant}
        if ref.session not in self._members:
            self._api.ensure_session(ref.session)
            members, complete = self._api.members(ref.session)
            # In a session too large to list, whoever is missing joins with their first message instead.
            self._members[ref.session] = members if complete else members | set(wanted)
        missing = {peer: observes for peer, observes in wanted.items() if peer not in self._members[ref.session]}
        if missing:
            self._api.join(ref.session, missing)
            self._members[ref.session] |= set(missing)
        return ref

    def forget(self, session: str) -> None:
        """Ask the server again next time."""
        self._lane.check()
        self._members.pop(session, None)
