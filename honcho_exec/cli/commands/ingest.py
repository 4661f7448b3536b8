"""`ingest`: conversations from files into the memory, each message once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

import click

from honcho_exec.cli.context import (
    FAILED,
    INTERRUPTED,
    SECONDS,
    CliContext,
    command,
    hint,
    json_option,
    pass_cli,
    print_json,
    printable,
)
from honcho_exec.cli.output import print_fields, print_text, progress_bar, stdout
from honcho_exec.cli.resources import open_provider
from honcho_exec.transfer.importer import ImportedMessage, Importer, ImportResult
from honcho_exec.transfer.sources import Line, NothingToRead, Source, checked

__all__ = ["ingest"]

_SHARED_SHOWN = 3
_FORMATS = (
    "known formats are JSON lines with `role` and `content`, lists of messages as OpenAI's API has them, and Hermes's"
    " session store, state.db"
)


@command(
    "honcho-exec ingest chat.jsonl",
    "honcho-exec ingest 2024/*.jsonl --session-prefix '{stem}-'",
    "zcat chat.jsonl.gz | honcho-exec ingest - --json",
    "honcho-exec --hermes-home ~/.hermes ingest ~/.hermes/state.db --dry-run",
)
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@click.option(
    "--session-prefix", metavar="TEXT", default="", help="Put before every session's name; {stem} is the file's."
)
@click.option(
    "--timeout",
    type=SECONDS,
    metavar="SECONDS",
    default=60.0,
    help="Stop waiting when nothing has gone in for this many seconds (60).",
)
@click.option("--dry-run", is_flag=True, help="Only check the files and say what would go in.")
@json_option
@pass_cli
@click.pass_context
def ingest(
    ctx: click.Context, cli: CliContext, files: tuple[str, ...], session_prefix: str, timeout: float, *, dry_run: bool
) -> None:
    """Bring conversations in from files; `-` is stdin.

    JSON lines: every line is one message with `role` (user or assistant) and `content`, and where they are known
    `session` (else the file's name), `name` (who said it), `created_at` (ISO 8601) and `id`. Or lists of messages as
    OpenAI's API has them, as a JSON file or within lines of `{"messages": [...]}`; and Hermes's own session store,
    `state.db`. What tools and systems said is left out there.

    Everything is checked before the first message is sent. Running it again adds nothing twice.

    Exits with 1 when some messages did not go in; they are kept and go in later. Ctrl-C stops at once, says what is
    kept, and exits with 130.
    """
    with ExitStack() as stack:
        sources = [stack.enter_context(closing(Source(name))) for name in _once(files)]
        sessions = _survey(sources, session_prefix)
        _warn_shared(sessions)
        total = sum(sum(of_source.values()) for of_source in sessions.values())
        if not total:
            raise NothingToRead(f"there are no messages in {', '.join(sessions)}; {_FORMATS}")
        without = [name for name, of_source in sessions.items() if not of_source]
        if without:
            click.echo(f"Warning: there are no messages in {printable(', '.join(without))}", err=True)
        if dry_run:
            _tell_plan(sessions, total, as_json=cli.as_json)
            return
        provider = stack.enter_context(open_provider(cli))
        feed = Importer(provider, timeout, stack.enter_context(progress_bar("Ingesting", total)))
        interrupted = False
        try:
            for source, line in checked(sources):
                feed.give(_said(source, line, session_prefix))
            outcome = feed.finish()
        except KeyboardInterrupt:
            interrupted, outcome = True, feed.stop()
            provider.shutdown(0.0)
    count = len({session for of_source in sessions.values() for session in of_source})
    _tell(outcome, total, count, as_json=cli.as_json, interrupted=interrupted)
    if interrupted:
        ctx.exit(INTERRUPTED)
    ctx.exit(FAILED if outcome.kept or outcome.refused else 0)


def _once(files: Sequence[str]) -> list[str]:
    """Each file once, however often it was named."""
    return list({"-" if name == "-" else str(Path(name).resolve()): name for name in files}.values())


def _said(source: Source, line: Line, prefix: str) -> ImportedMessage:
    return ImportedMessage(prefix.replace("{stem}", source.stem) + (line.session or source.stem), line)


def _survey(sources: Sequence[Source], prefix: str) -> dict[str, Counter[str]]:
    """How many messages each session of each source has; looks at every line."""
    sessions: dict[str, Counter[str]] = {source.shown: Counter() for source in sources}
    for source, line in checked(sources):
        sessions[source.shown][_said(source, line, prefix).session] += 1
    return sessions


def _warn_shared(sessions: dict[str, Counter[str]]) -> None:
    files = Counter(session for of_source in sessions.values() for session in of_source)
    shared = [session for session, count in files.items() if count > 1]
    if shared:
        more = f" and {len(shared) - _SHARED_SHOWN} more" if len(shared) > _SHARED_SHOWN else ""
        names = ", ".join(repr(session) for session in shared[:_SHARED_SHOWN]) + more
        click.echo(
            f"Warning: several files have messages of the session {printable(names)}, which become one session; a"
            " --session-prefix for each file ({stem} in it is the file's name) keeps them apart",
            err=True,
        )


def _tell_plan(sessions: dict[str, Counter[str]], total: int, *, as_json: bool) -> None:
    together = sum(sessions.values(), Counter[str]())
    if as_json:
        print_json({"dry_run": True, "messages": total, "sessions": dict(together)})
        return
    console = stdout()
    print_fields(console, [(session, f"{count}", "") for session, count in together.items()])
    print_text(console, f"{total} messages of {len(together)} sessions would go in. Nothing was sent.")


def _tell(outcome: ImportResult, total: int, sessions: int, *, as_json: bool, interrupted: bool) -> None:
    told, cause = _sentence(outcome), outcome.cause
    if interrupted:
        told, cause = _stopped(outcome, total), "interrupted"
    if as_json:
        trouble = {"error": told, "cause": cause, "retryable": not outcome.refused} if told else {}
        counts = {key: value for key, value in asdict(outcome).items() if isinstance(value, int)}
        print_json({**trouble, "messages": total, **counts, "sessions": sessions})
        return
    over = f" over {sessions} session{'s' if sessions != 1 else ''}"
    already = f", {outcome.already} were there already" if outcome.already else ""
    empty = f", {outcome.empty} hold no text" if outcome.empty else ""
    print_text(stdout(), f"{outcome.written} of {total} messages went in{over}{already}{empty}.")
    if told:
        click.echo(f"Error: {printable(told)}", err=True)


def _stopped(outcome: ImportResult, total: int) -> str:
    """What is left when somebody interrupts."""
    parts = ["it was stopped"]
    if outcome.kept:
        parts.append(f"{outcome.kept} messages are kept in the outbox and go in by themselves later")
    if outcome.refused:
        parts.append(f"{outcome.refused} were refused and are set aside")
    given = outcome.written + outcome.already + outcome.empty + outcome.kept + outcome.refused
    if given < total:
        parts.append(f"{total - given} were not read: run it again to bring them in, nothing goes in twice")
    return "; ".join(parts)


def _sentence(outcome: ImportResult) -> str:
    """What is wrong, empty when nothing is."""
    parts = []
    if outcome.kept:
        parts.append(f"{outcome.kept} did not go in yet; they are kept in the outbox and go in by themselves later")
    if outcome.refused:
        parts.append(f"{outcome.refused} were refused and are set aside")
    return "; ".join(parts) + (f" ({outcome.reason or hint('honcho-exec status says why')})" if parts else "")
