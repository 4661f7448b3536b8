"""Send the records of the embedded Honcho to a server, except those that it has already."""

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
from honcho_exec.transfer.importer import Progress

__all__ = ["Push", "Pushed"]

_BATCH = 100
_BATCH_CHARS = 400_000

Record = Mapping[str, Any]


@dataclass(slots=True)
class Pushed:
    """The result for the records, by their kind.

    Attributes:
        sent: stored by the server now.
        duplicates: on the server already.
        refused: the reason for each record that the server refused.
        kept: cards that the server has with other lines, which were not changed.
    """

    sent: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


class Push:
    """Sends exported records to a server.

    Each step first reads what the server has, so that a repeated step, or run, stores nothing twice: messages are
    compared by the source key in their metadata, conclusions by content, everything else by id.

    Args:
        api: the server.
        retry: the policy for each step.
        report: called with the number of messages and conclusions that are done.
    """

    def __init__(self, api: RawApi, retry: RetryPolicy, report: Progress) -> None:
        self._api = api
        self._retry = retry
        self._report = report
        self._known: dict[str, set[str]] = {}
        self._collected: defaultdict[tuple[str, ...], list[Record]] = defaultdict(list)
        self.done = Pushed()

    def send(self, records: Iterable[Record]) -> None:
        """Send all records; `done` has the result, even if this raises.

        Raises:
            RequestError: the server fails or refuses the key; another run continues.
        """
        kind = ""
        for record in records:
            if record["kind"] != kind:
                self._flush(kind)
                kind = record["kind"]
            self._collect(kind, record)
        self._flush(kind)

    def _collect(self, kind: str, record: Record) -> None:
        match kind:
            case "workspace":
                self._attempt(lambda: self._workspace(record))
            case "peer":
                self._attempt(lambda: self._resource("peers", record))
            case "session":
                self._attempt(lambda: self._resource("sessions", record))
            case "member" if record["left_at"] is None:
                self._collected[record["workspace"], record["session"]].append(record)
            case "message":
                group = (record["workspace"], record["session"])
                self._collected[group].append(record)
                if len(self._collected[group]) >= _BATCH:
                    self._messages(group, self._collected.pop(group))
            case "conclusion":
                self._collected[record["workspace"], record["observer"], record["observed"]].append(record)
            case "card":
                self._attempt(lambda: self._card(record))

    def _flush(self, kind: str) -> None:
        """Send the collected records of a kind."""
        sending = {"member": self._members, "message": self._messages, "conclusion": self._conclusions}
        for group, records in [*self._collected.items()]:
            sending[kind](group, records)
        self._collected.clear()

    def _workspace(self, record: Record) -> None:
        body = _with_settings(record)
        if len(body) > 1 and record["id"] in self._api.ids("/v3/workspaces"):
            body = {"id": record["id"]}
        answer = self._api.request("POST", "/v3/workspaces", body)
        self._count("workspace", new=answer.status_code == httpx.codes.CREATED)

    def _resource(self, collection: str, record: Record) -> None:
        path = f"{workspace_path(record['workspace'])}/{collection}"
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
            # A member must not join again: it would no longer see earlier messages.
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
        """Send at most a hundred messages of a session in order."""
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
                if there[key := (record["content"], record["session"])]:
                    there[key] -= 1
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
        (self.done.sent if new else self.done.duplicates)[kind] += 1

    def _done(self, kind: str, sent: int, total: int) -> None:
        self.done.sent[kind] += sent
        self.done.duplicates[kind] += total - sent
        self._report(total, "")

    def _attempt(self, step: Callable[[], None]) -> None:
        def tried() -> None:
            try:
                with self._api.understood():
                    step()
            except RequestError as error:
                self._report(0, str(error))
                raise

        self._retry.call(tried)


def _with_settings(record: Record) -> dict[str, Any]:
    """Return the body that creates a resource, with its metadata and configuration, if any."""
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
