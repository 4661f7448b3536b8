"""The lane: one worker thread that owns what must not be shared."""

from __future__ import annotations

import contextvars
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from typing import TypeVar

from honcho_exec.errors import Closed, LaneError
from honcho_exec.forks import ADVICE, PerProcess, fork_count
from honcho_exec.runtime.idle import Idle
from honcho_exec.runtime.log import record
from honcho_exec.runtime.timer import Timer, alarm_after, interpreter_is_exiting
from honcho_exec.threads import ThreadPool

__all__ = ["Lane"]

T = TypeVar("T")
_log = logging.getLogger(__name__)

# How often busy lanes look whether the interpreter exits (seconds).
_EXIT_LOOK = 0.25
# A thread that has had no job for so long is given back; the next job gets a new one (seconds).
_IDLE = 1.0


class Lane:
    """Runs jobs one at a time, in order, on one thread.

    What belongs to the lane calls `check` and so cannot be reached from anywhere else. A job runs in the
    context variables of the caller that submitted it. A lane without jobs gives its thread back after a second. In a
    forked child the lanes of the parent are closed.

    Args:
        name: prefix of the thread's name.
        executor: makes the executor; one worker, or a test's own.
        timer: calls back later; the process's alarm, or a test's own.
        abandon: a method that makes the job under way end soon, called when the interpreter exits; it does not
            keep its object alive. Without it an exit waits for that job.
    """

    def __init__(
        self,
        name: str = "honcho-lane",
        *,
        executor: Callable[[], Executor] | None = None,
        timer: Timer | None = None,
        abandon: Callable[[], None] | None = None,
    ) -> None:
        self._make = executor or (lambda: ThreadPool(1, name))
        self._timer = timer or alarm_after
        self._abandon = weakref.WeakMethod(abandon) if abandon is not None else None
        self._lock = threading.Lock()
        self._executor: Executor | None = None
        self._forks = fork_count()
        self._closed = False
        self._thread: int | None = None
        self._gives_back = executor is None
        self._idle = Idle(self._give_back, after=_IDLE)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "busy" if self._thread is not None else "idle"
        return f"<Lane {state}>"

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
        self._idle.begin()
        try:
            with self._lock:
                if self._closed:
                    raise Closed("the provider is closed")
                if self._executor is None:
                    self._executor = self._make()
                try:
                    future = self._executor.submit(context.run, self._run, job)
                except RuntimeError as error:
                    raise Closed("the interpreter is exiting") from error
        except BaseException:
            self._idle.end()
            raise
        future.add_done_callback(lambda _: self._idle.end())
        return future

    def post(self, job: Callable[[], None], *, failed: Callable[[BaseException], None] | None = None) -> bool:
        """Queue `job` whose outcome nobody awaits; False when the lane is closed.

        An exception is logged and given to `failed`.
        """

        def ended(future: Future[None]) -> None:
            if not future.cancelled() and (error := future.exception()) is not None:
                record(_log, "a job of the lane", error)
                if failed is not None:
                    failed(error)

        try:
            self.submit(job).add_done_callback(ended)
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

    def post_later(self, delay: float, job: Callable[[], None]) -> Callable[[], None]:
        """Queue `job` in `delay` seconds; the returned function takes that back."""

        def due() -> None:
            self.post(job)

        return self.call_later(delay, due)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call a short `callback` in `delay` seconds, on the timer's thread; the returned function takes that back."""
        return self._timer(delay, callback)

    def close(self, timeout: float) -> bool:
        """Take no more jobs, drop those that have not begun, and wait at most `timeout` seconds for the one that has.

        Returns whether the lane has come to rest.
        """
        if self._forks != fork_count():
            return True
        self._idle.close()
        with self._lock:
            self._closed = True
            executor, self._executor = self._executor, None
        if executor is None:
            return True
        rest: Future[None] | None = None
        with suppress(RuntimeError):
            rest = executor.submit(lambda: None)
        executor.shutdown(wait=False)
        if rest is None:
            _watch().drop(self)
            return True
        rest.add_done_callback(lambda _: _watch().drop(self))
        if self.here:
            return True
        try:
            rest.result(timeout)
        except (TimeoutError, CancelledError):
            return False
        return True

    def _run(self, job: Callable[[], T]) -> T:
        self._thread = threading.get_ident()
        if self._abandon is not None:
            _watch().add(self)
        try:
            return job()
        finally:
            self._thread = None

    def _give_back(self) -> None:
        with self._lock:
            executor = None
            if self._gives_back:
                executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._thread is not None

    def abandon(self) -> None:
        """Make the job under way end soon."""
        if self._abandon is not None and (abandon := self._abandon()) is not None:
            abandon()


class _ExitWatch:
    """Looks now and then, while lanes are busy, whether the interpreter has begun to exit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
        self._armed = False
        self._take_back: Callable[[], None] = lambda: None

    def add(self, lane: Lane) -> None:
        with self._lock:
            self._lanes.add(lane)
            armed, self._armed = self._armed, True
            if not armed:
                self._take_back = alarm_after(_EXIT_LOOK, self._look)

    def drop(self, lane: Lane) -> None:
        """Look no more for a lane at rest, nor at all when it was the last: the alarm's thread can end then."""
        with self._lock:
            self._lanes.discard(lane)
            if not self._armed or self._lanes:
                return
            self._armed = False
            take_back = self._take_back
        take_back()

    def _look(self) -> None:
        with self._lock:
            lanes = list(self._lanes)
        busy = [lane for lane in lanes if lane.busy]
        # Asked once for all of them: the answer costs a thread.
        if busy and interpreter_is_exiting():
            for lane in busy:
                lane.abandon()
        with self._lock:
            self._lanes.difference_update(set(lanes).difference(busy))
            self._armed = bool(self._lanes)
            if self._armed:
                self._take_back = alarm_after(_EXIT_LOOK, self._look)


_watch = PerProcess(_ExitWatch)
