"""Give threads and other resources back when they have been unused for a while."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from honcho_exec.runtime.timer import Timer
from honcho_exec.threads import ThreadPool

__all__ = ["Idle", "IdlePool"]

P = ParamSpec("P")
T = TypeVar("T")

_IDLE_THREAD_SECONDS = 1.0


class Idle:
    """Counts uses, and calls `give_back` when there has been none for `after` seconds.

    No use begins while `give_back` runs. It is called on the alarm's thread.

    Args:
        give_back: a method; its object is not kept alive.
        after: seconds.
    """

    def __init__(self, give_back: Callable[[], None], *, after: float) -> None:
        self._give_back = weakref.WeakMethod(give_back)
        self._after = after
        self._lock = threading.Lock()
        self._uses = 0
        self._ended_at = 0.0
        self._watching = False
        self._closed = False
        self._timer = Timer(self._check)

    def begin(self) -> None:
        """Begin a use; `end` must follow."""
        with self._lock:
            self._uses += 1

    def end(self) -> None:
        """End a use."""
        with self._lock:
            self._uses -= 1
            self._ended_at = time.monotonic()
            if self._uses or self._watching or self._closed:
                return
            self._watching = True
            self._timer.set(self._after)

    def close(self) -> None:
        """Stop watching."""
        with self._lock:
            self._closed = True
            self._timer.cancel()

    def _check(self) -> None:
        with self._lock:
            left = self._ended_at + self._after - time.monotonic()
            self._watching = self._uses == 0 and left > 0 and not self._closed
            if self._watching:
                self._timer.set(left)
            elif self._uses == 0 and (give_back := self._give_back()) is not None:
                give_back()


class IdlePool(Executor):
    """A `ThreadPoolExecutor` whose threads end after a second without a job; the next job gets new ones."""

    def __init__(self, max_workers: int, name: str) -> None:
        self._max_workers = max_workers
        self._name = name
        self._lock = threading.Lock()
        self._pool: ThreadPool | None = None
        self._idle = Idle(self._give_back, after=_IDLE_THREAD_SECONDS)

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `concurrent.futures.Executor.submit`."""
        self._idle.begin()
        try:
            with self._lock:
                if self._pool is None:
                    self._pool = ThreadPool(self._max_workers, self._name)
                future = self._pool.submit(function, *args, **kwargs)
        except BaseException:
            self._idle.end()
            raise
        future.add_done_callback(lambda _: self._idle.end())
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - the executors' contract
        """End the threads when the jobs that were submitted are done; never waits."""
        self._idle.close()
        self._give_back()

    def _give_back(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)
