"""Disk space reserved for completing rows while the disk is full."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from honcho_exec.errors import StateError

__all__ = ["Reserve"]

_RESERVE_BYTES = 8 * 1024 * 1024
_RETRY_AFTER_SECONDS = 30.0


class Reserve:
    """A file that occupies space while rows are pending, and is emptied when the disk is full.

    While the file is empty, nothing new may be stored until the space is reserved again, so that only the completion
    of rows uses it. Shared by all processes of a state folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def allocate(self) -> bool:
        """Reserve the space; return False if the disk does not have it."""
        if self._size() == _RESERVE_BYTES:
            return True
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            _fill(file)
        except OSError:
            # Do not occupy the last of the space.
            os.ftruncate(file, 0)
            return False
        finally:
            os.close(file)
        return True

    def free(self) -> bool:
        """Free the space; return False if there was none."""
        if not self._size():
            return False
        try:
            os.truncate(self._path, 0)
        except OSError:
            return False
        return True

    def check(self) -> None:
        """Raise `StateError` if the space was freed and cannot be reserved again."""
        if self._size() == 0 and not self.allocate():
            error = StateError(f"the disk of {self._path.parent} is full; nothing was stored")
            error.retryable, error.retry_after = True, _RETRY_AFTER_SECONDS
            raise error

    def remove(self) -> None:
        """Free the space for good: no row is pending."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _size(self) -> int | None:
        try:
            return os.lstat(self._path).st_size
        except OSError:
            return None


def _fill(file: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, _RESERVE_BYTES)
        return
    for _ in range(_RESERVE_BYTES // 65_536):
        os.write(file, bytes(65_536))
