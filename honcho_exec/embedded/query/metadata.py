"""Compare metadata as PostgreSQL's JSON operators do."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from honcho_exec.embedded.wire import dump

__all__ = ["OPERATORS", "compares", "contains", "install", "needles"]

OPERATORS: Final = frozenset({"gt", "gte", "lt", "lte", "ne", "in", "contains", "icontains"})
"""Filter operators; only columns and the first level of metadata take them."""

_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "gt": lambda left, right: left > right,
    "gte": lambda left, right: left >= right,
    "lt": lambda left, right: left < right,
    "lte": lambda left, right: left <= right,
}


def install(connection: sqlite3.Connection) -> None:
    """Define `metadata_contains` and `metadata_compares` on a connection."""
    connection.create_function("metadata_contains", 2, _sql_contains, deterministic=True)
    connection.create_function("metadata_compares", 3, _sql_compares, deterministic=True)


def contains(document: object, wanted: object) -> bool:
    """Return whether `document` contains `wanted`; lists in any order."""
    if isinstance(wanted, dict):
        return isinstance(document, dict) and all(
            key in document and contains(document[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(document, list) and all(any(contains(item, value) for item in document) for value in wanted)
    if isinstance(wanted, bool) or isinstance(document, bool):
        return wanted is document
    return document == wanted


def compares(document: dict[str, Any], field: str, operators: dict[str, Any]) -> bool:
    """Return whether a first-level field satisfies all operators."""
    text = _text(document.get(field))
    return all(value == "*" or _compare(text, operator, value) for operator, value in operators.items())


def needles(wanted: object) -> Iterator[str]:
    """Yield JSON texts that are in every document containing `wanted`."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            yield dump(key)
            yield from needles(value)
    elif isinstance(wanted, list):
        for value in wanted:
            yield from needles(value)
    elif isinstance(wanted, str):
        yield dump(wanted)


def _compare(text: str | None, operator: str, value: Any) -> bool:
    if operator == "in":
        return "*" in value or (text is not None and text in {_text(item) for item in value})
    if operator in ("contains", "icontains"):
        return text is not None and (_text(value) or "").casefold() in text.casefold()
    number = None if isinstance(value, bool) else _number(value)
    left: str | float | None = text if number is None else _number(text)
    right: str | float | None = _text(value) if number is None else number
    if operator == "ne":
        return left != right
    return left is not None and right is not None and _COMPARE[operator](left, right)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return dump(value)


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, int | float):
        return value
    for kind in (int, float):  # int first: a float cannot hold every whole number
        with suppress(TypeError, ValueError, OverflowError):
            return kind(value)
    return None


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    return json.loads(text)


def _sql_contains(document: str, wanted: str) -> bool:
    return contains(json.loads(document), _parsed(wanted))


def _sql_compares(document: str, field: str, operators: str) -> bool:
    return compares(json.loads(document), field, _parsed(operators))
