"""Disk space that is kept to complete rows with while the disk is full."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from honcho_exec.errors import StateError

__all__ = ["Reserve"]

_RESERVE_BYTES = 8 * 1024 * 1024
# How long to wait on a full disk before the next try.
_TRY_AGAIN_SECONDS = 30.0


class Reserve:
    """A file that takes up space while rows are pending, and gives it back when the disk is full.

    An empty file says that the space was given back and that nothing new may be stored until it is reserved again, so
    that only the completion of rows uses it. Shared by all processes of a state folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> bool:
        """Reserve the space; return False if the disk has not that much."""
        if self._size() == _RESERVE_BYTES:
            return True
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            _fill(file)
        except OSError:
            # What was taken of the last space is needed elsewhere.
            os.ftruncate(file, 0)
            return False
        finally:
            os.close(file)
        return True

    def give_back(self) -> bool:
        """Give the space back; return False if there was none."""
        if not self._size():
            return False
        try:
            os.truncate(self._path, 0)
        except OSError:
            return False
        return True

    def check(self) -> None:
        """Raise `StateError` if the space was given back and cannot be reserved again."""
        if self._size() == 0 and not self.keep():
            error = StateError(f"the disk of {self._path.parent} is full; nothing was stored")
            error.retryable, error.retry_after = True, _TRY_AGAIN_SECONDS
            raise error

    def remove(self) -> None:
        """Give the space back for good: no row is pending."""
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
