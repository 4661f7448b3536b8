"""One kind of recall: its thread, its cadence, and what it holds for the next turn."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from honcho_exec.errors import Closed, HonchoExecError, Unavailable
from honcho_exec.recall.cadence import Cadence
from honcho_exec.runtime.shared_pool import Strand

__all__ = ["Layer"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Held(Generic[T]):
    asked: int
    value: T


class Layer(Generic[T]):
    """Asks on a thread at most once at a time, and keeps what came of it with the turn after which it was asked.

    A layer belongs to one stretch of a conversation: what comes after `end` is dropped.

    Args:
        name: what is asked for, in the log.
        strand: runs the asking.
        cadence: when to ask again.
        dear: each asking costs money, so what fails is not asked again at once.
        around: called on the thread before the cadence is looked at, and after the asking.
    """

    def __init__(
        self,
        name: str,
        strand: Strand,
        cadence: Cadence,
        *,
        dear: bool = False,
        around: tuple[Callable[[], None], Callable[[], None]] = (lambda: None, lambda: None),
    ) -> None:
        self.cadence = cadence
        self._name = name
        self._strand = strand
        self._dear = dear
        self._before, self._after = around
        self._lock = threading.Lock()
        self._held: _Held[T] | None = None
        self._asking: Future[T | None] | None = None
        self._ended = False

    def ask(self, turn: int, fetch: Callable[[], T | None], *, anew: bool = False) -> Future[T | None]:
        """Ask after this turn, if that is due; returns the Future of what comes, or of what is asked already.

        Args:
            turn: after which turn it is asked.
            fetch: asks; what it returns is kept, None is an answer that holds nothing.
            anew: ask also while something is asked for already.
        """
        with self._lock:
            if self._asking is None or self._asking.done() or anew:
                try:
                    self._asking = self._strand.submit(lambda: self._ask(turn, fetch))
                except Closed:
                    self._asking = Future()
                    self._asking.set_result(None)
                else:
                    self._asking.add_done_callback(_record)
            return self._asking

    def look(self, turn: int) -> T | None:
        """What is held, unless it is too old for this turn."""
        with self._lock:
            return self._fresh(turn)

    def take(self, turn: int) -> T | None:
        """The same, and hold it no longer."""
        with self._lock:
            value, self._held = self._fresh(turn), None
            return value

    def end(self) -> None:
        """Ask no more, and drop what is still to come."""
        self._ended = True

    def _fresh(self, turn: int) -> T | None:
        held = self._held
        return None if held is None or self.cadence.stale(held.asked, turn) else held.value

    def _ask(self, turn: int, fetch: Callable[[], T | None]) -> T | None:
        if self._ended:
            return None
        self._before()
        if not self.cadence.due(turn):
            return None
        value = None
        try:
            value = fetch()
        except (HonchoExecError, TimeoutError) as error:
            _log.info("no %s for the next turn: %s", self._name, error)
            surely_not_asked = isinstance(error, Unavailable | Closed)
            if self._dear and not surely_not_asked and not self._ended:
                self.cadence.note_nothing(turn)
        else:
            self._keep(turn, value)
        self._after()
        return value

    def _keep(self, turn: int, value: T | None) -> None:
        with self._lock:
            if value is None:
                self.cadence.note_nothing(turn)
            else:
                self.cadence.note_answer(turn)
                self._held = _Held(turn, value)


def _record(asking: Future[T]) -> None:
    if not asking.cancelled() and (error := asking.exception()) is not None:
        _log.error("recall failed", exc_info=error)
