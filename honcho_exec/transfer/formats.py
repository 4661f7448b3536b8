"""Conversations in the forms in which others keep them: lists of messages as of OpenAI's API, and Hermes's own store.

Each message becomes an object such as a line of JSON has it; what no person and no assistant said is left out.
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
# How the host begins the summary of what it has put away.
_SUMMARIES = ("[CONTEXT COMPACTION", "[CONTEXT SUMMARY]")
_SPEAKERS = ("user", "assistant")
_NAMES = ("session", "session_id", "conversation_id", "id", "title")
_TIMES = ("created_at", "timestamp", "create_time", "created")

Found = tuple[str, dict[str, Any]]
"""A message and its place, within the file."""


class _NotAStore(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """The file is a database, and not Hermes's."""

    cause = "input"


def is_store(head: bytes) -> bool:
    """Whether a file that begins like this is a database."""
    return head.startswith(_MAGIC)


def is_conversation(found: object) -> bool:
    """Whether a JSON value is a conversation as a whole, and not one message."""
    return isinstance(found, dict) and isinstance(found.get("messages"), list)


def of_document(found: list[Any]) -> Iterator[Found]:
    """The messages of a JSON list: of messages, or of conversations."""
    if found and all(map(is_conversation, found)):
        for number, conversation in enumerate(found, 1):
            for place, message in of_conversation(conversation):
                yield f"[{number}]{place}", message
    else:
        yield from of_conversation({"messages": found})


def of_conversation(conversation: Mapping[str, Any]) -> Iterator[Found]:
    """The messages of one conversation, which may have a name, and each a time."""
    session = next((str(conversation[name]) for name in _NAMES if conversation.get(name)), None)
    for number, message in enumerate(conversation["messages"], 1):
        if not isinstance(message, dict):
            yield f"[{number}]", {"role": message}
        elif (found := _message(message, session)) is not None:
            yield f"[{number}]", found


def of_store(path: Path) -> Iterator[Found]:
    """What was said in the sessions of Hermes's own store, `state.db`, also what it has put away to save room.

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
                    said = {"role": role, "content": _decoded(content), "id": id_, "timestamp": timestamp}
                    if (message := _message(said, session)) is not None:
                        yield f"message {id_}", message
    except sqlite3.Error as error:
        raise _NotAStore(f"{path} is not Hermes's session store: {error}") from error


def _without_copies(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """A session's rows, those put away first, without the copies with which what was kept of them begins."""
    away: Counter[tuple[str, str]] = Counter()
    copying = True
    for row in rows:
        said, active = (row[2], row[3]), row[5]
        if not active:
            away[said] += 1
        elif copying and away:
            if row[3].startswith(_SUMMARIES):
                continue
            if away[said]:
                away[said] -= 1
                continue
            copying = False
        yield row


def _message(message: Mapping[str, Any], session: str | None) -> dict[str, Any] | None:
    """A message as a line has it; None for what neither a person nor the assistant said in words."""
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
    """Seconds since the epoch as ISO 8601; anything else as it is, for whoever checks it."""
    if isinstance(moment, bool) or not isinstance(moment, int | float):
        return moment
    try:
        return iso_time(moment, "auto")
    except (ValueError, OverflowError, OSError):
        return moment
