"""`install` and `uninstall`: add the provider to Hermes Agent's plugins, and remove it."""

from __future__ import annotations

from collections.abc import Callable

import click

from honcho_exec.cli.context import CliContext, command, json_option, pass_cli, print_json
from honcho_exec.cli.hermes import installer
from honcho_exec.cli.hermes.config_yaml import hermes_line
from honcho_exec.cli.hermes_home import hermes_folder
from honcho_exec.cli.output import print_text, stdout

__all__ = ["home_option", "install", "uninstall"]


def home_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option `--hermes-home` to a command, as `folder`."""
    return click.option(
        "--hermes-home", "folder", metavar="DIR", help="The Hermes home; by default HERMES_HOME, else ~/.hermes."
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

    Changes nothing else: prints the line that makes it Hermes's memory. Running it again is harmless.
    """
    home = hermes_folder(folder or cli.hermes_home)
    done = installer.install(home)
    left = None if done.active else hermes_line(home, "honcho_exec")
    if cli.as_json:
        print_json({"folder": str(done.folder), "changed": done.changed, "active": done.active, "next": left})
        return
    console = stdout()
    print_text(console, f"{'Installed in' if done.changed else 'Already installed in'} {done.folder}")
    if left is None:
        print_text(console, "Hermes uses it as its memory: nothing is left to do.")
        return
    print_text(console, f"\nOne line is left to run, so that Hermes uses it:\n\n  {left}\n")
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

    The memory itself stays where it is.
    """
    home = hermes_folder(folder or cli.hermes_home)
    done = installer.uninstall(home)
    left = hermes_line(home, None) if done.active else None
    if cli.as_json:
        print_json({"folder": str(done.folder), "changed": done.changed, "active": done.active, "next": left})
        return
    console = stdout()
    print_text(console, f"Removed {done.folder}" if done.changed else f"Nothing to remove: {done.folder} is not there")
    if left is not None:
        print_text(console, f"\nHermes's configuration still names it; this line removes it:\n\n  {left}\n")
    print_text(console, "The memory itself is kept.", style="dim")
