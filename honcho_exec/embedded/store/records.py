"""Export and import of everything stored, without loss.

A record is a JSON object with a `kind`. Workspaces come first, then peers, sessions, members, messages, conclusions and
cards, each kind in the order of insertion; so a record follows those that it refers to.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from honcho_exec.embedded.query.words import day_words, indexed
from honcho_exec.embedded.store.database import Writer
from honcho_exec.embedded.wire import ApiError, dump, parse_time, resource_id
from honcho_exec.errors import InputError

__all__ = ["FORMAT", "Record", "dump_records", "load_records"]

Record = dict[str, Any]

FORMAT: Final[Record] = {"kind": "honcho_exec", "version": 1}
"""The first record of an export."""

_DOCUMENTS: Final = frozenset({"metadata", "configuration", "lines"})
_FLAGS: Final = frozenset({"observe_me", "observe_others", "is_active"})
_NULLABLE: Final = frozenset({"observe_me", "observe_others", "left_at"})

_SELECT: Final[Mapping[str, str]] = {
    "workspace": "SELECT id, metadata, configuration, created_at FROM workspace ORDER BY key",
    "peer": """
        SELECT workspace.id AS workspace, peer.id, peer.metadata, peer.configuration, peer.created_at
        FROM peer JOIN workspace ON workspace.key = peer.workspace ORDER BY peer.key
    """,
    "session": """
        SELECT workspace.id AS workspace, session.id, is_active, session.metadata, session.configuration,
            session.created_at
        FROM session JOIN workspace ON workspace.key = session.workspace ORDER BY session.key
    """,
    "member": """
        SELECT workspace.id AS workspace, session.id AS session, peer.id AS peer, observe_me, observe_others,
            joined_at, left_at
        FROM member JOIN session ON session.key = member.session JOIN peer ON peer.key = member.peer
            JOIN workspace ON workspace.key = session.workspace ORDER BY member.session, member.peer
    """,
    "message": """
        SELECT workspace.id AS workspace, session.id AS session, peer.id AS peer, message.id, content,
            message.metadata, token_count, message.created_at
        FROM message JOIN session ON session.key = message.session JOIN peer ON peer.key = message.peer
            JOIN workspace ON workspace.key = message.workspace ORDER BY message.key
    """,
    "conclusion": """
        SELECT workspace.id AS workspace, observer.id AS observer, observed.id AS observed, session.id AS session,
            conclusion.id, content, level, conclusion.created_at
        FROM conclusion JOIN peer AS observer ON observer.key = conclusion.observer
            JOIN peer AS observed ON observed.key = conclusion.observed
            JOIN workspace ON workspace.key = conclusion.workspace
            LEFT JOIN session ON session.key = conclusion.session ORDER BY conclusion.key
    """,
    "card": """
        SELECT workspace.id AS workspace, peer.id AS observer, target, lines
        FROM card JOIN peer ON peer.key = card.observer JOIN workspace ON workspace.key = peer.workspace
        ORDER BY card.observer, target
    """,
}


def dump_records(connection: sqlite3.Connection) -> Iterator[Record]:
    """Yield everything stored, as one snapshot of the file."""
    yield dict(FORMAT)
    for kind, select in _SELECT.items():
        for row in connection.execute(select):
            yield {"kind": kind, **{name: _shown(name, row[name]) for name in row.keys()}}  # noqa: SIM118 - a Row iterates its values


def load_records(writer: Writer, records: Iterable[tuple[str, object]]) -> Counter[str]:
    """Store records, each with its location; existing items are kept.

    Returns:
        How many items of each kind were new, and under `already` how many existed.

    Raises:
        InputError: a record is invalid; the message begins with its location. The caller must not commit.
    """
    loader = _Loader(writer)
    first = True
    for location, record in records:
        try:
            if not isinstance(record, dict):
                raise InputError("must be a JSON object")
            if first:
                _check_format(record)
            else:
                loader.load(record)
        except ApiError as error:
            why = error.detail[0]["msg"] if isinstance(error.detail, list) else error.detail
            raise InputError(f"{location}: {why}; nothing was imported") from error
        except InputError as error:
            raise InputError(f"{location}: {error}; nothing was imported") from error
        first = False
    return loader.counts


def _check_format(record: Record) -> None:
    if record.get("kind") != FORMAT["kind"]:
        raise InputError(f"is not an export of honcho_exec, which begins with {json.dumps(FORMAT)}")
    if record.get("version") != FORMAT["version"]:
        raise InputError(f"the export is of version {record.get('version')!r:.20}, and this one knows 1; upgrade")


def _shown(name: str, value: Any) -> Any:
    if name in _DOCUMENTS:
        return json.loads(value)
    return bool(value) if name in _FLAGS and value is not None else value


class _Loader:
    """Store records one by one; caches the keys of what they refer to."""

    def __init__(self, writer: Writer) -> None:
        self.counts: Counter[str] = Counter()
        self._connection = writer.connection
        self._keys: dict[tuple[str, ...], int] = {}
        self._positions: dict[int, int] = {}
        self._load: dict[str, Callable[[Record], bool]] = {
            "workspace": self._workspace,
            "peer": lambda record: self._resource("peer", record),
            "session": lambda record: self._resource("session", record),
            "member": self._member,
            "message": self._message,
            "conclusion": self._conclusion,
            "card": self._card,
        }

    def load(self, record: Record) -> None:
        kind = record.get("kind")
        if kind not in self._load:
            raise InputError(f"`kind` must be one of {', '.join(self._load)}, not {kind!r:.40}")
        self.counts[str(kind) if self._load[kind](record) else "already"] += 1

    def _workspace(self, record: Record) -> bool:
        values = _values(record, "id", "metadata", "configuration", "created_at")
        return self._insert("INSERT OR IGNORE INTO workspace VALUES (NULL, ?, ?, ?, ?)", values)

    def _resource(self, kind: str, record: Record) -> bool:
        workspace = self._key("workspace", record.get("workspace"))
        if kind == "peer":
            values = _values(record, "id", "metadata", "configuration", "created_at")
            return self._insert("INSERT OR IGNORE INTO peer VALUES (NULL, ?, ?, ?, ?, ?)", [workspace, *values])
        values = _values(record, "id", "is_active", "metadata", "configuration", "created_at")
        if not record["is_active"]:
            # Earlier versions exported the names of deleted sessions.
            return False
        return self._insert("INSERT OR IGNORE INTO session VALUES (NULL, ?, ?, ?, ?, ?, ?)", [workspace, *values])

    def _member(self, record: Record) -> bool:
        values = _values(record, "observe_me", "observe_others", "joined_at", "left_at")
        keys = [self._inside("session", record, "session"), self._inside("peer", record, "peer")]
        return self._insert("INSERT OR IGNORE INTO member VALUES (?, ?, ?, ?, ?, ?)", [*keys, *values])

    def _message(self, record: Record) -> bool:
        id_, content, metadata, tokens, created = _values(
            record, "id", "content", "metadata", "token_count", "created_at"
        )
        session = self._inside("session", record, "session")
        if session not in self._positions:
            last = self._connection.execute("SELECT max(position) FROM message WHERE session = ?", (session,))
            self._positions[session] = last.fetchone()[0] or 0
        keys = [self._key("workspace", record.get("workspace")), session, self._positions[session] + 1]
        author = self._inside("peer", record, "peer")
        statement = "INSERT OR IGNORE INTO message VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        if not self._insert(statement, [id_, *keys, author, content, metadata, tokens, created]):
            return False
        self._positions[session] += 1
        self._connection.execute(
            "INSERT INTO message_words (rowid, content, day) VALUES (last_insert_rowid(), ?, ?)",
            (indexed(content), day_words(created)),
        )
        return True

    def _conclusion(self, record: Record) -> bool:
        id_, content, level, created = _values(record, "id", "content", "level", "created_at")
        keys: list[int | None] = [self._key("workspace", record.get("workspace"))]
        keys += [self._inside("peer", record, "observer"), self._inside("peer", record, "observed")]
        keys.append(None if record.get("session") is None else self._inside("session", record, "session"))
        statement = "INSERT OR IGNORE INTO conclusion VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"
        if not self._insert(statement, [id_, *keys, content, level, created]):
            return False
        words = "INSERT INTO conclusion_words (rowid, content) VALUES (last_insert_rowid(), ?)"
        self._connection.execute(words, (indexed(content),))
        return True

    def _card(self, record: Record) -> bool:
        target, lines = _values(record, "target", "lines")
        observer = self._inside("peer", record, "observer")
        return self._insert("INSERT OR IGNORE INTO card VALUES (?, ?, ?)", [observer, target, lines])

    def _insert(self, statement: str, values: Iterable[object]) -> bool:
        return self._connection.execute(statement, tuple(values)).rowcount == 1

    def _inside(self, kind: str, record: Record, name: str) -> int:
        return self._key(kind, record.get(name), record.get("workspace"))

    def _key(self, kind: str, id_: object, workspace: object = None) -> int:
        """Return the key of a workspace, or of a peer or session of `workspace`."""
        name = (kind, str(id_), str(workspace))
        if name not in self._keys:
            where, values = "id = ?", [str(id_)]
            if kind != "workspace":
                where, values = "id = ? AND workspace = (SELECT key FROM workspace WHERE id = ?)", [*values, name[2]]
            row = self._connection.execute(f"SELECT key FROM {kind} WHERE {where}", values).fetchone()
            if row is None:
                raise InputError(f"names the {kind} {str(id_)!r:.60}, which has not come before")
            self._keys[name] = row["key"]
        return self._keys[name]


def _values(record: Record, *names: str) -> list[Any]:
    """Return the fields of a record as they are stored."""
    return [_value(record, name) for name in names]


def _value(record: Record, name: str) -> Any:
    if name not in record:
        raise InputError(f"`{name}` is missing")
    value = record[name]
    if value is None and name in _NULLABLE:
        return None
    fits, wanted = _FIELDS[name]
    if not fits(value):
        raise InputError(f"`{name}` must be {wanted}")
    if name in {"id", "target"}:
        resource_id(value, name)
    return dump(value) if name in _DOCUMENTS else value


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


_TEXT: Final = (_is(str), "text")
_FLAG: Final = (_is(bool), "true or false")
_OBJECT: Final = (_is(dict), "an object")
_TIME: Final = (
    lambda value: value is not None and parse_time(value) == value,
    "a time such as 2025-03-01T09:30:00.000000Z",
)
_FIELDS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    **dict.fromkeys(("id", "target", "content", "level"), _TEXT),
    **dict.fromkeys(("is_active", "observe_me", "observe_others"), _FLAG),
    **dict.fromkeys(("metadata", "configuration"), _OBJECT),
    **dict.fromkeys(("created_at", "joined_at", "left_at"), _TIME),
    "lines": (lambda value: isinstance(value, list) and all(map(_TEXT[0], value)), "a list of texts"),
    "token_count": (lambda value: type(value) is int and 0 <= value < 2**31, "a whole number"),
}
