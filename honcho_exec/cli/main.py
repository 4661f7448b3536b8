"""The group of commands and what holds for all of them."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from typing import Any

import click

from honcho_exec import __version__
from honcho_exec.cli.commands.config import config
from honcho_exec.cli.commands.demo import demo
from honcho_exec.cli.commands.doctor import doctor
from honcho_exec.cli.commands.export_import import export, import_
from honcho_exec.cli.commands.ingest import ingest
from honcho_exec.cli.commands.memory import conclude, context, profile, search
from honcho_exec.cli.commands.outbox import outbox
from honcho_exec.cli.commands.purge import purge
from honcho_exec.cli.commands.push import push
from honcho_exec.cli.commands.serve import serve
from honcho_exec.cli.commands.status import status
from honcho_exec.cli.context import FAILED, Run, TaughtGroup, tell_error
from honcho_exec.cli.hermes.install import install, uninstall
from honcho_exec.cli.hermes.migrate import migrate
from honcho_exec.cli.hermes_home import existing_home, profile_home
from honcho_exec.errors import HonchoExecError

__all__ = ["main"]


class _OsTrouble(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """The operating system refused something that no part of the package expected it to."""

    cause = "system"


class _Commands(TaughtGroup):
    """Tells errors in one sentence."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program."""
        _open_what_is_closed()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            # What cannot be told on stdout, a refusal included, is told here.
            click.echo(f"Error: the output cannot be written: {error.strerror or error}", err=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HonchoExecError as error:
            ctx.exit(tell_error(error, as_json=ctx.ensure_object(Run).as_json))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            where = f"{error.filename}: " if error.filename else ""
            trouble = _OsTrouble(f"{where}{error.strerror or error}")
            ctx.exit(tell_error(trouble, as_json=ctx.ensure_object(Run).as_json))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=(
        "honcho-exec demo        see it work",
        "honcho-exec install     make it Hermes's memory",
        "honcho-exec status      see which Honcho is in use, and how it is",
    ),
)
@click.version_option(__version__, prog_name="honcho-exec")
@click.option(
    "--hermes-home",
    metavar="DIR",
    help="Hermes's folder, as HERMES_HOME: settings and memory are looked for in it. Without either, memory is in "
    "~/.honcho/exec.",
)
@click.option("-p", "--profile", metavar="NAME", help="A profile of Hermes, whose settings and memory are then used.")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens to stderr.")
@click.pass_context
def main(ctx: click.Context, hermes_home: str | None, profile: str | None, verbose: bool) -> None:
    """Long-term memory in Honcho, for Hermes Agent and any Python agent.

    Works without a key, a server or settings: memory is then kept on this machine. HONCHO_API_KEY or
    HONCHO_BASE_URL choose another Honcho.
    """
    if hermes_home and ctx.invoked_subcommand != "install":
        existing_home(hermes_home)
    ctx.ensure_object(Run).hermes_home = (
        hermes_home if profile is None else profile_home(profile, hermes_home)
    ) or None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What was said may not exist in the terminal's character set.
            stream.reconfigure(errors="replace")
    _log(ctx, verbose=verbose)


def _open_what_is_closed() -> None:
    """Let a stream that whoever started the program has closed be empty, and take what is written to it.

    Its number would be given to the next file that is opened.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - it is open to the end


def _log(ctx: click.Context, *, verbose: bool) -> None:
    """Log to stderr, or not at all: without a handler, warnings would come beside the command's own answer."""
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


for _command in (
    demo, install, uninstall, status, doctor, config, ingest, search, conclude, profile, context, outbox,
    serve, export, import_, push, migrate, purge,
):  # fmt: skip
    main.add_command(_command)
