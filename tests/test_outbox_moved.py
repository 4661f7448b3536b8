"""What is done where the outbox's file is removed, renamed, replaced or locked while it is in use."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.locking import locked
from support.outboxes import REF, Process, another

from honcho_exec.errors import Overloaded, StateError
from honcho_exec.lease import Holder
from honcho_exec.model import Message
from honcho_exec.outbox import HELD
from honcho_exec.spill import Entry, Spill


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


MOVES = [remove_file, remove_files, shutil.rmtree, rename_folder, replace_by_another]


@pytest.mark.parametrize("move", MOVES)
def test_what_waits_is_brought_to_the_new_file_where_the_old_one_is_moved(
    home: Path, process: Process, move: Callable[[Path], object]
) -> None:
    process.admit("one", "two")
    process.outbox.park(process.outbox.claim(), "refused")  # type: ignore[arg-type]
    process.admit("three")
    sent = process.outbox.claim()
    assert sent is not None
    process.outbox.sending(sent.rows, settle_at=7.0)
    move(home)
    process.admit("four")
    later = Process(home)
    assert [row.write.content for row in later.outbox.rows(parked=True)] == ["one", "two"]  # type: ignore[union-attr]
    again = process.outbox.claim()
    assert again is not None
    assert (again.id, again.look, again.settle_at, again.attempts) == (sent.id, True, 7.0, 1)
    # What was told of the rows of the old file holds for those of the new.
    process.outbox.settle(sent.rows)
    later.admit("five")
    assert process.deliver() == ["four"]
    assert later.deliver() == ["five"]
    assert process.outbox.counts().spilled == 0
    if move is not replace_by_another:
        assert {stat.S_IMODE(path.stat().st_mode) for path in home.glob("outbox*")} == {0o600}
    later.close()


def test_a_copy_that_is_put_back_doubles_nothing_that_still_waits(home: Path, process: Process) -> None:
    process.admit("one")
    process.outbox.flush_to_disk()
    shutil.copy(home / "outbox.db", home / "backup")
    process.admit("two")
    remove_files(home)
    (home / "backup").rename(home / "outbox.db")
    process.admit("three")
    assert process.deliver() == ["one", "two", "three"]


def test_a_copy_that_is_put_back_is_not_mixed_with_the_log_of_another(home: Path, process: Process) -> None:
    process.admit("one")
    process.outbox.flush_to_disk()
    shutil.copy(home / "outbox.db", home / "backup")
    process.admit(*("x" * 1000 for _ in range(80)))
    process.outbox.tidy()
    assert len(process.deliver()) == 81
    process.admit("two")
    (home / "backup").rename(home / "outbox.db")
    process.admit("three")
    assert process.deliver() == ["one", "two", "three"]
    assert process.outbox.set_aside() == []


def test_nothing_that_was_settled_in_a_moved_file_takes_another_row_with_it(home: Path, process: Process) -> None:
    process.admit("one")
    batch = process.outbox.claim()
    assert batch is not None
    rename_folder(home)
    # Somebody who knows nothing of the old file is there first, and has the same ids.
    with another(home) as ask:
        ask("theirs")
        process.outbox.settle(batch.rows)
        assert ask("deliver") == ["theirs"]


def test_processes_bring_each_their_own_and_the_order_stays(home: Path, process: Process) -> None:
    with another(home) as ask:
        process.admit("1")
        ask("2")
        process.admit("3")
        shutil.rmtree(home)
        process.admit("4")
        # The other has not noticed yet.
        ask("5")
        assert [row.write.content for row in process.outbox.rows()] == ["1", "2", "3", "4", "5"]  # type: ignore[union-attr]
        # Neither takes the other for dead.
        assert process.outbox.adopt() == 0
        delivered = [process.deliver(), ask("deliver"), process.deliver(), ask("deliver")]
        assert delivered == [["1"], ["2"], ["3", "4"], ["5"]]


def test_what_is_given_while_somebody_locks_the_file_is_kept_beside_it(home: Path, process: Process) -> None:
    process.admit("before")
    with locked(home / "outbox.db"):
        process.admit("one")
        assert process.outbox.counts().pending == 2
        assert process.outbox.counts().spilled == 1
        process.admit("two")
        turn = process.admit("three", "four")
        assert process.outbox.fate(turn) == (2, None)
        assert process.outbox.pending() == (5, 0)
        assert stat.S_IMODE((home / "outbox.spill").stat().st_mode) == 0o600
    process.admit("after")
    assert process.deliver() == ["before", "one", "two", "three", "four", "after"]
    assert not (home / "outbox.spill").exists()
    assert process.outbox.fate(turn) == (0, None)


def test_what_is_kept_beside_a_locked_file_stands_before_what_others_give_later(home: Path, process: Process) -> None:
    other = Process(home)
    with locked(home / "outbox.db"):
        process.admit("one")
    other.admit("two")
    assert [row.write.content for row in other.outbox.rows()] == ["one", "two"]  # type: ignore[union-attr]
    assert [process.deliver(), other.deliver()] == [["one"], ["two"]]
    other.close()


def test_the_same_write_is_not_kept_twice_beside_a_locked_file(home: Path, process: Process) -> None:
    waiting = process.admit("known", key="k")
    with locked(home / "outbox.db"):
        assert process.admit("known", key="k") == waiting
        spilled = process.admit("new", key="l")
        assert process.admit("new", key="l") == spilled
    assert process.deliver() == ["known", "new"]


def test_a_full_outbox_takes_nothing_beside_its_locked_file_either(home: Path) -> None:
    process = Process(home, max_rows=3)
    process.admit("one")
    with locked(home / "outbox.db"):
        process.admit("two")
        with pytest.raises(Overloaded):
            process.admit("three", "four")
        process.admit("three")
        with pytest.raises(Overloaded):
            process.admit("four")
    assert process.deliver() == ["one", "two", "three"]
    process.close()


def test_what_is_held_back_is_so_beside_a_locked_file_too(home: Path, process: Process) -> None:
    held = Holder(home / "holders", mark=HELD)
    with locked(home / "outbox.db"):
        process.outbox.admit("held", REF, [Message("ada", "one")], holder=held)
        assert process.outbox.counts().held == 1
        with pytest.raises(StateError, match="locked"):
            process.outbox.release(held)
    assert process.deliver() == []
    assert process.outbox.release(held) == 1
    assert process.deliver() == ["one"]
    held.close()


def test_an_entry_is_taken_in_once_even_where_its_file_comes_back(home: Path, process: Process) -> None:
    with locked(home / "outbox.db"):
        process.admit("one")
    shutil.copy(home / "outbox.spill", home / "copy")
    assert process.deliver() == ["one"]
    # As if the process had been killed before it could remove the file.
    (home / "copy").rename(home / "outbox.spill")
    assert process.deliver() == []
    assert not (home / "outbox.spill").exists()


def test_a_line_that_was_cut_short_costs_no_other(home: Path, process: Process) -> None:
    with locked(home / "outbox.db"):
        process.admit("one")
        whole = (home / "outbox.spill").read_bytes()
        with (home / "outbox.spill").open("ab") as file:
            file.write(whole[: len(whole) // 2])
        assert process.outbox.counts().spilled == 1
        process.admit("two")
    assert process.deliver() == ["one", "two"]
    assert process.outbox.set_aside() == []


def test_a_line_that_is_damaged_is_set_aside_and_the_others_are_taken(home: Path, process: Process) -> None:
    with locked(home / "outbox.db"):
        process.admit("one")
        with (home / "outbox.spill").open("ab") as file:
            file.write(b'{"key": 7, "rows": "x"}\n\xff\xfe nonsense\n')
        process.admit("two")
    assert process.deliver() == ["one", "two"]
    assert [path.name.partition(".damaged-")[0] for path in process.outbox.set_aside()] == ["outbox.spill"]


def test_a_disk_that_takes_half_a_line_has_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(tmp_path / "spill")
    spill.add([Entry("one", [{"turn": "one"}])])
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
        with pytest.raises(StateError, match="No space") as caught:
            spill.add([Entry("two", [{"turn": "two"}])])
    assert (caught.value.retryable, caught.value.retry_after) == (True, 30.0)
    spill.add([Entry("three", [{"turn": "three"}])])
    assert [entry.key for entry in spill.entries()] == ["one", "three"]


def test_threads_that_give_while_the_file_is_moved_again_and_again_lose_nothing(home: Path, process: Process) -> None:
    def give(name: str) -> None:
        for number in range(40):
            process.admit(f"{name}{number}")

    threads = [threading.Thread(target=give, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    moved = 0
    while any(thread.is_alive() for thread in threads) or moved < 3:
        for path in home.glob("outbox.db*"):
            path.unlink(missing_ok=True)
        moved += 1
        process.outbox.adopt()
    for thread in threads:
        thread.join()
    delivered = process.deliver()
    assert len(delivered) == 120
    for name in "abc":
        assert [text for text in delivered if text[0] == name] == [f"{name}{number}" for number in range(40)]


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

    monkeypatch.setattr("honcho_exec.connections.sqlite3.connect", just_removed)
    process.admit("two")
    assert len(opens) > 3
    assert process.deliver() == ["one", "two"]
