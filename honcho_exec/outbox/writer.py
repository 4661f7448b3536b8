"""One thread for each database file, which stores all pending changes in one commit.

A caller's thread queues a change with one atomic operation and waits on a lock of the change: an interrupt there
leaves nothing locked, and the change is stored as a whole or not at all. While another process locks the file, changes
wait in memory, in order, and are stored first when the lock is released.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from queue import Empty
from sqlite3 import Connection
from typing import TYPE_CHECKING, TypeVar

from honcho_exec.errors import Busy, Damaged, HonchoExecError, StateError
from honcho_exec.forks import PerProcess
from honcho_exec.outbox.change import Change, Job, outbox_full
from honcho_exec.runtime.log import call_guarded, log_unexpected
from honcho_exec.runtime.offload import start_daemon
from honcho_exec.threads import Queue

if TYPE_CHECKING:
    from honcho_exec.outbox.file import OutboxFile

__all__ = ["Writer", "writer_of"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

# How long a change waits for another process's write before its caller continues without it being durable.
_LOCK_WAIT_SECONDS = 0.2
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
_MAX_CHANGES_PER_COMMIT = 500


class Writer:
    """Stores the changes to one file, in the order in which they are submitted."""

    def __init__(self) -> None:
        self._queue: Queue[Change | Callable[[], None]] = Queue()
        # Held by the thread that works. Callers only check it.
        self._active = threading.Lock()
        self._asked_at = -_CHECK_SECONDS
        # These belong to the thread that works.
        self._waiting: deque[Change] = deque()
        self._jobs: list[Callable[[], None]] = []
        self._files: set[OutboxFile] = set()
        # Files on whose disk there was space when the last changes were collected.
        self._roomy: set[OutboxFile] = set()

    def submit(self, change: Change) -> None:
        """Store `change`; return when it is stored, has failed, or waits for another process's lock."""
        self._queue.put(change)
        self._have_thread()
        while not change.wait(_CHECK_SECONDS):
            self._have_thread()

    def run(self, file: OutboxFile, job: Callable[[Connection], T]) -> T:
        """Run `job` inside the next transaction, together with other changes; return its result after the commit.

        It runs again if the transaction is rolled back. Not for the writer's own thread.

        Raises:
            Busy: another process locks the file.
            StateError: the file cannot be written.
        """
        ends = time.monotonic() + _JOB_SECONDS
        while True:
            change = Job(file, job)
            self.submit(change)
            try:
                return change.result()
            except Busy:
                if time.monotonic() >= ends:
                    raise

    def unstored(self) -> list[Change]:
        """Return the changes that wait in memory because another process locks the file."""
        return [change for change in list(self._waiting) if change.delayed]

    def attach(self, file: OutboxFile) -> None:
        """Keep the thread between the changes of `file`, from now on."""
        self._files.add(file)

    def detach(self, file: OutboxFile, close: Callable[[], None]) -> None:
        """Fail the changes that wait for `file`, call `close`, and end the thread if no file is left."""
        done = threading.Lock()
        done.acquire()

        def end() -> None:
            for change in [change for change in self._waiting if change.file is file]:
                self._waiting.remove(change)
                self._fail(change, StateError(f"{file.path} stayed locked by another process; this was NOT stored"))
            self._files.discard(file)
            close()
            done.release()

        self._queue.put(end)
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
            # A caller may have queued a change since the last check, and have seen this thread at work.
            if self._queue.empty():
                return

    def _work(self, *, once: bool) -> None:
        locked = False
        while True:
            idle = _IDLE_SECONDS if self._files and not once else 0.0
            found = self._collect(_PAUSE_SECONDS if locked else idle)
            locked = not self._commit()
            jobs, self._jobs = self._jobs, []
            for job in jobs:
                call_guarded(_log, "closing the outbox", job, None)
            if once or not (found or locked):
                return

    def _collect(self, seconds: float) -> bool:
        """Empty the queue, waiting up to `seconds` for the first item; return whether there was one."""
        try:
            item = self._queue.get(timeout=seconds) if seconds else self._queue.get_nowait()
        except Empty:
            return False
        self._roomy.clear()
        with suppress(Empty):
            while True:
                if isinstance(item, Change):
                    self._begin(item)
                else:
                    self._jobs.append(item)
                item = self._queue.get_nowait()
        return True

    def _begin(self, change: Change) -> None:
        try:
            # Checked once for all changes that are collected together.
            if change.rows and change.file not in self._roomy:
                change.file.reserve.check()
                self._roomy.add(change.file)
            change.begin()
        except HonchoExecError as error:
            self._fail(change, error)
        else:
            self._waiting.append(change)

    def _commit(self) -> bool:
        """Store the waiting changes; return False if another process locks the file."""
        most = _MAX_CHANGES_PER_COMMIT
        while self._waiting:
            batch = list(islice(self._waiting, most))
            try:
                self._store(batch)
            except Busy:
                self._delay()
                return False
            except BaseException as error:  # noqa: BLE001 - an error of one change must not cost the others
                if len(batch) == 1:
                    self._fail(self._waiting.popleft(), _known(error))
                most = 1
            else:
                for change in batch:
                    self._waiting.popleft()
                    call_guarded(_log, "storing", change.stored, None)
                    change.let_go()
        return True

    @staticmethod
    def _store(batch: Sequence[Change]) -> None:
        file = batch[0].file
        try:
            _store_in(file, batch)
        except Damaged:
            file.replace_damaged()
            _store_in(file, batch)

    def _delay(self) -> None:
        """Let the callers return, and fail the changes for which the outbox has no room."""
        size = self._waiting[0].file.size()
        for change in list(self._waiting):
            size += len(change.rows)
            if not change.patient:
                self._waiting.remove(change)
                self._fail(change, Busy(f"{change.file.path} cannot be written while another process locks it"))
            elif change.rows and not change.delayed and size > change.max_rows:
                size -= len(change.rows)
                self._waiting.remove(change)
                self._fail(change, outbox_full(change.max_rows))
            else:
                change.delayed = True
                change.let_go()

    @staticmethod
    def _fail(change: Change, error: HonchoExecError) -> None:
        call_guarded(_log, "storing", partial(change.failed, error), None)
        change.let_go()


def _store_in(file: OutboxFile, batch: Sequence[Change]) -> None:
    if not file.usable():
        raise Busy(f"{file.path} cannot be opened while another process locks it")
    with file.transaction(_LOCK_WAIT_SECONDS) as connection:
        for kind, changes in groupby(batch, _kind):
            kind.apply_all(connection, list(changes))


def _kind(change: Change) -> type[Change]:
    return type(change)


def _known(error: BaseException) -> HonchoExecError:
    if isinstance(error, HonchoExecError):
        return error
    log_unexpected(_log, "storing a change", error)
    return HonchoExecError(f"unexpected {type(error).__name__}; nothing was stored")


_writers: PerProcess[weakref.WeakValueDictionary[Path, Writer]] = PerProcess(weakref.WeakValueDictionary)
_writers_lock = PerProcess(threading.Lock)


def writer_of(path: Path) -> Writer:
    """Return the writer of this process for the file at `path`."""
    with _writers_lock():
        writer = _writers().get(path)
        if writer is None:
            writer = _writers()[path] = Writer()
        return writer
