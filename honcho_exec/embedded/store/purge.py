"""Taking out of the store what a person wants forgotten, so that nothing of it is left in the file."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter

from honcho_exec.embedded.query.filters import Condition
from honcho_exec.embedded.store.database import Writer
from honcho_exec.embedded.wire import dump
from honcho_exec.text.purge_filter import PurgeFilter

__all__ = ["count_chosen", "forget_chosen", "named_so"]

_PEERS = "(SELECT key FROM peer WHERE id = ?)"
_SESSIONS = "(SELECT key FROM session WHERE id = ?)"
_NOTHING = Condition("0")
_CARDS = "SELECT card.observer, target, lines FROM card JOIN peer ON peer.key = card.observer WHERE "


def count_chosen(connection: sqlite3.Connection, chosen: PurgeFilter) -> Counter[str]:
    """How many messages, conclusions, cards, sessions, peers and workspaces would be forgotten."""
    _install(connection, chosen)
    counts: Counter[str] = Counter()
    for table, condition in _conditions(chosen).items():
        statement = f"SELECT count(*) FROM {table} WHERE {condition.sql}"
        counts[table] = connection.execute(statement, condition.values).fetchone()[0]
    del counts["member"]
    counts["card"] = len(_cards(connection, chosen))
    return counts


def forget_chosen(writer: Writer, chosen: PurgeFilter) -> Counter[str]:
    """Forget it, and say how much it was; a card that holds the chosen text loses only the lines that do."""
    connection = writer.connection
    counts = count_chosen(connection, chosen)
    for observer, target, lines in _cards(connection, chosen):
        left = [] if chosen.text is None else [line for line in json.loads(lines) if not chosen.holds(line)]
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


def named_so(connection: sqlite3.Connection, chosen: PurgeFilter) -> list[tuple[str, str]]:
    """The kinds and ids of the sessions and peers whose id holds the chosen text."""
    _install(connection, chosen)
    found = []
    for kind in ("session", "peer"):
        within = _within(kind, Condition("is_chosen(id)"), chosen)
        rows = connection.execute(f"SELECT DISTINCT id FROM {kind} WHERE {within.sql} ORDER BY id", within.values)
        found += [(kind, str(row["id"])) for row in rows]
    return found


def _install(connection: sqlite3.Connection, chosen: PurgeFilter) -> None:
    connection.create_function("is_chosen", 1, chosen.holds, deterministic=True)
    connection.create_function(
        "is_chosen_beside", 1, lambda metadata: chosen.holds_beside(json.loads(metadata)), deterministic=True
    )


def _conditions(chosen: PurgeFilter) -> dict[str, Condition]:
    """What is chosen of each table, in an order in which nothing is deleted that something else still names."""
    if chosen.everything:
        found = dict.fromkeys(("message", "conclusion", "member", "session", "peer"), Condition("1"))
        workspace = Condition("1") if chosen.workspace is None else Condition("workspace.id = ?", (chosen.workspace,))
        return {table: _within(table, condition, chosen) for table, condition in found.items()} | {
            "workspace": workspace
        }
    if chosen.peer is not None:
        one, two = (chosen.peer,), (chosen.peer, chosen.peer)
        found = {
            "message": Condition(f"message.peer IN {_PEERS}", one),
            "conclusion": Condition(f"(observer IN {_PEERS} OR observed IN {_PEERS})", two),
            "member": Condition(f"member.peer IN {_PEERS}", one),
            "peer": Condition("peer.id = ?", one),
        }
    elif chosen.session is not None:
        one = (chosen.session,)
        found = {
            "message": Condition(f"message.session IN {_SESSIONS}", one),
            "conclusion": Condition(f"conclusion.session IN {_SESSIONS}", one),
            "member": Condition(f"member.session IN {_SESSIONS}", one),
            "session": Condition("session.id = ?", one),
        }
    else:
        found = {
            "message": Condition("(is_chosen(content) OR is_chosen_beside(message.metadata))"),
            "conclusion": Condition("is_chosen(content)"),
        }
    everywhere = dict.fromkeys(("message", "conclusion", "member", "session", "peer"), _NOTHING) | found
    return {table: _within(table, condition, chosen) for table, condition in everywhere.items()}


def _within(table: str, condition: Condition, chosen: PurgeFilter) -> Condition:
    """The same within one workspace."""
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
    return [tuple(row) for row in found if chosen.text is None or any(map(chosen.holds, json.loads(row["lines"])))]
