"""Import `outbox.spill`, in which earlier versions kept turns while another process locked the outbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from sqlite3 import Connection

from honcho_exec.clock import Deadline, SystemClock
from honcho_exec.outbox.rows import Value
from honcho_exec.storage.file_lock import exclusive
from honcho_exec.storage.folders import using_folder

__all__ = ["import_spill"]

# How long another process may take to import the file, or to add to it (seconds).
_PATIENCE_SECONDS = 2.0


def import_spill(path: Path, connection: Connection, now: float) -> None:
    """Store the turns in the file at `path`, in their order and each once, and remove the file.

    A file with a line that cannot be read is kept under another name.

    Args:
        path: the file.
        connection: to the outbox, in no transaction.
        now: seconds since the epoch.

    Raises:
        StateError: the file cannot be used now.
    """
    with using_folder(path.parent), exclusive(path, Deadline.after(_PATIENCE_SECONDS, SystemClock()), keep=True):
        if not path.exists():
            return
        # A line without an end was cut short; its caller was not told that it is kept.
        lines = path.read_bytes().split(b"\n")[:-1]
        unread = 0
        connection.execute("BEGIN IMMEDIATE")
        for line in lines:
            try:
                entry = json.loads(line)
                key, rows = str(entry["key"]), [dict(row) for row in entry["rows"]]
            except (ValueError, TypeError, KeyError):
                unread += 1
                continue
            # Its file is still there if the process dies between the commit and the removal.
            if connection.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", (key, now)).rowcount:
                for row in rows:
                    _store(connection, row)
        connection.execute("COMMIT")
        if unread:
            path.rename(path.with_name(f"{path.name}.damaged-{int(now)}"))
        else:
            path.unlink()


def _store(connection: Connection, row: Mapping[str, Value]) -> None:
    columns = {column for (column,) in connection.execute("SELECT name FROM pragma_table_info('rows')")} - {"id"}
    values = {column: value for column, value in row.items() if column in columns}
    connection.execute(
        f"INSERT INTO rows ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"
        " ON CONFLICT (dedup) DO NOTHING",
        list(values.values()),
    )
