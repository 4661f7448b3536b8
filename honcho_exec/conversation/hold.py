"""Turns that are stored at once and sent later, as `writeFrequency` wants."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from honcho_exec.delivery.futures import TurnFuture
from honcho_exec.delivery.pump import Delivery
from honcho_exec.model import SessionRef, Write
from honcho_exec.outbox.lease import Holder
from honcho_exec.outbox.outbox import HELD

__all__ = ["Hold"]


class Hold:
    """Holds turns back until enough are gathered or somebody lets them go.

    They are a holder's of their own, whose rows nobody sends while it is alive: when the process dies, whoever finds
    it dead sends them. Usable from any thread.

    Args:
        folder: where holders leave their marks.
        enough: how many turns are gathered at most; None gathers until `release`.
    """

    def __init__(self, delivery: Delivery, folder: Path, *, enough: int | None) -> None:
        self._delivery = delivery
        self._enough = enough
        self._holder = Holder(folder, mark=HELD)
        self._lock = threading.Lock()
        self._gathered: list[TurnFuture] = []

    def __bool__(self) -> bool:
        """Whether anything is held back."""
        return bool(self._gathered)

    def turn(self, ref: SessionRef, writes: Sequence[Write]) -> TurnFuture:
        """Store a turn durably; see `Delivery.admit`."""
        future = self._delivery.admit(ref, writes, hold=self._holder)
        with self._lock:
            self._gathered.append(future)
        return future

    @property
    def complete(self) -> bool:
        """Whether enough turns are gathered."""
        return self._enough is not None and len(self._gathered) >= self._enough

    def release(self) -> TurnFuture | None:
        """Let everything be sent; returns the Future of the last turn, None when none is on its way by this."""
        with self._lock:
            gathered, self._gathered = self._gathered, []
        if not gathered:
            return None
        self._delivery.release(self._holder)
        return gathered[-1]

    def close(self) -> None:
        """Leave what is still held back to whoever looks next."""
        self._holder.close()
