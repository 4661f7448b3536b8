"""The state folder: create it, and keep it and its files private."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from honcho_exec.errors import StateError

__all__ = ["FOLDER_ADVICE", "access_warnings", "private_folder", "secure_file", "secure_state", "using_folder"]

FOLDER_ADVICE = "make it writable or set HONCHO_EXEC_HOME"

# Databases, their logs, locks, backups and damaged copies, and `outbox.spill`.
_OUR_FILES = ("outbox.*", "memory.db*", "known.db*", "recall.db*", "holders/*.alive", "joining/*")
_OUR_FOLDERS = ("holders", "joining")

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def private_folder(folder: Path) -> Path:
    """Create `folder` (mode 0700) unless it exists, restrict it if it is ours, and return it.

    Folders above it get the default mode.

    Raises:
        StateError: it cannot be created, is not a folder, or is writable by everyone.
    """
    with using_folder(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat()
        # A folder with the sticky bit, such as /tmp, is shared on purpose.
        if found.st_mode & 0o077 and not found.st_mode & stat.S_ISVTX:
            found = _restrict(folder, found, 0o700)
    _refuse_world_writable(folder, found)
    return folder


def secure_state(home: Path) -> Path:
    """Create or secure the state folder and all our files in it; return it.

    Raises:
        StateError: the folder or a file cannot be used; see `private_folder` and `secure_file`.
    """
    private_folder(home)
    for name in _OUR_FOLDERS:
        if (home / name).is_dir():
            private_folder(home / name)
    for path in _our_files(home):
        secure_file(path)
    return home


def secure_file(path: Path) -> bool:
    """Restrict a file to its owner (mode 0600) if it is ours; return whether it exists.

    The file is not opened: closing it would drop the locks that SQLite has on it in this process.

    Raises:
        StateError: it is not a regular file, or is writable by everyone.
    """
    with using_folder(path.parent):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(found.st_mode):
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
            links = "; link the state folder instead" if stat.S_ISLNK(found.st_mode) else ""
            raise StateError(f"the state file {path} cannot be used: it is {kind}; remove it{links}")
        if found.st_mode & 0o177:
            found = _restrict(path, found, 0o600)
    _refuse_world_writable(path, found)
    return True


def access_warnings(home: Path) -> list[str]:
    """Describe the folder and files that other users own or can change; skip those that cannot be read."""
    try:
        if _is_world_writable(home.stat()):
            if _keeps_modes(home):
                return []
            return [f"the file system of {home} keeps no modes: other users of this machine may read and change it"]
        found = [(path, path.lstat()) for path in (home, *_our_files(home))]
    except (OSError, ValueError, StateError):
        return []
    return [
        *(f"{path} belongs to user {of.st_uid}" for path, of in found if of.st_uid != os.geteuid()),
        *(
            f"{path} can be changed by group {of.st_gid} (mode {stat.S_IMODE(of.st_mode):03o})"
            for path, of in found
            if of.st_mode & 0o020 and not stat.S_ISLNK(of.st_mode)
        ),
    ]


@contextmanager
def using_folder(folder: Path) -> Iterator[None]:
    """Translate an operating system's error into a `StateError` that names the state folder."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        # Python 3.11 and 3.12 raise RuntimeError for a loop of links; ValueError is an impossible path.
        why = getattr(error, "strerror", None) or error
        if isinstance(error, FileExistsError):
            why = f"Not a directory: {error.filename}"
        raise StateError(f"the state folder {folder} cannot be used: {why}; {FOLDER_ADVICE}") from error


def _our_files(home: Path) -> list[Path]:
    return [path for pattern in _OUR_FILES for path in sorted(home.glob(pattern))]


def _restrict(path: Path, found: os.stat_result, mode: int) -> os.stat_result:
    """Set the mode of a file or folder of this user; return its new status."""
    if found.st_uid != os.geteuid():
        return found
    # Some file systems of containers and networks store no modes.
    with suppress(OSError):
        path.chmod(mode)
    return path.stat()


def _is_world_writable(found: os.stat_result) -> bool:
    return bool(found.st_mode & 0o002)


def _refuse_world_writable(path: Path, found: os.stat_result) -> None:
    if _is_world_writable(found) and _keeps_modes(path if path.is_dir() else path.parent):
        raise StateError(
            f"{path} can be changed by every user of this machine (mode {stat.S_IMODE(found.st_mode):03o}), and belongs"
            f" to user {found.st_uid}; run chmod o-w {path} as that user, or set HONCHO_EXEC_HOME to another folder"
        )


def _keeps_modes(folder: Path) -> bool:
    """Return whether the file system stores modes: on some every file has the same mode."""
    probe = folder / f".mode-{uuid.uuid4().hex}"
    with using_folder(folder):
        file = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            return not os.fstat(file).st_mode & 0o077
        finally:
            os.close(file)
            probe.unlink(missing_ok=True)
