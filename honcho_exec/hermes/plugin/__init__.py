"""The plugin that Hermes Agent finds: registers the honcho_exec MemoryProvider.

The host loads this file from any folder and under a name of its own, even a second time next to the installed
package. So it imports absolutely, and only registers the provider.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

__all__ = ["register"]

_log = logging.getLogger("honcho_exec.hermes.plugin")


def register(ctx: Any) -> None:
    """Register the provider by `ctx.register_memory_provider`.

    If the host's Python cannot import honcho_exec, that is logged, and the host gets an unavailable provider, whose
    status says why: nobody would see an exception here.
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
        """Stands in for the provider, and reports why it is missing."""

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
