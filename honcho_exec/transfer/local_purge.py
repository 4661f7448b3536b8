"""Find and delete data in the files of a state folder, besides the embedded Honcho's own."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from honcho_exec.client.session_store import SessionStore
from honcho_exec.clock import SystemClock
from honcho_exec.model import Message
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.outbox.rows import OutboxRow
from honcho_exec.recall.usage import RecallUsage
from honcho_exec.settings.identity import choice_of
from honcho_exec.text.purge_filter import PurgeFilter

__all__ = ["backup_files", "damaged_files", "files_with_text", "matching_rows", "purge_caches"]

_FILES = ("memory.db", "outbox.db", "outbox.spill", "known.db", "recall.db")


def matching_rows(outbox: Outbox, chosen: PurgeFilter) -> list[OutboxRow]:
    """Return the rows of the outbox, of any destination, that the filter matches."""
    rows = outbox.inspection.rows(everywhere=True, limit=sys.maxsize)
    return [row for row in rows if _matches(row, outbox.path.parent, chosen)]


def purge_caches(outbox: Outbox, chosen: PurgeFilter) -> None:
    """Delete what is cached of sessions and recall; running processes then open their session again."""
    home, clock = outbox.path.parent, SystemClock()
    if (home / "known.db").exists():
        SessionStore(home / "known.db", destination=outbox.destination, clock=clock).purge(chosen)
    usage = RecallUsage(home / "recall.db", destination=outbox.destination, clock=clock)
    usage.purge(chosen)
    usage.close()


def damaged_files(home: Path) -> list[Path]:
    """Return the damaged database files that were set aside."""
    return sorted(path for path in home.glob("*.damaged-*") if not path.name.endswith(("-wal", "-shm")))


def backup_files(home: Path) -> list[Path]:
    """Return the backups that were made before a file was migrated."""
    return sorted(
        path for path in home.glob("*.backup-*") if path.name.startswith(("outbox.", "known.", "recall.", "memory."))
    )


def files_with_text(home: Path, text: str) -> Iterator[str]:
    """Name the files that still have the bytes of a text.

    These are files with a log that cannot be emptied, because another process reads it.
    """
    forms = {text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)}
    wanted = {json.dumps(form, ensure_ascii=ascii_)[1:-1].encode() for form in forms for ascii_ in (True, False)}
    wanted |= {form.encode() for form in forms}
    for name in _FILES:
        log = home / f"{name}-wal"
        if not (log.exists() and log.stat().st_size):
            continue
        if any(one in path.read_bytes() for path in (home / name, log) for one in wanted):
            yield name


def _matches(row: OutboxRow, home: Path, chosen: PurgeFilter) -> bool:
    if chosen.workspace not in (None, row.ref.workspace):
        return False
    if chosen.everything or (chosen.session is not None and chosen.session == _session_of(row, home)):
        return True
    write, metadata = row.write, row.write.metadata if isinstance(row.write, Message) else {}
    return chosen.peer in write.peers or any(map(chosen.matches, write.texts)) or chosen.matches_metadata(metadata)


def _session_of(row: OutboxRow, home: Path) -> str:
    """Return the session of a row, as far as it is decided."""
    if not row.ref.key:
        return row.ref.session
    known = SessionStore(home / "known.db", destination=row.destination, clock=SystemClock())
    decided = known.named(choice_of(row.ref).own)
    return decided.session if decided else row.ref.session
