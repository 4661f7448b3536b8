"""The memory provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from honcho_exec.provider.provider import HonchoProvider

__all__ = ["HonchoProvider"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # The command line needs other modules of this folder, and starts faster without this one.
    from honcho_exec.provider import provider  # noqa: PLC0415

    return getattr(provider, name)
