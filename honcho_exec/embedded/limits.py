"""Size limits, so that one request cannot exhaust the memory."""

from __future__ import annotations

import json
from typing import Final

__all__ = ["LARGE", "MOST_FILE", "body_limit", "too_many_values"]

_MIB: Final = 1024 * 1024
LARGE: Final = _MIB
"""Bodies of more bytes are handled one at a time, and their JSON is inspected before it is decoded."""

MOST_FILE: Final = 5 * _MIB
"""The largest uploaded file, in bytes."""

# A hundred messages of 25,000 characters are 10 MB in UTF-8; all of them Chinese, and escaped, they are 15 MB.
_MOST_BATCH: Final = 16 * _MIB
_MOST_VALUES: Final = 100_000


def body_limit(path: str) -> int:
    """Return the largest body of a request to `path`, in bytes."""
    if path.endswith("/messages/upload"):
        return MOST_FILE + _MIB
    return _MOST_BATCH if path.endswith(("/messages", "/conclusions")) else _MIB


def too_many_values(raw: bytes) -> bool:
    """Return whether a large JSON text would become too many objects.

    An empty list takes two bytes in JSON and sixty in memory; strings take at most four times their size.
    """
    if len(raw) <= LARGE:
        return False
    if not json.detect_encoding(raw).startswith("utf-8"):
        return True
    bare = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 2 * _MOST_VALUES:
        return True
    outside = b"".join(bare.split(b'"')[::2])
    return sum(map(outside.count, (b",", b"[", b"{"))) > _MOST_VALUES
