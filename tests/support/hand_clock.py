from __future__ import annotations

import itertools

NOON = 1_750_000_000.0


class HandClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = NOON
        self._ids = itertools.count(1)

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def new_id(self) -> str:
        return f"id-{next(self._ids):06}"
