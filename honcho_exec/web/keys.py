"""The key that clients of the served Honcho must send."""

from __future__ import annotations

import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from honcho_exec.errors import ConfigurationError, StateError
from honcho_exec.storage.folders import private_folder, using_folder
from honcho_exec.storage.private_file import write_atomically

__all__ = ["KEY_FILE", "VARIABLE", "serve_key"]

VARIABLE = "HONCHO_SERVE_KEY"
"""The environment variable that may contain the key."""

KEY_FILE = "serve.key"
"""The file in the state folder with the generated key."""

_BYTES = 32


def serve_key(environ: Mapping[str, str], home: Path) -> tuple[str, Path | None]:
    """Return the key, and its file (mode 0600) if it has one.

    Raises:
        ConfigurationError: HONCHO_SERVE_KEY cannot be sent in a header.
        StateError: the file cannot be used, or other users can read it.
    """
    if key := environ.get(VARIABLE, "").strip():
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ConfigurationError(f"{VARIABLE}: must be printable ASCII without spaces")
        return key, None
    path = private_folder(home) / KEY_FILE
    with using_folder(home):
        _create(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise StateError(f"{path} can be read by other users; delete it to have a new key generated")
        key = path.read_text(encoding="ascii", errors="replace").strip()
    if not key or not (key.isascii() and key.isprintable()):
        raise StateError(f"{path} holds no key; delete it to have a new one generated")
    return key, path


def _create(path: Path) -> None:
    """Write a new key unless the file exists; safe for two processes."""
    if path.exists():
        return
    with suppress(FileExistsError), write_atomically(path, overwrite=False) as file:
        file.write(f"{secrets.token_urlsafe(_BYTES)}\n".encode())
