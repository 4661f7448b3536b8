"""Turn a text into messages: cleaned, redacted and split."""

from __future__ import annotations

from collections.abc import Mapping

from honcho_exec.model import Message
from honcho_exec.settings import Settings
from honcho_exec.text.cleaning import split, storable
from honcho_exec.text.redaction import redact_json, redact_key

__all__ = ["as_messages"]


def as_messages(
    peer: str,
    text: str,
    settings: Settings,
    *,
    created_at: str | None = None,
    metadata: Mapping[str, str | int | float] | None = None,
    source_key: str | None = None,
) -> list[Message]:
    """Clean and redact a text and what is stored with it, and split it if it is too long for one message.

    This is the one place where messages are redacted. Returns no message if no text is left.

    Args:
        peer: the author.
        text: the text.
        settings: how long a message may be, and whether secrets are masked.
        created_at: the time of the message, ISO 8601.
        metadata: stored with every part, together with the part's number and their count.
        source_key: identifies the source; each part gets its own.
    """
    metadata = metadata or {}
    if settings.redact:
        # Before the split, so that no secret is cut in two.
        metadata = redact_json(metadata)
        source_key = source_key and redact_key(source_key)
    parts = split(storable(text, mask=settings.redact), settings.message_max_chars)
    if len(parts) == 1:
        return [Message(peer, parts[0], created_at, dict(metadata), source_key)]
    return [
        Message(
            peer,
            part,
            created_at,
            {**metadata, "part": place, "parts": len(parts)},
            f"{source_key}/{place - 1}" if source_key else None,
        )
        for place, part in enumerate(parts, 1)
    ]
