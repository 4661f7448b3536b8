"""Forks: none during a call of SQLite, and a child that uses no object of its parent."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Generic, TypeVar

__all__ = ["ADVICE", "PerProcess", "before_fork", "block_forks", "fork_count", "on_fork_in_child"]

T = TypeVar("T")

ADVICE = "created before fork(); create a new HonchoProvider"
"""The error text of the parent's objects in a forked child."""

# How long a fork waits for threads that are inside SQLite.
_FORK_WAIT_SECONDS = 1.0

_before: list[Callable[[], None]] = []
_in_child: list[Callable[[], None]] = []
_count = 0


def before_fork(action: Callable[[], None]) -> Callable[[], None]:
    """Call `action` in the parent before each fork, while no other thread is inside `block_forks`."""
    _before.append(action)
    return action


def on_fork_in_child(action: Callable[[], None]) -> Callable[[], None]:
    """Call `action` in each forked child, before anything else runs there; actions run in the order given.

    The child has one thread. Locks of the parent may be held for ever in it: replace them, do not acquire them.
    """
    _in_child.append(action)
    return action


def fork_count() -> int:
    """Count the forks between the first process of this program and this one.

    An object that remembers another number was created by a parent of this process.
    """
    return _count


class PerProcess(Generic[T]):
    """One object for each process, made when it is first used.

    A forked child shares no lock with its parent in this way, and a program that calls gevent or eventlet to replace
    `threading` after it has imported this package gets locks of the new kind.

    Args:
        make: makes the object; a second one, made by another thread at the same moment, is thrown away.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def __call__(self) -> T:
        """Return the object of this process."""
        made = self._made.get(_count)
        return self._made.setdefault(_count, self._make()) if made is None else made


class _Forks:
    """The threads that are inside `block_forks`, and the one that forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}
        self._forking: int | None = None

    @contextmanager
    def block_forks(self) -> Iterator[None]:
        """See `block_forks`."""
        me = threading.get_ident()
        with self._changed:
            if me not in self._inside:
                # The thread that forks may get here too, by garbage collection.
                self._changed.wait_for(lambda: self._forking in (None, me))
            self._inside[me] = self._inside.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                    if self._forking is not None:
                        self._changed.notify_all()

    def before(self) -> None:
        """Wait until no other thread is inside, at most a second, and let none in."""
        me = threading.get_ident()
        with self._changed:
            self._forking = me
            self._changed.wait_for(lambda: self._inside.keys() <= {me}, timeout=_FORK_WAIT_SECONDS)

    def after_in_parent(self) -> None:
        """Let threads in again."""
        with self._changed:
            self._forking = None
            self._changed.notify_all()


_forks = PerProcess(_Forks)


def block_forks() -> AbstractContextManager[None]:
    """Let no fork happen inside the context, which uses SQLite; a fork waits at most a second.

    A child whose parent had a thread inside SQLite would wait for SQLite's own locks forever.
    """
    return _forks().block_forks()


def _run_before() -> None:
    _forks().before()
    for action in _before:
        action()


def _run_after_in_parent() -> None:
    _forks().after_in_parent()


def _run_in_child() -> None:
    global _count  # noqa: PLW0603 - read by `fork_count` and `PerProcess` alone
    _count += 1
    for action in _in_child:
        action()


os.register_at_fork(before=_run_before, after_in_parent=_run_after_in_parent, after_in_child=_run_in_child)
