"""Find messages and conclusions by words.

A message is scored by its own words (BM25) and by those of the messages around it: in a conversation the answer
seldom repeats the words of the question.
"""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from honcho_exec.embedded.query.filters import Condition, all_of
from honcho_exec.embedded.query.listing import CONCLUSION_ROWS, MESSAGE_ROWS
from honcho_exec.embedded.query.words import match_expressions, query_words
from honcho_exec.embedded.wire import dump

__all__ = ["find_conclusions", "find_messages", "joint_sessions", "member_window"]

_CANDIDATES: Final = 100
_BEFORE: Final = 0.2  # the share of a hit's score for the message before it,
_AFTER: Final = 0.4  # for the message after it,
_ANSWER: Final = 0.7  # and for the message after it if the hit is a question
_AUTHOR_FACTOR: Final = 2.0  # for messages whose author is named in the query
_MIN_NAME_CHARACTERS: Final = 3
_ASKS: Final = "substr(rtrim(message.content), -1) IN ('?', '\uff1f', '\u061f')"

_Position = tuple[int, int]  # a session and an offset in it


def find_messages(connection: sqlite3.Connection, query: str, condition: Condition, limit: int) -> list[sqlite3.Row]:
    """Return at most `limit` messages by relevance, then the newest first."""
    keys: dict[int, None] = {}
    for expression in match_expressions(query):
        if len(keys) >= limit:
            break
        hits = _hits(connection, expression, condition, max(_CANDIDATES, limit))
        keys |= dict.fromkeys(_ranked(connection, _with_neighbours(hits), query, condition))
    if not keys:
        return _containing(connection, "message", query, condition, limit)
    return _rows_in_order(connection, list(keys)[:limit])


def find_conclusions(
    connection: sqlite3.Connection, query: str, condition: Condition, *, limit: int
) -> list[sqlite3.Row]:
    """Return at most `limit` conclusions by relevance, then the newest first."""
    rows_by_key: dict[int, sqlite3.Row] = {}
    for expression in match_expressions(query):
        rows = connection.execute(
            f"""
            {CONCLUSION_ROWS} JOIN conclusion_words ON conclusion_words.rowid = conclusion.key
            WHERE conclusion_words MATCH ? AND {condition.sql}
            ORDER BY bm25(conclusion_words), conclusion.key DESC LIMIT ?
            """,
            (expression, *condition.values, limit),
        )
        for row in rows:
            rows_by_key.setdefault(int(row["key"]), row)
        if len(rows_by_key) >= limit:
            break
    if rows_by_key:
        return list(rows_by_key.values())[:limit]
    return _containing(connection, "conclusion", query, condition, limit)


def joint_sessions(workspace: int, peers: Sequence[str]) -> Condition:
    """Select the messages of sessions that have all of these peers as members.

    One look-up by primary key for each candidate: the time does not depend on the number of sessions.
    """
    return all_of(
        Condition(
            "EXISTS (SELECT 1 FROM member WHERE member.session = message.session AND member.left_at IS NULL"
            " AND member.peer = (SELECT key FROM peer WHERE workspace = ? AND id = ?))",
            (workspace, peer),
        )
        for peer in peers
    )


def member_window(workspace: int, peer: str) -> Condition:
    """Select the messages since `peer` last joined, until it left."""
    return Condition(
        """
        EXISTS (SELECT 1 FROM member
            WHERE member.session = message.session
            AND member.peer = (SELECT key FROM peer WHERE workspace = ? AND id = ?)
            AND message.created_at >= member.joined_at
            AND (member.left_at IS NULL OR message.created_at <= member.left_at))
        """,
        (workspace, peer),
    )


def _hits(
    connection: sqlite3.Connection, expression: str, condition: Condition, limit: int
) -> dict[_Position, tuple[float, bool]]:
    rows = connection.execute(
        f"""
        SELECT message.session, message.position, hit.score, {_ASKS}
        FROM (
            SELECT message.key, -bm25(message_words) AS score
            FROM message_words JOIN message ON message.key = message_words.rowid
            WHERE message_words MATCH ? AND {condition.sql}
            ORDER BY score DESC, message.key DESC LIMIT ?
        ) AS hit JOIN message USING (key)
        """,
        (expression, *condition.values, limit),
    )
    return {(session, position): (score, bool(asks)) for session, position, score, asks in rows}


def _with_neighbours(hits: dict[_Position, tuple[float, bool]]) -> dict[_Position, float]:
    scores: dict[_Position, float] = defaultdict(float)
    for (session, position), (score, asks) in hits.items():
        scores[session, position] += score
        scores[session, position - 1] += _BEFORE * score
        scores[session, position + 1] += (_ANSWER if asks else _AFTER) * score
    return scores


def _ranked(
    connection: sqlite3.Connection, scores: dict[_Position, float], query: str, condition: Condition
) -> list[int]:
    rows = connection.execute(
        f"""
        SELECT message.key, message.session, message.position, peer.id
        FROM json_each(?) AS hit
        JOIN message ON message.session = json_extract(hit.value, '$[0]')
            AND message.position = json_extract(hit.value, '$[1]')
        JOIN peer ON peer.key = message.peer
        WHERE {condition.sql}
        """,
        (dump(list(scores)), *condition.values),
    )
    named = set(query_words(query))
    ranked = [
        (scores[session, position] * (_AUTHOR_FACTOR if named & _names(peer) else 1.0), key)
        for key, session, position, peer in rows
    ]
    return [key for _, key in sorted(ranked, reverse=True)]


def _names(peer: str) -> set[str]:
    return {name for name in re.split(r"[_-]+", peer.lower()) if len(name) >= _MIN_NAME_CHARACTERS}


def _rows_in_order(connection: sqlite3.Connection, keys: list[int]) -> list[sqlite3.Row]:
    rows = connection.execute(f"{MESSAGE_ROWS} WHERE message.key IN (SELECT value FROM json_each(?))", (dump(keys),))
    rows_by_key = {row["key"]: row for row in rows}
    return [rows_by_key[key] for key in keys]


def _containing(
    connection: sqlite3.Connection, table: str, query: str, condition: Condition, limit: int
) -> list[sqlite3.Row]:
    """Return the newest rows that have the query as a substring."""
    wanted = query.strip()
    if not wanted:
        return []
    rows = MESSAGE_ROWS if table == "message" else CONCLUSION_ROWS
    return connection.execute(
        f"""
        {rows} WHERE instr(lower({table}.content), lower(?)) > 0 AND {condition.sql}
        ORDER BY {table}.key DESC LIMIT ?
        """,
        (wanted, *condition.values, limit),
    ).fetchall()
