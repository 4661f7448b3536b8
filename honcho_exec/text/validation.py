"""What a program gives, checked where it comes in.

Every function raises `InputError`, which names the argument and says what would be right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

from honcho_exec.errors import InputError
from honcho_exec.text.cleaning import harmless, plain_text
from honcho_exec.text.redaction import redact

__all__ = ["conclusion", "count", "metadata", "moment", "name", "string", "text"]

# Whole numbers in metadata, with their sign: larger ones are not kept exactly, or at all.
_INTEGER_BITS = 64

_CONCLUSION_BYTES = 8_192
# A server takes 100 entries; these are left for what honcho_exec itself keeps there.
_METADATA_ENTRIES = 90


def text(content: object, argument: str) -> str:
    """What was said: text, or the text of OpenAI-style parts."""
    said = plain_text(content)
    if said is None:
        raise InputError(f"`{argument}` must be text, not {type(content).__name__}")
    return said


def string(value: object, argument: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise InputError(f"`{argument}` must be a string, not {type(value).__name__}")
    return value


def count(value: object, argument: str, *, most: int) -> int:
    """A whole number from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InputError(f"`{argument}` must be a whole number from 1 to {most}, not {_shown(value)}")
    return value


def name(value: object, argument: str) -> str:
    """A name that is not empty."""
    given = string(value, argument)
    if not given.strip():
        raise InputError(f"`{argument}` must not be empty")
    return given


def conclusion(text: str, argument: str) -> str:
    """A conclusion that a Honcho server surely takes: a token of its tokenizer is at least a byte."""
    size = len(text.encode())
    if size > _CONCLUSION_BYTES:
        raise InputError(
            f"`{argument}`: must be at most {_CONCLUSION_BYTES:,} bytes of UTF-8 (it has {size:,}), which are never"
            " more than the 8,192 tokens that Honcho takes; nothing was stored. Use fewer words."
        )
    return text


def moment(created_at: object) -> str | None:
    """When something was said, as ISO 8601; None where that was not given."""
    if created_at is None:
        return None
    given = string(created_at, "created_at")
    try:
        at = datetime.fromisoformat(given)
        at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError(f"`created_at` must be ISO 8601, such as 2023-05-08T13:56:00Z, not {_shown(given)}") from None
    return at.isoformat()


def metadata(given: object) -> dict[str, str | int | float]:
    """What is kept beside a message, as it can be stored: without NUL and lone surrogates."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputError(f"`metadata` must be a mapping, not {type(given).__name__}")
    if len(given) > _METADATA_ENTRIES:
        raise InputError(f"`metadata` may have at most {_METADATA_ENTRIES} entries (it has {len(given)})")
    kept: dict[str, str | int | float] = {}
    for key, value in given.items():
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
    """The beginning of a value, as an error may quote it: it ends up in logs."""
    return redact(repr(value))[:80]
