"""Read conversations in other formats: lists of messages as in OpenAI's API, and Hermes's session store.

Each message becomes an object like that of a JSON line; messages of tools and systems are left out.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

from honcho_exec.clock import iso_time
from honcho_exec.errors import HonchoExecError
from honcho_exec.text.cleaning import plain_text
from honcho_exec.text.host_notices import spoken

__all__ = ["is_conversation", "is_store", "of_conversation", "of_document", "of_store"]

_MAGIC = b"SQLite format 3\x00"
_STRUCTURED = "\x00json:"
# The beginnings of the host's summaries of compacted messages.
_SUMMARIES = ("[CONTEXT COMPACTION", "[CONTEXT SUMMARY]")
_SPEAKERS = ("user", "assistant")
_NAMES = ("session", "session_id", "conversation_id", "id", "title")
_TIMES = ("created_at", "timestamp", "create_time", "created")

Found = tuple[str, dict[str, Any]]
"""The location of a message within the file, and the message."""


class _NotAStore(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """The file is a database, but not Hermes's."""

    cause = "input"


def is_store(head: bytes) -> bool:
    """Return whether a file with this beginning is a database."""
    return head.startswith(_MAGIC)


def is_conversation(found: object) -> bool:
    """Return whether a JSON value is a whole conversation, not one message."""
    return isinstance(found, dict) and isinstance(found.get("messages"), list)


def of_document(found: list[Any]) -> Iterator[Found]:
    """Read the messages of a JSON list of messages or of conversations."""
    if found and all(map(is_conversation, found)):
        for number, conversation in enumerate(found, 1):
            for location, message in of_conversation(conversation):
                yield f"[{number}]{location}", message
    else:
        yield from of_conversation({"messages": found})


def of_conversation(conversation: Mapping[str, Any]) -> Iterator[Found]:
    """Read the messages of a conversation, which may have a name, and times."""
    session = next((str(conversation[name]) for name in _NAMES if conversation.get(name)), None)
    for number, message in enumerate(conversation["messages"], 1):
        if not isinstance(message, dict):
            yield f"[{number}]", {"role": message}
        elif (found := _message(message, session)) is not None:
            yield f"[{number}]", found


def of_store(path: Path) -> Iterator[Found]:
    """Read the messages of Hermes's session store, `state.db`, with those that it has compacted.

    Raises:
        _NotAStore: it is another database, or cannot be read.
    """
    try:
        # Read only: the host may be running.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute(
                "SELECT messages.id, session_id, role, content, timestamp, active FROM messages"
                " JOIN sessions ON sessions.id = messages.session_id"
                " WHERE role IN ('user', 'assistant') AND content IS NOT NULL AND (active OR compacted)"
                " ORDER BY sessions.started_at, session_id, active, messages.id"
            )
            for session, rows in groupby(found, key=lambda row: row[1]):
                for id_, _, role, content, timestamp, _ in _without_copies(rows):
                    stored = {"role": role, "content": _decoded(content), "id": id_, "timestamp": timestamp}
                    if (message := _message(stored, session)) is not None:
                        yield f"message {id_}", message
    except sqlite3.Error as error:
        raise _NotAStore(f"{path} is not Hermes's session store: {error}") from error


def _without_copies(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Return a session's rows, compacted ones first, without the copies of these at the start of the active ones."""
    compacted: Counter[tuple[str, str]] = Counter()
    copying = True
    for row in rows:
        key, active = (row[2], row[3]), row[5]
        if not active:
            compacted[key] += 1
        elif copying and compacted:
            if row[3].startswith(_SUMMARIES):
                continue
            if compacted[key]:
                compacted[key] -= 1
                continue
            copying = False
        yield row


def _message(message: Mapping[str, Any], session: str | None) -> dict[str, Any] | None:
    """Return a message as in a JSON line; None if it is no text of the user or the assistant."""
    if message.get("role") not in _SPEAKERS and isinstance(message.get("role"), str):
        return None
    content = message.get("content")
    if content is None or isinstance(content, list):
        content = plain_text(content) if content else None
        if not content:
            return None
    if message.get("role") == "user" and isinstance(content, str):
        content = spoken(content)
        if not content.strip():
            return None
    line = {"role": message.get("role"), "content": content, "session": session or message.get("session")}
    line |= {name: message[name] for name in ("name", "id") if message.get(name) is not None}
    moment = next((message[name] for name in _TIMES if message.get(name) is not None), None)
    return line | {"created_at": _iso(moment)}


def _decoded(content: object) -> object:
    if isinstance(content, str) and content.startswith(_STRUCTURED):
        try:
            return json.loads(content.removeprefix(_STRUCTURED))
        except ValueError:
            return content.removeprefix(_STRUCTURED)
    return content


def _iso(moment: object) -> object:
    """Return seconds since the epoch as ISO 8601; other values as they are, to be checked later."""
    if isinstance(moment, bool) or not isinstance(moment, int | float):
        return moment
    try:
        return iso_time(moment, "auto")
    except (ValueError, OverflowError, OSError):
        return moment
