"""A `ThreadPoolExecutor(max_workers=1)` whose thread owns what must not be shared."""

from __future__ import annotations

import contextvars
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from functools import partial
from typing import Any, TypeVar

from honcho_exec.errors import Closed, LaneError
from honcho_exec.forks import ADVICE, fork_count
from honcho_exec.runtime.exit_watch import exit_watch
from honcho_exec.runtime.idle import IdlePool
from honcho_exec.runtime.log import log_unexpected

__all__ = ["Lane"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Lane:
    """Runs jobs one at a time, in order, on one thread.

    Methods that must run on the lane call `check`, which raises anywhere else. A job runs in the context variables of
    the caller that submitted it. In a forked child the lanes of the parent are closed.

    Args:
        executor: one worker, or a test's own.
        abandon: a method that makes the running job end soon, called when the interpreter exits; its object is not
            kept alive. Without it, the exit of the interpreter waits for that job.
    """

    def __init__(self, executor: Executor | None = None, *, abandon: Callable[[], None] | None = None) -> None:
        self._executor = executor or IdlePool(max_workers=1, name="honcho-lane")
        self._abandon = weakref.WeakMethod(abandon) if abandon is not None else None
        self._lock = threading.Lock()
        self._jobs: set[Future[Any]] = set()
        self._thread: int | None = None
        self._closed = False
        self._forks = fork_count()

    def __repr__(self) -> str:
        return f"<Lane {'closed' if self._closed else 'busy' if self.busy else 'idle'}>"

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._thread is not None

    @property
    def here(self) -> bool:
        """Whether the caller is a job of this lane."""
        return self._thread == threading.get_ident()

    def check(self) -> None:
        """Raise `LaneError` unless the caller is a job of this lane."""
        if not self.here:
            raise LaneError("this belongs to the lane: submit a job instead of calling it from another thread")

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Queue `job`; the Future has its result or its exception.

        Raises:
            Closed: the lane is closed, was created before a fork, or the interpreter is exiting.
        """
        if self._forks != fork_count():
            raise Closed(ADVICE)
        context = contextvars.copy_context()
        with self._lock:
            if self._closed:
                raise Closed("the provider is closed")
            try:
                future = self._executor.submit(context.run, self._run, job)
            except RuntimeError as error:
                raise Closed("the interpreter is exiting") from error
            self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        return future

    def post(self, job: Callable[[], None], *, failed: Callable[[BaseException], None] | None = None) -> bool:
        """Queue `job` without a Future; return False if the lane is closed.

        An exception is logged and passed to `failed`.
        """
        try:
            self.submit(job).add_done_callback(partial(_report, failed))
        except Closed:
            return False
        return True

    def call(self, job: Callable[[], T], timeout: float | None) -> T:
        """Run `job` on the lane and return its result, waiting at most `timeout` seconds.

        Raises:
            LaneError: the caller is on the lane already and would wait for itself.
            TimeoutError: the job is not done in time; it still runs.
        """
        if self.here:
            raise LaneError("a job of the lane must not wait for the lane: call the function directly")
        return self.submit(job).result(timeout)

    def close(self, timeout: float = 0.0) -> bool:
        """Accept no more jobs; wait at most `timeout` seconds for the queued ones and return whether they ended."""
        if self._forks != fork_count():
            return True
        with self._lock:
            self._closed = True
            jobs = set(self._jobs)
        self._executor.shutdown(wait=False)
        ended = self.here or not wait(jobs, timeout).not_done
        if not self.busy:
            exit_watch().discard(self)
        return ended

    def abandon(self) -> None:
        """Make the running job end soon."""
        if self._abandon is not None and (abandon := self._abandon()) is not None:
            abandon()

    def _run(self, job: Callable[[], T]) -> T:
        self._thread = threading.get_ident()
        if self._abandon is not None:
            exit_watch().add(self)
        try:
            return job()
        finally:
            self._thread = None


def _report(failed: Callable[[BaseException], None] | None, future: Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log_unexpected(_log, "a job of the lane", error)
        if failed is not None:
            failed(error)
