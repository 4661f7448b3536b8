"""Honcho's filters as SQL conditions; a request's values are bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal

from honcho_exec.embedded.query.metadata import OPERATORS, needles
from honcho_exec.embedded.wire import ApiError, dump, parse_time

__all__ = [
    "CONCLUSION_COLUMNS",
    "EVERYTHING",
    "MESSAGE_COLUMNS",
    "PEER_COLUMNS",
    "SESSION_COLUMNS",
    "WORKSPACE_COLUMNS",
    "Columns",
    "Condition",
    "Value",
    "all_of",
    "compile_filters",
]

Value = str | int | float | None
Kind = Literal["text", "time", "number", "flag", "json"]
Columns = Mapping[str, tuple[str, Kind]]
"""The columns of a filter: name in the request, SQL expression and kind."""

_MAX_DEPTH: Final = 5
_MAX_WIDTH: Final = 100
_COMPARISONS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "ne": "IS NOT"}


@dataclass(frozen=True, slots=True)
class Condition:
    """A part of a WHERE clause, binding tighter than AND, and its values."""

    sql: str
    values: tuple[Value, ...] = ()


EVERYTHING: Final = Condition("1")

_WORKSPACE_OF: Final = "(SELECT id FROM workspace WHERE workspace.key = {}.workspace)"
_SESSION_OF: Final = "(SELECT id FROM session WHERE session.key = {}.session)"
_PEER_OF: Final = "(SELECT id FROM peer WHERE peer.key = {}.{})"

WORKSPACE_COLUMNS: Final[Columns] = {
    "id": ("workspace.id", "text"),
    "created_at": ("workspace.created_at", "time"),
    "metadata": ("workspace.metadata", "json"),
}
PEER_COLUMNS: Final[Columns] = {
    "id": ("peer.id", "text"),
    "workspace_id": (_WORKSPACE_OF.format("peer"), "text"),
    "created_at": ("peer.created_at", "time"),
    "metadata": ("peer.metadata", "json"),
}
SESSION_COLUMNS: Final[Columns] = {
    "id": ("session.id", "text"),
    "workspace_id": (_WORKSPACE_OF.format("session"), "text"),
    "is_active": ("session.is_active", "flag"),
    "created_at": ("session.created_at", "time"),
    "metadata": ("session.metadata", "json"),
}
MESSAGE_COLUMNS: Final[Columns] = {
    "workspace_id": (_WORKSPACE_OF.format("message"), "text"),
    "session_id": (_SESSION_OF.format("message"), "text"),
    "peer_id": (_PEER_OF.format("message", "peer"), "text"),
    "token_count": ("message.token_count", "number"),
    "created_at": ("message.created_at", "time"),
    "metadata": ("message.metadata", "json"),
}
CONCLUSION_COLUMNS: Final[Columns] = {
    "id": ("conclusion.id", "text"),
    "workspace_id": (_WORKSPACE_OF.format("conclusion"), "text"),
    "session_id": (_SESSION_OF.format("conclusion"), "text"),
    "observer_id": (_PEER_OF.format("conclusion", "observer"), "text"),
    "observer": (_PEER_OF.format("conclusion", "observer"), "text"),
    "observed_id": (_PEER_OF.format("conclusion", "observed"), "text"),
    "observed": (_PEER_OF.format("conclusion", "observed"), "text"),
    "content": ("conclusion.content", "text"),
    "level": ("conclusion.level", "text"),
    # The embedded Honcho derives no conclusion from others; clients ask for such.
    "source_ids": ("NULL", "text"),
    "created_at": ("conclusion.created_at", "time"),
}


def all_of(conditions: Iterable[Condition]) -> Condition:
    """Join conditions with AND."""
    return _joined(conditions, " AND ") or EVERYTHING


def compile_filters(filters: object, columns: Columns) -> Condition:
    """Turn a request's `filters` into a condition on `columns`.

    Raises:
        ApiError: 422, an unknown column or operator, too deep a nesting, or a value that cannot be compared with its
            column.
    """
    if filters is None:
        return EVERYTHING
    return _group(filters, columns, 0) or EVERYTHING


# Below, None means "no condition": a wildcard, or an empty group. As on the real server it drops out of a group
# instead of making an OR true or a NOT false.


def _group(filters: object, columns: Columns, depth: int) -> Condition | None:
    if not isinstance(filters, dict):
        raise _invalid("a filter is an object")
    if depth > _MAX_DEPTH:
        raise _invalid(f"filters may nest {_MAX_DEPTH} deep, not deeper")
    parts = [
        _logical(key, value, columns, depth) if key in ("AND", "OR", "NOT") else _field(key, value, columns)
        for key, value in filters.items()
    ]
    return _joined(parts, " AND ")


def _logical(operator: str, filters: object, columns: Columns, depth: int) -> Condition | None:
    if not isinstance(filters, list):
        raise _invalid(f"{operator} takes a list of filters")
    parts = [_group(item, columns, depth + 1) for item in filters]
    if operator == "NOT":
        # IS NOT TRUE also selects rows in which the column is null.
        parts = [part and Condition(f"({part.sql}) IS NOT TRUE", part.values) for part in parts]
    return _joined(parts, " OR " if operator == "OR" else " AND ")


def _field(name: str, value: Any, columns: Columns) -> Condition | None:
    if name not in columns:
        raise _invalid(f"'{name}' cannot be filtered; these can: {', '.join(columns)}")
    sql, kind = columns[name]
    if value == "*":
        return None
    if kind == "json":
        return _document(sql, name, value)
    if value is None:
        return Condition(f"{sql} IS NULL")
    if isinstance(value, list):
        value = {"in": value}
    if not isinstance(value, dict):
        return Condition(f"{sql} = ?", (_operand(name, kind, value),))
    return _joined([_compared(sql, name, kind, *item) for item in value.items()], " AND ")


def _compared(sql: str, name: str, kind: Kind, operator: str, value: Any) -> Condition | None:
    if operator not in OPERATORS:
        raise _invalid(f"'{operator}' is not an operator; these are: {', '.join(sorted(OPERATORS))}")
    if value == "*":
        return None
    if operator == "in":
        if not isinstance(value, list):
            raise _invalid(f"'in' takes a list of values for '{name}'")
        if "*" in value:
            return None
        operands = [_operand(name, kind, item) for item in value]
        return Condition(f"{sql} IN (SELECT value FROM json_each(?))", (dump(operands),))
    if value is None:
        if operator != "ne":
            raise _invalid(f"'{operator}' does not compare with null; 'ne' does")
        return Condition(f"{sql} IS NOT NULL")
    if operator in _COMPARISONS:
        return Condition(f"{sql} {_COMPARISONS[operator]} ?", (_operand(name, kind, value),))
    if kind != "text":
        raise _invalid(f"'{operator}' is for text, and '{name}' is none")
    return Condition(f"instr(lower({sql}), lower(?)) > 0", (str(value),))


def _operand(name: str, kind: Kind, value: Any) -> Value:
    operand: Value = None
    if kind == "time":
        operand = parse_time(value)
    elif kind == "flag":
        operand = int(value) if isinstance(value, bool) else None
    elif kind == "number":
        operand = value if isinstance(value, int | float) and abs(value) < 2**63 else None
    elif isinstance(value, str):
        operand = value
    if operand is None:
        raise _invalid(f"'{name}' is compared with a {kind}")
    return operand


def _document(sql: str, name: str, value: Any) -> Condition | None:
    if isinstance(value, dict) and OPERATORS.isdisjoint(value):
        return _joined([_document_field(sql, *item) for item in value.items()], " AND ")
    if isinstance(value, dict):
        if set(value) != {"contains"}:
            raise _invalid(f"of the operators only 'contains' applies to the whole of '{name}'")
        value = value["contains"]
    if not isinstance(value, dict | list):
        raise _invalid(f"'{name}' is compared with an object")
    return _contains(sql, value)


def _document_field(sql: str, field: str, value: Any) -> Condition | None:
    if not (isinstance(value, dict) and not OPERATORS.isdisjoint(value)):
        return None if value == "*" else _contains(sql, {field: value})
    for operator, operand in value.items():
        if operator not in OPERATORS:
            raise _invalid(f"'{operator}' is not an operator; these are: {', '.join(sorted(OPERATORS))}")
        if operator == "in" and not isinstance(operand, list):
            raise _invalid(f"'in' takes a list of values for '{field}'")
        if operator in _COMPARISONS and isinstance(operand, dict | list):
            raise _invalid(f"'{operator}' compares '{field}' with a number or a string")
    return Condition(f"metadata_compares({sql}, ?, ?)", (field, dump(value)))


def _contains(sql: str, wanted: dict[str, Any] | list[Any]) -> Condition:
    # The substring tests are cheap and true of every match; most rows never reach the JSON parser.
    substrings = [Condition(f"instr({sql}, ?) > 0", (needle,)) for needle in islice(needles(wanted), 8)]
    return all_of([*substrings, Condition(f"metadata_contains({sql}, ?)", (dump(wanted),))])


def _joined(conditions: Iterable[Condition | None], glue: str) -> Condition | None:
    parts = [condition for condition in conditions if condition is not None]
    if not parts:
        return None
    if len(parts) > _MAX_WIDTH:  # SQLite bounds the depth of an expression
        raise _invalid(f"a filter may join {_MAX_WIDTH} conditions, not more")
    sql = glue.join(part.sql for part in parts)
    return Condition(f"({sql})", tuple(value for part in parts for value in part.values))


def _invalid(detail: str) -> ApiError:
    return ApiError(422, detail)
