"""The types of the fixtures that run commands and write their input."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

__all__ = ["Cli", "Program", "WriteLines"]

Cli = Callable[..., Result]
Program = Callable[..., subprocess.CompletedProcess[str]]
WriteLines = Callable[..., Path]
