"""Turns that are stored at once and sent later, as `writeFrequency` says."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from honcho_exec.delivery.futures import TurnFuture
from honcho_exec.delivery.turns import Turns
from honcho_exec.model import SessionRef, Write
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.outbox import HELD

__all__ = ["WriteBuffer"]


class WriteBuffer:
    """Holds turns back until the buffer is full or released. Usable from any thread.

    Its rows have a lease holder of their own, so they are not sent while this process lives. When it dies, the process
    that finds it dead sends them.

    Args:
        folder: the folder of the lease holders' files.
        most_turns: how many turns fill the buffer; None holds them until `release`.
    """

    def __init__(self, turns: Turns, folder: Path, *, most_turns: int | None) -> None:
        self._turns = turns
        self._most_turns = most_turns
        self._holder = LeaseHolder(folder, mark=HELD)
        self._lock = threading.Lock()
        self._futures: list[TurnFuture] = []

    def __bool__(self) -> bool:
        """Whether turns are held back."""
        return bool(self._futures)

    @property
    def is_full(self) -> bool:
        """Whether no further turn is to be held back."""
        return self._most_turns is not None and len(self._futures) >= self._most_turns

    def add(self, ref: SessionRef, writes: Sequence[Write]) -> TurnFuture:
        """Store a turn durably; see `Turns.admit`."""
        future = self._turns.admit(ref, writes, hold=self._holder)
        with self._lock:
            self._futures.append(future)
        return future

    def release(self) -> TurnFuture | None:
        """Have all turns sent; return the Future of the last one, or None if there was none."""
        with self._lock:
            futures, self._futures = self._futures, []
        if not futures:
            return None
        self._turns.release(self._holder)
        return futures[-1]

    def close(self) -> None:
        """Leave turns that are still held back to the next process."""
        self._holder.close()
