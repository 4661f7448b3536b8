"""Honcho memory on one executor: durable, exactly once, and never in the way.

The public names are loaded on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from honcho_exec.errors import (
        Ambiguous,
        CircuitOpen,
        Closed,
        ConfigurationError,
        Damaged,
        Disabled,
        HonchoExecError,
        InputError,
        LaneError,
        Overloaded,
        Queued,
        Rejected,
        RequestError,
        StateError,
        SyncPending,
        Unavailable,
    )
    from honcho_exec.model import Receipt, SessionRef
    from honcho_exec.provider.provider import HonchoProvider
    from honcho_exec.provider.status import Finding, Status
    from honcho_exec.runtime.metrics import Latency, Stats
    from honcho_exec.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Ambiguous",
    "CircuitOpen",
    "Closed",
    "ConfigurationError",
    "Damaged",
    "Disabled",
    "Finding",
    "HonchoExecError",
    "HonchoProvider",
    "InputError",
    "LaneError",
    "Latency",
    "Overloaded",
    "Queued",
    "Receipt",
    "Rejected",
    "RequestError",
    "SessionRef",
    "Settings",
    "StateError",
    "Stats",
    "Status",
    "SyncPending",
    "Unavailable",
    "__version__",
]

_HOME = {
    "Finding": "provider.status",
    "HonchoProvider": "provider.provider",
    "Latency": "runtime.metrics",
    "Receipt": "model",
    "SessionRef": "model",
    "Settings": "settings",
    "Stats": "runtime.metrics",
    "Status": "provider.status",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
