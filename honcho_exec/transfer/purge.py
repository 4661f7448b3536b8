"""Delete data on a Honcho server as far as its API can, and report the rest."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from honcho_exec.client.rest import RawApi, quote_segment, workspace_path
from honcho_exec.errors import Rejected
from honcho_exec.text.purge_filter import PurgeFilter

__all__ = ["PurgeResult", "ServerPurge"]

# The limit for reading cards, and again for reading messages; what is not read in time is reported.
_READ_SECONDS = 300.0


@dataclass(slots=True)
class PurgeResult:
    """What was found and, unless in a dry run, deleted; and what could not be, with the reason."""

    deleted: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)


class ServerPurge:
    """Deletes data in one workspace of a server.

    A Honcho server deletes sessions and conclusions and overwrites cards. It deletes no single message and no peer.

    Args:
        api: the server.
        workspace: the workspace.
        dry_run: only count.
    """

    def __init__(self, api: RawApi, workspace: str, *, dry_run: bool) -> None:
        self._api = api
        self._path = workspace_path(workspace)
        self._dry_run = dry_run

    def purge(self, chosen: PurgeFilter) -> PurgeResult:
        """Find what the filter matches, and delete what can be deleted.

        Raises:
            RequestError: the server fails or refuses the key; another call continues.
        """
        done = PurgeResult()
        with self._api.understood():
            for id_ in self._conclusions(chosen):
                self._delete(f"conclusions/{quote_segment(id_)}", done, "conclusion")
            self._cards(chosen, done)
            if chosen.everything or chosen.session is not None:
                for session in sorted(self._sessions(chosen)):
                    self._delete(f"sessions/{quote_segment(session)}", done, "session")
            else:
                self._messages(chosen, done)
            if chosen.peer is not None and chosen.peer in self._api.ids(f"{self._path}/peers"):
                done.left.append(f"the name of the peer {chosen.peer}: a server deletes no peers")
            if chosen.text is not None:
                named = [id_ for kind in ("sessions", "peers") for id_ in self._api.ids(f"{self._path}/{kind}")]
                done.left += [f"the name {id_}" for id_ in sorted(set(filter(chosen.matches, named)))]
            if chosen.everything and self._api.ids(f"{self._path}/peers"):
                done.left.append("the names of the workspace and its peers: a server deletes no peers")
        return done

    def _conclusions(self, chosen: PurgeFilter) -> list[str]:
        filters: list[dict[str, str]] = [{}]
        if chosen.peer is not None:
            filters = [{"observer_id": chosen.peer}, {"observed_id": chosen.peer}]
        elif chosen.session is not None:
            filters = [{"session_id": chosen.session}]
        path = f"{self._path}/conclusions/list"
        found = {
            one["id"]: one
            for wanted in filters
            for one in self._api.pages("POST", path, {"filters": wanted} if wanted else {})
        }
        return [
            id_
            for id_, one in found.items()
            # A server may ignore filters.
            if chosen.everything
            or chosen.peer in (one["observer_id"], one["observed_id"])
            or (chosen.session is not None and one["session_id"] == chosen.session)
            or chosen.matches(one["content"])
        ]

    def _sessions(self, chosen: PurgeFilter) -> set[str]:
        if chosen.everything:
            return self._api.ids(f"{self._path}/sessions")
        return self._api.ids(f"{self._path}/sessions", {"id": chosen.session}) & {str(chosen.session)}

    def _cards(self, chosen: PurgeFilter, done: PurgeResult) -> None:
        if chosen.session is not None:
            return
        peers = sorted(self._api.ids(f"{self._path}/peers"))
        pairs = [
            (observer, target)
            for observer in peers
            for target in peers
            if chosen.peer is None or chosen.peer in (observer, target)
        ]
        until = time.monotonic() + _READ_SECONDS
        for number, (observer, target) in enumerate(pairs):
            if time.monotonic() > until:
                done.left.append(f"{len(pairs) - number} possible cards were not read in time; run it again")
                return
            self._card(observer, target, chosen, done)

    def _card(self, observer: str, target: str, chosen: PurgeFilter, done: PurgeResult) -> None:
        path = f"{self._path}/peers/{quote_segment(observer)}/card?target={quote_segment(target)}"
        lines = self._api.request("GET", path).json()["peer_card"] or []
        left = [line for line in lines if chosen.text is not None and not chosen.matches(line)]
        if left != lines:
            done.deleted["card"] += 1
            if not self._dry_run:
                self._api.request("PUT", path, {"peer_card": left})

    def _messages(self, chosen: PurgeFilter, done: PurgeResult) -> None:
        """Report the sessions with matching messages, which a server cannot delete one by one."""
        sessions = sorted(self._api.ids(f"{self._path}/sessions"))
        until = time.monotonic() + _READ_SECONDS
        for number, session in enumerate(sessions):
            if time.monotonic() > until:
                done.left.append(f"the messages of {len(sessions) - number} sessions, which were not read in time")
                return
            count = sum(1 for _ in self._matching_messages(session, chosen))
            if count:
                done.left.append(
                    f"{count} message{'' if count == 1 else 's'} of the session {session}: a server deletes only whole"
                    f" sessions (purge --session {session})"
                )

    def _matching_messages(self, session: str, chosen: PurgeFilter) -> Iterator[object]:
        path = f"{self._path}/sessions/{quote_segment(session)}/messages/list"
        filters = {} if chosen.peer is None else {"filters": {"peer_id": chosen.peer}}
        for message in self._api.pages("POST", path, filters):
            has_text = chosen.matches(message["content"]) or chosen.matches_metadata(message["metadata"] or {})
            if message["peer_id"] == chosen.peer or has_text:
                yield message

    def _delete(self, path: str, done: PurgeResult, kind: str) -> None:
        done.deleted[kind] += 1
        if self._dry_run:
            return
        try:
            self._api.request("DELETE", f"{self._path}/{path}")
        except Rejected as error:
            if error.cause == "auth":
                raise
            if error.cause != "not_found":
                done.deleted[kind] -= 1
                done.left.append(f"{path}: {error}")
