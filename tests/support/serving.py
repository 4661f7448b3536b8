"""A `honcho-exec serve` of its own process, and text that a page must not obey."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HOSTILE", "Serve", "Served", "start_serving"]

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"

Serve = Callable[..., "Served"]


@dataclass(frozen=True)
class Served:
    """A server that runs.

    Attributes:
        url: where it is.
        key: what a client shows.
    """

    url: str
    key: str
    process: subprocess.Popen[str]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)


def start_serving(state: Path, *options: str, **environ: str) -> Served:
    """Start it on a free port with a state folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", "honcho_exec", "serve", "--port", "0", "--json", *options],
        env=os.environ | {"HONCHO_EXEC_HOME": str(state), "HONCHO_WORKSPACE": "home"} | environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    key = Path(told["key_file"]).read_text().strip() if told["key_file"] else environ.get("HONCHO_SERVE_KEY", "")
    return Served(told["url"], key, process)
