"""A lock on a file, for threads and processes, which ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from honcho_exec.clock import Deadline

__all__ = ["exclusive"]

# The pause between two attempts.
_RETRY_SECONDS = 0.02


@contextmanager
def exclusive(
    path: Path, deadline: Deadline, *, stop: Callable[[], bool] = lambda: False, keep: bool = False
) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: the file (mode 0600), in an existing folder.
        deadline: when to stop waiting.
        stop: stops waiting when it returns True.
        keep: do not remove the file, for processes that lock it without checking that it was not replaced.

    Raises:
        TimeoutError: another thread or process held the lock until then.
        OSError: the file cannot be created.
    """
    file = _acquire(path, deadline, stop)
    try:
        yield
    finally:
        if not keep:
            path.unlink(missing_ok=True)
        # Closing is not enough: a child that was forked in the meantime has the file open too.
        fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)


def _acquire(path: Path, deadline: Deadline, stop: Callable[[], bool]) -> int:
    pause = threading.Event()
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                return file
        except BlockingIOError:
            pass
        except OSError:
            os.close(file)
            raise
        os.close(file)
        if stop() or deadline.passed:
            raise TimeoutError(f"{path} is locked")
        pause.wait(_RETRY_SECONDS)


def _is_at(file: int, path: Path) -> bool:
    """Return whether the open file is still at `path`: the last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
