"""`doctor`: check everything, with advice for each problem."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from honcho_exec.cli.commands.status import settled_status, with_hints
from honcho_exec.cli.context import FAILED, CliContext, command, json_option, pass_cli, print_json
from honcho_exec.cli.hermes.config_yaml import read_provider
from honcho_exec.cli.hermes_home import hermes_folder
from honcho_exec.cli.output import print_text, stdout
from honcho_exec.cli.resources import open_provider
from honcho_exec.provider.status import Finding

__all__ = ["doctor"]

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("PROBLEM", "bold red")}


@command(
    "honcho-exec doctor",
    "honcho-exec --hermes-home ~/.hermes doctor       Hermes's own memory",
    "honcho-exec doctor --json | jq '.findings[] | select(.level == \"problem\")'",
)
@json_option
@pass_cli
@click.pass_context
def doctor(ctx: click.Context, cli: CliContext) -> None:
    """Check everything, and say what to do about each problem.

    Checks settings, state, server, key, versions and outbox, with real requests. Exits with 1 if a problem needs a
    person.
    """
    with open_provider(cli, writes=False) as provider:
        found = with_hints((*provider.doctor(settled_status(provider)), *_hermes(cli)))
    healthy = all(finding.level != "problem" for finding in found)
    if cli.as_json:
        print_json({"ok": healthy, "findings": list(map(asdict, found))})
    else:
        _show(found, healthy=healthy)
    ctx.exit(0 if healthy else FAILED)


def _show(found: tuple[Finding, ...], *, healthy: bool) -> None:
    console = stdout()
    for finding in found:
        mark, style = _MARKS[finding.level]
        console.print(f"{mark:>7}  ", style=style, end="")
        console.print(finding.what, soft_wrap=True, markup=False)
        if finding.advice:
            print_text(console, finding.advice, indent=9, style="dim")
    console.print()
    verdict = (
        ("Nothing needs you.", "bold green") if healthy else ("Something needs you: see PROBLEM above.", "bold red")
    )
    console.print(verdict[0], style=verdict[1])


def _hermes(cli: CliContext) -> Iterator[Finding]:
    """Report whether Hermes Agent uses this memory, if there is a Hermes home."""
    home = hermes_folder(cli.hermes_home)
    if not (home / "config.yaml").is_file():
        return
    provider = read_provider(home)
    if provider == "honcho_exec":
        yield Finding("ok", f"Hermes Agent in {home} uses honcho_exec as its memory")
    else:
        yield Finding(
            "note",
            f"Hermes Agent in {home} uses {provider or 'no memory provider'}",
            "honcho-exec install, which prints the line that makes it Hermes's memory",
        )
