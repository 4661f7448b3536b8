"""State files of earlier versions: upgraded once, after a backup, and only while no other process uses them."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.outboxes import Process
from support.providers import MakeProvider

from honcho_exec.errors import StateError
from honcho_exec.outbox.migrations import MIGRATIONS
from honcho_exec.storage.database import Database

EARLIER = Path(__file__).parents[2] / "support" / "earlier_state"
SCHEMA = 7

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT * FROM rows").fetchall()
print("ready", flush=True)
sys.stdin.readline()
"""
OPEN = """
import sys
from pathlib import Path
from support.outboxes import Process
from support.providers import MakeProvider
print("ready", flush=True)
sys.stdin.readline()
process = Process(Path(sys.argv[1]))
print(process.outbox.inspection.counts().pending)
process.close()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state folder as an earlier version left it."""
    home = tmp_path / "state"
    home.mkdir(mode=0o700)
    for script in EARLIER.glob("*.sql"):
        with closing(sqlite3.connect(home / f"{script.stem}.db")) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(script.read_text("utf-8"))
    return home


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def backups(home: Path) -> list[Path]:
    return sorted(home.glob("*.backup-*"))


def rows_of(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [line for line in connection.iterdump() if line.startswith("INSERT")]


def start(program: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, str(path)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_rows_of_an_earlier_outbox_keep_their_state(home: Path) -> None:
    process = Process(home)
    counts = process.outbox.inspection.counts()
    assert (counts.pending, counts.in_flight, counts.parked) == (4, 2, 1)
    assert [row.error for row in process.outbox.inspection.rows(parked=True)] == ["too long"]
    assert process.admit("fresh", key="k3") == "t-fresh"
    process.outbox.adopt()
    sent = process.outbox.claim()
    assert sent is not None
    assert sent.must_verify
    assert process.deliver() == ["sent", "answered", "fresh", "grows tomatoes"]
    process.close()


def test_backup_is_private_and_as_the_earlier_version_left_the_file(home: Path) -> None:
    before = rows_of(home / "outbox.db")
    Process(home).close()
    (backup,) = backups(home)
    assert backup.name.startswith("outbox.db.backup-")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert (version(backup), version(home / "outbox.db")) == (SCHEMA, len(MIGRATIONS))
    assert rows_of(backup) == before
    Process(home).close()
    assert backups(home) == [backup]


def test_backup_that_is_put_back_is_upgraded_again(home: Path) -> None:
    Process(home).close()
    (backup,) = backups(home)
    backup.rename(home / "outbox.db")
    assert version(home / "outbox.db") == SCHEMA
    process = Process(home)
    process.outbox.adopt()
    assert process.deliver() == ["sent", "answered", "fresh", "grows tomatoes"]
    process.close()


def test_file_without_rows_is_upgraded_without_a_backup(tmp_path: Path) -> None:
    Database(tmp_path / "outbox.db", MIGRATIONS[:SCHEMA]).close()
    process = Process(tmp_path)
    process.admit("one")
    assert process.deliver() == ["one"]
    process.close()
    assert backups(tmp_path) == []


def test_file_that_another_process_uses_is_not_upgraded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("honcho_exec.storage.migration._IN_USE_SECONDS", 0.1)
    child = start(HOLD, home / "outbox.db")
    with pytest.raises(StateError, match="in use by another process; stop that process"):
        Process(home)
    assert (version(home / "outbox.db"), backups(home)) == (SCHEMA, [])
    child.communicate("\n")
    Process(home).close()
    assert version(home / "outbox.db") == len(MIGRATIONS)


def test_file_that_cannot_be_backed_up_is_not_upgraded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("honcho_exec.storage.migration._back_up", fail)
    with pytest.raises(StateError, match="No space left"):
        Process(home)
    assert version(home / "outbox.db") == SCHEMA


def test_processes_that_open_an_earlier_file_at_once_upgrade_it_once(home: Path) -> None:
    children = [start(OPEN, home) for _ in range(4)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    assert [child.communicate(timeout=60)[0] for child in children] == ["4\n"] * 4
    assert len(backups(home)) == 1


def test_memory_known_sessions_and_costs_of_an_earlier_version_are_used(
    home: Path, make_provider: MakeProvider
) -> None:
    before = {name: rows_of(home / f"{name}.db") for name in ("memory", "known", "recall")}
    provider = make_provider(environ={"LOGNAME": "ada"}, home=home)
    provider.initialize("a")
    assert "I grow tomatoes" in json.loads(provider.handle_tool_call("honcho_search", {"query": "tomatoes"}))["result"]
    assert [cost.turns for cost in provider.status().recalled] == [7]
    provider.shutdown()
    for name, rows in before.items():
        assert set(rows) <= set(rows_of(home / f"{name}.db")), name
