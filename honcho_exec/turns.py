"""The Futures of what this process gave to the outbox."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from honcho_exec.clock import Clock
from honcho_exec.errors import Closed, HonchoExecError, LaneError, Rejected, RequestError
from honcho_exec.futures import failed
from honcho_exec.lane import Lane
from honcho_exec.model import Receipt
from honcho_exec.stats import Meter

__all__ = ["Turns", "closed_first", "is_stored"]


def is_stored(future: Future[Receipt]) -> bool:
    """Whether what was just given is durable: its Future has not failed, or only a request of its delivery has."""
    return not future.done() or isinstance(future.exception(), RequestError | None)


def closed_first() -> Closed:
    """What the Future of a turn fails with that is stored and not delivered when the provider closes."""
    return Closed("the provider was closed first; the turn is in the outbox and will be delivered later")


class _TurnFuture(Future[Receipt]):
    """Refuses to be waited for by the job that has to settle it, as a callback of another Future may try."""

    def __init__(self, lane: Lane) -> None:
        super().__init__()
        self._lane = lane

    def result(self, timeout: float | None = None) -> Receipt:
        """See `concurrent.futures.Future.result`; raises `LaneError` on the lane while it is not done."""
        self._refuse_on_lane()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `concurrent.futures.Future.exception`; raises `LaneError` on the lane while it is not done."""
        self._refuse_on_lane()
        return super().exception(timeout)

    def _refuse_on_lane(self) -> None:
        if self._lane.here and not self.done():
            raise LaneError("this runs on the lane, which delivers what it would wait for: use a callback instead")


@dataclass(slots=True)
class _Turn:
    future: Future[Receipt]
    remaining: int
    since: float
    written: int = 0
    already: int = 0
    stored: bool = False

    @property
    def held(self) -> bool:
        return self.since == math.inf


class Turns:
    """Keeps one Future a turn, from before its rows are stored until the last of them is settled.

    Usable from any thread. No Future is settled while a lock is held, so that its callbacks may call back.
    """

    def __init__(self, clock: Clock, meter: Meter, lane: Lane) -> None:
        self._clock = clock
        self._lane = lane
        self._meter = meter
        self._lock = threading.Lock()
        self._turns: dict[str, _Turn] = {}

    def add(self, name: str, rows: int, *, held: bool = False) -> Future[Receipt]:
        """The Future of a turn of `rows` rows that is about to be stored; one that is held is not on its way yet."""
        turn = _Turn(_TurnFuture(self._lane), rows, math.inf if held else self._clock.monotonic())
        # Nobody can take a turn back that is on its way, so that settling it never fails.
        turn.future.set_running_or_notify_cancel()
        with self._lock:
            self._turns[name] = turn
        return turn.future

    def stored(self, name: str) -> None:
        """Say that the rows of a turn are in the outbox."""
        with self._lock:
            if (turn := self._turns.get(name)) is not None:
                turn.stored = True

    def release(self) -> None:
        """Say that the turns that were held are on their way now."""
        now = self._clock.monotonic()
        with self._lock:
            for turn in self._turns.values():
                if turn.held:
                    turn.since = now

    def follow(self, name: str, carrier: str) -> Future[Receipt]:
        """Wait for `carrier` instead of `name`: it was waiting already, perhaps elsewhere, and writes the same."""
        with self._lock:
            turn = self._turns.pop(name, None)
            if turn is None:
                # Closing was faster: there is nobody left to wait for.
                return failed(closed_first())
            turn.stored = True
            return self._turns.setdefault(carrier, turn).future

    def open(self) -> list[str]:
        """The turns that are stored and not settled."""
        with self._lock:
            return [name for name, turn in self._turns.items() if turn.stored]

    def close(self, name: str, *, delivered: bool) -> None:
        """Settle a turn that has no row left: delivered elsewhere, or dropped by a person."""
        with self._lock:
            turn = self._turns.pop(name, None)
        if turn is not None and delivered:
            turn.future.set_result(Receipt(turn.written, turn.already + turn.remaining))
        elif turn is not None:
            turn.future.set_exception(
                Rejected("the turn was taken out of the outbox before it was delivered", cause="dropped")
            )

    def settle(self, names: Iterable[str], *, new: bool) -> None:
        """Count one row of each named turn as written now (`new`) or there before; settles what is complete."""
        done: list[_Turn] = []
        with self._lock:
            for name in names:
                if (turn := self._turns.get(name)) is None:
                    continue
                turn.written += new
                turn.already += not new
                turn.remaining -= 1
                if turn.remaining <= 0:
                    done.append(self._turns.pop(name))
        now = self._clock.monotonic()
        for turn in done:
            self._meter.sync_took(now - turn.since)
            turn.future.set_result(Receipt(turn.written, turn.already))

    def fail(self, names: Iterable[str], error: HonchoExecError) -> None:
        """Fail the named turns."""
        with self._lock:
            turns = [self._turns.pop(name) for name in dict.fromkeys(names) if name in self._turns]
        for turn in turns:
            turn.future.set_exception(error)

    def fail_all(self) -> None:
        """Fail every turn that is stored: the provider closes, and somebody else delivers it."""
        self.fail(self.open(), closed_first())

    def oldest(self) -> str | None:
        """The turn that has been going longest; None when none is on its way."""
        with self._lock:
            going = [name for name, turn in self._turns.items() if not turn.held]
            return min(going, key=lambda name: self._turns[name].since, default=None)

    def age(self) -> float | None:
        """Seconds for which the oldest turn has been going; None when none is on its way."""
        with self._lock:
            since = min((turn.since for turn in self._turns.values() if not turn.held), default=None)
        return None if since is None else self._clock.monotonic() - since
