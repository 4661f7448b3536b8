"""What is done where the outbox's file is removed, renamed or replaced while it is in use."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.outboxes import Process, another

from honcho_exec.errors import StateError
from honcho_exec.outbox.migrations import MIGRATIONS
from honcho_exec.storage.database import Database


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def process(home: Path) -> Iterator[Process]:
    process = Process(home)
    yield process
    process.close()


def remove_file(home: Path) -> None:
    (home / "outbox.db").unlink()


def remove_files(home: Path) -> None:
    for path in home.glob("outbox.db*"):
        path.unlink(missing_ok=True)


def rename_folder(home: Path) -> None:
    home.rename(home.with_name("elsewhere"))


def replace_by_another(home: Path) -> None:
    with closing(sqlite3.connect(home / "other.db")) as connection:
        connection.execute("VACUUM")
    (home / "other.db").rename(home / "outbox.db")


MOVES = [
    (remove_file, "removed or renamed"),
    (remove_files, "removed or renamed"),
    (shutil.rmtree, "removed or renamed"),
    (rename_folder, "removed or renamed"),
    (replace_by_another, "replaced by another file"),
]


@pytest.mark.parametrize(("move", "what"), MOVES)
def test_moved_file_is_reported_and_the_file_at_its_path_is_used(
    home: Path, process: Process, move: Callable[[Path], object], what: str
) -> None:
    process.admit("one", "two")
    process.outbox.park(process.outbox.claim(), "refused")  # type: ignore[arg-type]
    process.admit("three", "four")
    sent = process.outbox.claim()
    assert sent is not None
    process.outbox.mark_sent(sent.rows, may_land_for=7.0)
    move(home)
    process.admit("five")
    (incident,) = process.outbox.file.incidents()
    assert (incident.path, incident.what, incident.pending) == (home / "outbox.db", what, 2)
    # A batch of the old file takes no row of the new one with it.
    process.outbox.delete_delivered(sent.rows)
    with another(home) as ask:
        ask("six")
        assert [row.write.content for row in process.outbox.inspection.rows()] == ["five", "six"]  # type: ignore[union-attr]
        assert [process.deliver(), ask("deliver")] == [["five"], ["six"]]
    if what != "replaced by another file":
        assert {stat.S_IMODE(path.stat().st_mode) for path in home.glob("outbox*")} == {0o600}


def test_a_process_that_reads_first_reports_the_moved_file_too(home: Path, process: Process) -> None:
    process.admit("one")
    remove_files(home)
    assert process.outbox.inspection.counts().pending == 0
    assert [incident.pending for incident in process.outbox.file.incidents()] == [1]


def test_providers_of_one_process_report_a_moved_file_once(home: Path, process: Process) -> None:
    other = Process(home)
    process.admit("one")
    shutil.rmtree(home)
    other.admit("two")
    process.admit("three")
    assert len(process.outbox.file.incidents()) == 1
    assert [other.deliver(), process.deliver()] == [["two"], ["three"]]
    other.close()


def test_a_file_of_the_schema_with_moved_rows_is_opened(home: Path) -> None:
    home.mkdir(mode=0o700)
    Database(home / "outbox.db", MIGRATIONS[:3]).close()
    with closing(sqlite3.connect(home / "outbox.db")) as connection:
        assert connection.execute("SELECT count(*) FROM origin").fetchone() == (1,)
    process = Process(home)
    process.admit("one")
    assert process.deliver() == ["one"]
    process.close()


def test_a_copy_that_is_put_back_is_not_mixed_with_the_log_of_another(home: Path, process: Process) -> None:
    process.admit("one")
    process.outbox.file.flush()
    shutil.copy(home / "outbox.db", home / "backup")
    process.admit(*("x" * 1000 for _ in range(80)))
    process.outbox.file.vacuum()
    assert len(process.deliver()) == 81
    process.admit("two")
    (home / "backup").rename(home / "outbox.db")
    process.admit("three")
    assert process.deliver() == ["one", "three"]
    assert process.outbox.file.damaged_files() == []
    assert [incident.pending for incident in process.outbox.file.incidents()] == [1]


def test_nothing_that_was_settled_in_a_moved_file_takes_another_row_with_it(home: Path, process: Process) -> None:
    process.admit("one")
    batch = process.outbox.claim()
    assert batch is not None
    rename_folder(home)
    # Somebody who knows nothing of the old file is there first, and has the same ids.
    with another(home) as ask:
        ask("theirs")
        process.outbox.delete_delivered(batch.rows)
        assert ask("deliver") == ["theirs"]


def test_processes_that_use_a_removed_folder_do_not_take_each_other_for_dead(home: Path, process: Process) -> None:
    with another(home) as ask:
        process.admit("1")
        ask("2")
        shutil.rmtree(home)
        process.admit("3")
        # The other process has not noticed yet.
        ask("4")
        assert process.outbox.adopt() == 0
        assert [process.deliver(), ask("deliver")] == [["3"], ["4"]]


def test_threads_that_give_while_the_file_is_moved_again_and_again_go_on(home: Path, process: Process) -> None:
    errors: list[StateError] = []

    def give(name: str) -> None:
        for number in range(40):
            try:
                process.admit(f"{name}{number}")
            except StateError as error:
                errors.append(error)

    threads = [threading.Thread(target=give, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    moved = 0
    while any(thread.is_alive() for thread in threads) or moved < 3:
        remove_files(home)
        moved += 1
        process.outbox.adopt()
    for thread in threads:
        thread.join()
    assert errors == []
    process.admit("last")
    assert process.deliver()[-1] == "last"
    assert process.outbox.file.damaged_files() == []


@pytest.mark.parametrize("remove", [remove_file, remove_files])
def test_a_file_that_is_removed_as_it_is_opened_is_begun_anew(
    home: Path, process: Process, monkeypatch: pytest.MonkeyPatch, remove: Callable[[Path], None]
) -> None:
    process.admit("one")
    remove(home)
    opens, connect = [], sqlite3.connect

    def just_removed(*args: Any, **options: Any) -> sqlite3.Connection:
        opens.append(args)
        if len(opens) <= 3:
            remove_files(home)
        return connect(*args, **options)

    monkeypatch.setattr("honcho_exec.storage.pool.sqlite3.connect", just_removed)
    process.admit("two")
    assert len(opens) > 3
    assert process.deliver() == ["two"]
