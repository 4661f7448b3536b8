"""The tables of the outbox, and files of earlier versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection

from honcho_exec.clock import Deadline, SystemClock
from honcho_exec.outbox.rows import Value
from honcho_exec.storage.file_lock import exclusive
from honcho_exec.storage.folders import using_folder

__all__ = ["MIGRATIONS", "import_spill"]

# How long another process may take to import the file, or to add to it.
_SPILL_LOCK_SECONDS = 2.0

MIGRATIONS = (
    """
    CREATE TABLE rows (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        destination TEXT NOT NULL,
        stream TEXT NOT NULL,
        owner TEXT NOT NULL,
        turn TEXT NOT NULL,
        kind TEXT NOT NULL,
        workspace TEXT NOT NULL,
        session TEXT NOT NULL,
        user_peer TEXT NOT NULL,
        ai_peer TEXT NOT NULL,
        payload TEXT NOT NULL,
        dedup TEXT UNIQUE,
        admitted_at REAL NOT NULL,
        batch TEXT,
        attempts INTEGER NOT NULL DEFAULT 0,
        first_sent_at REAL,
        look INTEGER NOT NULL DEFAULT 0,
        settle_at REAL NOT NULL DEFAULT 0,
        error TEXT,
        parked_at REAL
    );
    CREATE INDEX rows_by_owner ON rows (destination, parked_at, owner, id);
    CREATE INDEX rows_by_stream ON rows (stream, parked_at, id);
    CREATE INDEX rows_by_batch ON rows (batch);
    CREATE INDEX rows_by_turn ON rows (turn);
    CREATE TABLE health (destination TEXT PRIMARY KEY, delivered_at REAL, error TEXT, error_at REAL);
    CREATE TABLE size (rows INTEGER NOT NULL);
    INSERT INTO size VALUES (0);
    CREATE TRIGGER row_added AFTER INSERT ON rows BEGIN UPDATE size SET rows = rows + 1; END;
    CREATE TRIGGER row_gone AFTER DELETE ON rows BEGIN UPDATE size SET rows = rows - 1; END;
    """,
    """
    CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY,
        destination TEXT NOT NULL,
        at REAL NOT NULL,
        waited REAL NOT NULL,
        rows INTEGER NOT NULL
    );
    CREATE TRIGGER delivery_added AFTER INSERT ON deliveries BEGIN
        DELETE FROM deliveries WHERE id <= new.id - 1000;
    END;
    """,
    """
    CREATE TABLE origin (id TEXT NOT NULL);
    INSERT INTO origin VALUES (lower(hex(randomblob(8))));
    CREATE TABLE places (origin TEXT PRIMARY KEY, behind INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE taken (key TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
    """,
    """
    DROP TABLE origin;
    DROP TABLE places;
    """,
    # Rows that an earlier version has sent carry no key in Honcho.
    """
    ALTER TABLE rows ADD COLUMN key TEXT;
    ALTER TABLE rows ADD COLUMN admitted_by TEXT NOT NULL DEFAULT '';
    ALTER TABLE rows ADD COLUMN place TEXT;
    ALTER TABLE rows ADD COLUMN admitted_boot TEXT NOT NULL DEFAULT '';
    ALTER TABLE rows ADD COLUMN admitted_seconds REAL NOT NULL DEFAULT 0;
    ALTER TABLE rows ADD COLUMN ambiguous_boot TEXT NOT NULL DEFAULT '';
    UPDATE rows SET key = turn || '.' || id WHERE NOT look;
    CREATE TABLE stored_conclusions (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE);
    CREATE TRIGGER stored_conclusion_added AFTER INSERT ON stored_conclusions BEGIN
        DELETE FROM stored_conclusions WHERE id <= new.id - 10000;
    END;
    CREATE TABLE dated_sessions (
        id INTEGER PRIMARY KEY,
        destination TEXT NOT NULL,
        session TEXT NOT NULL,
        latest REAL NOT NULL,
        UNIQUE (destination, session)
    );
    CREATE TRIGGER dated_session_added AFTER INSERT ON dated_sessions BEGIN
        DELETE FROM dated_sessions WHERE id <= new.id - 10000;
    END;
    CREATE TABLE arrivals (
        origin TEXT NOT NULL,
        place TEXT NOT NULL,
        boot TEXT NOT NULL,
        seconds REAL NOT NULL,
        PRIMARY KEY (origin, place)
    ) WITHOUT ROWID;
    """,
    "ALTER TABLE rows ADD COLUMN session_key TEXT NOT NULL DEFAULT '';",
    # Few rows are under way: looking for those behind a batch does not read the backlog.
    "CREATE INDEX rows_under_way ON rows (stream, id) WHERE look;",
    """
    ALTER TABLE rows RENAME COLUMN look TO must_verify;
    ALTER TABLE rows RENAME COLUMN settle_at TO ambiguous_until;
    ALTER TABLE rows RENAME COLUMN dedup TO dedup_key;
    """,
)


_RENAMED = {"look": "must_verify", "settle_at": "ambiguous_until", "dedup": "dedup_key"}


def import_spill(path: Path, connection: Connection, now: float) -> None:
    """Store the turns in `outbox.spill`, in order and each once, and rename the file.

    Earlier versions kept turns there while another process locked the outbox. The file is kept as a backup, or as
    damaged if a line cannot be read.

    Args:
        path: the file.
        connection: to the outbox, outside a transaction.
        now: seconds since the epoch.

    Raises:
        StateError: the file cannot be used now.
    """
    with using_folder(path.parent), exclusive(path, Deadline.after(_SPILL_LOCK_SECONDS, SystemClock()), keep=True):
        if not path.exists():
            return
        # An incomplete last line was never confirmed to its caller.
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
            # If the process dies between the commit and the renaming, the file is read again.
            if connection.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", (key, now)).rowcount:
                for row in rows:
                    _store(connection, row)
        connection.execute("COMMIT")
        if lines:
            what = "damaged" if unread else "backup"
            path.rename(path.with_name(f"{path.name}.{what}-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S}"))
        else:
            path.unlink()


def _store(connection: Connection, row: Mapping[str, Value]) -> None:
    columns = {column for (column,) in connection.execute("SELECT name FROM pragma_table_info('rows')")} - {"id"}
    values = {_RENAMED.get(column, column): value for column, value in row.items()}
    values = {column: value for column, value in values.items() if column in columns}
    connection.execute(
        f"INSERT INTO rows ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"
        " ON CONFLICT (dedup_key) DO NOTHING",
        list(values.values()),
    )
