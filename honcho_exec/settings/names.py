"""Make safe names of workspaces, sessions and peers.

A name that the operator or a single person chose is made safe character by character, as Honcho's own plugin does. An
identifier that other people can influence is kept only if no other identifier can produce it; otherwise a digest of
the original is appended, so that two identifiers never share a name.
"""

from __future__ import annotations

import hashlib
import re

from honcho_exec.errors import InputError

__all__ = [
    "MAX_PEER",
    "MAX_SESSION",
    "SHORT_DIGEST_CHARS",
    "bounded_name",
    "digest",
    "ends_like_digest",
    "mapped_name",
    "plain_name",
    "replace_unsafe",
    "safe_id",
    "short_name",
    "slug",
    "unique_name",
    "with_digest",
]

MAX_SESSION = 100
MAX_PEER = 512
SHORT_DIGEST_CHARS = 8
# 80 bits: too many to search for a second identifier with the same digest. The length is not a usual one for ids.
_DIGEST_CHARS = 20

_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")
_UNSAFE_RUN = re.compile(r"[^a-zA-Z0-9_-]+")
_ENDS_LIKE_DIGEST = re.compile(rf".*-[0-9a-f]{{{_DIGEST_CHARS}}}", re.DOTALL)
_ENDS_LIKE_ANY_DIGEST = re.compile(rf".*-([0-9a-f]{{{SHORT_DIGEST_CHARS}}}|[0-9a-f]{{{_DIGEST_CHARS}}})", re.DOTALL)


def replace_unsafe(raw: str) -> str:
    """Replace each character that Honcho does not take by a hyphen."""
    return _UNSAFE.sub("-", raw)


def ends_like_digest(name: str, *, short: bool = False) -> bool:
    """Whether a name ends like one of `with_digest`; `short` includes short digests."""
    return (_ENDS_LIKE_ANY_DIGEST if short else _ENDS_LIKE_DIGEST).fullmatch(name) is not None


def safe_id(raw: str) -> str:
    """Return an id that Honcho takes, and that no other `raw` maps to.

    Raises:
        InputError: it is empty.
    """
    _require_name(raw)
    return unique_name(raw)


def mapped_name(raw: str) -> str:
    """Return the session for a name in the operator's `sessions` map; empty for an empty name."""
    return bounded_name(plain_name(raw), raw.strip())


def plain_name(raw: str) -> str:
    """Make a chosen name safe character by character; a digest replaces the end of a long one."""
    safe = replace_unsafe(raw.strip())
    return safe if len(safe) <= MAX_PEER else f"{safe[: MAX_PEER - 9]}-{digest(raw, SHORT_DIGEST_CHARS)}"


def slug(raw: str) -> str:
    """Replace each run of unsafe characters by one hyphen."""
    return _UNSAFE_RUN.sub("-", raw).strip("-")


def short_name(raw: str, *, limit: int = MAX_SESSION) -> str:
    """Return the name of earlier versions: with a short digest if it had to be changed.

    Not for names that other people can choose.

    Raises:
        InputError: it is empty.
    """
    _require_name(raw)
    safe = replace_unsafe(raw)
    if safe == raw and len(safe) <= limit:
        return safe
    return f"{safe[: limit - 9].rstrip('-')}-{digest(raw, SHORT_DIGEST_CHARS)}".lstrip("-")


def unique_name(raw: str) -> str:
    """Return a session's name that no other `raw` produces."""
    safe = replace_unsafe(raw)
    kept = safe == raw and len(safe) <= MAX_SESSION and not ends_like_digest(safe)
    return safe if kept else with_digest(safe, raw)


def bounded_name(safe: str, raw: str) -> str:
    """Replace the end of a long session name by a short digest of `raw`."""
    if len(safe) <= MAX_SESSION:
        return safe
    return f"{safe[: MAX_SESSION - 9].rstrip('-')}-{digest(raw, SHORT_DIGEST_CHARS)}"


def with_digest(safe: str, raw: str, limit: int = MAX_SESSION) -> str:
    """Append a digest of `raw` to a name, within the limit."""
    return f"{safe[: limit - 1 - _DIGEST_CHARS]}-{digest(raw, _DIGEST_CHARS)}"


def digest(raw: str, chars: int) -> str:
    """Return the first hexadecimal digits of the hash of `raw`."""
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:chars]


def _require_name(raw: str) -> None:
    if not raw.strip():
        raise InputError("a peer or session needs a name that is not empty")
