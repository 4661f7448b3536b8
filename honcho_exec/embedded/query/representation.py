"""Representation, chat and session context, assembled from stored items.

There is no language model here. Everything is quoted, with its day.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from honcho_exec.embedded.query.filters import Condition, all_of
from honcho_exec.embedded.query.listing import CONCLUSION_ROWS, MESSAGE_ROWS, item
from honcho_exec.embedded.query.search import find_conclusions, find_messages
from honcho_exec.embedded.query.sentences import cut, key_sentences, statements
from honcho_exec.embedded.query.words import estimated_tokens
from honcho_exec.embedded.wire import dump, shown_time
from honcho_exec.text.neutralize import without_thinking

__all__ = [
    "Everyone",
    "Evidence",
    "View",
    "card",
    "chat",
    "representation",
    "session_context",
    "session_summaries",
    "set_card",
]

CHAT_PREFACE: Final = "From stored memory, without a language model:"

# The real server summarizes every 20 and every 60 messages; below 20 the messages themselves are short enough.
_EVERY: Final = {"short": 20, "long": 60}
_SUMMARY_SENTENCES: Final = {"short": 6, "long": 15}
_SUMMARIZED: Final = {"short": 60, "long": 240}  # the latest messages that are considered
_MIN_RECENT: Final = 10  # messages that a context has in full even if the summary covers them
_CONTEXT_TOKENS: Final = 100_000
_SUMMARY_SHARE: Final = 0.4
_QUOTES: Final = 20
_ANSWERS: Final = 10
_LATEST: Final = 5
_LATEST_CANDIDATES: Final = 30
_QUOTE_CHARACTERS: Final = 400


class Evidence(Protocol):
    """The conclusions and messages from which a question is answered."""

    def conclusions(self) -> Condition:
        """Select the conclusions."""

    def shared_messages(self) -> Condition:
        """Select the messages."""


@dataclass(frozen=True, slots=True)
class Everyone:
    """Everything in a workspace, or in some of its sessions."""

    workspace: int
    sessions: Sequence[str] | None = None

    def conclusions(self) -> Condition:
        """Select the conclusions."""
        return self._of("conclusion")

    def shared_messages(self) -> Condition:
        """Select the messages."""
        return self._of("message")

    def _of(self, table: str) -> Condition:
        inside = Condition(f"{table}.workspace = ?", (self.workspace,))
        return all_of([inside, _confined(table, self.workspace, self.sessions)])


@dataclass(frozen=True, slots=True)
class View:
    """What one peer knows about another, from all sessions or from some."""

    observer: sqlite3.Row
    observed: sqlite3.Row
    sessions: Sequence[str] | None = None

    def conclusions(self) -> Condition:
        """Select the conclusions."""
        pair = Condition(
            "conclusion.observer = ? AND conclusion.observed = ?", (self.observer["key"], self.observed["key"])
        )
        return all_of([pair, _confined("conclusion", self.observer["workspace"], self.sessions)])

    def messages(self) -> Condition:
        """Select the messages of sessions that the observer is or was in."""
        took_part = Condition("message.session IN (SELECT session FROM member WHERE peer = ?)", (self.observer["key"],))
        return all_of([took_part, _confined("message", self.observer["workspace"], self.sessions)])

    def shared_messages(self) -> Condition:
        """Select the messages of sessions that both are or were in."""
        both = Condition("message.session IN (SELECT session FROM member WHERE peer = ?)", (self.observed["key"],))
        return all_of([self.messages(), both])

    def observed_messages(self) -> Condition:
        """Select the observed peer's messages in the observer's sessions."""
        return all_of([self.messages(), Condition("message.peer = ?", (self.observed["key"],))])


def representation(
    connection: sqlite3.Connection,
    view: View,
    query: str | None = None,
    *,
    top: int | None = None,
    most: int = 25,
    quotes: int = _QUOTES,
) -> str:
    """Return dated conclusions and messages, relevant ones first, then new.

    Messages are quoted whole, also those of others to the observed peer: on the conversations of LoCoMo this contains
    the answer to a question five times as often as the best sentences of the peer's own messages.

    Args:
        connection: a read transaction.
        view: observer and observed peer.
        query: what comes first.
        top: the most conclusions that are found by the query.
        most: the most conclusions altogether.
        quotes: the most messages that are found by the query.
    """
    on_this = min(top or _QUOTES, most)
    relevant = find_conclusions(connection, query, view.conclusions(), limit=on_this) if query else []
    known = {row["id"] for row in relevant}
    newest = f"{CONCLUSION_ROWS} WHERE {{}} ORDER BY conclusion.key DESC LIMIT ?"
    messages = find_messages(connection, query, view.shared_messages(), limit=quotes) if query else []
    others = [row for row in _select(connection, newest, view.conclusions(), most) if row["id"] not in known]
    return _sections(
        ("Conclusions on this:", _concluded(relevant)),
        ("Said on this:", _quoted(messages)),
        ("Conclusions:", _concluded(others[: most - len(relevant)])),
        (f"Said by {view.observed['id']}:", _latest(connection, view, messages, _LATEST if query else 2 * _LATEST)),
    )


def chat(connection: sqlite3.Connection, evidence: Evidence, query: str, *, quotes: int = _ANSWERS) -> str | None:
    """Quote the most relevant conclusions and messages; None if none is."""
    conclusions = find_conclusions(connection, query, evidence.conclusions(), limit=quotes)
    messages = find_messages(connection, query, evidence.shared_messages(), limit=quotes)
    text = _sections(("Conclusions:", _concluded(conclusions)), ("Said on this:", _quoted(messages)))
    return f"{CHAT_PREFACE}\n\n{text}" if text else None


def card(connection: sqlite3.Connection, observer: int, target: str) -> list[str] | None:
    """Return a card, None if none was set."""
    row = connection.execute("SELECT lines FROM card WHERE observer = ? AND target = ?", (observer, target)).fetchone()
    if row is None:
        return None
    lines: list[str] = json.loads(row["lines"])
    return lines


def set_card(connection: sqlite3.Connection, observer: int, target: str, lines: Sequence[str]) -> None:
    """Replace a card."""
    connection.execute("REPLACE INTO card VALUES (?, ?, ?)", (observer, target, dump(list(lines))))


def session_summaries(connection: sqlite3.Connection, session: int) -> dict[str, dict[str, Any] | None]:
    """Return `short` and `long` summary; None below 20 and 60 messages."""
    count = _count(connection, session)
    return {kind: _summary(connection, session, kind, count // every * every) for kind, every in _EVERY.items()}


def session_context(
    connection: sqlite3.Connection, session: int, *, tokens: int | None, summarized: bool
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Return a summary, if any and `summarized`, and the latest messages."""
    budget = _CONTEXT_TOKENS if tokens is None else min(tokens, _CONTEXT_TOKENS)
    count = _count(connection, session)
    summary, start = None, 1
    for kind in ("long", "short") if summarized else ():
        covered = count // _EVERY[kind] * _EVERY[kind]
        summary = _summary(connection, session, kind, covered)
        if summary and summary["token_count"] <= budget * _SUMMARY_SHARE:
            budget -= summary["token_count"]
            start = max(1, min(covered, count - _MIN_RECENT) + 1)
            break
        summary = None
    latest = f"{MESSAGE_ROWS} WHERE message.session = ? AND message.position >= ? ORDER BY message.position DESC"
    messages = []
    for row in connection.execute(latest, (session, start)):
        budget -= row["token_count"]
        if budget < 0:
            break
        messages.append(item(row))
    return summary, messages[::-1]


def _summary(connection: sqlite3.Connection, session: int, kind: str, covered: int) -> dict[str, Any] | None:
    if not covered:
        return None
    rows = connection.execute(
        f"{MESSAGE_ROWS} WHERE message.session = ? AND message.position BETWEEN ? AND ? ORDER BY message.position",
        (session, max(1, covered - _SUMMARIZED[kind] + 1), covered),
    ).fetchall()
    texts = [(row["peer_id"], without_thinking(row["content"])) for row in rows]
    chosen = key_sentences(texts, _SUMMARY_SENTENCES[kind])
    if not chosen:
        return None
    content = "\n".join(chosen)
    return {
        "content": content,
        "message_id": rows[-1]["id"],
        "summary_type": kind,
        "created_at": shown_time(rows[-1]["created_at"]),
        "token_count": estimated_tokens(content),
    }


def _confined(table: str, workspace: int, sessions: Sequence[str] | None) -> Condition:
    if sessions is None:
        return Condition("1")
    return Condition(
        f"{table}.session IN (SELECT key FROM session WHERE workspace = ? AND id IN (SELECT value FROM json_each(?)))",
        (workspace, dump(list(sessions))),
    )


def _count(connection: sqlite3.Connection, session: int) -> int:
    last = connection.execute("SELECT max(position) FROM message WHERE session = ?", (session,)).fetchone()[0]
    return last or 0


def _concluded(rows: Sequence[sqlite3.Row]) -> list[str]:
    return [_dated(row, row["content"]) for row in rows]


def _quoted(rows: Sequence[sqlite3.Row]) -> list[str]:
    return [_dated(row, cut(f"{row['peer_id']}: {row['content']}", _QUOTE_CHARACTERS)) for row in rows]


def _latest(connection: sqlite3.Connection, view: View, quoted: Sequence[sqlite3.Row], most: int) -> list[str]:
    """Return the observed peer's latest statements that are not quoted yet."""
    newest = f"{MESSAGE_ROWS} WHERE {{}} ORDER BY message.key DESC LIMIT ?"
    known = {row["id"] for row in quoted}
    rows = _select(connection, newest, view.observed_messages(), _LATEST_CANDIDATES)
    texts = [(row, " ".join(statements(row["content"]))) for row in rows if row["id"] not in known]
    return [_dated(row, cut(text, _QUOTE_CHARACTERS)) for row, text in texts if text][:most]


def _select(connection: sqlite3.Connection, query: str, condition: Condition, limit: int) -> list[sqlite3.Row]:
    return connection.execute(query.format(condition.sql), (*condition.values, limit)).fetchall()


def _dated(row: sqlite3.Row, text: str) -> str:
    return f"[{row['created_at'][:10]}] {text}"


def _sections(*sections: tuple[str, Sequence[str]]) -> str:
    return "\n\n".join(
        "\n".join([title, *(f"- {line}" for line in dict.fromkeys(lines))]) for title, lines in sections if lines
    )
