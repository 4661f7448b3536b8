"""The API of an open backend, as another client than the provider uses it."""

from __future__ import annotations

from honcho_exec.client.api import HonchoApi
from honcho_exec.client.backend import Backend
from honcho_exec.clock import Clock, SystemClock
from honcho_exec.net.breaker import Breaker
from honcho_exec.runtime.metrics import Meter

__all__ = ["api_of"]


def api_of(
    backend: Backend,
    workspace: str = "w",
    *,
    timeout: float = 5.0,
    clock: Clock | None = None,
    breaker: Breaker | None = None,
    meter: Meter | None = None,
) -> HonchoApi:
    """Without a breaker of the test's own, none opens."""
    clock = clock or SystemClock()
    return HonchoApi(
        backend,
        workspace,
        timeout=timeout,
        clock=clock,
        breaker=breaker or Breaker(backend.shown, threshold=1_000_000, cooldown=60.0, clock=clock),
        meter=meter or Meter(),
    )
