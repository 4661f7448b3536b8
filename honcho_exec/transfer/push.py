"""From the embedded Honcho to a server: what is there already is looked for first, so that it may be run again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from honcho_exec.client.api import SOURCE_KEY
from honcho_exec.client.rest import RawApi, quote_segment, workspace_path
from honcho_exec.errors import Rejected, RequestError
from honcho_exec.net.retry import RetryPolicy

__all__ = ["Push", "Pushed"]

_BATCH = 100
_BATCH_CHARS = 400_000

Record = Mapping[str, Any]
Progress = Callable[[int, str], None]


@dataclass(slots=True)
class Pushed:
    """What became of the records, by their kind.

    Attributes:
        sent: how many went in.
        already: how many were there.
        refused: why the server refused some for good, one reason for each.
        kept: cards that the server has in other words and that were left as they are.
    """

    sent: Counter[str] = field(default_factory=Counter)
    already: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


class Push:
    """Sends exported records to a server.

    Every step first looks what is there, so a step that is tried again, or a whole run, doubles nothing: messages by
    the source key in their metadata, conclusions by their words, everything else by its id.

    Args:
        api: the server.
        retry: how often a step is tried.
        told: hears how many more messages and conclusions are done.
    """

    def __init__(self, api: RawApi, retry: RetryPolicy, told: Progress) -> None:
        self._api = api
        self._retry = retry
        self._told = told
        self._known: dict[str, set[str]] = {}
        self._waiting: defaultdict[tuple[str, ...], list[Record]] = defaultdict(list)
        self.done = Pushed()

    def send(self, records: Iterable[Record]) -> None:
        """Send everything; what has been sent is in `done`, also when this raises.

        Raises:
            RequestError: the server fails, or refuses the key; running it again goes on from here.
        """
        kind = ""
        for record in records:
            if record["kind"] != kind:
                self._flush(kind)
                kind = record["kind"]
            self._take(kind, record)
        self._flush(kind)

    def _take(self, kind: str, record: Record) -> None:
        match kind:
            case "workspace":
                self._attempt(lambda: self._workspace(record))
            case "peer":
                self._attempt(lambda: self._place("peers", record))
            case "session":
                self._attempt(lambda: self._place("sessions", record))
            case "member" if record["left_at"] is None:
                self._waiting[record["workspace"], record["session"]].append(record)
            case "message":
                group = (record["workspace"], record["session"])
                self._waiting[group].append(record)
                if len(self._waiting[group]) >= _BATCH:
                    self._messages(group, self._waiting.pop(group))
            case "conclusion":
                self._waiting[record["workspace"], record["observer"], record["observed"]].append(record)
            case "card":
                self._attempt(lambda: self._card(record))

    def _flush(self, kind: str) -> None:
        """Send what was gathered of a kind."""
        sending = {"member": self._members, "message": self._messages, "conclusion": self._conclusions}
        for group, records in [*self._waiting.items()]:
            sending[kind](group, records)
        self._waiting.clear()

    def _workspace(self, record: Record) -> None:
        body = _with_settings(record)
        if len(body) > 1 and record["id"] in self._api.ids("/v3/workspaces"):
            body = {"id": record["id"]}
        answer = self._api.request("POST", "/v3/workspaces", body)
        self._count("workspace", new=answer.status_code == httpx.codes.CREATED)

    def _place(self, places: str, record: Record) -> None:
        path = f"{workspace_path(record['workspace'])}/{places}"
        if path not in self._known:
            self._known[path] = self._api.ids(path)
        new = record["id"] not in self._known[path]
        if new:
            self._api.request("POST", path, _with_settings(record))
            self._known[path].add(record["id"])
        self._count(record["kind"], new=new)

    def _members(self, group: tuple[str, ...], records: Sequence[Record]) -> None:
        workspace, session = group
        path = f"{workspace_path(workspace)}/sessions/{quote_segment(session)}/peers"

        def join() -> None:
            # Who is a member already must not join again: that hides from it what was said before.
            there = {peer["id"] for peer in self._api.pages("GET", path)}
            joining = {
                record["peer"]: {name: record[name] for name in ("observe_me", "observe_others")}
                for record in sorted(records, key=lambda record: str(record["peer"]))
                if record["peer"] not in there
            }
            if joining:
                self._api.request("POST", path, joining)

        self._attempt(join)

    def _messages(self, group: tuple[str, ...], records: Sequence[Record]) -> None:
        """Send at most a hundred messages of a session in their order."""
        size = 0
        batch: list[Record] = []
        for record in records:
            size += len(record["content"])
            if batch and size > _BATCH_CHARS:
                self._batch(group, batch)
                batch, size = [], len(record["content"])
            batch.append(record)
        self._batch(group, batch)

    def _batch(self, group: tuple[str, ...], records: Sequence[Record]) -> None:
        path = f"{workspace_path(group[0])}/sessions/{quote_segment(group[1])}/messages"
        keyed = {_source_key(record): record for record in records}
        sent: set[str] = set()

        def send() -> None:
            wanted = {"filters": {"metadata": {SOURCE_KEY: {"in": list(keyed)}}}}
            there = {item["metadata"].get(SOURCE_KEY) for item in self._api.pages("POST", f"{path}/list", wanted)}
            missing = [key for key in keyed if key not in there]
            if missing:
                sent.update(missing)
                self._api.request("POST", path, {"messages": [_message(keyed[key], key) for key in missing]})

        try:
            self._attempt(send)
        except Rejected as error:
            if error.cause == "auth":
                raise
            if len(records) > 1:
                middle = len(records) // 2
                self._batch(group, records[:middle])
                self._batch(group, records[middle:])
                return
            self.done.refused.append(f"a message of the session {group[1]}: {error}")
            return
        self._done("message", len(sent), len(records))

    def _conclusions(self, group: tuple[str, ...], records: Sequence[Record]) -> None:
        workspace, observer, observed = group
        path = f"{workspace_path(workspace)}/conclusions"
        pair = {"observer_id": observer, "observed_id": observed}
        before: list[int] = []

        def send() -> None:
            found = self._api.pages("POST", f"{path}/list", {"filters": pair})
            there = Counter((item["content"], item["session_id"]) for item in found)
            missing = []
            for record in records:
                if there[said := (record["content"], record["session"])]:
                    there[said] -= 1
                else:
                    missing.append({**pair, "content": record["content"], "session_id": record["session"]})
            before.append(len(missing))
            for start in range(0, len(missing), _BATCH):
                self._api.request("POST", path, {"conclusions": missing[start : start + _BATCH]})

        try:
            self._attempt(send)
        except Rejected as error:
            if error.cause == "auth":
                raise
            self.done.refused.append(f"conclusions of {observer} about {observed}: {error}")
            return
        self._done("conclusion", before[0], len(records))

    def _card(self, record: Record) -> None:
        peer = f"{workspace_path(record['workspace'])}/peers/{quote_segment(record['observer'])}"
        path = f"{peer}/card?target={quote_segment(record['target'])}"
        there = self._api.request("GET", path).json()["peer_card"] or []
        if there and there != record["lines"]:
            self.done.kept.append(f"the card that {record['observer']} keeps of {record['target']}")
            return
        new = there != record["lines"]
        if new:
            self._api.request("PUT", path, {"peer_card": record["lines"]})
        self._count("card", new=new)

    def _count(self, kind: str, *, new: bool) -> None:
        (self.done.sent if new else self.done.already)[kind] += 1

    def _done(self, kind: str, sent: int, total: int) -> None:
        self.done.sent[kind] += sent
        self.done.already[kind] += total - sent
        self._told(total, "")

    def _attempt(self, step: Callable[[], None]) -> None:
        def tried() -> None:
            try:
                with self._api.understood():
                    step()
            except RequestError as error:
                self._told(0, str(error))
                raise

        self._retry.call(tried)


def _with_settings(record: Record) -> dict[str, Any]:
    """What makes a place, with its metadata and configuration where it has any."""
    return {"id": record["id"]} | {name: record[name] for name in ("metadata", "configuration") if record[name]}


def _source_key(record: Record) -> str:
    return str(record["metadata"].get(SOURCE_KEY) or f"push-{record['id']}")


def _message(record: Record, key: str) -> dict[str, Any]:
    return {
        "peer_id": record["peer"],
        "content": record["content"],
        "created_at": record["created_at"],
        "metadata": {**record["metadata"], SOURCE_KEY: key},
    }
