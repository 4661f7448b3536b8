"""Run the commands under those of Hermes: `hermes honcho_exec …`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from honcho_exec.cli.hermes_home import HOST_PROGRAM
from honcho_exec.cli.main import COMMANDS, main

__all__ = ["commands", "run"]


def commands() -> Mapping[str, str]:
    """Return each command's name and short help."""
    return {name: short_help for name, (_, short_help) in COMMANDS.items()}


def run(arguments: Sequence[str], *, hermes_home: str) -> NoReturn:
    """Run a command for a Hermes home, and exit with its code."""
    main.main(["--hermes-home", hermes_home, *arguments], prog_name=HOST_PROGRAM)
    raise SystemExit
