"""`ingest`: import conversations from files, each message once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
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
from honcho_exec.transfer.sources import InputFile, MessageLine, NothingToRead, read_messages

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
    "--session-prefix",
    metavar="TEXT",
    default="",
    help="A prefix for the names of sessions; {stem} in it is the file's name.",
)
@click.option(
    "--timeout",
    type=SECONDS,
    metavar="SECONDS",
    default=60.0,
    help="Stop waiting after so many seconds without a delivery (60).",
)
@click.option("--dry-run", is_flag=True, help="Only check the files and show what would be imported.")
@json_option
@pass_cli
@click.pass_context
def ingest(
    ctx: click.Context, cli: CliContext, files: tuple[str, ...], session_prefix: str, timeout: float, *, dry_run: bool
) -> None:
    """Bring conversations in from files; `-` is stdin.

    The format is found automatically. JSON lines: each line is a message with `role` (user or assistant) and
    `content`, and optionally `session` (default: the file's name), `name` (of the speaker), `created_at` (ISO 8601)
    and `id`. Lists of messages as in OpenAI's API: as a JSON file, or as lines of `{"messages": [...]}`. Hermes's
    session store, `state.db`. Messages of tools and systems are left out of the last two.

    Every file is checked before the first message is sent. Running it again imports nothing twice.

    Exits with 1 if some messages are not delivered; they stay in the outbox and are delivered later. Ctrl-C stops at
    once, reports what is in the outbox, and exits with 130.
    """
    with ExitStack() as stack:
        inputs = [stack.enter_context(closing(InputFile(name))) for name in _once(files)]
        sessions = _survey(inputs, session_prefix)
        _warn_shared(sessions)
        total = sum(sum(of_file.values()) for of_file in sessions.values())
        if not total:
            raise NothingToRead(f"there are no messages in {', '.join(sessions)}; {_FORMATS}")
        without = [name for name, of_file in sessions.items() if not of_file]
        if without:
            click.echo(f"Warning: there are no messages in {printable(', '.join(without))}", err=True)
        if dry_run:
            _print_plan(sessions, total, as_json=cli.as_json)
            return
        provider = stack.enter_context(open_provider(cli))
        importer = Importer(provider, timeout, stack.enter_context(progress_bar("Ingesting", total)))
        interrupted = False
        try:
            for file, line in read_messages(inputs):
                importer.add(_message_of(file, line, session_prefix))
            outcome = importer.finish()
        except KeyboardInterrupt:
            interrupted, outcome = True, importer.stop()
            provider.shutdown(0.0)
    count = len({session for of_file in sessions.values() for session in of_file})
    _print_result(outcome, total, count, as_json=cli.as_json, interrupted=interrupted)
    if interrupted:
        ctx.exit(INTERRUPTED)
    ctx.exit(FAILED if outcome.kept or outcome.refused else 0)


def _once(files: Sequence[str]) -> list[str]:
    """Return each file once, even if it was named several times."""
    return list({"-" if name == "-" else str(Path(name).resolve()): name for name in files}.values())


def _message_of(file: InputFile, line: MessageLine, prefix: str) -> ImportedMessage:
    return ImportedMessage(prefix.replace("{stem}", file.stem) + (line.session or file.stem), line)


def _survey(inputs: Sequence[InputFile], prefix: str) -> dict[str, Counter[str]]:
    """Check every line, and count the messages of each session of each file."""
    sessions: dict[str, Counter[str]] = {file.shown: Counter() for file in inputs}
    for file, line in read_messages(inputs):
        sessions[file.shown][_message_of(file, line, prefix).session] += 1
    return sessions


def _warn_shared(sessions: dict[str, Counter[str]]) -> None:
    files = Counter(session for of_file in sessions.values() for session in of_file)
    shared = [session for session, count in files.items() if count > 1]
    if shared:
        more = f" and {len(shared) - _SHARED_SHOWN} more" if len(shared) > _SHARED_SHOWN else ""
        names = ", ".join(repr(session) for session in shared[:_SHARED_SHOWN]) + more
        click.echo(
            f"Warning: several files have messages of the session {printable(names)}, which become one session; a"
            " --session-prefix for each file ({stem} in it is the file's name) keeps them apart",
            err=True,
        )


def _print_plan(sessions: dict[str, Counter[str]], total: int, *, as_json: bool) -> None:
    together = sum(sessions.values(), Counter[str]())
    if as_json:
        print_json({"dry_run": True, "messages": total, "sessions": dict(together)})
        return
    console = stdout()
    print_fields(console, [(session, f"{count}", "") for session, count in together.items()])
    print_text(console, f"{total} messages of {len(together)} sessions would be imported. Nothing was sent.")


def _print_result(outcome: ImportResult, total: int, sessions: int, *, as_json: bool, interrupted: bool) -> None:
    problem, cause = _sentence(outcome), outcome.cause
    if interrupted:
        problem, cause = _stopped(outcome, total), "interrupted"
    if as_json:
        trouble = {"error": problem, "cause": cause, "retryable": not outcome.refused} if problem else {}
        counts = {
            "written": outcome.written,
            "already": outcome.duplicates,
            "empty": outcome.empty,
            "kept": outcome.kept,
            "refused": outcome.refused,
        }
        print_json({**trouble, "messages": total, **counts, "sessions": sessions})
        return
    over = f" over {sessions} session{'s' if sessions != 1 else ''}"
    already = f", {outcome.duplicates} were in Honcho already" if outcome.duplicates else ""
    empty = f", {outcome.empty} have no text" if outcome.empty else ""
    print_text(stdout(), f"{outcome.written} of {total} messages were imported{over}{already}{empty}.")
    if problem:
        click.echo(f"Error: {printable(problem)}", err=True)


def _stopped(outcome: ImportResult, total: int) -> str:
    """Report what is left after an interruption."""
    parts = ["interrupted"]
    if outcome.kept:
        parts.append(f"{outcome.kept} messages are in the outbox and are delivered later")
    if outcome.refused:
        parts.append(f"{outcome.refused} were refused and are parked")
    stored = outcome.written + outcome.duplicates + outcome.empty + outcome.kept + outcome.refused
    if stored < total:
        parts.append(f"{total - stored} were not read: run it again to import them, nothing is imported twice")
    return "; ".join(parts)


def _sentence(outcome: ImportResult) -> str:
    """Report what is wrong; empty if nothing is."""
    parts = []
    if outcome.kept:
        parts.append(f"{outcome.kept} are not delivered yet; they are in the outbox and are delivered later")
    if outcome.refused:
        parts.append(f"{outcome.refused} were refused and are parked")
    return "; ".join(parts) + (f" ({outcome.reason or hint('honcho-exec status says why')})" if parts else "")
