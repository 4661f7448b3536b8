"""The command line: its commands, imported when they are called, and its errors."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from importlib import import_module
from typing import Any

import click

from honcho_exec import __version__
from honcho_exec.cli.context import FAILED, CliContext, GroupWithExamples, print_error
from honcho_exec.cli.hermes_home import existing_home, profile_home
from honcho_exec.errors import HonchoExecError

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "demo": ("commands.demo:demo", "Play a conversation and ask all five tools about it."),
    "install": ("hermes.install:install", "Put the provider into Hermes Agent's plugin folder."),
    "uninstall": ("hermes.install:uninstall", "Take the provider out of Hermes Agent's plugin folder."),
    "status": ("commands.status:status", "Show which Honcho is in use, and whether it works."),
    "doctor": ("commands.doctor:doctor", "Check everything, and say what to do about each problem."),
    "config": ("commands.config:config", "Show each setting: its value, where it comes from, its meaning."),
    "ingest": ("commands.ingest:ingest", "Bring conversations in from files; `-` is stdin."),
    "search": ("commands.memory:search", "Search the messages of all sessions of a peer, best first."),
    "conclude": ("commands.memory:conclude", "Store, list or delete lasting facts about a peer."),
    "profile": ("commands.memory:profile", "Show or overwrite a peer's card, its most important facts."),
    "context": (
        "commands.memory:context",
        "Show the context of the session: its summary, and what is known of a peer.",
    ),
    "outbox": ("commands.outbox:outbox", "See and repair what has not gone to Honcho yet."),
    "serve": ("commands.serve:serve", "Serve this memory over HTTP, with a page to look at it."),
    "export": ("commands.export_import:export", "Write this machine's memory to a file of JSON lines."),
    "import": ("commands.export_import:import_", "Read what `export` wrote into this machine's memory."),
    "push": ("commands.push:push", "Send this machine's memory to the Honcho server in use."),
    "migrate": ("hermes.migrate:migrate", "Move Hermes over from its bundled Honcho provider."),
    "purge": ("commands.purge:purge", "Delete what you name, in every place that has it, after asking."),
}
"""Each command's module and function, and its short help, which is shown without importing it."""


class _SystemError(HonchoExecError):
    """The operating system refused something unexpectedly."""

    cause = "system"


class _Commands(GroupWithExamples):
    """Imports a command when it is called, and prints an error as one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's contract
        """Name the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's contract
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"honcho_exec.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's contract
        """List the commands with their short help, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help) for name, (_, short_help) in COMMANDS.items()])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program."""
        _replace_closed_streams()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            # An answer that cannot be written to stdout is reported here, a refusal included.
            click.echo(f"Error: the output cannot be written: {error.strerror or error}", err=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HonchoExecError as error:
            ctx.exit(print_error(error, as_json=ctx.ensure_object(CliContext).as_json))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            file = f"{error.filename}: " if error.filename else ""
            refusal = _SystemError(f"{file}{error.strerror or error}")
            ctx.exit(print_error(refusal, as_json=ctx.ensure_object(CliContext).as_json))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=(
        "honcho-exec demo        see it work",
        "honcho-exec install     make it Hermes's memory",
        "honcho-exec status      see which Honcho is in use, and whether it works",
    ),
)
@click.version_option(__version__, prog_name="honcho-exec")
@click.option(
    "--hermes-home",
    metavar="DIR",
    help="The Hermes home, which has the settings and the memory; by default HERMES_HOME. Without either, the memory is"
    " in ~/.honcho/exec.",
)
@click.option("-p", "--profile", metavar="NAME", help="Use the settings and memory of a Hermes profile.")
@click.option("-v", "--verbose", is_flag=True, help="Write the log to stderr.")
@click.pass_context
def main(ctx: click.Context, hermes_home: str | None, profile: str | None, verbose: bool) -> None:
    """Long-term memory in Honcho, for Hermes Agent and any Python agent.

    Works without a key, a server or settings: the memory is then on this machine. HONCHO_API_KEY or
    HONCHO_BASE_URL choose another Honcho.
    """
    if hermes_home and ctx.invoked_subcommand != "install":
        existing_home(hermes_home)
    ctx.ensure_object(CliContext).hermes_home = (
        hermes_home if profile is None else profile_home(profile, hermes_home)
    ) or None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Stored text may have characters that the terminal's encoding lacks.
            stream.reconfigure(errors="replace")
    _log(ctx, verbose=verbose)


def _replace_closed_streams() -> None:
    """Replace standard streams that the parent process closed by /dev/null.

    The next file that is opened would get their number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _log(ctx: click.Context, *, verbose: bool) -> None:
    """Log to stderr, or not at all: without a handler, warnings would be mixed with the command's answer."""
    logger = logging.getLogger("honcho_exec")
    handler: logging.Handler = logging.NullHandler()
    if verbose:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        level = logger.level
        logger.setLevel(logging.DEBUG)
        ctx.call_on_close(lambda: logger.setLevel(level))
    logger.addHandler(handler)
    ctx.call_on_close(lambda: logger.removeHandler(handler))
