"""Queues and executors that use only the locks of `threading`.

gevent and eventlet can replace `queue` without `threading`, or `threading` without `queue`. A thread that waits on a
queue of the other kind never wakes, or dies; so `queue.SimpleQueue` is not used, not even inside an executor.
"""

from __future__ import annotations

import concurrent.futures.thread
import math
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty
from typing import Any, Generic, TypeVar, cast

__all__ = ["Queue", "ThreadPool"]

T = TypeVar("T")


class Queue(Generic[T]):
    """Behaves like `queue.SimpleQueue`.

    `put` never waits, and may be called by a signal handler or by garbage collection inside any method. If it is
    interrupted, the item is in the queue or not, and a thread that waits may find it only with the next `put`.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        # Released while there may be items that no thread has been woken for.
        self._bell = threading.Lock()
        self._bell.acquire()

    def put(self, item: T) -> None:
        """See `queue.SimpleQueue.put`."""
        self._items.append(item)
        self._ring()

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """See `queue.SimpleQueue.get`."""
        ends = time.monotonic() + (math.inf if timeout is None else timeout) if block else -math.inf
        while True:
            try:
                return self.get_nowait()
            except Empty:
                left = ends - time.monotonic()
                if left <= 0:
                    raise
                self._bell.acquire(timeout=min(left, threading.TIMEOUT_MAX))

    def get_nowait(self) -> T:
        """See `queue.SimpleQueue.get_nowait`."""
        try:
            item = self._items.popleft()
        except IndexError:
            raise Empty from None
        if self._items:
            # One release may stand for several items.
            self._ring()
        return item

    def qsize(self) -> int:
        """See `queue.SimpleQueue.qsize`."""
        return len(self._items)

    def empty(self) -> bool:
        """See `queue.SimpleQueue.empty`."""
        return not self._items

    def _ring(self) -> None:
        # It is released already.
        with suppress(RuntimeError):
            self._bell.release()


class ThreadPool(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` whose threads wait on a `Queue`."""

    def __init__(self, max_workers: int, thread_name_prefix: str) -> None:
        super().__init__(max_workers, thread_name_prefix)
        self._work_queue = cast("Any", Queue())
        _replace_lock_of_executors()


def _replace_lock_of_executors() -> None:
    """Give all executors a shared lock of the kind that the program's threads use.

    It is made when `concurrent.futures` is imported, and held while a new thread is waited for. eventlet replaces
    threads and leaves it as it was: a second green thread that wants it stops all of them.
    """
    name = "_global_shutdown_lock"
    lock = getattr(concurrent.futures.thread, name)
    if type(lock) is not type(threading.Lock()) and not lock.locked():
        setattr(concurrent.futures.thread, name, threading.Lock())
