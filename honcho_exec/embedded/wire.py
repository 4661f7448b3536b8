"""What comes in over HTTP, checked by hand: the limits and the error shapes of Honcho 3.0.12."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from honcho_exec.embedded.limits import too_many_values

__all__ = [
    "FILTERS_HEADER",
    "MEMBERS_FILTER",
    "Body",
    "Invalid",
    "NewConclusion",
    "NewMessage",
    "Refused",
    "dump",
    "instant",
    "moment",
    "parse_json",
    "resource_id",
    "shown_instant",
]

MEMBERS_FILTER: Final = "honcho_exec_members"
"""A filter of searches that only the embedded Honcho has: ids of peers that all are members of a message's session."""

FILTERS_HEADER: Final = "Honcho-Exec-Filters"
"""The response header that names the filters which a Honcho server does not have."""

_MAX_ID: Final = 512
_MAX_METADATA_KEYS: Final = 100
_MAX_METADATA_DEPTH: Final = 5
_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_TOKENIZER_REFUSES: Final = ("<|endoftext|>", "<|endofprompt|>")
_TOKENIZER_FAILS: Final = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The request is answered with `status` and `{"detail": detail}`."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class Invalid(Refused):
    """A value in the request cannot be used: 422 in the shape of FastAPI's validation errors."""

    def __init__(self, loc: tuple[str | int, ...], msg: str, kind: str = "value_error") -> None:
        super().__init__(422, [{"loc": list(loc), "msg": msg, "type": kind}])


def dump(value: object) -> str:
    """JSON in the one form that is stored, so that equal strings have equal encodings."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def parse_json(raw: bytes) -> Any:
    """Decode a request's body; NUL is stripped from every string.

    Raises:
        Refused: not JSON (422), more values than any request has (413), or JSON that the real server fails on (500):
            NaN, a number beyond all floats, a lone surrogate.
    """
    if not raw:
        return None
    if too_many_values(raw):
        raise Refused(413, "a large body must be UTF-8 and hold fewer values")
    try:
        # json.loads() would decode bytes on its own, and let surrogates through.
        text = raw.decode(json.detect_encoding(raw))
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Invalid(("body",), "JSON decode error", "json_invalid") from error
    return _checked_text(value) if "\\u" in text else value


def resource_id(value: object, loc: tuple[str | int, ...]) -> str:
    """Check the id of a workspace, peer or session.

    Raises:
        Invalid: it is not 1-512 characters of `a-zA-Z0-9_-`.
    """
    if not isinstance(value, str):
        raise Invalid(loc, "Input should be a valid string", "string_type")
    if not value:
        raise Invalid(loc, "String should have at least 1 character", "string_too_short")
    if len(value) > _MAX_ID:
        raise Invalid(loc, f"String should have at most {_MAX_ID} characters", "string_too_long")
    if not _ID.fullmatch(value):
        raise Invalid(loc, "String should match pattern '^[a-zA-Z0-9_-]+$'", "string_pattern_mismatch")
    return value


def instant(seconds: float) -> str:
    """Seconds since the epoch as stored: UTC, microseconds, sorts as it reads."""
    return _stored(datetime.fromtimestamp(seconds, UTC))


def moment(value: object) -> str | None:
    """An ISO 8601 time as stored; None when it is none. No zone means UTC."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value.strip())
        return _stored(parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC))
    except (ValueError, OverflowError, OSError):
        return None


def shown_instant(stored: str) -> str:
    """A stored time as the real server writes it."""
    return stored.replace(".000000Z", "Z")


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to store."""

    content: str
    peer: str
    metadata: dict[str, Any]
    created_at: str | None

    @classmethod
    def parse(cls, body: Body) -> NewMessage:
        """Check one message of a batch.

        Raises:
            Refused: it, and with it the batch, is refused.
        """
        content = body.text("content", most=25_000)
        _refuse_special_tokens(content, (*body.loc, "content"))
        created_at = None
        if (given := body.get("created_at")) is not None:
            created_at = moment(given)
            if created_at is None:
                raise Invalid((*body.loc, "created_at"), "Input should be a valid datetime", "datetime_parsing")
        return cls(
            content=content,
            peer=resource_id(body.get("peer_id"), (*body.loc, "peer_id")),
            metadata=body.metadata() or {},
            created_at=created_at,
        )


@dataclass(frozen=True, slots=True)
class NewConclusion:
    """A conclusion to store."""

    content: str
    observer: str
    observed: str
    session: str | None

    @classmethod
    def parse(cls, body: Body) -> NewConclusion:
        """Check one conclusion of a batch.

        Raises:
            Refused: it, and with it the batch, is refused.
        """
        content = body.text("content", least=1, most=65_535)
        _refuse_special_tokens(content, (*body.loc, "content"))
        return cls(
            content=content,
            observer=body.text("observer_id"),
            observed=body.text("observed_id"),
            session=body.optional_text("session_id"),
        )


class Body:
    """A JSON object of a request and where in the request it stands; reads its values or raises `Invalid`."""

    def __init__(self, value: object, loc: tuple[str | int, ...] = ("body",)) -> None:
        if not isinstance(value, dict):
            raise Invalid(loc, "Input should be a valid dictionary or object", "model_attributes_type")
        self.value: dict[str, Any] = value
        self.loc = loc

    def get(self, name: str) -> Any:
        """The value as it came, None when it is not there."""
        return self.value.get(name)

    def text(self, name: str, *, least: int = 0, most: int | None = None) -> str:
        """A string that must be there, of `least` to `most` characters."""
        loc = (*self.loc, name)
        if name not in self.value:
            raise Invalid(loc, "Field required", "missing")
        value = self.value[name]
        if not isinstance(value, str):
            raise Invalid(loc, "Input should be a valid string", "string_type")
        if len(value) < least:
            raise Invalid(loc, f"String should have at least {least} character", "string_too_short")
        if most is not None and len(value) > most:
            raise Invalid(loc, f"String should have at most {most} characters", "string_too_long")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, None when it is null or not there."""
        return None if self.get(name) is None else self.text(name)

    def flag(self, name: str) -> bool | None:
        """A boolean, None when it is null or not there."""
        value = self.get(name)
        if value is None or isinstance(value, bool):
            return value
        raise Invalid((*self.loc, name), "Input should be a valid boolean", "bool_type")

    def number(self, name: str, *, default: int, most: int = 100) -> int:
        """A whole number from 1 to `most`."""
        value = self.get(name)
        if value is None:
            return default
        loc = (*self.loc, name)
        # JSON knows one kind of number: 10.0 is a whole one.
        if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
            raise Invalid(loc, "Input should be a valid integer", "int_type")
        if not 1 <= value <= most:
            raise Invalid(loc, f"Input should be from 1 to {most}", "less_than_equal")
        return int(value)

    def object(self, name: str) -> dict[str, Any] | None:
        """A JSON object, None when it is null or not there."""
        value = self.get(name)
        if value is None or isinstance(value, dict):
            return value
        raise Invalid((*self.loc, name), "Input should be a valid dictionary", "dict_type")

    def metadata(self) -> dict[str, Any] | None:
        """The metadata within its limits, None when it is null or not there."""
        value = self.object("metadata")
        if value is not None:
            loc = (*self.loc, "metadata")
            if len(value) > _MAX_METADATA_KEYS:
                raise Invalid(loc, f"Value error, at most {_MAX_METADATA_KEYS} keys at the top level")
            if _depth(value) > _MAX_METADATA_DEPTH:
                raise Invalid(loc, f"Value error, objects may nest {_MAX_METADATA_DEPTH} deep, not deeper")
        return value

    def batch(self, name: str) -> list[Body]:
        """A list of 1 to 100 objects."""
        value = self.get(name)
        loc = (*self.loc, name)
        if name not in self.value:
            raise Invalid(loc, "Field required", "missing")
        if not isinstance(value, list):
            raise Invalid(loc, "Input should be a valid list", "list_type")
        if not value:
            raise Invalid(loc, "List should have at least 1 item after validation, not 0", "too_short")
        if len(value) > 100:  # noqa: PLR2004 - Honcho's limit, named in the message
            raise Invalid(loc, f"List should have at most 100 items after validation, not {len(value)}", "too_long")
        return [Body(item, (*loc, number)) for number, item in enumerate(value)]


def _stored(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _depth(value: object) -> int:
    if not isinstance(value, dict):
        return 0
    return 1 + max(map(_depth, value.values()), default=0)


def _refuse_special_tokens(content: str, loc: tuple[str | int, ...]) -> None:
    # The real server's tokenizer raises on these; a client that sends them here would be surprised there.
    if any(token in content for token in _TOKENIZER_REFUSES):
        raise Invalid(loc, "Value error, the text holds a special token of the tokenizer")
    if any(token in content for token in _TOKENIZER_FAILS):
        raise Refused(500, "An unexpected error occurred")


def _no_constant(name: str) -> NoReturn:
    raise Refused(500, f"{name} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        _no_constant(number[:20])
    return value


def _checked_text(value: Any) -> Any:
    """The value without NUL in its strings; a lone surrogate in one is refused."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Refused(500, "The body holds a lone surrogate") from error
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_checked_text(item) for item in value]
    if isinstance(value, dict):
        return {_checked_text(key): _checked_text(item) for key, item in value.items()}
    return value
