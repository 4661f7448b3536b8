"""A request as its handler reads it, and the handler's answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel

from honcho_exec.embedded.api.bodies import FilterBody, PageQuery
from honcho_exec.embedded.language_model import LanguageModel
from honcho_exec.embedded.query.filters import Columns, Condition, compile_filters
from honcho_exec.embedded.query.listing import Page
from honcho_exec.embedded.store.database import Store
from honcho_exec.embedded.wire import ApiError, checked, parse_json, resource_id

__all__ = ["Handler", "Request", "Response"]

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Response:
    """A status with a JSON value, without a body (None), or with events."""

    status: int
    value: Any = None
    events: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Request:
    """A request: path ids, query string and body, checked when read.

    `model` answers questions, if there is one; `content_type` is that of the body.
    """

    store: Store
    ids: Mapping[str, str]
    params: Mapping[str, str | list[str]]
    raw: bytes = field(repr=False)
    content_type: str = ""
    model: LanguageModel | None = None

    @property
    def workspace(self) -> str:
        """The workspace in the path."""
        return self.ids["workspace_id"]

    def new_id(self, name: str) -> str:
        """Return an id of the path under which something may be created.

        Raises:
            ApiError: 422, the id is not valid.
        """
        return resource_id(self.ids[name], "path", name)

    @cached_property
    def json(self) -> Any:
        """The decoded body."""
        return parse_json(self.raw)

    def body(self, model: type[M]) -> M:
        """Return the body as a `model`.

        Raises:
            ApiError: 422, it is not one; 501, it has a field that only a Honcho server serves.
        """
        body = checked(model.model_validate, self.json, "body")
        for name in ("scope", "scopes", "response_format"):
            if getattr(body, name, None):
                raise ApiError(501, f"'{name}' is not served by the embedded Honcho; it needs a Honcho server")
        return body

    def condition(self, columns: Columns) -> Condition:
        """Return the `filters` of the body, which may be missing."""
        return compile_filters(self.body(FilterBody).filters if self.json is not None else None, columns)

    def query(self, model: type[M]) -> M:
        """Return the query string as a `model`; of repeated names the last value.

        Raises:
            ApiError: 422, it is not one.
        """
        return checked(model.model_validate, {name: self.text(name) for name in self.params}, "query")

    def page(self) -> Page:
        """Return which page is requested."""
        query = self.query(PageQuery)
        return Page(query.page, query.size, newest_first=query.reverse)

    def text(self, name: str) -> str | None:
        """Return a value of the query string; the last if there are several."""
        value = self.params.get(name)
        return value[-1] if isinstance(value, list) else value

    def texts(self, name: str) -> list[str] | None:
        """Return all values of a name in the query string, None if it is absent."""
        value = self.params.get(name)
        return [value] if isinstance(value, str) else value


Handler = Callable[[Request], Response]
