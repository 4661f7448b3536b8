"""One at a time over threads and processes: a lock on a file, which ends with whoever holds it."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from honcho_exec.clock import Deadline

__all__ = ["exclusive"]

# How often a lock that somebody has is tried again (seconds).
_TICK = 0.02


@contextmanager
def exclusive(
    path: Path, deadline: Deadline, *, stop: Callable[[], bool] = lambda: False, keep: bool = False
) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: a file of its own (mode 0600), in a folder that is there.
        deadline: when to give up waiting.
        stop: gives up at once when it says so.
        keep: leave the file there, for others who lock it and do not look whether it was replaced.

    Raises:
        TimeoutError: somebody else has held it until then.
        OSError: the file cannot be made.
    """
    file = _acquire(path, deadline, stop)
    try:
        yield
    finally:
        if not keep:
            path.unlink(missing_ok=True)
        # Said, not left to closing: a child that was forked off meanwhile has the file open too.
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
        pause.wait(_TICK)


def _is_at(file: int, path: Path) -> bool:
    """Whether the open file is the one at `path`: the last holder may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
