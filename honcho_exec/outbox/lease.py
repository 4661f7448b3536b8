"""Lease holders, and whether they are alive: without a clock or a heartbeat."""

from __future__ import annotations

import fcntl
import os
import threading
import uuid
import weakref
from contextlib import suppress
from pathlib import Path

from honcho_exec.forks import PerProcess, on_fork_in_child
from honcho_exec.storage.folders import private_folder, secure_state, using_folder

__all__ = ["LeaseHolder"]

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Process:
    """The locked file of this process in a folder; the operating system unlocks it when the process dies.

    A record lock is not inherited by a forked child, so a child never keeps its dead parent's leases alive.
    """

    def __init__(self, folder: Path) -> None:
        self.id = uuid.uuid4().hex[:12]
        self._path = _alive_path(folder, self.id)
        folder.mkdir(mode=0o700, exist_ok=True)
        private_folder(folder)
        self._file = os.open(self._path, _FLAGS, 0o600)
        fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.holders: set[str] = set()
        self.closed = False

    @property
    def marked(self) -> bool:
        """Whether the file is still at its path."""
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False

    def renew(self) -> None:
        """Create and lock the file again if it was removed."""
        while not self.closed and not self.marked:
            private_folder(self._path.parent.parent)
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            file = os.open(self._path, _FLAGS, 0o600)
            fcntl.lockf(file, fcntl.LOCK_EX)
            os.close(self._file)
            self._file = file

    def remove(self, holder: str) -> None:
        """Remove a holder; the last one removes the file."""
        self.holders.discard(holder)
        if not self.holders and not self.closed:
            self.closed = True
            with suppress(OSError):
                self._path.unlink()
            with suppress(OSError):
                os.close(self._file)


_processes: dict[Path, _Process] = {}
# Garbage collection may close a holder at any moment, in a thread that is inside this lock.
_lock = PerProcess(threading.RLock)


@on_fork_in_child
def _after_fork() -> None:
    # Only the parent removes its files.
    for process in _processes.values():
        process.closed = True
    _processes.clear()


class LeaseHolder:
    """One owner of leases in a state folder; alive until `close`, its garbage collection, or its process's death.

    Args:
        folder: holds a locked file for each living process; the folder above it is the state folder.
        mark: ends the holder's name.

    Raises:
        StateError: the state folder cannot be used.
    """

    def __init__(self, folder: Path, *, mark: str = "") -> None:
        home = folder.parent
        with _lock(), using_folder(home):
            secure_state(home)
            self._folder = folder.resolve()
            process = _processes.get(self._folder)
            if process is None or process.closed:
                process = _processes[self._folder] = _Process(self._folder)
            self._process = process
            self.name = f"{process.id}.{uuid.uuid4().hex[:12]}{mark}"
            process.holders.add(self.name)
            self._closing = weakref.finalize(self, process.remove, self.name)

    def alive(self, name: str) -> bool:
        """Return whether the holder of that name is alive, in this process or another."""
        process_id = name.partition(".")[0]
        if process_id == self._process.id:
            return name in self._process.holders
        try:
            # Never a file of this process: closing it would drop the process's own lock.
            file = os.open(_alive_path(self._folder, process_id), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        except OSError:
            # Unknown (too many open files, no permission): do not take over.
            return True
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(file)
        with suppress(OSError):
            _alive_path(self._folder, process_id).unlink()
        return False

    def renew(self) -> None:
        """Create this process's file again if it was removed.

        Raises:
            StateError: the state folder cannot be used.
        """
        with _lock(), using_folder(self._folder.parent):
            self._process.renew()

    def close(self) -> None:
        """Stop being alive; may be called again."""
        with _lock():
            self._closing()


def _alive_path(folder: Path, process_id: str) -> Path:
    return folder / f"{process_id}.alive"
