"""`install` and `uninstall`: put the provider among Hermes Agent's plugins, and take it out again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import click

from honcho_exec.cli.context import CliContext, command, json_option, pass_cli, print_json
from honcho_exec.cli.hermes import installer
from honcho_exec.cli.output import print_text, stdout

__all__ = ["hermes_folder", "home_option", "install", "uninstall"]

_SETTING = "memory.provider"


def home_option(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command be told Hermes's folder, as `folder`."""
    return click.option(
        "--hermes-home", "folder", metavar="DIR", help="Hermes's folder; by default HERMES_HOME, else ~/.hermes."
    )(command)


@command(
    "honcho-exec install",
    "honcho-exec install --hermes-home ~/bots/.hermes",
)
@home_option
@json_option
@pass_cli
def install(cli: CliContext, folder: str | None) -> None:
    """Put the provider into Hermes Agent's plugin folder.

    Changes nothing else: one line of Hermes's configuration, which is shown, makes it the memory in use. Harmless
    when run again.
    """
    home = hermes_folder(cli, folder)
    done = installer.install(home)
    left = None if done.active else f"{_hermes(home)} config set {_SETTING} honcho_exec"
    if cli.as_json:
        print_json({"folder": str(done.folder), "changed": done.changed, "active": done.active, "next": left})
        return
    console = stdout()
    print_text(console, f"{'Installed in' if done.changed else 'Already installed in'} {done.folder}")
    if left is None:
        print_text(console, "Hermes uses it as its memory: nothing is left to do.")
        return
    print_text(console, f"\nOne line is left, so that Hermes uses it:\n\n  {left}\n")
    print_text(console, f"It writes `memory: {{provider: honcho_exec}}` into {home / 'config.yaml'}.", style="dim")


@command(
    "honcho-exec uninstall",
    "honcho-exec uninstall --hermes-home ~/bots/.hermes",
)
@home_option
@json_option
@pass_cli
def uninstall(cli: CliContext, folder: str | None) -> None:
    """Take the provider out of Hermes Agent's plugin folder.

    What was remembered stays where it is.
    """
    home = hermes_folder(cli, folder)
    done = installer.uninstall(home)
    left = f"{_hermes(home)} config unset {_SETTING}" if done.active else None
    if cli.as_json:
        print_json({"folder": str(done.folder), "changed": done.changed, "active": done.active, "next": left})
        return
    console = stdout()
    print_text(console, f"Removed {done.folder}" if done.changed else f"Nothing to remove: {done.folder} is not there")
    if left is not None:
        print_text(console, f"\nHermes's configuration still names it; this takes it out:\n\n  {left}\n")
    print_text(console, "What was remembered is kept.", style="dim")


def hermes_folder(cli: CliContext, folder: str | None) -> Path:
    """Hermes's folder as it was named here, or before the command, or by HERMES_HOME; else ~/.hermes."""
    chosen = folder or cli.hermes_home or os.environ.get("HERMES_HOME", "").strip() or "~/.hermes"
    return Path(chosen).expanduser().absolute()


def _hermes(home: Path) -> str:
    """How to call Hermes so that it takes `home`."""
    if home == Path(os.environ.get("HERMES_HOME", "").strip() or "~/.hermes").expanduser().absolute():
        return "hermes"
    return f"HERMES_HOME={shlex.quote(str(home))} hermes"
