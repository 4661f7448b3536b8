"""What Honcho's OpenAPI document says of values that the handlers do not read, or read only sometimes.

A client must be refused here what a server would refuse, also where nothing here depends on the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from honcho_exec.embedded.wire import Invalid

__all__ = ["BODIES", "Shape", "check_body"]

Loc = tuple[str | int, ...]
Check = Callable[[Any, Loc], None]
Shape = dict[str, Check]


def check_body(value: object, shape: Shape) -> None:
    """Check those values of a body that `shape` names; a body that is no object is the handler's to refuse.

    Raises:
        Invalid: one of them is not as the document has it.
    """
    if isinstance(value, dict):
        _fields(shape)(value, ("body",))


def _fields(shape: Shape) -> Check:
    def check(value: Any, loc: Loc) -> None:
        if not isinstance(value, dict):
            raise Invalid(loc, "Input should be a valid dictionary or object", "dict_type")
        for name, inner in shape.items():
            if name in value:
                inner(value[name], (*loc, name))

    return check


def _or_null(inner: Check) -> Check:
    def check(value: Any, loc: Loc) -> None:
        if value is not None:
            inner(value, loc)

    return check


def _of(kind: type, noun: str) -> Check:
    def check(value: Any, loc: Loc) -> None:
        if not isinstance(value, kind):
            raise Invalid(loc, f"Input should be a valid {noun}", f"{noun}_type")

    return check


def _number(least: float, most: float | None = None, *, whole: bool = True) -> Check:
    def check(value: Any, loc: Loc) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or (whole and value % 1):
            kind = "integer" if whole else "number"
            raise Invalid(loc, f"Input should be a valid {kind}", f"{'int' if whole else 'float'}_type")
        if value < least:
            raise Invalid(loc, f"Input should be greater than or equal to {least:g}", "greater_than_equal")
        if most is not None and value > most:
            raise Invalid(loc, f"Input should be less than or equal to {most:g}", "less_than_equal")

    return check


def _one_of(*allowed: str) -> Check:
    def check(value: Any, loc: Loc) -> None:
        if value not in allowed:
            raise Invalid(loc, f"Input should be {', '.join(map(repr, allowed))}", "literal_error")

    return check


def _list(inner: Check, *, least: int = 0, most: int | None = None) -> Check:
    def check(value: Any, loc: Loc) -> None:
        if not isinstance(value, list):
            raise Invalid(loc, "Input should be a valid list", "list_type")
        if len(value) < least or (most is not None and len(value) > most):
            raise Invalid(loc, f"List should have from {least} to {most} items, not {len(value)}", "too_long")
        for place, item in enumerate(value):
            inner(item, (*loc, place))

    return check


def _text_or_list(value: Any, loc: Loc) -> None:
    if not isinstance(value, str):
        _list(_TEXT, least=1, most=100)(value, loc)


_TEXT: Final = _of(str, "string")
_FLAG: Final = _of(bool, "boolean")
_OBJECT: Final = _of(dict, "dictionary")
_MAYBE_FLAG: Final = _or_null(_FLAG)
_COUNT: Final = _number(1, 100)
_DISTANCE: Final = _or_null(_number(0, 1, whole=False))

_REASONING: Final = _or_null(_fields({"enabled": _MAYBE_FLAG, "custom_instructions": _or_null(_TEXT)}))
_SUMMARY: Final = _fields(
    {
        "enabled": _MAYBE_FLAG,
        "messages_per_short_summary": _or_null(_number(10)),
        "messages_per_long_summary": _or_null(_number(20)),
    }
)
_CONFIGURATION: Final = _fields(
    {
        "reasoning": _REASONING,
        "peer_card": _or_null(_fields({"use": _MAYBE_FLAG, "create": _MAYBE_FLAG})),
        "summary": _or_null(_SUMMARY),
        "dream": _or_null(_fields({"enabled": _MAYBE_FLAG})),
    }
)
_SEARCH: Final[Shape] = {"limit": _COUNT, "scope": _or_null(_TEXT)}
_SCOPED: Final[Shape] = {"session_id": _or_null(_TEXT), "target": _or_null(_TEXT), "scope": _or_null(_text_or_list)}
_CHAT: Final[Shape] = _SCOPED | {
    "stream": _FLAG,
    "reasoning_level": _one_of("minimal", "low", "medium", "high", "max"),
    "response_format": _or_null(_OBJECT),
}
_MESSAGE: Final = _fields({"configuration": _or_null(_fields({"reasoning": _REASONING}))})

_WORKSPACE: Final = "/v3/workspaces/{workspace_id}"
_PEER: Final = _WORKSPACE + "/peers/{peer_id}"
_SESSION: Final = _WORKSPACE + "/sessions/{session_id}"

BODIES: Final[Mapping[tuple[str, str], Shape]] = {
    ("post", "/v3/workspaces"): {"metadata": _OBJECT, "configuration": _CONFIGURATION},
    ("put", _WORKSPACE): {"configuration": _or_null(_CONFIGURATION)},
    ("post", f"{_WORKSPACE}/search"): _SEARCH,
    ("post", f"{_PEER}/search"): _SEARCH,
    ("post", f"{_SESSION}/search"): _SEARCH,
    ("post", f"{_WORKSPACE}/peers/list"): {"kind": _or_null(_one_of("scope", "all"))},
    ("post", f"{_WORKSPACE}/sessions"): {
        "configuration": _or_null(_CONFIGURATION),
        "scopes": _or_null(_list(_TEXT, most=100)),
    },
    ("put", _SESSION): {"configuration": _or_null(_CONFIGURATION)},
    ("post", f"{_SESSION}/messages"): {"messages": _list(_MESSAGE)},
    ("post", f"{_WORKSPACE}/conclusions/query"): {"top_k": _COUNT, "distance": _DISTANCE},
    ("post", f"{_WORKSPACE}/chat"): _CHAT,
    ("post", f"{_PEER}/chat"): _CHAT,
    ("post", f"{_PEER}/representation"): _SCOPED
    | {
        "search_query": _or_null(_TEXT),
        "search_top_k": _or_null(_COUNT),
        "search_max_distance": _DISTANCE,
        "include_most_frequent": _MAYBE_FLAG,
        "max_conclusions": _or_null(_COUNT),
    },
}
"""What the document says of a body, by method and route, beyond what its handler checks."""
