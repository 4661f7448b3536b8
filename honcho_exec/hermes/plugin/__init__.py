"""What Hermes Agent finds: registers the honcho_exec MemoryProvider.

The host loads this file from wherever it stands and under a name of its own, also a second time next to the
installed package. So it imports absolutely and holds nothing but the way to the provider.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

__all__ = ["register"]

_log = logging.getLogger("honcho_exec.hermes.plugin")


def register(ctx: Any) -> None:
    """Give the provider to the host by `ctx.register_memory_provider`.

    When honcho_exec cannot be imported by the host's Python, that is logged, and the host gets a provider that is
    unavailable and whose status says why: an exception here would be seen by nobody.
    """
    try:
        from honcho_exec.hermes.adapter import HonchoExecMemoryProvider  # noqa: PLC0415 - may not be there
    except ImportError as error:
        problem = (
            f"honcho_exec cannot be imported by {sys.executable} ({error}); install it where Hermes Agent runs:"
            f" {sys.executable} -m pip install honcho_exec"
        )
        _log.warning("memory is not in use: %s", problem)
        ctx.register_memory_provider(_unavailable(problem))
    else:
        ctx.register_memory_provider(HonchoExecMemoryProvider())


def _unavailable(problem: str) -> object:
    from agent.memory_provider import MemoryProvider  # noqa: PLC0415 - the host's, there when it calls

    class Unavailable(MemoryProvider):
        """Stands where the provider would, and says why it is not there."""

        name = "honcho_exec"

        def is_available(self) -> bool:
            return False

        def initialize(self, session_id: str, **_: object) -> None:
            pass

        def get_tool_schemas(self) -> list[dict[str, Any]]:
            return []

        def get_status_config(self, _: object) -> dict[str, str]:
            return {"problem": problem}

    return Unavailable()
