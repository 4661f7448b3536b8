"""Where and when a row was admitted: which state folder, on which machine, and the key that names the row."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

__all__ = ["place_of", "row_key"]


def place_of(folder: Path) -> str:
    """Identify a state folder on a machine; a copy, a moved folder and another machine's are different ones.

    The folder's inode tells two volumes apart that are mounted under one path.
    """
    try:
        inode = folder.stat().st_ino
    except OSError:
        inode = 0
    return _digest(_machine(), str(folder.resolve()), inode)


def row_key(turn: str, position: int, session: str, payload: str, admitted_at: float) -> str:
    """Return a key that no other row has, of this process or another.

    The content is part of it: a restored snapshot of a running machine gives the names of turns out again.
    """
    return _digest(turn, position, session, payload, admitted_at)


@cache
def _machine() -> str:
    """What identifies this machine, or the image that a container was made from; empty if nothing does."""
    for file in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        try:
            return file.read_text("ascii").strip()
        except (OSError, ValueError):
            continue
    return ""


def _digest(*parts: str | float) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()
