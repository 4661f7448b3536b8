"""The type of the fixture that makes providers."""

from __future__ import annotations

from collections.abc import Callable

from honcho_exec import HonchoProvider

__all__ = ["MakeProvider"]

MakeProvider = Callable[..., HonchoProvider]
