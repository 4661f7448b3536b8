"""Keeps forks out of what a child could not get out of."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

__all__ = ["kept_off"]

# A fork waits at most so long for threads to come out (seconds).
_FORK_WAITS = 1.0


class _Forks:
    """Threads that are inside, and whoever forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}
        self._forking: int | None = None

    @contextmanager
    def kept_off(self) -> Iterator[None]:
        """See `kept_off`."""
        me = threading.get_ident()
        with self._changed:
            if me not in self._inside:
                # Whoever forks may come here by way of the garbage collection.
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
        """Wait until nobody else is inside, at most a second, and let nobody in."""
        me = threading.get_ident()
        with self._changed:
            self._forking = me
            self._changed.wait_for(lambda: self._inside.keys() <= {me}, timeout=_FORK_WAITS)

    def after_in_parent(self) -> None:
        """Let everybody in again."""
        with self._changed:
            self._forking = None
            self._changed.notify_all()


_forks = _Forks()


def kept_off() -> AbstractContextManager[None]:
    """Around what uses SQLite; a fork waits for its end, at most a second, and it for a fork's.

    A child in whose parent a thread was inside SQLite would wait for SQLite's own locks for ever.
    """
    return _forks.kept_off()


def _before() -> None:
    _forks.before()


def _after_in_parent() -> None:
    _forks.after_in_parent()


def _after_in_child() -> None:
    global _forks  # noqa: PLW0603 - a thread of the parent may be inside, or hold its lock
    _forks = _Forks()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
