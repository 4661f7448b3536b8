"""Errors, JSON, ids, times and stored items, as they cross HTTP."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from honcho_exec.embedded.limits import too_many_values

__all__ = [
    "FILTERS_HEADER",
    "MEMBERS_FILTER",
    "ApiError",
    "InvalidValueError",
    "JsonModel",
    "Metadata",
    "NewConclusion",
    "NewMessage",
    "ResourceId",
    "checked",
    "dump",
    "parse_json",
    "parse_time",
    "resource_id",
    "shown_time",
    "stored_time",
]

MEMBERS_FILTER: Final = "honcho_exec_members"
"""A search filter that only the embedded Honcho has: ids of peers that all are members of a message's session."""

FILTERS_HEADER: Final = "Honcho-Exec-Filters"
"""The response header that names the filters that a Honcho server does not have."""

_MAX_METADATA_KEYS: Final = 100
_MAX_METADATA_DEPTH: Final = 5
_MAX_ERRORS: Final = 100
_TOKENIZER_REFUSES: Final = ("<|endoftext|>", "<|endofprompt|>")
_TOKENIZER_FAILS: Final = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")

Loc = tuple[str | int, ...]
T = TypeVar("T")


class ApiError(Exception):
    """The request is answered with `status` and `{"detail": detail}`."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class InvalidValueError(ApiError):
    """A value is invalid: 422 in the shape of FastAPI's errors."""

    def __init__(self, loc: Loc, msg: str, kind: str = "value_error") -> None:
        super().__init__(422, [{"loc": list(loc), "msg": msg, "type": kind}])


def checked(validate: Callable[[Any], T], value: object, *loc: str | int) -> T:
    """Return the result of pydantic's `validate` for the `value` at `loc`.

    Raises:
        ApiError: 422 with a FastAPI-style list of errors, which never quote the value.
    """
    try:
        return validate(value)
    except ValidationError as error:
        if error.error_count() > _MAX_ERRORS:
            raise InvalidValueError(loc, f"{error.error_count():,} values are invalid") from None
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        detail = [{"loc": [*loc, *one["loc"]], "msg": one["msg"], "type": one["type"]} for one in errors]
        raise ApiError(422, detail) from None


def dump(value: object) -> str:
    """Encode JSON as it is stored, with one encoding for equal values."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def parse_json(raw: bytes) -> Any:
    """Decode a request's body; NUL is removed from every string.

    Raises:
        ApiError: not JSON (422), more values than any request has (413), or JSON that the real server fails on (500):
            NaN, a number beyond all floats, a lone surrogate.
    """
    if not raw:
        return None
    if too_many_values(raw):
        raise ApiError(413, "a large body must be UTF-8 and hold fewer values")
    try:
        # json.loads() would decode the bytes itself, and accept surrogates.
        text = raw.decode(json.detect_encoding(raw))
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(("body",), "JSON decode error", "json_invalid") from error
    return _checked_text(value) if "\\u" in text else value


def resource_id(value: object, *loc: str | int) -> str:
    """Return the id of a workspace, peer or session if it is valid.

    Raises:
        ApiError: 422, it is not 1-512 characters of `a-zA-Z0-9_-`.
    """
    return checked(_RESOURCE_ID.validate_python, value, *loc)


def stored_time(seconds: float) -> str:
    """Return seconds since the epoch as stored: UTC, sortable as text."""
    return _stored(datetime.fromtimestamp(seconds, UTC))


def parse_time(value: object) -> str | None:
    """Return an ISO 8601 time (UTC by default) as stored, None if invalid."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value.strip())
        return _stored(parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC))
    except (ValueError, OverflowError, OSError):
        return None


def shown_time(stored: str) -> str:
    """Return a stored time as the real server writes it."""
    return stored.replace(".000000Z", "Z")


def _stored(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _time(value: str) -> str:
    if (parsed := parse_time(value)) is None:
        raise ValueError("the time must be in ISO 8601")
    return parsed


def _limited(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) > _MAX_METADATA_KEYS:
        raise ValueError(f"at most {_MAX_METADATA_KEYS} keys at the top level")
    if _depth(value) > _MAX_METADATA_DEPTH:
        raise ValueError(f"objects may nest at most {_MAX_METADATA_DEPTH} deep")
    return value


def _depth(value: object) -> int:
    if not isinstance(value, dict):
        return 0
    return 1 + max(map(_depth, value.values()), default=0)


def _tokenizable(content: str) -> str:
    # The real server's tokenizer raises on these.
    if "<|" in content:
        if any(token in content for token in _TOKENIZER_REFUSES):
            raise ValueError("the text holds a special token of the tokenizer")
        if any(token in content for token in _TOKENIZER_FAILS):
            raise ApiError(500, "An unexpected error occurred")
    return content


ResourceId = Annotated[str, StringConstraints(strict=True, pattern="^[a-zA-Z0-9_-]+$", min_length=1, max_length=512)]
"""The id of a workspace, peer or session."""

Metadata = Annotated[dict[str, Any], AfterValidator(_limited)]
"""Metadata within Honcho's limits."""

_RESOURCE_ID: Final = TypeAdapter[str](ResourceId)


class JsonModel(BaseModel):
    """An object of a JSON body; as on the server, extra fields are ignored."""

    # from_attributes gives the errors FastAPI's wording; JSON holds no object that has attributes.
    model_config = ConfigDict(strict=True, from_attributes=True)


class ReasoningConfiguration(JsonModel):
    enabled: bool | None = None
    custom_instructions: str | None = None


class _MessageConfiguration(JsonModel):
    reasoning: ReasoningConfiguration | None = None


class NewMessage(JsonModel):
    """A message to store; `created_at` is in the stored form."""

    content: Annotated[str, Field(max_length=25_000), AfterValidator(_tokenizable)]
    peer_id: ResourceId
    metadata: Metadata | None = None
    created_at: Annotated[str, AfterValidator(_time)] | None = None
    configuration: _MessageConfiguration | None = None


class NewConclusion(JsonModel):
    """A conclusion to store."""

    content: Annotated[str, Field(min_length=1, max_length=65_535), AfterValidator(_tokenizable)]
    observer_id: str
    observed_id: str
    session_id: str | None = None


def _no_constant(name: str) -> NoReturn:
    raise ApiError(500, f"{name} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        _no_constant(number[:20])
    return value


def _checked_text(value: Any) -> Any:
    """Remove NUL from the value's strings; refuse lone surrogates."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ApiError(500, "The body holds a lone surrogate") from error
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_checked_text(item) for item in value]
    if isinstance(value, dict):
        return {_checked_text(key): _checked_text(item) for key, item in value.items()}
    return value
