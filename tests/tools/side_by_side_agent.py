"""One provider in a process of its own, under the host's manager: does what its standard input says."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

from agent.memory_manager import MemoryManager


def made(name: str) -> Any:
    """A provider as the host makes it."""
    if name == "bundled":
        from plugins.memory import load_memory_provider

        return load_memory_provider("honcho")
    from honcho_exec.hermes.adapter import HonchoExecMemoryProvider

    return HonchoExecMemoryProvider()


def begun(name: str, session: str) -> tuple[MemoryManager, Any]:
    """A conversation as the host begins it."""
    manager, provider = MemoryManager(), made(name)
    manager.add_provider(provider)
    manager.initialize_all(session, platform="cli", agent_context="primary")
    return manager, provider


def usage() -> dict[str, float]:
    """What this process holds; nothing where the operating system does not tell it under /proc."""
    proc = Path("/proc/self")
    if not proc.exists():
        return {"threads": threading.active_count()}
    pages = int((proc / "statm").read_text().split()[1])
    return {
        "threads": len(list((proc / "task").iterdir())),
        "files": len(list((proc / "fd").iterdir())),
        "rss": pages * resource.getpagesize() / 2**20,
    }


def main() -> None:
    """Answer each line `[operation, …]` with a line `[seconds, result]`, until the input ends."""
    logging.disable(logging.CRITICAL)
    name, answers = sys.argv[1], os.fdopen(os.dup(1), "w", buffering=1)
    # What a library prints must not be taken for an answer.
    os.dup2(2, 1)
    held: list[tuple[MemoryManager, Any]] = []
    for line in sys.stdin:
        operation, *arguments = json.loads(line)
        if operation == "leave":
            return
        result: Any = None
        start = time.perf_counter()
        if operation == "begin":
            held.append(begun(name, arguments[0]))
        elif operation == "usage":
            result = usage()
        else:
            manager, provider = held[-1]
            target = {"manager": manager, "provider": provider}[operation]
            result = getattr(target, arguments[0])(*arguments[1:])
        seconds = time.perf_counter() - start
        answers.write(json.dumps([seconds, result if isinstance(result, (str, bool, dict)) else None]) + "\n")


if __name__ == "__main__":
    main()
