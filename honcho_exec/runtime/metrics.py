"""Count and time what one provider does, and give frozen snapshots."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

__all__ = ["Latency", "Meter", "Stats"]

# The number of latest operations of each kind that percentiles are computed from.
_KEPT_TIMES = 1024


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the latest 1,024 operations of a kind took, in seconds; all 0.0 if there were none.

    Attributes:
        count: operations since the provider began.
        total: their seconds in total.
    """

    count: int
    total: float
    p50: float
    p95: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class Stats:
    """What a provider has done since it began, as counters and latencies.

    Attributes:
        admitted: writes (messages, conclusions, cards, deletions) that were stored durably.
        delivered: writes that are in Honcho.
        reconciled: delivered writes whose answer was lost and that were found in Honcho instead of sent again.
        retried: requests repeated by the retry layer.
        parked: writes that cannot be delivered, kept with a reason.
        overloaded: turns that were refused because the outbox was full.
        join_timeouts: waits for the pending sync that timed out.
        breaker_opened: times that the circuit breaker opened.
        sync: from storing a turn to its delivery.
        request: requests to Honcho, including failed ones.
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
        """Return plain values, for JSON."""
        return asdict(self)


_COUNTERS = tuple(field.name for field in fields(Stats) if field.name not in {"sync", "request"})


class _Times:
    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.latest: deque[float] = deque(maxlen=_KEPT_TIMES)

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
    """Counters and timings. Usable from any thread."""

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
        """Record the delivery of a turn."""
        with self._lock:
            self._syncs.add(seconds)

    def request_took(self, seconds: float) -> None:
        """Record the end of a request, successful or not."""
        with self._lock:
            self._requests.add(seconds)

    def snapshot(self) -> Stats:
        """Return a snapshot."""
        with self._lock:
            return Stats(**self._counts, sync=self._syncs.latency(), request=self._requests.latency())


def _at(ordered: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed (nearest rank)."""
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]
