"""The Future of a turn, which an interrupted caller cannot leave locked."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, cast

from honcho_exec.errors import Closed, HonchoExecError, RequestError
from honcho_exec.forks import ADVICE, fork_count
from honcho_exec.model import Receipt
from honcho_exec.runtime.log import call_guarded

__all__ = ["TurnFuture", "closed_first", "done", "failed", "is_stored"]

_log = logging.getLogger(__name__)

# Callers hold the base class's lock for microseconds; one that is held for longer was left by an interrupted caller.
_LEAKED_SECONDS = 1.0


def is_stored(future: Future[Receipt]) -> bool:
    """Return whether a turn just admitted is durable: its Future has not failed, or only a delivery request has."""
    return not future.done() or isinstance(future.exception(), RequestError | None)


def done(receipt: Receipt) -> Future[Receipt]:
    """Return a Future that holds `receipt`."""
    future: Future[Receipt] = Future()
    future.set_result(receipt)
    return future


def failed(error: HonchoExecError) -> Future[Receipt]:
    """Return a Future that has failed with `error`."""
    future: Future[Receipt] = Future()
    future.set_exception(error)
    return future


def closed_first() -> Closed:
    """Return the error of a turn that is stored and not delivered when the provider closes."""
    return Closed("the provider was closed first; the turn is in the outbox and will be delivered later")


class TurnFuture(Future[Receipt]):
    """The Future of a turn; completing it waits for no lock that a caller can hold.

    The base class's condition is taken by a caller who waits with `concurrent.futures.wait`, and stays locked if that
    caller is interrupted. The outcome is therefore kept apart from it, and each caller of `result` waits on a lock of
    its own. Callbacks run on a thread of their own. What only a waiting caller needs is made when one comes:
    a backlog has many Futures, and each object in it is one more for the garbage collection to look at. For the same
    reason `__dict__` is used only then: without it a Future is one object.

    Attributes:
        durable: whether the turn is stored; False only while another process locks the outbox.
        since: when it was admitted, on the monotonic clock; infinite while held back. Set by `Turns`, as the rest.
        remaining: how many rows are not delivered.
        written: how many were written.
        duplicates: how many Honcho had before.
    """

    durable = False
    since = math.inf
    remaining = 0
    written = 0
    duplicates = 0
    _state = "RUNNING"
    _result: Receipt | None = None
    _exception: BaseException | None = None
    _outcome: tuple[Receipt | None, BaseException | None] | None = None
    # Set once, by the first caller that needs them.
    _base: threading.Condition | None = None
    _woken: deque[threading.Lock] | None = None
    _callbacks: deque[Callable[[], object]] | None = None

    def __init__(self, run: Callable[[Callable[[], None]], object]) -> None:
        # The base class is not called: `__getattr__` makes its attributes for callers that wait through it.
        self._run = run
        self._forks = fork_count()

    def __getattr__(self, name: str) -> Any:
        if name == "_condition":
            condition = self.__dict__.setdefault("_base", threading.Condition())
            # Either this sees the outcome, or the thread that completes it sees the condition.
            if self._outcome is not None:
                self._end()
            return condition
        if name == "_waiters":
            return self.__dict__.setdefault(name, [])
        raise AttributeError(name)

    def __repr__(self) -> str:
        if self._outcome is None:
            return f"<TurnFuture {'pending' if self.durable else 'pending, not durable yet'}>"
        receipt, error = self._outcome
        return f"<TurnFuture {receipt if error is None else f'failed: {error}'}>"

    def done(self) -> bool:
        """See `concurrent.futures.Future.done`."""
        return self._outcome is not None

    def running(self) -> bool:
        """See `concurrent.futures.Future.running`."""
        return self._outcome is None

    def cancel(self) -> bool:
        """Return False: a turn cannot be cancelled."""
        return False

    def cancelled(self) -> bool:
        """Return False."""
        return False

    def result(self, timeout: float | None = None) -> Receipt:
        """See `concurrent.futures.Future.result`."""
        receipt, error = self._wait(timeout)
        if error is None:
            return cast("Receipt", receipt)
        try:
            raise error
        finally:
            # The traceback refers to this frame.
            del error, self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `concurrent.futures.Future.exception`."""
        return self._wait(timeout)[1]

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds; return whether it is done."""
        with suppress(TimeoutError):
            self._wait(timeout)
        return self.done()

    def add_done_callback(self, fn: Callable[[Future[Receipt]], object]) -> None:
        """See `concurrent.futures.Future.add_done_callback`; called on a thread of its own."""
        callback = partial(fn, self)
        callbacks: deque[Callable[[], object]] = self.__dict__.setdefault("_callbacks", deque())
        callbacks.append(callback)
        if self._outcome is not None:
            # The thread that removes it from the queue calls it.
            with suppress(ValueError):
                callbacks.remove(callback)
                call_guarded(_log, "a callback of a Future", callback, None)

    def set_result(self, result: Receipt) -> None:
        """Complete it."""
        self._complete(result, None)

    def set_exception(self, exception: BaseException | None) -> None:
        """Complete it with a failure."""
        self._complete(None, exception)

    def _wait(self, timeout: float | None) -> tuple[Receipt | None, BaseException | None]:
        if self._outcome is None:
            if self._forks != fork_count():
                # The parent completes it, for itself.
                raise Closed(ADVICE)
            woken = threading.Lock()
            woken.acquire()
            waiting: deque[threading.Lock] = self.__dict__.setdefault("_woken", deque())
            waiting.append(woken)
            if self._outcome is None:
                woken.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX))
            if self._outcome is None:
                with suppress(ValueError):
                    waiting.remove(woken)
                raise TimeoutError
        return self._outcome

    def _complete(self, result: Receipt | None, error: BaseException | None) -> None:
        self._outcome = (result, error) if error is not None or result is None else _outcome_of(result)
        woken = self._woken
        while woken:
            with suppress(IndexError):
                woken.popleft().release()
        # The thread that delivers neither waits for the base class's lock nor runs callbacks of callers.
        if self._base is None:
            self._end()
            if self._callbacks:
                self._run(self._notify)
        elif self._base.acquire(blocking=False):
            waiters = self._end()
            self._base.release()
            self._run(partial(self._notify, waiters))
        else:
            self._run(self._end_later)

    def _end_later(self) -> None:
        held = self._condition.acquire(timeout=_LEAKED_SECONDS)
        waiters = self._end()
        if held:
            self._condition.release()
        self._notify(waiters)

    def _end(self) -> list[Any]:
        """Complete the base class; return the waiters that were installed before."""
        self._result, self._exception = self._wait(0.0)
        self._state = "FINISHED"
        return list(self._waiters) if self._base is not None else []

    def _notify(self, waiters: Sequence[Any] = ()) -> None:
        while self._callbacks:
            with suppress(IndexError):
                call_guarded(_log, "a callback of a Future", self._callbacks.popleft(), None)
        # A waiter of an interrupted caller may stay locked for ever, which holds up this thread alone.
        for waiter in waiters:
            if self._exception is None:
                waiter.add_result(self)
            else:
                waiter.add_exception(self)


@lru_cache(maxsize=1000)
def _outcome_of(receipt: Receipt) -> tuple[Receipt, None]:
    return receipt, None
