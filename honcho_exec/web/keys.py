"""The key that a client of the served Honcho shows."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from honcho_exec.errors import ConfigurationError, StateError
from honcho_exec.storage.folders import private_folder, using_folder

__all__ = ["KEY_FILE", "VARIABLE", "serve_key"]

VARIABLE = "HONCHO_SERVE_KEY"
"""Where a person may give the key."""

KEY_FILE = "serve.key"
"""Where it is kept, in the state folder, when nobody gave one."""

_BYTES = 32


def serve_key(environ: Mapping[str, str], home: Path) -> tuple[str, Path | None]:
    """The key and, where it is kept in a file, that file (mode 0600), made when it is not there.

    Raises:
        ConfigurationError: HONCHO_SERVE_KEY cannot be sent in a header.
        StateError: the file cannot be used, or others may read it.
    """
    if given := environ.get(VARIABLE, "").strip():
        if not (given.isascii() and given.isprintable()) or " " in given:
            raise ConfigurationError(f"{VARIABLE}: must be printable ASCII without spaces")
        return given, None
    path = private_folder(home) / KEY_FILE
    with using_folder(home):
        _make(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise StateError(f"{path} can be read by others; delete it, and a new key is made")
        key = path.read_text(encoding="ascii", errors="replace").strip()
    if not key or not (key.isascii() and key.isprintable()):
        raise StateError(f"{path} holds no key; delete it, and a new one is made")
    return key, path


def _make(path: Path) -> None:
    """Write a new key unless there is one; of two processes at once, one makes it and both read the same."""
    if path.exists():
        return
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(_BYTES) + "\n")
        try:
            path.hardlink_to(new)
        except FileExistsError:
            return
    finally:
        new.unlink()
