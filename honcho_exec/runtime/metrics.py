"""Counters and latencies of one provider, and a frozen snapshot of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

__all__ = ["Latency", "Meter", "Stats"]

# The latest of each kind are kept for the percentiles.
_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the latest 1,024 of something took, in seconds; all 0.0 when there were none.

    Attributes:
        count: how many there were since the provider began.
        total: the seconds they took together.
    """

    count: int
    total: float
    p50: float
    p95: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class Stats:
    """What a provider has done since it began.

    Attributes:
        admitted: writes (messages, conclusions, cards, deletions) that were stored durably.
        delivered: writes that Honcho has now.
        reconciled: those of them whose answer was lost and that were found there instead of being sent again.
        retried: requests that were made again by the retry layer.
        parked: writes that were set aside with a reason.
        overloaded: turns that were refused because the outbox was full.
        join_timeouts: waits for the pending sync that ran out.
        breaker_opened: how often the circuit breaker opened.
        sync: from giving a turn to its being in Honcho.
        request: one request to Honcho, failed ones included.
    """

    admitted: int
    delivered: int
    reconciled: int
    retried: int
    parked: int
    overloaded: int
    join_timeouts: int
    breaker_opened: int
    sync: Latency
    request: Latency

    def to_dict(self) -> dict[str, object]:
        """The same as plain values, for JSON."""
        return asdict(self)


_COUNTERS = tuple(field.name for field in fields(Stats) if field.name not in {"sync", "request"})


class _Times:
    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.latest: deque[float] = deque(maxlen=_KEPT)

    def add(self, seconds: float) -> None:
        self.count += 1
        self.total += seconds
        self.latest.append(seconds)

    def latency(self) -> Latency:
        ordered = sorted(self.latest)
        if not ordered:
            return Latency(0, 0.0, 0.0, 0.0, 0.0, 0.0)
        return Latency(
            self.count, self.total, _at(ordered, 0.50), _at(ordered, 0.95), _at(ordered, 0.99), longest=ordered[-1]
        )


class Meter:
    """Counts; usable from any thread, and cheap enough for every call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._syncs = _Times()
        self._requests = _Times()

    def count(self, counter: str, by: int = 1) -> None:
        """Add to one of the counters of `Stats`."""
        with self._lock:
            self._counts[counter] += by

    def sync_took(self, seconds: float) -> None:
        """A turn is in Honcho."""
        with self._lock:
            self._syncs.add(seconds)

    def request_took(self, seconds: float) -> None:
        """A request has ended, well or not."""
        with self._lock:
            self._requests.add(seconds)

    def snapshot(self) -> Stats:
        """Everything as it is now."""
        with self._lock:
            return Stats(**self._counts, sync=self._syncs.latency(), request=self._requests.latency())


def _at(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed (nearest rank)."""
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]
