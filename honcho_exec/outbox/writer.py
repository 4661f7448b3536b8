"""Store what callers give, with one thread and one commit for all that waits, for each database file.

A caller's thread queues a change with one atomic operation and waits on a lock of its own: an interrupt there leaves
nothing locked, and the change is stored as a whole or not at all. While another process locks the file, changes wait
in memory, in order, and are stored first when the lock is released.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from queue import Empty
from sqlite3 import Connection
from typing import TYPE_CHECKING, Generic, TypeVar

from honcho_exec.errors import Busy, Damaged, HonchoExecError, Overloaded, StateError
from honcho_exec.forks import PerProcess
from honcho_exec.outbox.rows import Value
from honcho_exec.runtime.log import foreign, record
from honcho_exec.runtime.offload import start_daemon
from honcho_exec.threads import Queue

if TYPE_CHECKING:
    from honcho_exec.outbox.file import OutboxFile

__all__ = ["Change", "Writer", "full", "writer_of"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

PATIENCE = 0.2
"""How long a change waits for another process's write before its caller is told that it is not durable (seconds)."""

# The thread ends after this long without a change.
_IDLE_SECONDS = 2.0
# How long a job waits for another process's write.
_JOB_SECONDS = 2.0
# How often a caller checks that there is a thread.
_CHECK_SECONDS = 0.05
# The pause between two attempts at a locked file that fail at once.
_PAUSE_SECONDS = 0.02
# How long closing waits for the attempt under way.
_CLOSING_SECONDS = 5.0
# The most changes in one commit.
_MOST = 500


class Change(ABC):
    """Something to store. A caller makes it; everything else happens on the writer's thread.

    Attributes:
        file: where it is stored.
        rows: what it adds to the file.
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
        self._answered = threading.Lock()
        self._answered.acquire()

    @abstractmethod
    def begin(self) -> None:
        """Prepare to be stored; what this raises is what the change fails with."""

    @abstractmethod
    def apply(self, connection: Connection) -> None:
        """Make the change inside a transaction; called again if that is rolled back."""

    @classmethod
    def apply_all(cls, connection: Connection, changes: Sequence[Change]) -> None:
        """Make these changes, all of this class, as `apply` does one after the other."""
        for change in changes:
            change.apply(connection)

    @abstractmethod
    def stored(self) -> None:
        """Note that it is committed."""

    @abstractmethod
    def failed(self, error: HonchoExecError) -> None:
        """Note that it is not stored and never will be."""

    def answer(self) -> None:
        """Let the caller go on."""
        if self._answered.locked():
            self._answered.release()

    def answered(self, seconds: float) -> bool:
        """Wait until the caller may go on."""
        return self._answered.acquire(timeout=seconds)


class _Job(Change, Generic[T]):
    """A change that only its caller knows of."""

    patient = False

    def __init__(self, file: OutboxFile, job: Callable[[Connection], T]) -> None:
        super().__init__(file)
        self._job = job
        self._results: list[T] = []
        self._error: HonchoExecError | None = None

    def begin(self) -> None:
        pass

    def apply(self, connection: Connection) -> None:
        self._results[:] = [self._job(connection)]

    def stored(self) -> None:
        pass

    def failed(self, error: HonchoExecError) -> None:
        self._error = error

    def outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._results[0]


class Writer:
    """Stores the changes to one file, in the order in which they are given."""

    def __init__(self) -> None:
        self._given: Queue[Change | Callable[[], None]] = Queue()
        # Held by the thread that works. Callers only look at it.
        self._active = threading.Lock()
        self._asked_at = -_CHECK_SECONDS
        # These belong to the thread that works.
        self._waiting: deque[Change] = deque()
        self._jobs: list[Callable[[], None]] = []
        self._files: set[OutboxFile] = set()
        # Files on whose disk there was space when the last changes were taken over.
        self._roomy: set[OutboxFile] = set()

    def put(self, change: Change) -> None:
        """Store `change`; return when it is stored, has failed, or waits for another process's lock."""
        self._given.put(change)
        self._have_thread()
        while not change.answered(_CHECK_SECONDS):
            self._have_thread()

    def run(self, file: OutboxFile, job: Callable[[Connection], T]) -> T:
        """Run `job` inside the next transaction, together with what waits; return its result when that is committed.

        It runs again if the transaction is rolled back. Not for the writer's own thread.

        Raises:
            Busy: another process locks the file.
            StateError: the file cannot be written.
        """
        ends = time.monotonic() + _JOB_SECONDS
        while True:
            change = _Job(file, job)
            self.put(change)
            try:
                return change.outcome()
            except Busy:
                if time.monotonic() >= ends:
                    raise

    def unstored(self) -> list[Change]:
        """The changes that wait in memory because another process locks the file."""
        return [change for change in list(self._waiting) if change.delayed]

    def enter(self, file: OutboxFile) -> None:
        """Keep the thread between the changes of `file`, from now on."""
        self._files.add(file)

    def leave(self, file: OutboxFile, close: Callable[[], None]) -> None:
        """Fail what waits for `file`, call `close` when nothing uses it, and end the thread if no file is left."""
        done = threading.Lock()
        done.acquire()

        def end() -> None:
            for change in [change for change in self._waiting if change.file is file]:
                self._waiting.remove(change)
                self._fail(change, StateError(f"{file.path} stayed locked by another process; this was NOT stored"))
            self._files.discard(file)
            close()
            done.release()

        self._given.put(end)
        # Without a thread at work this one does it.
        self._run(once=True)
        ends = time.monotonic() + _CLOSING_SECONDS
        while not done.acquire(timeout=_CHECK_SECONDS) and time.monotonic() < ends:
            self._have_thread()

    def _have_thread(self) -> None:
        if self._active.locked() or time.monotonic() - self._asked_at < _CHECK_SECONDS:
            return
        self._asked_at = time.monotonic()
        if not start_daemon(self._run, "honcho-writer"):
            # The interpreter ends.
            self._run(once=True)

    def _run(self, *, once: bool = False) -> None:
        while self._active.acquire(blocking=False):
            try:
                self._work(once=once)
            finally:
                self._active.release()
            # What was given since the last look, by a caller who saw this thread at work, is not left behind.
            if self._given.empty():
                return

    def _work(self, *, once: bool) -> None:
        locked = False
        while True:
            idle = _IDLE_SECONDS if self._files and not once else 0.0
            found = self._take(_PAUSE_SECONDS if locked else idle)
            locked = not self._commit()
            jobs, self._jobs = self._jobs, []
            for job in jobs:
                foreign(_log, "closing the outbox", job, None)
            if once or not (found or locked):
                return

    def _take(self, seconds: float) -> bool:
        """Take over all that was given, waiting so long for the first; return whether there was anything."""
        try:
            given = self._given.get(timeout=seconds) if seconds else self._given.get_nowait()
        except Empty:
            return False
        self._roomy.clear()
        with suppress(Empty):
            while True:
                if isinstance(given, Change):
                    self._begin(given)
                else:
                    self._jobs.append(given)
                given = self._given.get_nowait()
        return True

    def _begin(self, change: Change) -> None:
        try:
            # Looked at once for all changes that came together.
            if change.rows and change.file not in self._roomy:
                change.file.reserve.check()
                self._roomy.add(change.file)
            change.begin()
        except HonchoExecError as error:
            self._fail(change, error)
        else:
            self._waiting.append(change)

    def _commit(self) -> bool:
        """Store what waits; return False if another process locks the file."""
        most = _MOST
        while self._waiting:
            batch = list(islice(self._waiting, most))
            try:
                self._store(batch)
            except Busy:
                self._delay()
                return False
            except BaseException as error:  # noqa: BLE001 - whatever one of them raises must not cost the others
                if len(batch) == 1:
                    self._fail(self._waiting.popleft(), _known(error))
                most = 1
            else:
                for change in batch:
                    self._waiting.popleft()
                    foreign(_log, "storing", change.stored, None)
                    change.answer()
        return True

    @staticmethod
    def _store(batch: Sequence[Change]) -> None:
        file = batch[0].file
        try:
            _store_in(file, batch)
        except Damaged:
            file.begin_anew()
            _store_in(file, batch)

    def _delay(self) -> None:
        """Let the callers go on, as far as the outbox has room for what they gave."""
        size = self._waiting[0].file.size()
        for change in list(self._waiting):
            size += len(change.rows)
            if not change.patient:
                self._waiting.remove(change)
                self._fail(change, Busy(f"{change.file.path} cannot be written while another process locks it"))
            elif change.rows and not change.delayed and size > change.max_rows:
                size -= len(change.rows)
                self._waiting.remove(change)
                self._fail(change, full(change.max_rows))
            else:
                change.delayed = True
                change.answer()

    @staticmethod
    def _fail(change: Change, error: HonchoExecError) -> None:
        foreign(_log, "storing", partial(change.failed, error), None)
        change.answer()


def full(max_rows: int) -> Overloaded:
    """The error for a turn that the outbox has no room for."""
    return Overloaded(
        f"the outbox is full ({max_rows} rows); nothing was stored. It empties when Honcho takes the rows;"
        " HONCHO_OUTBOX_MAX_ROWS raises the limit"
    )


def _store_in(file: OutboxFile, batch: Sequence[Change]) -> None:
    if not file.usable():
        raise Busy(f"{file.path} cannot be opened while another process locks it")
    with file.transaction(PATIENCE) as connection:
        for kind, changes in groupby(batch, _kind):
            kind.apply_all(connection, list(changes))


def _kind(change: Change) -> type[Change]:
    return type(change)


def _known(error: BaseException) -> HonchoExecError:
    if isinstance(error, HonchoExecError):
        return error
    record(_log, "storing a change", error)
    return HonchoExecError(f"unexpected {type(error).__name__}; nothing was stored")


_writers: PerProcess[weakref.WeakValueDictionary[Path, Writer]] = PerProcess(weakref.WeakValueDictionary)
_writers_lock = PerProcess(threading.Lock)


def writer_of(path: Path) -> Writer:
    """The writer of this process for the file at `path`."""
    with _writers_lock():
        writer = _writers().get(path)
        if writer is None:
            writer = _writers()[path] = Writer()
        return writer
