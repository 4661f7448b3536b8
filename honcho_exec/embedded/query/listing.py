"""Rows as the JSON of the real server, and pages of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from honcho_exec.embedded.query.filters import Condition
from honcho_exec.embedded.wire import shown_time

__all__ = ["CONCLUSION_ROWS", "MESSAGE_ROWS", "Page", "empty_page", "item", "page", "resource"]

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
    """The `number`-th `size` rows of a list, oldest or newest first."""

    number: int = 1
    size: int = 50
    newest_first: bool = False


def page(
    connection: sqlite3.Connection,
    rows: str,
    table: str,
    condition: Condition,
    *,
    request: Page,
    to_json: Callable[[sqlite3.Row], Json],
) -> Json:
    """Return a page of the `rows` under `condition`, in insertion order."""
    counted = connection.execute(f"SELECT count(*) FROM {table} WHERE {condition.sql}", condition.values)
    total = int(counted.fetchone()[0])
    direction = "DESC" if request.newest_first else "ASC"
    selected = connection.execute(
        f"{rows} WHERE {condition.sql} ORDER BY {table}.key {direction} LIMIT ? OFFSET ?",
        (*condition.values, request.size, min((request.number - 1) * request.size, _LAST_ROW)),
    )
    return _page([to_json(row) for row in selected], total, request)


def empty_page(request: Page) -> Json:
    """Return the page of an empty list."""
    return _page([], 0, request)


def resource(row: sqlite3.Row, workspace_id: str | None = None) -> Json:
    """Return a workspace, peer or session as JSON."""
    value = item(row)
    value.pop("workspace", None)
    value["configuration"] = json.loads(row["configuration"])
    if workspace_id is not None:
        value["workspace_id"] = workspace_id
    if "is_active" in value:
        value["is_active"] = bool(row["is_active"])
    return value


def item(row: sqlite3.Row) -> Json:
    """Return a row of MESSAGE_ROWS or CONCLUSION_ROWS as JSON."""
    value = dict(row)
    del value["key"]
    if "metadata" in value:
        value["metadata"] = json.loads(value["metadata"])
    value["created_at"] = shown_time(value["created_at"])
    return value


def _page(items: list[Json], total: int, request: Page) -> Json:
    pages = -(-total // request.size)
    return {"items": items, "total": total, "page": request.number, "size": request.size, "pages": pages}
