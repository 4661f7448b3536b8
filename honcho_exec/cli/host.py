"""The commands under a host's own: `hermes honcho_exec …`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from honcho_exec.cli.hermes_home import HOST_PROGRAM
from honcho_exec.cli.main import main

__all__ = ["commands", "run"]


def commands() -> Mapping[str, str]:
    """Each command and what it does in a few words."""
    return {name: command.get_short_help_str(limit=80) for name, command in main.commands.items()}


def run(arguments: Sequence[str], *, hermes_home: str) -> NoReturn:
    """Run a command with a host's home, and exit by it."""
    main.main(["--hermes-home", hermes_home, *arguments], prog_name=HOST_PROGRAM)
    raise SystemExit
