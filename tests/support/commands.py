"""How tests run commands: the types of the fixtures for it, and a terminal to run one in."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

import honcho_exec

__all__ = ["Cli", "Program", "WriteLines", "in_a_terminal"]

Cli = Callable[..., Result]
Program = Callable[..., subprocess.CompletedProcess[str]]
WriteLines = Callable[..., Path]


def in_a_terminal(*args: str, typed: str = "", columns: int = 80) -> tuple[int, str]:
    """Run a command with a terminal all around it; returns its exit code and what is seen."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = os.environ | {"TERM": "xterm", "PYTHONPATH": str(Path(honcho_exec.__file__).parents[1])}
    environ = {name: value for name, value in environ.items() if name not in {"NO_COLOR", "COLUMNS"}}
    command = [sys.executable, "-m", "honcho_exec", *args]
    os.write(ours, typed.encode())
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environ) as process:
        os.close(its)
        seen = b""
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
        except OSError:
            # The other end is closed.
            pass
        os.close(ours)
        return process.wait(20), seen.decode()
