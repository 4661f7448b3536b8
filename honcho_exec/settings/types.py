"""Define the types of the settings' values."""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints

__all__ = [
    "EMBEDDED",
    "Aliases",
    "Budget",
    "Endpoint",
    "JsonMap",
    "Key",
    "Level",
    "Levels",
    "Name",
    "ObservationMode",
    "Seconds",
    "Turns",
    "Url",
    "Wait",
    "WriteFrequency",
    "from_json",
]

EMBEDDED = "embedded"
"""The base URL that stands for the local Honcho inside this process."""


# The names in older files.
_OBSERVATION_MODES = {"shared": "unified", "separate": "directional", "cross": "directional"}


def _base_url(value: str) -> str:
    return value if value == EMBEDDED else re.sub(r"/v\d+/*$", "", _address(value, " or 'embedded'")).rstrip("/")


def _address(value: str, otherwise: str = "") -> str:
    if " " in value or not value.isprintable():
        raise ValueError("must not hold spaces or control characters")
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or parts.scheme not in {"http", "https"}:
        raise ValueError(f"must be an http:// or https:// URL, such as http://localhost:8000,{otherwise}".rstrip(","))
    if "?" in value or "#" in value:
        raise ValueError("must not have a query or a fragment, only the server's address")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("has a port that is not a number from 0 to 65535") from None
    if not _is_host(host):
        raise ValueError("has a host name that cannot be one, such as one with an empty part or an invalid character")
    return value.rstrip("/")


def _is_host(host: str) -> bool:
    if ":" in host:
        # An IPv6 address: urlsplit has checked its brackets.
        return True
    try:
        if not host.isascii():
            # The HTTP client encodes names with it; it is slow to import.
            import idna  # noqa: PLC0415

            host = idna.encode(host).decode()
        host.encode("idna")
    except UnicodeError:
        return False
    return re.fullmatch(r"[a-zA-Z0-9_-][a-zA-Z0-9._-]*", host) is not None


def from_json(value: object) -> object:
    """Parse an object from the environment, which is JSON; return one from the file unchanged."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("must be a JSON object") from None
    return value


def _aliases(value: object) -> object:
    """Strip the ids, drop those without a peer, and accept numbers as peers."""
    read = from_json(value)
    if not isinstance(read, dict):
        return read
    given = {str(key).strip(): str(peer) if type(peer) is int else peer for key, peer in read.items()}
    return {key: peer for key, peer in given.items() if key and peer is not None and peer != ""}


def _write_frequency(value: object) -> object:
    """Accept a word, or a number of turns, which the environment gives as text."""
    text = value.strip().lower() if isinstance(value, str) else value
    if text in ("async", "turn", "session"):
        return text
    if text in (0, "0") and text is not False:
        # The bundled provider accepts it and means async.
        return "async"
    try:
        turns = int(text) if isinstance(text, str | int) and not isinstance(text, bool) else 0
    except ValueError:
        turns = 0
    if turns < 1:
        raise ValueError("must be 'async', 'turn', 'session' or a number of turns from 1")
    return turns


def _levels(value: object) -> object:
    """Accept levels as JSON, or as words between commas."""
    return [word.strip(' "[]') for word in value.split(",")] if isinstance(value, str) else value


def _header_safe(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value()
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise ValueError("must be printable ASCII without spaces: it looks damaged by copying")
    return value


Key = Annotated[SecretStr, AfterValidator(_header_safe)]
Url = Annotated[str, AfterValidator(_base_url)]
Endpoint = Annotated[str, AfterValidator(_address)]
# The bundled provider's set-up writes 0 for an unset value.
Budget = Annotated[
    Annotated[int, Field(ge=1)] | None, BeforeValidator(lambda value: None if value in (0, "0") else value)
]
Aliases = Annotated[dict[str, str], BeforeValidator(_aliases)]
JsonMap = Annotated[dict[str, str], BeforeValidator(from_json)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Level = Literal["minimal", "low", "medium", "high", "max"]
Levels = Annotated[tuple[Level, ...], Field(max_length=3), BeforeValidator(_levels)]
WriteFrequency = Annotated[Literal["async", "turn", "session"] | int, BeforeValidator(_write_frequency)]
ObservationMode = Annotated[
    Literal["directional", "unified"],
    BeforeValidator(lambda value: _OBSERVATION_MODES.get(value, value) if isinstance(value, str) else value),
]
Turns = Annotated[int, Field(ge=1, le=10_000)]
Wait = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
