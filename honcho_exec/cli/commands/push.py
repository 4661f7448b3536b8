"""`push`: send this machine's memory to a Honcho server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import click

from honcho_exec.cli.commands.export_import import PLURALS, counted, redacted
from honcho_exec.cli.context import (
    FAILED,
    CliContext,
    command,
    json_option,
    pass_cli,
    print_error,
    print_json,
    printable,
)
from honcho_exec.cli.output import print_text, progress_bar, stdout
from honcho_exec.cli.resources import load_settings, open_memory, open_server
from honcho_exec.clock import SystemClock
from honcho_exec.errors import ConfigurationError, RequestError
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.retry import RetryPolicy
from honcho_exec.settings import EMBEDDED, LoadedSettings
from honcho_exec.transfer.importer import Progress
from honcho_exec.transfer.push import Push, Pushed

__all__ = ["push"]


@command(
    "honcho-exec push --dry-run",
    "HONCHO_BASE_URL=http://localhost:8000 honcho-exec push",
)
@click.option("--workspace", metavar="NAME", help="Only this workspace; by default all.")
@click.option("--dry-run", is_flag=True, help="Only show what would be sent, and where.")
@json_option
@pass_cli
@click.pass_context
def push(ctx: click.Context, cli: CliContext, workspace: str | None, *, dry_run: bool) -> None:
    """Send this machine's memory to the Honcho server in use.

    Sends workspaces, peers, sessions with their members, messages with their times, conclusions and cards. Data that
    the server has already is not sent again: run it again after a failure, or later. Nothing is deleted on this
    machine.

    Exits with 1 if something was not stored.
    """
    loaded = _server(cli)
    with open_memory(cli) as honcho:

        def chosen() -> Iterator[dict[str, object]]:
            return (record for record in honcho.export() if _belongs(record, workspace))

        total = Counter(str(record["kind"]) for record in chosen())
        if workspace is not None and not total["workspace"]:
            raise click.UsageError(f"there is no workspace {workspace!r} on this machine")
        if dry_run:
            _print_plan(total, loaded.settings.shown_url, as_json=cli.as_json)
            return
        with (
            progress_bar("Pushing", total["message"] + total["conclusion"]) as report,
            _pushing(loaded, report) as pushing,
        ):
            trouble = None
            try:
                pushing.send(redacted(record) if loaded.settings.redact else record for record in chosen())
            except RequestError as error:
                trouble = error
    _print_result(pushing.done, loaded.settings.shown_url, trouble, as_json=cli.as_json)
    ctx.exit(FAILED if trouble or pushing.done.refused else 0)


def _server(cli: CliContext) -> LoadedSettings:
    loaded = load_settings(cli)
    if loaded.settings.backend_url == EMBEDDED:
        raise ConfigurationError("push needs a server: set HONCHO_BASE_URL, or HONCHO_API_KEY for Honcho's cloud")
    return loaded


def _belongs(record: dict[str, object], workspace: str | None) -> bool:
    return workspace is None or record.get("workspace", record.get("id")) == workspace


@contextmanager
def _pushing(loaded: LoadedSettings, report: Progress) -> Iterator[Push]:
    settings, clock = loaded.settings, SystemClock()
    breaker = Breaker(
        settings.shown_url, threshold=settings.breaker_threshold, cooldown=settings.breaker_cooldown, clock=clock
    )
    retry = RetryPolicy(
        attempts=settings.retry_attempts,
        max_wait=settings.retry_max_wait,
        deadline=settings.retry_deadline,
        closing=threading.Event(),
        breaker=breaker,
        clock=clock,
    )
    with open_server(loaded) as api:
        yield Push(api, retry, report)


def _print_plan(total: Counter[str], url: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"url": url, "dry_run": True, **{plural: total[kind] for kind, plural in PLURALS.items()}})
        return
    print_text(
        stdout(), f"{counted(total)} would be sent to {url}, except the data that is there already. Nothing was sent."
    )


def _print_result(done: Pushed, url: str, trouble: RequestError | None, *, as_json: bool) -> None:
    if as_json:
        error = {"error": str(trouble), "cause": trouble.cause, "retryable": trouble.retryable} if trouble else {}
        counts = {name: {plural: of[kind] for kind, plural in PLURALS.items()} for name, of in _counts(done)}
        print_json({**error, "url": url, **counts, "kept": done.kept, "refused": done.refused})
        return
    print_text(stdout(), f"Sent {counted(done.sent)} to {url}; there already: {counted(done.duplicates)}.")
    for card in done.kept:
        print_text(stdout(), f"{card} is another one on the server, and was not changed.")
    for why in done.refused:
        click.echo(f"Error: {printable(why)}", err=True)
    if trouble is not None:
        print_error(trouble, as_json=False)
        click.echo("Run it again to go on from here.", err=True)


def _counts(done: Pushed) -> tuple[tuple[str, Counter[str]], ...]:
    return ("sent", done.sent), ("already", done.duplicates)
