"""`purge`: forget what a person wants forgotten, everywhere it is kept."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click

from honcho_exec.cli.commands.export_import import counted
from honcho_exec.cli.context import FAILED, CliContext, command, json_option, pass_cli, print_json, printable
from honcho_exec.cli.hermes_home import environment
from honcho_exec.cli.output import print_fields, print_text, stdout, without_password
from honcho_exec.cli.resources import MEMORY_FILE, open_memory, open_outbox, open_server
from honcho_exec.cli.rows import EVERY, many
from honcho_exec.client.session_store import Known
from honcho_exec.clock import SystemClock
from honcho_exec.errors import RequestError
from honcho_exec.model import Card, Conclusion, Message, Replacement, Write
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.outbox.rows import OutboxRow
from honcho_exec.recall.usage import RecallUsage
from honcho_exec.settings import LoadedSettings, load
from honcho_exec.settings.identity import choice_of
from honcho_exec.text.purge_filter import PurgeFilter
from honcho_exec.transfer.purge import ServerForgetting

__all__ = ["purge"]

_NOT_SHRUNK = "the empty space in {}, as long as another process reads it; run it again then"
_FILES = (MEMORY_FILE, "outbox.db", "outbox.spill", "known.db", "recall.db")


@dataclass(slots=True)
class _Found:
    """What was found, or taken out, in each place; and what could not be taken out.

    Attributes:
        here: in this machine's memory, by kind.
        outbox: rows that wait, or are parked.
        server: on the server, by kind; None where none is in use.
        left: what is still there, and why.
    """

    here: Counter[str] = field(default_factory=Counter)
    outbox: int = 0
    server: Counter[str] | None = None
    left: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to forget."""
        return not (self.here.total() or self.outbox or (self.server and self.server.total()) or self.left)


@command(
    'honcho-exec purge --text "4111 1111 1111 1111"',
    "honcho-exec purge --session holiday --yes",
    "honcho-exec purge --peer telegram-42 --dry-run --json",
)
@click.option("--peer", metavar="ID", help="What a peer said, and what is known of it or by it.")
@click.option("--session", metavar="ID", help="A session and all it holds.")
@click.option("--text", "words", metavar="TEXT", help="Whatever holds this text, in whatever case.")
@click.option("--everything", is_flag=True, help="All of it.")
@click.option("--all-workspaces", is_flag=True, help="In every workspace; by default in the one in use.")
@click.option("--dry-run", is_flag=True, help="Only say what would be forgotten; never ask.")
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
    """Forget what you name, wherever it is kept, after asking.

    Says first what would be forgotten. Without a terminal to ask on, and without --yes, nothing more happens. What is
    forgotten here is overwritten in the files. A server deletes no single message and no peer: what stays there is
    said, and the exit code is 1.
    """
    if [bool(one) for one in (peer, session, words and words.strip(), everything)].count(True) != 1:
        raise click.UsageError("give exactly one of --peer, --session, --text and --everything")
    loaded = _settings(cli)
    chosen = PurgeFilter(None if all_workspaces else loaded.settings.workspace, peer, session, words)
    effect = _effect(loaded, session)
    found = _look(cli, loaded, chosen, do=False)
    if not cli.as_json:
        _show(found, "would be forgotten" if not sure else "is to be forgotten")
        if effect and not found.nothing:
            print_text(stdout(), effect)
    if dry_run or found.nothing or not (sure or _agreed(as_json=cli.as_json)):
        if cli.as_json:
            print_json({"dry_run": True, **_plain(found), "effect": effect})
        return
    done = _look(cli, loaded, chosen, do=True)
    if cli.as_json:
        print_json({"dry_run": False, **_plain(done), "effect": effect})
    else:
        _show(done, "was forgotten")
    ctx.exit(FAILED if done.left else 0)


def _effect(loaded: LoadedSettings, session: str | None) -> str | None:
    """Return what deleting a session means for an agent that is in it."""
    if session is None:
        return None
    again = f"An agent that is in the session {session} goes on in a new, empty session of that name"
    if loaded.settings.backend == "embedded":
        return f"{again}, at once."
    return (
        f"{again}. The server frees the name some five minutes after the deletion: until then turns wait and are kept,"
        " and tools that need no session work."
    )


def _settings(cli: CliContext) -> LoadedSettings:
    return load(environment(cli.hermes_home), hermes_home=cli.hermes_home)


def _look(cli: CliContext, loaded: LoadedSettings, chosen: PurgeFilter, *, do: bool) -> _Found:
    """Look in every place, and with `do` take out what is found: first what would be delivered yet, here last."""
    found = _Found()
    with ExitStack() as stack:
        outbox = stack.enter_context(open_outbox(cli))
        home = outbox.path.parent
        _from_outbox(outbox, home, chosen, found, do=do)
        if do:
            outbox.history.purge(chosen)
        if loaded.settings.backend != "embedded":
            _from_server(loaded, chosen, found, do=do)
        if (home / MEMORY_FILE).exists():
            honcho = stack.enter_context(open_memory(cli))
            found.here = honcho.purge(chosen) if do else honcho.count(chosen)
            if chosen.text is not None:
                found.left += [
                    f"the name of the {kind} {id_} (purge --{kind} {id_})"
                    for kind, id_ in honcho.matching_names(chosen)
                ]
            if not (do or found.here.total()):
                # An earlier purge may have had to leave it in the log, which somebody read.
                honcho.flush()
            if do and chosen.everything and not honcho.shrink():
                found.left.append(_NOT_SHRUNK.format(MEMORY_FILE))
        if do:
            # Running processes learn by it that the session is another one.
            _from_other_files(home, outbox, chosen)
        outbox.file.vacuum()
        if do and chosen.everything and not outbox.file.shrink():
            found.left.append(_NOT_SHRUNK.format(outbox.path.name))
        found.left += [f"{path.name}, which was damaged and set aside, may hold some" for path in _aside(home)]
        found.left += [f"{path.name}, a backup of an earlier version, may hold some" for path in _backups(home)]
        if chosen.text is not None and (do or found.nothing):
            found.left += _still(home, chosen.text)
    return found


def _from_outbox(outbox: Outbox, home: Path, chosen: PurgeFilter, found: _Found, *, do: bool) -> None:
    rows = [row for row in outbox.inspection.rows(everywhere=True, limit=EVERY) if _is_chosen(row, home, chosen)]
    found.outbox = outbox.inspection.drop([row.id for row in rows]) if do and rows else len(rows)
    if do and found.outbox < len(rows):
        found.left.append(f"{many(len(rows) - found.outbox)} of the outbox that are being sent; run it again later")


def _is_chosen(row: OutboxRow, home: Path, chosen: PurgeFilter) -> bool:
    if chosen.workspace not in (None, row.ref.workspace):
        return False
    if chosen.everything or (chosen.session is not None and chosen.session == _session_of(row, home)):
        return True
    about, texts, beside = _said_in(row.write)
    return chosen.peer in about or any(map(chosen.holds, texts)) or chosen.holds_beside(beside)


def _session_of(row: OutboxRow, home: Path) -> str:
    """The session that a row goes to, as far as that is decided."""
    if not row.ref.key:
        return row.ref.session
    known = Known(home / "known.db", destination=row.destination, clock=SystemClock())
    decided = known.named(choice_of(row.ref).own)
    return decided.session if decided else row.ref.session


def _said_in(write: Write) -> tuple[tuple[str, ...], tuple[str, ...], Mapping[str, object]]:
    """Whom a write is by or about, its texts, and what was given beside them."""
    match write:
        case Message():
            return (write.peer,), (write.content,), write.metadata
        case Conclusion():
            return (write.observer, write.observed), (write.content,), {}
        case Card():
            return (write.observer, write.observed), tuple(write.facts), {}
        case Replacement():
            return (write.observer, write.observed), (write.old, write.new), {}
    return (), (), {}


def _from_server(loaded: LoadedSettings, chosen: PurgeFilter, found: _Found, *, do: bool) -> None:
    found.server = Counter()
    with open_server(loaded) as api:
        try:
            workspaces = [chosen.workspace] if chosen.workspace is not None else sorted(api.ids("/v3/workspaces"))
            for workspace in workspaces:
                done = ServerForgetting(api, workspace, dry_run=not do).forget(chosen)
                found.server += done.gone
                found.left += [f"on the server: {what}" for what in done.left]
        except RequestError as error:
            found.left.append(f"on the server: {error}; run it again")


def _from_other_files(home: Path, outbox: Outbox, chosen: PurgeFilter) -> None:
    """Take out what other files know of it, and empty the logs beside them."""
    if (home / "known.db").exists():
        Known(home / "known.db", destination=outbox.destination, clock=SystemClock()).purge(chosen)
    usage = RecallUsage(home / "recall.db", destination=outbox.destination, clock=SystemClock())
    usage.purge(chosen)
    usage.close()


def _aside(home: Path) -> list[Path]:
    return sorted(path for path in home.glob("*.damaged-*") if not path.name.endswith(("-wal", "-shm")))


def _backups(home: Path) -> list[Path]:
    return sorted(
        path for path in home.glob("*.backup-*") if path.name.startswith(("outbox.", "known.", "recall.", "memory."))
    )


def _still(home: Path, words: str) -> Iterator[str]:
    """Where the bytes of the text may nevertheless be: only while somebody reads a file, its log is not emptied."""
    forms = {words, unicodedata.normalize("NFC", words), unicodedata.normalize("NFD", words)}
    wanted = {json.dumps(form, ensure_ascii=plain)[1:-1].encode() for form in forms for plain in (True, False)}
    wanted |= {form.encode() for form in forms}
    for name in _FILES:
        log = home / f"{name}-wal"
        if not (log.exists() and log.stat().st_size):
            continue
        if any(one in path.read_bytes() for path in (home / name, log) for one in wanted):
            yield f"{name} may still hold the text: another process uses it; end that and run it again"


def _agreed(*, as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        return False
    return click.confirm("Forget it for good?", err=True)


def _plain(found: _Found) -> dict[str, object]:
    server = None if found.server is None else dict(found.server)
    return {"memory": dict(found.here), "outbox": found.outbox, "server": server, "left": found.left}


def _show(found: _Found, what: str) -> None:
    console = stdout()
    if found.nothing:
        print_text(console, "Nothing of that is kept.")
        return
    print_text(console, f"What {what}:")
    rows = [("memory", counted(found.here), ""), ("outbox", many(found.outbox) if found.outbox else "nothing", "")]
    if found.server is not None:
        rows.append(("server", counted(found.server), ""))
    print_fields(console, rows)
    for one in found.left:
        click.echo(f"Stays: {printable(without_password(one))}", err=True)
