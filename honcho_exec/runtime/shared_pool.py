"""A bounded number of threads for any number of lanes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from honcho_exec.runtime.idle import Idle
from honcho_exec.threads import ThreadPool

__all__ = ["Strand", "Workers"]

P = ParamSpec("P")
T = TypeVar("T")

# Threads that have had nothing to do for so long are given back (seconds).
_IDLE = 1.0


class Workers:
    """At most `most` threads, made when they are needed and given back when nobody needs them.

    Args:
        name: prefix of the threads' names.
        most: how many there are at most.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._lock = threading.Lock()
        self._pool: ThreadPool | None = None
        self._idle = Idle(self._give_back, after=_IDLE)
        self._users = 0

    def join(self) -> None:
        """Somebody may give jobs from now on; `leave` follows."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """They give no more jobs; when that was the last, the threads are given back at once."""
        with self._lock:
            self._users -= 1
        self._settle()

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` on one of the threads.

        Raises:
            RuntimeError: the interpreter is exiting.
        """
        idle = self._idle
        idle.begin()
        try:
            with self._lock:
                if self._pool is None:
                    self._pool = ThreadPool(self._most, self._name)
                future = self._pool.submit(job)
        except BaseException:
            idle.end()
            raise
        future.add_done_callback(lambda _: idle.end())
        self._settle()

    def _settle(self) -> None:
        """Give the threads back at once where nobody gives jobs any more; what was begun is finished."""
        with self._lock:
            if self._users:
                return
            idle, self._idle = self._idle, Idle(self._give_back, after=_IDLE)
        idle.close()
        self._give_back()

    def _give_back(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)


class Strand(Executor):
    """An executor that runs its jobs one at a time, in order, on whichever of the workers is free."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        workers.join()
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._running = False
        self._closed = False

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `concurrent.futures.Executor.submit`."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the strand is closed")
            if not self._running:
                self._workers.submit(self._run_next)
                self._running = True
            self._waiting.append((future, lambda: function(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - the executors' contract
        """Take no more jobs; never waits. The threads are the workers'."""
        with self._lock:
            left, self._closed = not self._closed, True
            dropped = list(self._waiting) if cancel_futures else []
            self._waiting = deque() if cancel_futures else self._waiting
        for future, _ in dropped:
            future.cancel()
        if left:
            self._workers.leave()

    def _run_next(self) -> None:
        with self._lock:
            if not self._waiting:
                self._running = False
                return
            future, job = self._waiting.popleft()
        if future.set_running_or_notify_cancel():
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - what a Future carries
                future.set_exception(error)
            else:
                future.set_result(result)
        with self._lock:
            self._running = bool(self._waiting)
            if self._running:
                self._workers.submit(self._run_next)
