"""What is known about a peer, put together from what is stored: representation, chat, session context.

There is no language model here. Everything is quoted, with its day.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from honcho_exec.embedded.query.filters import Condition, all_of
from honcho_exec.embedded.query.listing import CONCLUSION_ROWS, MESSAGE_ROWS, message
from honcho_exec.embedded.query.search import find_conclusions, find_messages
from honcho_exec.embedded.query.sentences import cut, key_sentences, statements
from honcho_exec.embedded.query.words import estimated_tokens
from honcho_exec.embedded.wire import dump, shown_time
from honcho_exec.text.neutralize import without_thinking

__all__ = [
    "Everyone",
    "Seen",
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
_SUMMARIZED: Final = {"short": 60, "long": 240}  # messages that are looked at, the latest ones
_FEWEST_RECENT: Final = 10  # messages that a context shows in full even when the summary covers them
_CONTEXT_TOKENS: Final = 100_000
_SUMMARY_SHARE: Final = 0.4
_QUOTES: Final = 20
_ANSWERS: Final = 10
_LATELY: Final = 5
_LOOKED_AT: Final = 30
_QUOTE_CHARACTERS: Final = 400


class Seen(Protocol):
    """From which conclusions and messages a question is answered."""

    def conclusions(self) -> Condition:
        """The conclusions that are in view."""

    def together(self) -> Condition:
        """The messages that are in view."""


@dataclass(frozen=True, slots=True)
class Everyone:
    """All that is known in a workspace, from which sessions (None: from all)."""

    workspace: int
    sessions: Sequence[str] | None = None

    def conclusions(self) -> Condition:
        """The conclusions that are in view."""
        return self._of("conclusion")

    def together(self) -> Condition:
        """The messages that are in view."""
        return self._of("message")

    def _of(self, table: str) -> Condition:
        there = Condition(f"{table}.workspace = ?", (self.workspace,))
        return all_of([there, _confined(table, self.workspace, self.sessions)])


@dataclass(frozen=True, slots=True)
class View:
    """Whose knowledge about whom, from which sessions (None: from all)."""

    workspace: int
    observer: sqlite3.Row
    observed: sqlite3.Row
    sessions: Sequence[str] | None = None

    def conclusions(self) -> Condition:
        """The conclusions that are in view."""
        pair = Condition(
            "conclusion.observer = ? AND conclusion.observed = ?", (self.observer["key"], self.observed["key"])
        )
        return all_of([pair, _confined("conclusion", self.workspace, self.sessions)])

    def messages(self) -> Condition:
        """The messages of the sessions that the observer takes or took part in."""
        took_part = Condition("message.session IN (SELECT session FROM member WHERE peer = ?)", (self.observer["key"],))
        return all_of([took_part, _confined("message", self.workspace, self.sessions)])

    def together(self) -> Condition:
        """The messages of the sessions in which both take or took part: what was said to others is not of this."""
        both = Condition("message.session IN (SELECT session FROM member WHERE peer = ?)", (self.observed["key"],))
        return all_of([self.messages(), both])

    def said(self) -> Condition:
        """The observed peer's messages among those."""
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
    """Dated conclusions and messages: those that bear on a query first and the newest behind them.

    Messages are quoted whole, and what others said to the observed peer as well: on the conversations of LoCoMo that
    holds what answers a question five times as often as the best sentences of its own messages do.

    Args:
        connection: where to read.
        view: whose knowledge about whom.
        query: what should come first.
        top: how many conclusions may be there for the query's sake.
        most: how many conclusions there may be.
        quotes: how many messages may be there for the query's sake.
    """
    on_this = min(top or _QUOTES, most)
    relevant = find_conclusions(connection, query, view.conclusions(), limit=on_this) if query else []
    known = {row["id"] for row in relevant}
    newest = f"{CONCLUSION_ROWS} WHERE {{}} ORDER BY conclusion.key DESC LIMIT ?"
    said = find_messages(connection, query, view.together(), limit=quotes) if query else []
    others = [row for row in _select(connection, newest, view.conclusions(), most) if row["id"] not in known]
    return _sections(
        ("Conclusions on this:", _concluded(relevant)),
        ("Said on this:", _quoted(said)),
        ("Conclusions:", _concluded(others[: most - len(relevant)])),
        (f"Said by {view.observed['id']}:", _lately(connection, view, said, _LATELY if query else 2 * _LATELY)),
    )


def chat(connection: sqlite3.Connection, seen: Seen, query: str, *, quotes: int = _ANSWERS) -> str | None:
    """The conclusions and messages most relevant to a question, None when nothing stored bears on it."""
    conclusions = find_conclusions(connection, query, seen.conclusions(), limit=quotes)
    said = find_messages(connection, query, seen.together(), limit=quotes)
    found = _sections(("Conclusions:", _concluded(conclusions)), ("Said on this:", _quoted(said)))
    return f"{CHAT_PREFACE}\n\n{found}" if found else None


def card(connection: sqlite3.Connection, observer: int, target: str) -> list[str] | None:
    """The card that was set, None when none was."""
    row = connection.execute("SELECT lines FROM card WHERE observer = ? AND target = ?", (observer, target)).fetchone()
    if row is None:
        return None
    lines: list[str] = json.loads(row["lines"])
    return lines


def set_card(connection: sqlite3.Connection, observer: int, target: str, lines: Sequence[str]) -> None:
    """Replace a card."""
    connection.execute("REPLACE INTO card VALUES (?, ?, ?)", (observer, target, dump(list(lines))))


def session_summaries(connection: sqlite3.Connection, session: int) -> dict[str, dict[str, Any] | None]:
    """The `short` and `long` summary of a session; None below 20 and below 60 messages."""
    count = _count(connection, session)
    return {kind: _summary(connection, session, kind, count // every * every) for kind, every in _EVERY.items()}


def session_context(
    connection: sqlite3.Connection, session: int, *, tokens: int | None, summarized: bool
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """A summary, when there is one and it is wanted, and the latest messages that fit beside it."""
    budget = _CONTEXT_TOKENS if tokens is None else min(tokens, _CONTEXT_TOKENS)
    count = _count(connection, session)
    summary, start = None, 1
    for kind in ("long", "short") if summarized else ():
        covered = count // _EVERY[kind] * _EVERY[kind]
        summary = _summary(connection, session, kind, covered)
        if summary and summary["token_count"] <= budget * _SUMMARY_SHARE:
            budget -= summary["token_count"]
            start = max(1, min(covered, count - _FEWEST_RECENT) + 1)
            break
        summary = None
    latest = f"{MESSAGE_ROWS} WHERE message.session = ? AND message.position >= ? ORDER BY message.position DESC"
    messages = []
    for row in connection.execute(latest, (session, start)):
        budget -= row["token_count"]
        if budget < 0:
            break
        messages.append(message(row))
    return summary, messages[::-1]


def _summary(connection: sqlite3.Connection, session: int, kind: str, covered: int) -> dict[str, Any] | None:
    if not covered:
        return None
    rows = connection.execute(
        f"{MESSAGE_ROWS} WHERE message.session = ? AND message.position BETWEEN ? AND ? ORDER BY message.position",
        (session, max(1, covered - _SUMMARIZED[kind] + 1), covered),
    ).fetchall()
    told = key_sentences([(row["peer_id"], without_thinking(row["content"])) for row in rows], _SUMMARY_SENTENCES[kind])
    if not told:
        return None
    content = "\n".join(told)
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
    found = connection.execute("SELECT max(position) FROM message WHERE session = ?", (session,)).fetchone()[0]
    return found or 0


def _concluded(rows: Sequence[sqlite3.Row]) -> list[str]:
    return [_dated(row, row["content"]) for row in rows]


def _quoted(rows: Sequence[sqlite3.Row]) -> list[str]:
    return [_dated(row, cut(f"{row['peer_id']}: {row['content']}", _QUOTE_CHARACTERS)) for row in rows]


def _lately(connection: sqlite3.Connection, view: View, quoted: Sequence[sqlite3.Row], most: int) -> list[str]:
    """What the observed peer told last, besides what is quoted already."""
    newest = f"{MESSAGE_ROWS} WHERE {{}} ORDER BY message.key DESC LIMIT ?"
    known = {row["id"] for row in quoted}
    rows = [row for row in _select(connection, newest, view.said(), _LOOKED_AT) if row["id"] not in known]
    told = [(row, " ".join(statements(row["content"]))) for row in rows]
    return [_dated(row, cut(text, _QUOTE_CHARACTERS)) for row, text in told if text][:most]


def _select(connection: sqlite3.Connection, query: str, condition: Condition, limit: int) -> list[sqlite3.Row]:
    return connection.execute(query.format(condition.sql), (*condition.values, limit)).fetchall()


def _dated(row: sqlite3.Row, text: str) -> str:
    return f"[{row['created_at'][:10]}] {text}"


def _sections(*sections: tuple[str, Sequence[str]]) -> str:
    return "\n\n".join(
        "\n".join([title, *(f"- {line}" for line in dict.fromkeys(lines))]) for title, lines in sections if lines
    )
