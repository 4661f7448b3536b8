"""A bounded number of threads, shared by any number of strands."""

from __future__ import annotations

import contextvars
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from honcho_exec.errors import Closed
from honcho_exec.forks import ADVICE, fork_count
from honcho_exec.runtime.exit_watch import exit_watch
from honcho_exec.runtime.idle import IdlePool
from honcho_exec.runtime.log import call_guarded

__all__ = ["SharedPool", "Strand"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


class SharedPool:
    """At most `max_workers` threads, started when they are needed and ended when unused.

    Args:
        name: prefix of the threads' names.
        max_workers: the most threads at a time.
    """

    def __init__(self, name: str, max_workers: int) -> None:
        self._name = name
        self._max_workers = max_workers
        self._lock = threading.Lock()
        self._pool: IdlePool | None = None
        self._users = 0

    def join(self) -> None:
        """Count a user; `leave` follows."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """Remove a user; after the last one, the threads end at once."""
        with self._lock:
            self._users -= 1
            self._end_unused()

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` on one of the threads.

        Raises:
            RuntimeError: the interpreter is exiting.
        """
        with self._lock:
            if self._pool is None:
                self._pool = IdlePool(self._max_workers, self._name)
            self._pool.submit(job)
            self._end_unused()

    def _end_unused(self) -> None:
        if not self._users and self._pool is not None:
            self._pool.shutdown()
            self._pool = None


class Strand:
    """Runs jobs one at a time, in order, on any free thread of a pool.

    Like a `Lane`, but it owns no thread, so that nothing can belong to it.

    Args:
        abandon: a method that makes the running job end soon, called when the interpreter exits; its object is not
            kept alive.
    """

    def __init__(self, pool: SharedPool, *, abandon: Callable[[], None] | None = None) -> None:
        self._pool = pool
        self._abandon = weakref.WeakMethod(abandon) if abandon is not None else None
        self._lock = threading.Lock()
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._running = False
        self._closed = False
        self._forks = fork_count()
        pool.join()

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._running

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Queue `job`, which runs in the caller's context variables; the Future has its result or its exception.

        Raises:
            Closed: the strand is closed, was created before a fork, or the interpreter is exiting.
        """
        if self._forks != fork_count():
            raise Closed(ADVICE)
        future: Future[T] = Future()
        context = contextvars.copy_context()
        with self._lock:
            if self._closed:
                raise Closed("the provider is closed")
            if not self._running:
                try:
                    self._pool.submit(self._run_next)
                except RuntimeError as error:
                    raise Closed("the interpreter is exiting") from error
                self._running = True
            self._jobs.append((future, partial(context.run, job)))
        return future

    def post(self, job: Callable[[], None]) -> bool:
        """Queue `job` without a Future and log an exception; return False if the strand is closed."""
        try:
            self.submit(lambda: call_guarded(_log, "a job of a strand", job, None))
        except Closed:
            return False
        return True

    def close(self) -> None:
        """Accept no more jobs; never waits."""
        if self._forks != fork_count():
            return
        with self._lock:
            open_before, self._closed = not self._closed, True
        if open_before:
            self._pool.leave()
        if not self.busy:
            exit_watch().discard(self)

    def abandon(self) -> None:
        """Make the running job end soon."""
        if self._abandon is not None and (abandon := self._abandon()) is not None:
            abandon()

    def _run_next(self) -> None:
        with self._lock:
            if not self._jobs:
                self._running = False
                return
            future, job = self._jobs.popleft()
        if self._abandon is not None:
            exit_watch().add(self)
        if future.set_running_or_notify_cancel():
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - what a Future carries
                future.set_exception(error)
            else:
                future.set_result(result)
        with self._lock:
            self._running = bool(self._jobs)
            if self._running:
                self._pool.submit(self._run_next)
