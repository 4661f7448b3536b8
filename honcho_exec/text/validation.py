"""Validate arguments passed to the public API.

Every function raises `InputError`, which names the argument and says what is valid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

from honcho_exec.errors import InputError
from honcho_exec.text.cleaning import harmless, plain_text
from honcho_exec.text.redaction import redact

__all__ = [
    "require_conclusion",
    "require_count",
    "require_metadata",
    "require_name",
    "require_string",
    "require_text",
    "require_time",
]

# Whole numbers in metadata, with their sign: servers do not keep larger ones exactly.
_INTEGER_BITS = 64

_CONCLUSION_BYTES = 8_192
# Honcho takes 100 entries; the others are left for honcho_exec's own.
_METADATA_ENTRIES = 90


def require_text(content: object, argument: str) -> str:
    """Return the text of a message: a string, or the text of OpenAI-style parts."""
    text = plain_text(content)
    if text is None:
        raise InputError(f"`{argument}` must be text, not {type(content).__name__}")
    return text


def require_string(value: object, argument: str) -> str:
    """Return `value` if it is a string."""
    if not isinstance(value, str):
        raise InputError(f"`{argument}` must be a string, not {type(value).__name__}")
    return value


def require_count(value: object, argument: str, *, most: int) -> int:
    """Return `value` if it is a whole number from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InputError(f"`{argument}` must be a whole number from 1 to {most}, not {_shown(value)}")
    return value


def require_name(value: object, argument: str) -> str:
    """Return `value` if it is a string that is not blank."""
    name = require_string(value, argument)
    if not name.strip():
        raise InputError(f"`{argument}` must not be empty")
    return name


def require_conclusion(text: str, argument: str) -> str:
    """Return `text` if it is short enough for every Honcho server.

    Servers count tokens; a token is at least one byte.
    """
    size = len(text.encode())
    if size > _CONCLUSION_BYTES:
        raise InputError(
            f"`{argument}`: must be at most {_CONCLUSION_BYTES:,} bytes of UTF-8 (it has {size:,}), which are never"
            " more than the 8,192 tokens that Honcho takes; nothing was stored. Use fewer words."
        )
    return text


def require_time(created_at: object) -> str | None:
    """Return the time of a message as ISO 8601; None if there is none."""
    if created_at is None:
        return None
    text = require_string(created_at, "created_at")
    try:
        at = datetime.fromisoformat(text)
        at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError(f"`created_at` must be ISO 8601, such as 2023-05-08T13:56:00Z, not {_shown(text)}") from None
    return at.isoformat()


def require_metadata(metadata: object) -> dict[str, str | int | float]:
    """Return the metadata of a message as it can be stored: without NUL and lone surrogates."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InputError(f"`metadata` must be a mapping, not {type(metadata).__name__}")
    if len(metadata) > _METADATA_ENTRIES:
        raise InputError(f"`metadata` may have at most {_METADATA_ENTRIES} entries (it has {len(metadata)})")
    kept: dict[str, str | int | float] = {}
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise InputError(f"`metadata` must have strings as keys, not {type(key).__name__}")
        if not _is_plain(value):
            what = "a number beyond these" if isinstance(value, int | float) else type(value).__name__
            raise InputError(
                f"`metadata`: {_shown(key)} must be a string, a whole number of 64 bits, a finite number, or true or"
                f" false, not {what}"
            )
        kept[harmless(key)] = harmless(value) if isinstance(value, str) else value
    return kept


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) or (isinstance(value, int) and value.bit_length() < _INTEGER_BITS)


def _shown(value: object) -> str:
    """Return the beginning of a value, redacted, since errors are logged."""
    return redact(repr(value))[:80]
