"""The file beside the outbox: what could not be put into it just now, and is taken into it first by the next writer."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from honcho_exec.clock import Deadline, SystemClock
from honcho_exec.errors import StateError
from honcho_exec.folders import private_folder, using_folder
from honcho_exec.forks import kept_off
from honcho_exec.locks import exclusive

__all__ = ["Entry", "Spill", "Value"]

Value = str | int | float | None
"""What a column of a row holds."""

# How long others may take who read the file or add to it (seconds).
_OTHERS = 2.0
# What a full disk says is worth another try after so long (seconds).
_FULL = 30.0


@dataclass(frozen=True, slots=True)
class Entry:
    """Rows that are taken in together.

    Attributes:
        key: no other entry has it, so that it is taken in once.
        rows: columns and what they hold; without an `id` where the outbox is to give one.
        origin: the file that the rows were in before, if they were in one.
        last: the highest id that had been given there.
    """

    key: str
    rows: Sequence[Mapping[str, Value]]
    origin: str | None = None
    last: int = 0


class Spill:
    """A file of entries, one a line, to which any thread and process adds at the end (mode 0600).

    It is there only while something is in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._seen: list[Entry] = []
        self._head = b""
        self._read = 0

    def __bool__(self) -> bool:
        """Whether something is in it."""
        return os.path.exists(self.path)  # noqa: PTH110 - half the time of Path.exists, before every write

    def add(self, entries: Sequence[Entry]) -> None:
        """Keep entries, all or none; they survive the death of the process at once.

        Raises:
            StateError: they cannot be written.
        """
        data = b"".join(json.dumps(asdict(entry)).encode() + b"\n" for entry in entries)
        private_folder(self.path.parent)
        with self._alone():
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _append(file, data)
            finally:
                os.close(file)

    def entries(self) -> Sequence[Entry]:
        """What is in it, in its order; nothing where it cannot be read."""
        with self._lock:
            try:
                with self.path.open("rb") as file:
                    head = file.readline()
                    if head != self._head:
                        self._head, self._seen, self._read = head, [], 0
                    file.seek(self._read)
                    lines = _whole(file.read())
            except OSError:
                return []
            self._read += sum(len(line) + 1 for line in lines)
            self._seen += filter(None, map(_parsed, lines))
            return list(self._seen)

    @contextmanager
    def taken(self, moment: str) -> Iterator[Sequence[Entry]]:
        """Lend what is in it to whoever stores it inside; afterwards the file is gone.

        Where a line of it cannot be read, the file is set aside under that moment.

        Raises:
            StateError: others keep it locked.
        """
        with self._alone():
            lines = _whole(self.path.read_bytes())
            parsed = [_parsed(line) for line in lines]
            yield [entry for entry in parsed if entry is not None]
            if None in parsed:
                self.path.rename(self.path.with_name(f"{self.path.name}.damaged-{moment}"))
            else:
                self.path.unlink()

    def flush(self) -> None:
        """Make what is in it survive a power cut as well."""
        with using_folder(self.path.parent):
            try:
                file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            try:
                os.fsync(file)
            finally:
                os.close(file)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with using_folder(self.path.parent), kept_off():
            try:
                with exclusive(self.path, Deadline.after(_OTHERS, SystemClock()), keep=True):
                    yield
            except OSError as error:
                translated = StateError(f"the state file {self.path} cannot be used: {error}")
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                    translated.retryable, translated.retry_after = True, _FULL
                raise translated from error


def _append(file: int, data: bytes) -> None:
    """Add at the end, in the place of what was cut short before."""
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        size = os.pread(file, size, 0).rfind(b"\n") + 1
        os.ftruncate(file, size)
    if os.write(file, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _whole(data: bytes) -> list[bytes]:
    """The lines that have an end: the last has none where it was cut short, and nobody was told that it is kept."""
    return data.split(b"\n")[:-1]


def _parsed(line: bytes) -> Entry | None:
    try:
        entry = Entry(**json.loads(line))
    except (ValueError, TypeError):
        return None
    whole = (
        isinstance(entry.key, str) and isinstance(entry.rows, list) and all(isinstance(row, dict) for row in entry.rows)
    )
    return entry if whole else None
