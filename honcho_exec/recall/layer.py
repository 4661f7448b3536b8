"""One kind of recall: its cadence, and the result that it holds for the next turn."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from honcho_exec.errors import Closed, HonchoExecError, Unavailable
from honcho_exec.recall.cadence import Cadence
from honcho_exec.runtime.shared_pool import Strand

__all__ = ["PrefetchSlot"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


class PrefetchSlot(Generic[T]):
    """Fetches in the background, one request at a time, and holds the result with the turn it was fetched after.

    A slot belongs to one segment of a conversation: results that arrive after `close` are dropped.

    Args:
        name: what is fetched, for the log.
        strand: runs the fetching.
        cadence: when to fetch again.
        expensive: whether each request costs money; a failed one is then not repeated in the next turn.
        before: called on the strand before the cadence is consulted.
        after: called on the strand after fetching.
    """

    def __init__(
        self,
        name: str,
        strand: Strand,
        cadence: Cadence,
        *,
        expensive: bool = False,
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self.cadence = cadence
        self._name = name
        self._strand = strand
        self._expensive = expensive
        self._before = before
        self._after = after
        self._lock = threading.Lock()
        self._held: tuple[int, T] | None = None
        self._future: Future[T | None] | None = None
        self._closed = False

    def fetch(self, turn: int, request: Callable[[], T | None], *, again: bool = False) -> Future[T | None]:
        """Fetch after this turn if that is due; return the Future of the result, or of a fetch in progress.

        Args:
            turn: the number of the turn.
            request: returns the result; None if it holds nothing.
            again: fetch even if a fetch is in progress.
        """
        with self._lock:
            if self._future is None or self._future.done() or again:
                try:
                    self._future = self._strand.submit(lambda: self._fetch(turn, request))
                except Closed:
                    self._future = Future()
                    self._future.set_result(None)
                else:
                    self._future.add_done_callback(_log_failure)
            return self._future

    def peek(self, turn: int) -> T | None:
        """Return the held result, unless it is too old for this turn."""
        with self._lock:
            return self._fresh(turn)

    def pop(self, turn: int) -> T | None:
        """Return the result as `peek` does, and drop it."""
        with self._lock:
            value, self._held = self._fresh(turn), None
            return value

    def close(self) -> None:
        """Fetch nothing more, and drop a result that is still to come."""
        self._closed = True

    def _fresh(self, turn: int) -> T | None:
        if self._held is None:
            return None
        fetched, value = self._held
        return None if self.cadence.is_stale(fetched, turn) else value

    def _fetch(self, turn: int, request: Callable[[], T | None]) -> T | None:
        if self._closed:
            return None
        self._before()
        if not self.cadence.is_due(turn):
            return None
        value = None
        try:
            value = request()
        except (HonchoExecError, TimeoutError) as error:
            _log.info("no %s for the next turn: %s", self._name, error)
            cost_nothing = isinstance(error, Unavailable | Closed)
            if self._expensive and not cost_nothing and not self._closed:
                self.cadence.note_nothing(turn)
        else:
            with self._lock:
                if value is None:
                    self.cadence.note_nothing(turn)
                else:
                    self.cadence.note_answer(turn)
                    self._held = (turn, value)
        self._after()
        return value


def _log_failure(future: Future[T]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.error("recall failed", exc_info=error)
