"""Delete what a person wants purged, without a trace in the file."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter

from honcho_exec.embedded.query.filters import Condition
from honcho_exec.embedded.store.database import Writer
from honcho_exec.embedded.wire import dump
from honcho_exec.text.purge_filter import PurgeFilter

__all__ = ["count_matches", "delete_matches", "matching_names"]

_PEERS = "(SELECT key FROM peer WHERE id = ?)"
_SESSIONS = "(SELECT key FROM session WHERE id = ?)"
_NOTHING = Condition("0")
_CARDS = "SELECT card.observer, target, lines FROM card JOIN peer ON peer.key = card.observer WHERE "


def count_matches(connection: sqlite3.Connection, chosen: PurgeFilter) -> Counter[str]:
    """Return how many items of each kind match."""
    _install(connection, chosen)
    counts: Counter[str] = Counter()
    for table, condition in _conditions(chosen).items():
        statement = f"SELECT count(*) FROM {table} WHERE {condition.sql}"
        counts[table] = connection.execute(statement, condition.values).fetchone()[0]
    del counts["member"]
    counts["card"] = len(_cards(connection, chosen))
    return counts


def delete_matches(writer: Writer, chosen: PurgeFilter) -> Counter[str]:
    """Delete what matches, of cards only the lines; return the counts."""
    connection = writer.connection
    counts = count_matches(connection, chosen)
    for observer, target, lines in _cards(connection, chosen):
        left = [] if chosen.text is None else [line for line in json.loads(lines) if not chosen.matches(line)]
        connection.execute("DELETE FROM card WHERE observer = ? AND target = ?", (observer, target))
        if left:
            connection.execute("INSERT INTO card VALUES (?, ?, ?)", (observer, target, dump(left)))
    for table, condition in _conditions(chosen).items():
        where = f"WHERE {condition.sql}"
        if table in {"message", "conclusion"}:
            chosen_rows = f"(SELECT key FROM {table} {where})"
            connection.execute(f"DELETE FROM {table}_words WHERE rowid IN {chosen_rows}", condition.values)
            writer.drop_words(f"{table}_words")
        connection.execute(f"DELETE FROM {table} {where}", condition.values)
    return counts


def matching_names(connection: sqlite3.Connection, chosen: PurgeFilter) -> list[tuple[str, str]]:
    """Return kind and id of the sessions and peers whose id contains the text."""
    _install(connection, chosen)
    names = []
    for kind in ("session", "peer"):
        within = _within(kind, Condition("is_chosen(id)"), chosen)
        rows = connection.execute(f"SELECT DISTINCT id FROM {kind} WHERE {within.sql} ORDER BY id", within.values)
        names += [(kind, str(row["id"])) for row in rows]
    return names


def _install(connection: sqlite3.Connection, chosen: PurgeFilter) -> None:
    connection.create_function("is_chosen", 1, chosen.matches, deterministic=True)
    connection.create_function(
        "metadata_is_chosen", 1, lambda metadata: chosen.matches_metadata(json.loads(metadata)), deterministic=True
    )


def _conditions(chosen: PurgeFilter) -> dict[str, Condition]:
    """Return each table's condition, in the order of the foreign keys."""
    if chosen.everything:
        conditions = dict.fromkeys(("message", "conclusion", "member", "session", "peer"), Condition("1"))
        workspace = Condition("1") if chosen.workspace is None else Condition("workspace.id = ?", (chosen.workspace,))
        return {table: _within(table, condition, chosen) for table, condition in conditions.items()} | {
            "workspace": workspace
        }
    if chosen.peer is not None:
        one, two = (chosen.peer,), (chosen.peer, chosen.peer)
        conditions = {
            "message": Condition(f"message.peer IN {_PEERS}", one),
            "conclusion": Condition(f"(observer IN {_PEERS} OR observed IN {_PEERS})", two),
            "member": Condition(f"member.peer IN {_PEERS}", one),
            "peer": Condition("peer.id = ?", one),
        }
    elif chosen.session is not None:
        one = (chosen.session,)
        conditions = {
            "message": Condition(f"message.session IN {_SESSIONS}", one),
            "conclusion": Condition(f"conclusion.session IN {_SESSIONS}", one),
            "member": Condition(f"member.session IN {_SESSIONS}", one),
            "session": Condition("session.id = ?", one),
        }
    else:
        conditions = {
            "message": Condition("(is_chosen(content) OR metadata_is_chosen(message.metadata))"),
            "conclusion": Condition("is_chosen(content)"),
        }
    everywhere = dict.fromkeys(("message", "conclusion", "member", "session", "peer"), _NOTHING) | conditions
    return {table: _within(table, condition, chosen) for table, condition in everywhere.items()}


def _within(table: str, condition: Condition, chosen: PurgeFilter) -> Condition:
    """Restrict a condition to the workspace of the filter."""
    if chosen.workspace is None:
        return condition
    workspace = "(SELECT key FROM workspace WHERE id = ?)"
    if table == "member":
        inside = f"member.session IN (SELECT key FROM session WHERE workspace IN {workspace})"
    else:
        inside = f"{table}.workspace IN {workspace}"
    return Condition(f"{condition.sql} AND {inside}", (*condition.values, chosen.workspace))


def _cards(connection: sqlite3.Connection, chosen: PurgeFilter) -> list[tuple[int, str, str]]:
    where = Condition("1")
    if chosen.peer is not None:
        where = Condition("(peer.id = ? OR target = ?)", (chosen.peer, chosen.peer))
    elif chosen.session is not None:
        return []
    within = _within("peer", where, chosen)
    found = connection.execute(_CARDS + within.sql, within.values).fetchall()
    return [tuple(row) for row in found if chosen.text is None or any(map(chosen.matches, json.loads(row["lines"])))]
