"""Changes to the outbox's file, which the writer makes in one transaction with others."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import TYPE_CHECKING, Generic, TypeVar

from honcho_exec.errors import HonchoExecError, Overloaded
from honcho_exec.outbox.rows import Value

if TYPE_CHECKING:
    from honcho_exec.outbox.file import OutboxFile

__all__ = ["Change", "Job", "outbox_full"]

T = TypeVar("T")


class Change(ABC):
    """A change that a caller makes; all its methods but `wait` run on the writer's thread.

    Attributes:
        file: the file to change.
        rows: the rows to add.
        max_rows: how many rows the file may hold with them.
        patient: whether it waits in memory while another process locks the file; otherwise it fails with `Busy`.
        delayed: whether it waits in memory because another process locks the file.
    """

    patient = True

    def __init__(self, file: OutboxFile, *, rows: Sequence[tuple[Value, ...]] = (), max_rows: int = 0) -> None:
        self.file = file
        self.rows = rows
        self.max_rows = max_rows
        self.delayed = False
        self._waiting = threading.Lock()
        self._waiting.acquire()

    @abstractmethod
    def begin(self) -> None:
        """Prepare to be stored; the change fails with an error raised here."""

    @abstractmethod
    def apply(self, connection: Connection) -> None:
        """Make the change inside a transaction; called again if that is rolled back."""

    @classmethod
    def apply_all(cls, connection: Connection, changes: Sequence[Change]) -> None:
        """Make changes of this class, with the result of one `apply` after the other."""
        for change in changes:
            change.apply(connection)

    @abstractmethod
    def stored(self) -> None:
        """Handle the commit."""

    @abstractmethod
    def failed(self, error: HonchoExecError) -> None:
        """Handle an error: the change is not stored and never will be."""

    def let_go(self) -> None:
        """Let the caller's `wait` return."""
        if self._waiting.locked():
            self._waiting.release()

    def wait(self, seconds: float) -> bool:
        """Wait for `let_go`; return False after the timeout."""
        return self._waiting.acquire(timeout=seconds)


class Job(Change, Generic[T]):
    """A function that runs inside the transaction and whose result the caller gets."""

    patient = False

    def __init__(self, file: OutboxFile, job: Callable[[Connection], T]) -> None:
        super().__init__(file)
        self._job = job
        self._results: list[T] = []
        self._error: HonchoExecError | None = None

    def begin(self) -> None:
        """See `Change`."""

    def apply(self, connection: Connection) -> None:
        """See `Change`."""
        self._results[:] = [self._job(connection)]

    def stored(self) -> None:
        """See `Change`."""

    def failed(self, error: HonchoExecError) -> None:
        """See `Change`."""
        self._error = error

    def result(self) -> T:
        """Return the job's result, or raise the error that it failed with."""
        if self._error is not None:
            raise self._error
        return self._results[0]


def outbox_full(max_rows: int) -> Overloaded:
    """Return the error for a turn that the outbox has no room for."""
    return Overloaded(
        f"the outbox is full ({max_rows} rows); nothing was stored. It empties when Honcho takes the rows;"
        " HONCHO_OUTBOX_MAX_ROWS raises the limit"
    )
