"""`outbox redirect`: send rows for another address to the configured Honcho."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click

from honcho_exec.cli.context import CliContext, command, hint, json_option, pass_cli, print_json, printable
from honcho_exec.cli.output import print_text, stdout, without_password
from honcho_exec.cli.resources import open_outbox
from honcho_exec.cli.rows import many
from honcho_exec.clock import format_duration
from honcho_exec.errors import HonchoExecError
from honcho_exec.outbox.redirect import Elsewhere

__all__ = ["redirect"]


class _Declined(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """The person answered no."""

    cause = "declined"


@command(
    "honcho-exec outbox redirect",
    "honcho-exec outbox redirect --from http://localhost:80000 --yes",
    "honcho-exec outbox redirect --from 'http://localhost:80000 hermes' --ambiguous --parked",
)
@click.option(
    "--from", "source", metavar="DESTINATION", help="The address of the rows, or the address and a workspace."
)
@click.option(
    "--ambiguous", is_flag=True, help="Also rows that may have been delivered there: they may then be in both."
)
@click.option("--parked", is_flag=True, help="Also rows that were refused there; they stay parked.")
@click.option("--yes", "sure", is_flag=True, help="Do not ask.")
@json_option
@pass_cli
def redirect(cli: CliContext, source: str | None, *, ambiguous: bool, parked: bool, sure: bool) -> None:
    """Send the rows for another address to the Honcho in use.

    Useful if an address was mistyped, or a server has moved. Shows the rows and asks before it moves them. Rows keep
    their order and workspace. Rows that a running process has claimed are not moved.
    """
    if not sure and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on; --yes moves the rows without asking")
    kinds = ["movable", *(["ambiguous"] if ambiguous else []), *(["parked"] if parked else [])]
    with open_outbox(cli) as box:
        known = box.inspection.elsewhere()
        chosen = [one for one in known if source in (None, one.destination, one.destination.rpartition(" ")[0])]
        if source is not None and not chosen:
            raise click.UsageError(f"there are no rows for {without_password(source)!r}{_listed(known)}")
        if len({one.destination for one in chosen}) > 1 and source is None:
            raise click.UsageError(f"there are rows for more than one destination; choose with --from{_listed(known)}")
        count = sum(_count_chosen(one, kinds) for one in chosen)
        backend = box.destination.rpartition(" ")[0]
        if not cli.as_json:
            _show(chosen, kinds, backend, ask=not sure)
        if count and not sure and not click.confirm(f"Send {many(count)} to {without_password(backend)}?", err=True):
            raise _Declined("nothing was moved")
        done = [box.inspection.redirect(one.destination, kinds) for one in chosen] if count else []
        left = [
            one for one in box.inspection.elsewhere() if any(one.destination == other.destination for other in chosen)
        ]
    moved, duplicates = sum(one.moved for one in done), sum(one.duplicates for one in done)
    if cli.as_json:
        print_json(
            {
                "to": without_password(backend),
                "moved": moved,
                "duplicates": duplicates,
                "left": [_to_dict(one) for one in left],
            }
        )
        return
    _print_result(moved, duplicates, {one.workspace for one in chosen}, box.destination.rpartition(" ")[2])


def _listed(known: Sequence[Elsewhere]) -> str:
    """List the destinations of rows, as the end of a message."""
    if not known:
        return "; there are none for another address"
    return "".join(f"\n  {many(_count_all(one))} for {without_password(one.destination)!r}" for one in known)


def _show(chosen: Sequence[Elsewhere], kinds: Sequence[str], backend: str, *, ask: bool) -> None:
    """Print which rows would be moved, and which not and why; on stderr if a question follows."""
    if not chosen:
        print_text(stdout(), "There are no rows for another address.")
        return
    lines = []
    for one in chosen:
        where = without_password(one.destination.rpartition(" ")[0])
        age = format_duration(max(0.0, time.time() - one.oldest_at))
        lines.append(f"{many(_count_all(one))} for {where}, workspace {one.workspace}, the oldest for {age}:")
        lines.append(f"- {many(_count_chosen(one, kinds))} can be sent to {without_password(backend)}")
        if one.held:
            lines.append(f"- {many(one.held)} held by a running process; end it first")
        if one.ambiguous and "ambiguous" not in kinds:
            lines.append(f"- {many(one.ambiguous)} may have been delivered there; --ambiguous moves them too")
        if one.parked and "parked" not in kinds:
            lines.append(f"- {many(one.parked)} refused there and parked; --parked moves them too")
    if ask:
        click.echo(printable("\n".join(lines)), err=True)
    else:
        print_text(stdout(), "\n".join(lines))


def _print_result(moved: int, duplicates: int, workspaces: set[str], configured: str) -> None:
    console = stdout()
    if duplicates:
        print_text(console, f"{many(duplicates)} dropped: equal rows were pending already.")
    if not moved:
        print_text(console, "Nothing was moved.")
        return
    print_text(console, hint(f"{many(moved)} moved. Send them now with: honcho-exec outbox flush"))
    for workspace in sorted(workspaces - {configured}):
        print_text(
            console, f"Rows of the workspace {workspace} are sent when it is in use: HONCHO_WORKSPACE={workspace}"
        )


def _count_all(one: Elsewhere) -> int:
    return one.movable + one.ambiguous + one.parked + one.held


def _count_chosen(one: Elsewhere, kinds: Sequence[str]) -> int:
    return sum(int(getattr(one, kind)) for kind in kinds)


def _to_dict(one: Elsewhere) -> dict[str, object]:
    return {
        "destination": without_password(one.destination),
        "workspace": one.workspace,
        "movable": one.movable,
        "ambiguous": one.ambiguous,
        "parked": one.parked,
        "held": one.held,
        "age": max(0.0, round(time.time() - one.oldest_at, 3)),
    }
