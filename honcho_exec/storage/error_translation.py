"""Errors of SQLite and the operating system as errors of this package."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from honcho_exec.errors import Busy, Damaged, StateError
from honcho_exec.storage.folders import FOLDER_ADVICE

__all__ = ["translated_errors"]

_NOT_PERMITTED = {sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_ERRORS: dict[int, type[StateError]] = {
    sqlite3.SQLITE_CORRUPT: Damaged,
    sqlite3.SQLITE_NOTADB: Damaged,
    sqlite3.SQLITE_BUSY: Busy,
    sqlite3.SQLITE_LOCKED: Busy,
}
# Errors that may pass: another process's write, a full or failing disk.
_RETRY_AFTER_SECONDS = {
    sqlite3.SQLITE_BUSY: 2.0,
    sqlite3.SQLITE_LOCKED: 2.0,
    sqlite3.SQLITE_FULL: 30.0,
    sqlite3.SQLITE_IOERR: 30.0,
}


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Raise a `StateError` that names the file for an error of SQLite or the operating system."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        # The low byte is the primary result code of SQLite.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        not_permitted = isinstance(error, PermissionError) or code in _NOT_PERMITTED
        advice = f"; {FOLDER_ADVICE}" if not_permitted else ""
        translated = _ERRORS.get(code, StateError)(f"the state file {path} cannot be used: {error}{advice}")
        if code in _RETRY_AFTER_SECONDS:
            translated.retryable, translated.retry_after = True, _RETRY_AFTER_SECONDS[code]
        raise translated from error
