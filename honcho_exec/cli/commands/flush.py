"""`outbox flush`: send what waits, and say what became of it."""

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

# How long one flush waits before it is looked at how things are, and how long when it would not wait (seconds).
_LOOK = 0.2
_PAUSE = 0.05
_OTHERS = "a running host has them, and sends them itself"


class _Unfinished(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """Nothing is wrong, but something is left to send."""

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
    """Send what waits now, and wait until Honcho has it.

    Exits with 1 when something is left, or was refused and parked. What is left is kept, and sent later by the next
    run or by the host that has it.
    """
    reason: HonchoExecError | None = None
    with open_outbox(cli) as box:
        before, parked = box.inspection.counts(), _parked(box)
        if before.pending:
            with progress_bar("Sending", before.pending) as told, open_provider(cli) as provider:
                reason = _deliver(provider, box, timeout, told)
        after, refused = box.inspection.counts(), len(_parked(box) - parked)
    _tell(before, after, refused, reason if after.pending else None, as_json=cli.as_json)
    ctx.exit(FAILED if after.pending or refused else 0)


def _deliver(provider: HonchoProvider, box: Outbox, timeout: float, told: Progress) -> HonchoExecError:
    """Wait until nothing is left to send, the time is over or a person has to do something; returns why not longer."""
    until = time.monotonic() + timeout
    waiting, others = box.inspection.counts().pending, False
    while waiting and (left := until - time.monotonic()) > 0:
        trouble = provider.trouble
        if trouble is not None and not trouble.retryable:
            break
        # A flush tries at once, so while delivery fails it is left to its own pauses.
        if trouble is None and (found := _flush(provider, min(_LOOK, left))) is not None:
            others = found
        if trouble is not None or others:
            time.sleep(min(_PAUSE, left))
        now = box.inspection.counts().pending
        told(waiting - now, without_password(str(trouble or (_OTHERS if others and now else ""))))
        waiting = now
    return provider.trouble or _Unfinished(_OTHERS if others else f"not done within {timeout:g} s")


def _flush(provider: HonchoProvider, seconds: float) -> bool | None:
    """Send for so long; returns whether nothing is left that this process may send, None when that was too short."""
    until = time.monotonic() + seconds
    if provider.flush(seconds):
        return False
    return True if time.monotonic() < until else None


def _tell(before: Counts, after: Counts, refused: int, reason: HonchoExecError | None, *, as_json: bool) -> None:
    delivered = max(0, before.pending - after.pending - refused)
    parts = []
    if reason is not None:
        are = "is" if after.pending == 1 else "are"
        parts.append(f"{many(after.pending)} {are} left and kept, to be sent later ({without_password(str(reason))})")
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
        print_text(console, "Nothing waits to be sent.")
    if after.elsewhere:
        print_text(console, f"Left alone: {many(after.elsewhere)} for another Honcho or workspace.", style="dim")
    if wrong:
        click.echo(f"Error: {printable(wrong)}", err=True)


def _parked(box: Outbox) -> set[int]:
    return {row.id for row in box.inspection.rows(parked=True, limit=EVERY)}
