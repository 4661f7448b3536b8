"""`outbox`: list, retry and drop the rows that are pending or parked."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click
from rich.console import Console

from honcho_exec.cli.commands.flush import flush
from honcho_exec.cli.context import (
    FAILED,
    CliContext,
    GroupWithExamples,
    command,
    hint,
    json_option,
    pass_cli,
    print_json,
)
from honcho_exec.cli.output import print_text, stdout, without_password
from honcho_exec.cli.redirect import redirect
from honcho_exec.cli.resources import open_outbox
from honcho_exec.cli.rows import EVERY, many, show_row, show_rows, to_dict
from honcho_exec.errors import HonchoExecError
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.outbox.rows import OutboxRow

__all__ = ["outbox"]

_TERMINAL_WIDEST = 1000
_WHYS = {
    "being_sent": "it is being sent, or the last attempt may still arrive; try again in a minute",
    "not_parked": "it is not parked, and is sent automatically",
    "not_there": "the row does not exist; it may have been delivered",
}


class _NoSuchRow(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """There is no row with that id."""

    cause = "not_found"


class _Declined(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """The person answered no."""

    cause = "declined"


@click.group(
    cls=GroupWithExamples,
    examples=(
        "honcho-exec outbox list                 pending and parked rows",
        "honcho-exec outbox list --parked        only the refused ones, with the reason",
        "honcho-exec outbox retry --all-parked && honcho-exec outbox flush",
    ),
)
def outbox() -> None:
    """See and repair what has not gone to Honcho yet.

    Every write is a row of the outbox until Honcho has it. A row that Honcho refuses is parked: it delays no other
    row, and stays until you retry or drop it.
    """


@command(
    "honcho-exec outbox list",
    "honcho-exec outbox list --parked",
    "honcho-exec outbox list --all --json | jq '.rows[] | {id, state, text}'",
)
@click.option("--parked", "state", flag_value="parked", help="Only rows that Honcho refused.")
@click.option("--waiting", "state", flag_value="waiting", help="Only rows that are still to be sent.")
@click.option("--all", "everywhere", is_flag=True, help="Also rows for another Honcho or workspace.")
@click.option(
    "--limit", type=click.IntRange(1, EVERY), metavar="N", default=50, help="The maximum number of rows (50)."
)
@json_option
@pass_cli
def list_rows(cli: CliContext, state: str | None, *, everywhere: bool, limit: int) -> None:
    """List the rows, the oldest first."""
    parked = None if state is None else state == "parked"
    with open_outbox(cli) as box:
        rows = box.inspection.rows(parked=parked, everywhere=everywhere, limit=limit)
        more = _count(box, parked=parked, everywhere=everywhere) - len(rows) if len(rows) == limit else 0
        counts, failure = box.inspection.counts(), _last_failure(box)
    now = time.time()
    if cli.as_json:
        shown = [to_dict(row, now) for row in rows]
        numbers = {"more": more, "elsewhere": counts.elsewhere}
        print_json({"rows": shown, **numbers, "last_error": failure})
        return
    console = stdout(widest=_TERMINAL_WIDEST)
    if rows:
        show_rows(console, rows, now, everywhere=everywhere)
    else:
        nothing = {"parked": "Nothing is parked.", "waiting": "Nothing is pending."}
        print_text(console, nothing.get(state or "", "The outbox is empty: nothing is pending or parked."))
    if more > 0:
        print_text(console, f"… and {more} more; --limit {len(rows) + more} shows all", style="dim")
    if console.is_terminal and any(row.parked_at is not None for row in rows):
        print_text(
            console, "Parked rows need you: `outbox show ID`, then `outbox retry ID` or `outbox drop ID`.", style="dim"
        )
    if failure is not None and counts.pending and state != "parked":
        print_text(console, f"The last attempt failed: {failure}", style="red")
    if counts.elsewhere and not everywhere:
        rows_are = f"{many(counts.elsewhere)} {'is' if counts.elsewhere == 1 else 'are'}"
        print_text(console, f"{rows_are} for another Honcho or workspace; --all shows them too", style="dim")


@command(
    "honcho-exec outbox show 17",
    "honcho-exec outbox show 17 --json | jq -r .text",
)
@click.argument("row_id", metavar="ID", type=int)
@json_option
@pass_cli
def show(cli: CliContext, row_id: int) -> None:
    """Show a row with its whole text.

    `outbox list` shows the ids.
    """
    with open_outbox(cli) as box:
        row = next(iter(_rows(box, [row_id])), None)
    if row is None:
        raise _NoSuchRow(f"there is no row {row_id} in the outbox; it may have been delivered")
    if cli.as_json:
        print_json(to_dict(row, time.time()))
    else:
        show_row(stdout(), row, time.time())


@command(
    "honcho-exec outbox retry 17 18",
    "honcho-exec outbox retry --all-parked && honcho-exec outbox flush",
)
@click.argument("ids", metavar="[ID]...", nargs=-1, type=int)
@click.option("--all-parked", is_flag=True, help="All parked rows of the Honcho in use.")
@json_option
@pass_cli
@click.pass_context
def retry(ctx: click.Context, cli: CliContext, ids: tuple[int, ...], *, all_parked: bool) -> None:
    """Send parked rows again.

    Useful once the reason is gone: a limit was raised, or the server was repaired. Rows that Honcho refuses again are
    parked again.
    """
    if all_parked == bool(ids):
        raise click.UsageError("give the ids of rows, or --all-parked")
    with open_outbox(cli) as box:
        if all_parked:
            ids = tuple(row.id for row in box.inspection.rows(parked=True, limit=EVERY))
        done = [row_id for row_id in dict.fromkeys(ids) if box.inspection.retry([row_id])]
        left = _left(box, ids, done, "not_parked")
    happened = "Nothing is parked." if all_parked else ""
    if done:
        happened = hint(
            f"{many(len(done))} will be sent again: by a running host when it next sends something, or now by"
            " `honcho-exec outbox flush`."
        )
    ctx.exit(_print_result(done, left, "retried", happened, as_json=cli.as_json))


@command(
    "honcho-exec outbox drop 17",
    "honcho-exec outbox drop 17 18 --yes --json",
)
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=int)
@click.option("--yes", "sure", is_flag=True, help="Do not ask.")
@json_option
@pass_cli
@click.pass_context
def drop(ctx: click.Context, cli: CliContext, ids: tuple[int, ...], *, sure: bool) -> None:
    """Delete rows for good, after asking.

    Honcho never gets them. A row that is being sent cannot be dropped.
    """
    if not sure and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on; --yes drops the rows without asking")
    with open_outbox(cli) as box:
        rows = _rows(box, ids)
        if rows and not sure:
            _ask(rows)
        done = [row.id for row in rows if box.inspection.drop([row.id])]
        left = _left(box, ids, done, "being_sent")
    happened = f"{many(len(done))} {'was' if len(done) == 1 else 'were'} dropped." if done else ""
    ctx.exit(_print_result(done, left, "dropped", happened, as_json=cli.as_json))


def _count(box: Outbox, *, parked: bool | None, everywhere: bool) -> int:
    if everywhere:
        return len(box.inspection.rows(parked=parked, everywhere=True, limit=EVERY))
    counts = box.inspection.counts()
    return {None: counts.pending + counts.parked, True: counts.parked, False: counts.pending}[parked]


def _last_failure(box: Outbox) -> str | None:
    """Return the last error, unless something was delivered since."""
    history = box.history.last()
    if history.error is None or (history.delivered_at or 0.0) > (history.error_at or 0.0):
        return None
    return without_password(history.error)


def _rows(box: Outbox, ids: Sequence[int]) -> list[OutboxRow]:
    """Return the rows that exist, of any destination."""
    return box.inspection.rows(ids=ids, everywhere=True, limit=EVERY)


def _left(box: Outbox, ids: Sequence[int], done: Sequence[int], why: str) -> dict[int, str]:
    """Return for each row that was left as it is: it does not exist, or else `why`."""
    left = [row_id for row_id in dict.fromkeys(ids) if row_id not in set(done)]
    existing = {row.id for row in _rows(box, left)}
    return {row_id: why if row_id in existing else "not_there" for row_id in left}


def _ask(rows: Sequence[OutboxRow]) -> None:
    """Show the rows and ask whether to delete them; raises `_Declined`."""
    show_rows(Console(stderr=True, highlight=False), rows, time.time(), everywhere=False)
    if not click.confirm(f"Delete {'this row' if len(rows) == 1 else f'these {len(rows)} rows'} for good?", err=True):
        raise _Declined("nothing was dropped")


def _print_result(done: Sequence[int], left: dict[int, str], verb: str, happened: str, *, as_json: bool) -> int:
    """Print the result for each row, and return the exit code."""
    wrong = "; ".join(f"row {row_id} was not {verb}: {_WHYS[why]}" for row_id, why in left.items())
    if as_json:
        trouble = {"error": wrong, "cause": "not_done", "retryable": False} if left else {}
        print_json({**trouble, verb: done, f"not_{verb}": [{"id": row_id, "why": why} for row_id, why in left.items()]})
    else:
        if happened:
            print_text(stdout(), happened)
        if wrong:
            click.echo(f"Error: {wrong}", err=True)
    return FAILED if left else 0


for _name, _command in {
    "list": list_rows, "show": show, "retry": retry, "drop": drop, "flush": flush, "redirect": redirect,
}.items():  # fmt: skip
    outbox.add_command(_command, _name)
