"""A request on its way to a handler, and the answer on its way back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from honcho_exec.embedded.language_model import LanguageModel
from honcho_exec.embedded.query.filters import Columns, Condition, compile_filters
from honcho_exec.embedded.query.listing import Page
from honcho_exec.embedded.store.database import Store
from honcho_exec.embedded.wire import Body, Invalid, Refused, parse_json, resource_id

__all__ = ["Answer", "Call", "Handler"]

_MOST_PER_PAGE = 100
_TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})
_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,1000})(?:\.0*)?\s*")
_DECIMAL = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")
_FALSE = frozenset({"false", "0", "no", "off", "f", "n"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and what goes with it: a JSON value, None for nothing, or events for a streaming client."""

    status: int
    value: Any = None
    events: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Call:
    """One request: the ids in its path, its query string and its body, read and checked when asked for.

    `model` answers questions, where there is one; `content_type` says what the body is, where it is not JSON.
    """

    store: Store
    ids: Mapping[str, str]
    query: Mapping[str, str | list[str]]
    raw: bytes = field(repr=False)
    content_type: str = ""
    model: LanguageModel | None = None

    @property
    def workspace(self) -> str:
        """The workspace in the path."""
        return self.ids["workspace_id"]

    def new_id(self, name: str) -> str:
        """An id of the path under which something may be made.

        Raises:
            Invalid: nothing can be made under it.
        """
        return resource_id(self.ids[name], ("path", name))

    @cached_property
    def json(self) -> Any:
        """The body as it came, decoded once."""
        return parse_json(self.raw)

    def body(self) -> Body:
        """The body, which must be an object; fields that are not served are refused."""
        body = Body(self.json)
        for name in ("scope", "scopes", "response_format"):
            if body.get(name):
                raise Refused(501, f"'{name}' is not served by the embedded Honcho; it needs a Honcho server")
        return body

    def condition(self, columns: Columns) -> Condition:
        """The `filters` of a body that may be missing."""
        value = self.json
        return compile_filters(None if value is None else Body(value).object("filters"), columns)

    def page(self) -> Page:
        """Which page is asked for."""
        return Page(
            number=self.number("page", most=None) or 1,
            size=self.number("size", most=_MOST_PER_PAGE) or 50,
            newest_first=self.flag("reverse", default=False),
        )

    def text(self, name: str) -> str | None:
        """A value of the query string; the last when it is given twice."""
        value = self.query.get(name)
        return value[-1] if isinstance(value, list) else value

    def texts(self, name: str) -> list[str] | None:
        """All values of that name in the query string, None when there is none."""
        value = self.query.get(name)
        return [value] if isinstance(value, str) else value

    def check_recall_options(self) -> None:
        """Check what a query string may say of a representation, also where none is made.

        Raises:
            Invalid: one of these values cannot be used.
        """
        self.number("search_top_k")
        self.number("max_conclusions")
        for name in ("include_most_frequent", "limit_to_session", "summary"):
            self.flag(name, default=True)
        distance = self.text("search_max_distance")
        if distance is not None and not (_DECIMAL.fullmatch(distance) and 0 <= float(distance) <= 1):
            raise Invalid(("query", "search_max_distance"), "Input should be a number from 0 to 1", "float_parsing")

    def number(self, name: str, *, least: int = 1, most: int | None = _MOST_PER_PAGE) -> int | None:
        """A whole number of the query string."""
        value = self.text(name)
        if value is None:
            return None
        loc = ("query", name)
        if not (found := _WHOLE.fullmatch(value)):
            raise Invalid(loc, "Input should be a valid integer", "int_parsing")
        number = int(found[1])
        if number < least:
            raise Invalid(loc, f"Input should be greater than or equal to {least}", "greater_than_equal")
        if most is not None and number > most:
            raise Invalid(loc, f"Input should be less than or equal to {most}", "less_than_equal")
        return number

    def flag(self, name: str, *, default: bool) -> bool:
        """A boolean of the query string."""
        value = self.text(name)
        value = str(default).lower() if value is None else value.lower()
        if value not in _TRUE | _FALSE:
            raise Invalid(("query", name), "Input should be a valid boolean", "bool_parsing")
        return value in _TRUE


Handler = Callable[[Call], Answer]
