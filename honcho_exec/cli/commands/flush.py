"""`outbox flush`: send the pending rows, and report the result."""

from __future__ import annotations

import time

import click

from honcho_exec.cli.context import (
    FAILED,
    SECONDS,
    CliContext,
    command,
    hint,
    json_option,
    pass_cli,
    print_json,
    printable,
)
from honcho_exec.cli.output import print_text, progress_bar, stdout, without_password
from honcho_exec.cli.resources import open_outbox, open_provider
from honcho_exec.cli.rows import EVERY, many
from honcho_exec.errors import HonchoExecError
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.outbox.rows import Counts
from honcho_exec.provider.provider import HonchoProvider
from honcho_exec.transfer.importer import Progress

__all__ = ["flush"]

_FLUSH_SECONDS = 0.2
_POLL_SECONDS = 0.05
_OTHERS = "a running host has them, and sends them itself"


class _Unfinished(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """Nothing is wrong, but rows are left to send."""

    cause = "timeout"
    retryable = True


@command(
    "honcho-exec outbox flush",
    "honcho-exec outbox flush --timeout 10 || honcho-exec status",
)
@click.option(
    "--timeout",
    type=SECONDS,
    metavar="SECONDS",
    default=60.0,
    help="Stop waiting after this many seconds (60).",
)
@json_option
@pass_cli
@click.pass_context
def flush(ctx: click.Context, cli: CliContext, timeout: float) -> None:
    """Send the pending rows now, and wait until Honcho has them.

    Exits with 1 if rows are left, or were refused and parked. Rows that are left stay in the outbox, and are sent
    later: by the next command, or by the running host that has claimed them.
    """
    reason: HonchoExecError | None = None
    with open_outbox(cli) as box:
        before, parked = box.inspection.counts(), _parked_ids(box)
        if before.pending:
            with progress_bar("Sending", before.pending) as report, open_provider(cli) as provider:
                reason = _deliver(provider, box, timeout, report)
        after, refused = box.inspection.counts(), len(_parked_ids(box) - parked)
    _print_result(before, after, refused, reason if after.pending else None, as_json=cli.as_json)
    ctx.exit(FAILED if after.pending or refused else 0)


def _deliver(provider: HonchoProvider, box: Outbox, timeout: float, report: Progress) -> HonchoExecError:
    """Wait until no row is left, the time is over or a person is needed; return why rows may be left."""
    until = time.monotonic() + timeout
    pending, others = box.inspection.counts().pending, False
    while pending and (left := until - time.monotonic()) > 0:
        trouble = provider.trouble
        if trouble is not None and not trouble.retryable:
            break
        # A flush tries at once; while delivery fails, its own back-off decides.
        if trouble is None and (found := _flush(provider, min(_FLUSH_SECONDS, left))) is not None:
            others = found
        if trouble is not None or others:
            time.sleep(min(_POLL_SECONDS, left))
        now = box.inspection.counts().pending
        report(pending - now, without_password(str(trouble or (_OTHERS if others and now else ""))))
        pending = now
    return provider.trouble or _Unfinished(_OTHERS if others else f"not done within {timeout:g} s")


def _flush(provider: HonchoProvider, seconds: float) -> bool | None:
    """Flush for so many seconds; return whether other processes have the rest, None if the time was too short."""
    until = time.monotonic() + seconds
    if provider.flush(seconds):
        return False
    return True if time.monotonic() < until else None


def _print_result(
    before: Counts, after: Counts, refused: int, reason: HonchoExecError | None, *, as_json: bool
) -> None:
    delivered = max(0, before.pending - after.pending - refused)
    parts = []
    if reason is not None:
        are = "is" if after.pending == 1 else "are"
        parts.append(f"{many(after.pending)} {are} left in the outbox and sent later ({without_password(str(reason))})")
    if refused:
        was = "was" if refused == 1 else "were"
        parts.append(hint(f"{many(refused)} {was} refused and parked (honcho-exec outbox list --parked says why)"))
    wrong = "; ".join(parts)
    if as_json:
        cause, retryable = (reason.cause, reason.retryable) if reason is not None else ("refused", False)
        trouble = {"error": wrong, "cause": cause, "retryable": retryable} if wrong else {}
        counts = {"delivered": delivered, "left": after.pending, "refused": refused, "elsewhere": after.elsewhere}
        print_json({**trouble, **counts})
        return
    console = stdout()
    if before.pending:
        print_text(
            console, f"{delivered} of {many(before.pending)} {'was' if before.pending == 1 else 'were'} delivered."
        )
    else:
        print_text(console, "Nothing is pending.")
    if after.elsewhere:
        print_text(console, f"Left alone: {many(after.elsewhere)} for another Honcho or workspace.", style="dim")
    if wrong:
        click.echo(f"Error: {printable(wrong)}", err=True)


def _parked_ids(box: Outbox) -> set[int]:
    return {row.id for row in box.inspection.rows(parked=True, limit=EVERY)}
