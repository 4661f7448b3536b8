"""`push`: this machine's memory to a Honcho server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from honcho_exec.cli.commands.export_import import PLURALS, counted, redacted
from honcho_exec.cli.context import FAILED, Run, command, json_option, memory, pass_run, print_json, reached, tell_error
from honcho_exec.cli.hermes_home import environment
from honcho_exec.cli.output import plain, progress, stdout, text
from honcho_exec.errors import ConfigurationError, RequestError
from honcho_exec.transfer.importer import Told

if TYPE_CHECKING:
    # They take long to import; --help does without them.
    from honcho_exec.settings import LoadedSettings
    from honcho_exec.transfer.push import Push, Pushed

__all__ = ["push"]


@command(
    "honcho-exec push --dry-run",
    "HONCHO_BASE_URL=http://localhost:8000 honcho-exec push",
)
@click.option("--workspace", metavar="NAME", help="Only this workspace; by default all.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent, and where.")
@json_option
@pass_run
@click.pass_context
def push(ctx: click.Context, run: Run, workspace: str | None, *, dry_run: bool) -> None:
    """Send this machine's memory to the Honcho server in use.

    Workspaces, peers, sessions and who is in them, messages with their times, conclusions and cards. What is there
    already is not sent again: after a failure, or later, run it again. Nothing is deleted here.

    Exits with 1 when something did not go in.
    """
    loaded = _server(run)
    with memory(run) as honcho:

        def chosen() -> Iterator[dict[str, object]]:
            return (record for record in honcho.export() if _belongs(record, workspace))

        total = Counter(str(record["kind"]) for record in chosen())
        if workspace is not None and not total["workspace"]:
            raise click.UsageError(f"there is no workspace {workspace!r} on this machine")
        if dry_run:
            _tell_plan(total, loaded.settings.shown_url, as_json=run.as_json)
            return
        with (
            progress("Pushing", total["message"] + total["conclusion"]) as told,
            _pushing(loaded, told) as pushing,
        ):
            trouble = None
            try:
                pushing.send(redacted(record) if loaded.settings.redact else record for record in chosen())
            except RequestError as error:
                trouble = error
    _tell(pushing.done, loaded.settings.shown_url, trouble, as_json=run.as_json)
    ctx.exit(FAILED if trouble or pushing.done.refused else 0)


def _server(run: Run) -> LoadedSettings:
    from honcho_exec.settings import EMBEDDED, load  # noqa: PLC0415 - see TYPE_CHECKING

    loaded = load(environment(run.hermes_home), hermes_home=run.hermes_home)
    if loaded.settings.backend_url == EMBEDDED:
        raise ConfigurationError("push needs a server: set HONCHO_BASE_URL, or HONCHO_API_KEY for Honcho's cloud")
    return loaded


def _belongs(record: dict[str, object], workspace: str | None) -> bool:
    return workspace is None or record.get("workspace", record.get("id")) == workspace


@contextmanager
def _pushing(loaded: LoadedSettings, told: Told) -> Iterator[Push]:
    from honcho_exec.clock import SystemClock  # noqa: PLC0415 - see TYPE_CHECKING
    from honcho_exec.net.breaker import Breaker  # noqa: PLC0415 - see TYPE_CHECKING
    from honcho_exec.net.retry import RetryPolicy  # noqa: PLC0415 - see TYPE_CHECKING
    from honcho_exec.transfer.push import Push  # noqa: PLC0415 - see TYPE_CHECKING

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
    with reached(loaded) as api:
        yield Push(api, retry, told)


def _tell_plan(total: Counter[str], url: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"url": url, "dry_run": True, **{plural: total[kind] for kind, plural in PLURALS.items()}})
        return
    text(stdout(), f"{counted(total)} would be sent to {url}, except what is there already. Nothing was sent.")


def _tell(done: Pushed, url: str, trouble: RequestError | None, *, as_json: bool) -> None:
    if as_json:
        error = {"error": str(trouble), "cause": trouble.cause, "retryable": trouble.retryable} if trouble else {}
        counts = {name: {plural: of[kind] for kind, plural in PLURALS.items()} for name, of in _counts(done)}
        print_json({**error, "url": url, **counts, "kept": done.kept, "refused": done.refused})
        return
    text(stdout(), f"{counted(done.sent)} went to {url}; {counted(done.already)} were there already.")
    for card in done.kept:
        text(stdout(), f"{card} says something else there, and was left as it is.")
    for why in done.refused:
        click.echo(f"Error: {plain(why)}", err=True)
    if trouble is not None:
        tell_error(trouble, as_json=False)
        click.echo("Run it again to go on from here.", err=True)


def _counts(done: Pushed) -> tuple[tuple[str, Counter[str]], ...]:
    return ("sent", done.sent), ("already", done.already)
