"""`hermes honcho_exec …`: the commands of `honcho-exec …`, for the home that the host uses."""

from __future__ import annotations

import argparse
import sys

__all__ = ["honcho_exec_command", "register_cli"]


def register_cli(subparser: argparse.ArgumentParser) -> None:
    """Register the commands; each parses its own arguments."""
    try:
        from honcho_exec.cli.host import commands  # noqa: PLC0415 - may not be there
    except ImportError:
        return
    chosen = subparser.add_subparsers(dest="honcho_exec_chosen", metavar="COMMAND")
    for name, about in commands().items():
        parser = chosen.add_parser(name, help=about, add_help=False, prefix_chars="\0")
        parser.add_argument("arguments", nargs=argparse.REMAINDER)


def honcho_exec_command(args: argparse.Namespace) -> None:
    """Run a command and exit with its code; without a command, show the help."""
    try:
        from hermes_constants import get_hermes_home  # noqa: PLC0415 - the host's, there when it calls

        from honcho_exec.cli.host import run  # noqa: PLC0415 - may not be there
    except ImportError as error:
        sys.exit(f"honcho_exec cannot be imported by {sys.executable}: {error}")
    chosen = [args.honcho_exec_chosen] if getattr(args, "honcho_exec_chosen", None) else ["--help"]
    run([*chosen, *getattr(args, "arguments", [])], hermes_home=str(get_hermes_home()))
