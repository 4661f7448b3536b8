"""Rows as the real server's JSON, and lists of them in pages."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from honcho_exec.embedded.query.filters import Condition
from honcho_exec.embedded.wire import shown_time

__all__ = ["CONCLUSION_ROWS", "MESSAGE_ROWS", "Page", "conclusion", "empty_page", "message", "page", "place"]

MESSAGE_ROWS: Final = """
    SELECT message.key, message.id, message.content, message.metadata, message.token_count, message.created_at,
        peer.id AS peer_id, session.id AS session_id, workspace.id AS workspace_id
    FROM message
    JOIN peer ON peer.key = message.peer
    JOIN session ON session.key = message.session
    JOIN workspace ON workspace.key = message.workspace
"""
CONCLUSION_ROWS: Final = """
    SELECT conclusion.key, conclusion.id, conclusion.content, conclusion.level, conclusion.created_at,
        observer.id AS observer_id, observed.id AS observed_id, session.id AS session_id
    FROM conclusion
    JOIN peer AS observer ON observer.key = conclusion.observer
    JOIN peer AS observed ON observed.key = conclusion.observed
    LEFT JOIN session ON session.key = conclusion.session
"""
_LAST_ROW: Final = 2**63 - 1

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for: the `number`-th `size` rows, oldest or newest first."""

    number: int = 1
    size: int = 50
    newest_first: bool = False


def page(
    connection: sqlite3.Connection,
    rows: str,
    table: str,
    condition: Condition,
    *,
    asked: Page,
    shown: Callable[[sqlite3.Row], Json],
) -> Json:
    """One page of what `rows` selects from `table` under `condition`, in the order of insertion."""
    counted = connection.execute(f"SELECT count(*) FROM {table} WHERE {condition.sql}", condition.values)
    total = int(counted.fetchone()[0])
    direction = "DESC" if asked.newest_first else "ASC"
    found = connection.execute(
        f"{rows} WHERE {condition.sql} ORDER BY {table}.key {direction} LIMIT ? OFFSET ?",
        (*condition.values, asked.size, min((asked.number - 1) * asked.size, _LAST_ROW)),
    )
    return _page([shown(row) for row in found], total, asked)


def empty_page(asked: Page) -> Json:
    """What a list of nothing looks like."""
    return _page([], 0, asked)


def place(row: sqlite3.Row, workspace_id: str | None = None) -> Json:
    """A workspace, peer or session."""
    shown: Json = {
        "id": row["id"],
        "metadata": json.loads(row["metadata"]),
        "configuration": json.loads(row["configuration"]),
        "created_at": shown_time(row["created_at"]),
    }
    if workspace_id is not None:
        shown["workspace_id"] = workspace_id
    if "is_active" in row.keys():  # noqa: SIM118 - a Row iterates its values
        shown["is_active"] = bool(row["is_active"])
    return shown


def message(row: sqlite3.Row) -> Json:
    """A message; `row` is one of MESSAGE_ROWS."""
    return {
        "id": row["id"],
        "content": row["content"],
        "peer_id": row["peer_id"],
        "session_id": row["session_id"],
        "metadata": json.loads(row["metadata"]),
        "created_at": shown_time(row["created_at"]),
        "workspace_id": row["workspace_id"],
        "token_count": row["token_count"],
    }


def conclusion(row: sqlite3.Row) -> Json:
    """A conclusion; `row` is one of CONCLUSION_ROWS."""
    return {
        "id": row["id"],
        "content": row["content"],
        "observer_id": row["observer_id"],
        "observed_id": row["observed_id"],
        "session_id": row["session_id"],
        "level": row["level"],
        "created_at": shown_time(row["created_at"]),
    }


def _page(items: list[Json], total: int, asked: Page) -> Json:
    pages = -(-total // asked.size)
    return {"items": items, "total": total, "page": asked.number, "size": asked.size, "pages": pages}
