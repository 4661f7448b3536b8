"""Run calls on other threads, so that an interrupted caller leaves no lock behind.

A signal handler, or `PyThreadState_SetAsyncExc`, may raise at any bytecode of a caller's thread, also between taking a
lock and the `with` block that releases it. A caller's thread therefore takes no lock that other threads wait for: it
queues the call with one atomic operation, and waits on a lock that no other thread waits for.
"""

from __future__ import annotations

import _thread
import atexit
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from queue import Empty
from typing import Any, Generic, ParamSpec, TypeVar

from honcho_exec.forks import PerProcess
from honcho_exec.runtime.log import call_guarded
from honcho_exec.threads import Queue

__all__ = ["Serial", "begin_use", "end_use", "offload", "offloaded", "post", "post_in_order", "start_daemon"]

P = ParamSpec("P")
T = TypeVar("T")
Job = Callable[[], None]

_log = logging.getLogger(__name__)

# A thread without a call for this long ends.
_IDLE_SECONDS = 1.0
# How often a caller checks that a thread has taken its call.
_CHECK_SECONDS = 0.5
# How long the interpreter's exit waits for calls whose callers were interrupted.
_EXIT_SECONDS = 2.0
_TICK_SECONDS = 0.01


def start_daemon(run: Job, name: str) -> bool:
    """Start a daemon thread; return False if the interpreter starts none any more.

    Safe on a caller's thread: `Thread.start` is Python code that takes locks of `threading`, so it is called on a bare
    thread, which no signal handler interrupts.
    """

    def start() -> None:
        try:
            threading.Thread(target=run, name=name, daemon=True).start()
        except RuntimeError:
            # The system gives no further thread; this one is there already.
            run()

    try:
        _thread.start_new_thread(start, ())
    except RuntimeError:
        return False
    return True


class _Call(Generic[T]):
    """One call and its result or error."""

    def __init__(self, job: Callable[[], T]) -> None:
        self._job = job
        self._begun = threading.Lock()
        self._ended = threading.Lock()
        self._ended.acquire()
        self._results: list[T] = []
        self._error: BaseException | None = None

    @property
    def begun(self) -> bool:
        return self._begun.locked()

    def run(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._results.append(self._job())
        except BaseException as error:  # noqa: BLE001 - raised to the caller
            self._error = error
        self._ended.release()

    def wait(self, seconds: float) -> bool:
        return self._ended.acquire(timeout=seconds)

    def outcome(self) -> T:
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                # The traceback refers to this frame.
                del error
        return self._results.pop()


class _Worker:
    """A thread that waits for its next call."""

    def __init__(self) -> None:
        self.calls: Queue[_Call[Any] | None] = Queue()
        self.ended = False


class _Pool:
    """One daemon thread for each call under way; idle threads end after a second."""

    def __init__(self) -> None:
        self._idle: deque[_Worker] = deque()
        self._users: dict[int, Job] = {}
        self._busy: set[_Worker] = set()
        self._mine = threading.local()

    @property
    def here(self) -> bool:
        """Whether the caller's thread is one of these."""
        return getattr(self._mine, "here", False)

    def post(self, call: _Call[Any]) -> bool:
        """Run `call` on a thread; return False if there is none and the interpreter starts none any more."""
        try:
            worker = self._idle.pop()
        except IndexError:
            return self.start(call)
        worker.calls.put(call)
        # It may have given up waiting just before.
        return not worker.ended or self.start(call)

    def start(self, call: _Call[Any]) -> bool:
        """Run `call` on a new thread."""
        return start_daemon(functools.partial(self._work, call), "honcho-call")

    def enter(self, user: int, abandon: Job) -> None:
        """Keep idle threads for a while, from now on."""
        self._users[user] = abandon

    def leave(self, user: int) -> None:
        """End idle threads at once if there is no other user."""
        self._users.pop(user, None)
        if not self._users:
            with suppress(IndexError):
                while True:
                    self._idle.pop().calls.put(None)

    def finish(self, seconds: float) -> None:
        """Make calls that are under way end soon, and wait for them."""
        for abandon in list(self._users.values()):
            abandon()
        ends = time.monotonic() + seconds
        pause = threading.Lock()
        pause.acquire()
        while self._busy and time.monotonic() < ends:
            pause.acquire(timeout=_TICK_SECONDS)

    def _work(self, first: _Call[Any]) -> None:
        self._mine.here = True
        worker, call = _Worker(), first
        while True:
            self._busy.add(worker)
            call.run()
            del call
            self._idle.append(worker)
            self._busy.discard(worker)
            if not self._users:
                worker.calls.put(None)
            try:
                following = worker.calls.get(timeout=_IDLE_SECONDS)
            except Empty:
                following = None
            if following is None:
                with suppress(ValueError):
                    self._idle.remove(worker)
                worker.ended = True
                try:
                    following = worker.calls.get_nowait()
                except Empty:
                    return
                if following is None:
                    return
                worker = _Worker()
            call = following


_pool = PerProcess(_Pool)


@atexit.register
def _at_exit() -> None:
    # A daemon thread that is inside an extension module when the interpreter ends may abort the process.
    _pool().finish(_EXIT_SECONDS)


def offload(job: Callable[[], T]) -> T:
    """Run `job` on another thread in the caller's context; return its result or raise its exception.

    An interrupted caller leaves at once, and the job goes on. At the end of the interpreter, when no thread can be
    started, the job runs on the caller's thread.
    """
    if _pool().here:
        return job()
    call = _Call(functools.partial(copy_context().run, job))
    if not _pool().post(call):
        call.run()
    while not call.wait(_CHECK_SECONDS):
        if not call.begun and not _pool().start(call):
            call.run()
    return call.outcome()


def offloaded(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function, or a method, to run in `offload`."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return offload(functools.partial(function, *args, **kwargs))

    return run


def post(job: Job) -> None:
    """Run `job` on another thread; on this one if the interpreter exits and starts no other."""
    call = _Call(functools.partial(call_guarded, _log, "a job", job, None))
    if not _pool().post(call):
        call.run()


def begin_use(user: object, abandon: Job) -> None:
    """Record that an object offloads calls from now on; `end_use` follows.

    Args:
        user: the object; not kept alive.
        abandon: makes its calls end soon; called when the interpreter exits.
    """
    _pool().enter(id(user), abandon)


def end_use(user: object) -> None:
    """Record that an object offloads no more calls; after the last one, idle threads end at once."""
    _pool().leave(id(user))


class Serial:
    """Runs jobs one at a time, in order. Not for callers' threads.

    Args:
        run: runs a job on some thread.
    """

    def __init__(self, run: Callable[[Job], object] = post) -> None:
        self._run = run
        self._jobs: deque[Job] = deque()
        self._running = threading.Lock()

    def post(self, job: Job) -> None:
        """Run `job` after those that were posted before it."""
        self._jobs.append(job)
        if self._running.acquire(blocking=False):
            self._run(self._run_all)

    def _run_all(self) -> None:
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                self._running.release()
                if not self._jobs or not self._running.acquire(blocking=False):
                    return
            else:
                call_guarded(_log, "a job", job, None)


_background = PerProcess(Serial)


def post_in_order(job: Job) -> None:
    """Run `job` on another thread, after all jobs that this process posted here before."""
    _background().post(job)
