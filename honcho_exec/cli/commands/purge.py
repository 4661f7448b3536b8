"""`purge`: delete data in every place that has it, after asking."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field

import click

from honcho_exec.cli.commands.export_import import counted
from honcho_exec.cli.context import FAILED, CliContext, command, json_option, pass_cli, print_json, printable
from honcho_exec.cli.output import print_fields, print_text, stdout, without_password
from honcho_exec.cli.resources import MEMORY_FILE, load_settings, open_memory, open_outbox, open_server
from honcho_exec.cli.rows import many
from honcho_exec.errors import RequestError
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.settings import LoadedSettings
from honcho_exec.text.purge_filter import PurgeFilter
from honcho_exec.transfer.local_purge import backup_files, damaged_files, files_with_text, matching_rows, purge_caches
from honcho_exec.transfer.purge import ServerPurge

__all__ = ["purge"]

_NOT_SHRUNK = "the empty space in {}, as long as another process reads it; run it again then"


@dataclass(slots=True)
class _Found:
    """What was found, or deleted, in each place; and what could not be deleted.

    Attributes:
        memory: records of the memory on this machine, by kind.
        outbox: rows of the outbox.
        server: resources of the server, by kind; None if none is in use.
        left: what remains, and why.
    """

    memory: Counter[str] = field(default_factory=Counter)
    outbox: int = 0
    server: Counter[str] | None = None
    left: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to delete."""
        return not (self.memory.total() or self.outbox or (self.server and self.server.total()) or self.left)


@command(
    'honcho-exec purge --text "4111 1111 1111 1111"',
    "honcho-exec purge --session holiday --yes",
    "honcho-exec purge --peer telegram-42 --dry-run --json",
)
@click.option("--peer", metavar="ID", help="A peer's messages, and the conclusions and cards about it or by it.")
@click.option("--session", metavar="ID", help="A session with its messages and conclusions.")
@click.option("--text", "words", metavar="TEXT", help="Everything with this text, in any case.")
@click.option("--everything", is_flag=True, help="All data.")
@click.option("--all-workspaces", is_flag=True, help="In every workspace; by default only in the one in use.")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted; never ask.")
@click.option("--yes", "sure", is_flag=True, help="Do not ask.")
@json_option
@pass_cli
@click.pass_context
def purge(
    ctx: click.Context,
    cli: CliContext,
    *,
    peer: str | None,
    session: str | None,
    words: str | None,
    everything: bool,
    all_workspaces: bool,
    dry_run: bool,
    sure: bool,
) -> None:
    """Delete what you name, in every place that has it, after asking.

    First shows what would be deleted. Without a terminal to ask on, and without --yes, it ends there. On this machine,
    deleted data is overwritten in the files. A server can delete no single messages and no peers: purge lists those
    that remain, and exits with 1.
    """
    if [bool(option) for option in (peer, session, words and words.strip(), everything)].count(True) != 1:
        raise click.UsageError("give exactly one of --peer, --session, --text and --everything")
    loaded = load_settings(cli)
    chosen = PurgeFilter(None if all_workspaces else loaded.settings.workspace, peer, session, words)
    effect = _effect(loaded, session)
    found = _purge(cli, loaded, chosen, dry_run=True)
    if not cli.as_json:
        _show(found, "What is deleted:" if sure else "What would be deleted:")
        if effect and not found.nothing:
            print_text(stdout(), effect)
    if dry_run or found.nothing or not (sure or _agreed(as_json=cli.as_json)):
        if cli.as_json:
            print_json({"dry_run": True, **_as_json(found), "effect": effect})
        return
    done = _purge(cli, loaded, chosen, dry_run=False)
    if cli.as_json:
        print_json({"dry_run": False, **_as_json(done), "effect": effect})
    else:
        _show(done, "What was deleted:")
    ctx.exit(FAILED if done.left else 0)


def _effect(loaded: LoadedSettings, session: str | None) -> str | None:
    """Return what the deletion of a session means for an agent in it."""
    if session is None:
        return None
    again = f"An agent that is in the session {session} continues in a new, empty session of that name"
    if loaded.settings.backend == "embedded":
        return f"{again}, at once."
    return (
        f"{again}. The server frees the name some five minutes after the deletion: until then turns stay in the outbox,"
        " and tools that need no session work."
    )


def _purge(cli: CliContext, loaded: LoadedSettings, chosen: PurgeFilter, *, dry_run: bool) -> _Found:
    """Search every place and, unless in a dry run, delete: first rows to be delivered, then everything else."""
    found = _Found()
    with ExitStack() as stack:
        outbox = stack.enter_context(open_outbox(cli))
        home = outbox.path.parent
        _purge_outbox(outbox, chosen, found, dry_run=dry_run)
        if not dry_run:
            outbox.history.purge(chosen)
        if loaded.settings.backend != "embedded":
            _purge_server(loaded, chosen, found, dry_run=dry_run)
        if (home / MEMORY_FILE).exists():
            honcho = stack.enter_context(open_memory(cli))
            found.memory = honcho.count(chosen) if dry_run else honcho.purge(chosen)
            if chosen.text is not None:
                found.left += [
                    f"the name of the {kind} {id_} (purge --{kind} {id_})"
                    for kind, id_ in honcho.matching_names(chosen)
                ]
            if dry_run and not found.memory.total():
                # An earlier purge may have left data in the log, which another process was reading.
                honcho.flush()
            if not dry_run and chosen.everything and not honcho.shrink():
                found.left.append(_NOT_SHRUNK.format(MEMORY_FILE))
        if not dry_run:
            purge_caches(outbox, chosen)
        outbox.file.vacuum()
        if not dry_run and chosen.everything and not outbox.file.shrink():
            found.left.append(_NOT_SHRUNK.format(outbox.path.name))
        found.left += [
            f"{path.name}, which was damaged and set aside, may have some of it" for path in damaged_files(home)
        ]
        found.left += [
            f"{path.name}, a backup of an earlier version, may have some of it" for path in backup_files(home)
        ]
        if chosen.text is not None and (not dry_run or found.nothing):
            found.left += [
                f"{name} may still hold the text: another process uses it; end that and run it again"
                for name in files_with_text(home, chosen.text)
            ]
    return found


def _purge_outbox(outbox: Outbox, chosen: PurgeFilter, found: _Found, *, dry_run: bool) -> None:
    rows = [row.id for row in matching_rows(outbox, chosen)]
    found.outbox = len(rows) if dry_run or not rows else outbox.inspection.drop(rows)
    if found.outbox < len(rows):
        found.left.append(f"{many(len(rows) - found.outbox)} of the outbox that are being sent; run it again later")


def _purge_server(loaded: LoadedSettings, chosen: PurgeFilter, found: _Found, *, dry_run: bool) -> None:
    found.server = Counter()
    with open_server(loaded) as api:
        try:
            workspaces = [chosen.workspace] if chosen.workspace is not None else sorted(api.ids("/v3/workspaces"))
            for workspace in workspaces:
                done = ServerPurge(api, workspace, dry_run=dry_run).purge(chosen)
                found.server += done.deleted
                found.left += [f"on the server: {what}" for what in done.left]
        except RequestError as error:
            found.left.append(f"on the server: {error}; run it again")


def _agreed(*, as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        return False
    return click.confirm("Delete it for good?", err=True)


def _as_json(found: _Found) -> dict[str, object]:
    server = None if found.server is None else dict(found.server)
    return {"memory": dict(found.memory), "outbox": found.outbox, "server": server, "left": found.left}


def _show(found: _Found, title: str) -> None:
    console = stdout()
    if found.nothing:
        print_text(console, "Nothing matches.")
        return
    print_text(console, title)
    rows = [("memory", counted(found.memory), ""), ("outbox", many(found.outbox) if found.outbox else "nothing", "")]
    if found.server is not None:
        rows.append(("server", counted(found.server), ""))
    print_fields(console, rows)
    for one in found.left:
        click.echo(f"Not deleted: {printable(without_password(one))}", err=True)
