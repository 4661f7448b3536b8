"""Check this machine and the server, and report findings."""

from __future__ import annotations

import platform
import shlex
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from honcho_exec.client.session_store import SessionStore
from honcho_exec.clock import SystemClock, format_duration
from honcho_exec.errors import HonchoExecError
from honcho_exec.provider.status import Finding, Status
from honcho_exec.settings import Settings
from honcho_exec.settings.names import mapped_name

if TYPE_CHECKING:
    from honcho_exec.conversation.conversation import Conversation

__all__ = ["diagnose"]

_OUTBOX_ADVICE = (
    "stop the programs that use it; the next run renames a damaged outbox.db and begins another, and in the old one"
    " sqlite3 shows what was pending"
)
# With less space on the disk the state may soon not fit.
_LOW_SPACE_BYTES = 100 * 1024 * 1024


def diagnose(
    status: Status, conversation: Conversation | None, settings: Settings | None = None
) -> tuple[Finding, ...]:
    """Return findings, good and bad, in the order in which a person would check."""
    found = [*_machine(status), *_state(Path(status.state), conversation)]
    if conversation is not None:
        found += _server(status, conversation)
        found += _outbox(status)
        found += _earlier_sessions(status, conversation)
    if settings is not None:
        found += _shared_names(settings)
    return (*found, *status.findings)


def _machine(status: Status) -> Iterator[Finding]:
    versions = (
        f"honcho_exec {_version('honcho_exec')}, honcho-ai {status.sdk_version}, Python {platform.python_version()}"
    )
    if status.sdk_version:
        yield Finding("ok", versions)
    else:
        yield Finding("problem", "the Honcho SDK is not installed", "pip install 'honcho-ai>=2.2,<3'")


def _state(home: Path, conversation: Conversation | None) -> Iterator[Finding]:
    # The status reports a folder that cannot be read.
    with suppress(OSError, ValueError):
        yield from _folder(home)
    if conversation is not None:
        try:
            conversation.outbox.file.check()
            yield Finding("ok", "the outbox is whole")
        except HonchoExecError as error:
            yield Finding("problem", str(error), _OUTBOX_ADVICE)


def _folder(home: Path) -> Iterator[Finding]:
    if not home.is_dir():
        return
    yield Finding("ok", f"state is kept in {home}")
    for path in (home, *sorted(home.glob("*.db*")), *home.glob("outbox.spill*")):
        try:
            mode = stat.S_IMODE(path.lstat().st_mode)
        except FileNotFoundError:
            # SQLite removes its files when the last process closes a database.
            continue
        # The status reports what others may change.
        if mode & 0o077 and not mode & 0o022:
            yield Finding(
                "problem",
                f"others on this machine may read {path} (mode {mode:03o})",
                f"chmod go-rwx {shlex.quote(str(path))}",
            )
    free = shutil.disk_usage(home).free
    if free < _LOW_SPACE_BYTES:
        yield Finding(
            "problem",
            f"only {free // 1024**2} MB are free where the state is kept",
            "make room, or set HONCHO_EXEC_HOME",
        )


def _server(status: Status, conversation: Conversation) -> Iterator[Finding]:
    if not status.reachable or status.latency is None:
        return
    answered = f"{conversation.where} answers in {status.latency * 1000:.1f} ms"
    if status.backend == "embedded":
        yield Finding("ok", f"{answered}; no server and no key are needed")
        return
    yield Finding("ok", f"{answered}, as {conversation.reader.server_version() or 'an unknown version'}")
    yield Finding("ok", "the key is accepted, or none is needed")
    if status.deriving is None:
        yield Finding(
            "note",
            "the server does not report what it has stored and not yet derived",
            "nothing has to be done; a proxy may hide /queue/status, or the server is too old for it",
        )
    elif not status.deriving:
        yield Finding("ok", "everything that is stored is derived")


def _outbox(status: Status) -> Iterator[Finding]:
    waiting = f"{status.pending} writes are pending" if status.pending else "nothing is pending"
    oldest = status.oldest_pending_age
    age = f", the oldest for {format_duration(oldest)}" if oldest is not None else ""
    last = f"the last delivery was at {status.last_delivery_at}" if status.last_delivery_at else "nothing delivered yet"
    yield Finding("ok", f"outbox: {waiting}{age}; {last}")
    if status.last_error:
        yield Finding(
            "note",
            f"the last failure was at {status.last_error_at}: {status.last_error}",
            "list pending writes with: honcho-exec outbox list",
        )


def _earlier_sessions(status: Status, conversation: Conversation) -> Iterator[Finding]:
    known = SessionStore(
        Path(status.state) / "known.db", destination=conversation.outbox.destination, clock=SystemClock()
    )
    for name in known.names():
        if name.session == name.earlier:
            yield Finding(
                "ok", f"a chat continues in {name.session}, which earlier versions named; no other person is in it"
            )
        else:
            yield Finding(
                "note",
                f"the session {name.earlier} of an earlier version was left alone: others are in it, or could be",
                f"its chat goes on in {name.session}; honcho_search still finds what its members said",
            )


def _shared_names(settings: Settings) -> Iterator[Finding]:
    """Report sessions that several directories of the map share."""
    directories: dict[str, list[str]] = {}
    for directory, name in sorted(settings.sessions.items()):
        directories.setdefault(mapped_name(name), []).append(directory)
    for name, sharing in directories.items():
        if name and len(sharing) > 1:
            yield Finding(
                "note",
                f"`sessions` gives {' and '.join(sharing)} the same session, {name}",
                "give them different names if they are not one conversation",
            )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed as a package)"
