"""How turns are stored: by one thread a file, in order, also while another process locks the file."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sqlite3 import Connection

import pytest
from support.interrupts import interrupted_at
from support.locking import locked
from support.outboxes import REF, Process

import honcho_exec.outbox.writer
from honcho_exec.errors import Busy, HonchoExecError, Overloaded, StateError
from honcho_exec.model import Message
from honcho_exec.outbox.change import Change
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.outbox import HELD
from honcho_exec.outbox.rows import Admitted
from honcho_exec.outbox.writer import writer_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def process(home: Path) -> Iterator[Process]:
    process = Process(home)
    yield process
    process.close()


class Told:
    """A listener that remembers what it is told."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.known = threading.Event()

    def begin(self) -> None:
        pass

    def stored(self, admitted: Admitted) -> None:
        self.said.append(admitted)
        self.known.set()

    def failed(self, error: HonchoExecError) -> None:
        self.said.append(error)
        self.known.set()


def submit(process: Process, *texts: str, holder: LeaseHolder | None = None) -> Told:
    told = Told()
    process.outbox.submit(texts[0], REF, [Message("ada", text) for text in texts], told, holder=holder)
    return told


class Failing(Change):
    """A change that cannot be made."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.outbox.file)
        self.error: HonchoExecError | None = None

    def begin(self) -> None:
        pass

    def apply(self, connection: Connection) -> None:
        connection.execute("INSERT INTO health (destination) VALUES (?)", ("half",))
        raise UnicodeError("cannot be stored")

    def stored(self) -> None:
        pass

    def failed(self, error: HonchoExecError) -> None:
        self.error = error


def test_turns_given_while_the_file_is_locked_wait_in_memory_in_order(home: Path, process: Process) -> None:
    process.admit("before")
    with locked(home / "outbox.db"):
        begun = time.monotonic()
        first = submit(process, "one")
        assert 0.1 < time.monotonic() - begun < 1.5
        with pytest.raises(Busy, match="when the lock is released"):
            process.admit("two")
        last = submit(process, "three", "four")
        counts = process.outbox.inspection.counts()
        assert (counts.pending, counts.unstored) == (5, 4)
        assert process.outbox.inspection.pending() == 5
        assert not (home / "outbox.spill").exists()
        assert first.said == last.said == []
    assert last.known.wait(10)
    assert [first.said, last.said] == [[Admitted("one", 1)], [Admitted("three", 2)]]
    process.admit("after")
    assert process.deliver() == ["before", "one", "two", "three", "four", "after"]
    assert process.outbox.inspection.counts().unstored == 0


def test_turns_of_several_providers_wait_in_order(home: Path, process: Process) -> None:
    other = Process(home)
    with locked(home / "outbox.db"):
        told = [submit(one, text) for one, text in [(process, "1"), (other, "2"), (process, "3"), (other, "4")]]
        assert other.outbox.inspection.pending() == 2
    assert told[-1].known.wait(10)
    assert [row.write.content for row in other.outbox.inspection.rows()] == ["1", "2", "3", "4"]  # type: ignore[union-attr]
    other.close()


def test_equal_writes_given_while_the_file_is_locked_are_stored_once(home: Path, process: Process) -> None:
    known = process.admit("known", key="k")
    message = [Message("ada", "known", source_key="k")], [Message("ada", "new", source_key="l")]
    with locked(home / "outbox.db"):
        told = [Told() for _ in range(3)]
        process.outbox.submit("a", REF, message[0], told[0])
        process.outbox.submit("b", REF, message[1], told[1])
        process.outbox.submit("c", REF, message[1], told[2])
    assert told[2].known.wait(10)
    assert [one.said for one in told] == [[Admitted(known, 0)], [Admitted("b", 1)], [Admitted("b", 0)]]
    assert process.deliver() == ["known", "new"]


def test_full_outbox_refuses_turns_while_its_file_is_locked_too(home: Path) -> None:
    process = Process(home, max_rows=3)
    process.admit("one")
    with locked(home / "outbox.db"):
        told = [submit(process, *texts) for texts in (["two"], ["three", "four"], ["three"], ["four"])]
    assert told[2].known.wait(10)
    assert [isinstance(one.said[0], Overloaded) for one in told] == [False, True, False, True]
    assert process.deliver() == ["one", "two", "three"]
    process.close()


def test_held_turns_that_wait_in_memory_are_released_in_order(home: Path, process: Process) -> None:
    held = LeaseHolder(home / "holders", mark=HELD)
    released = threading.Event()
    with locked(home / "outbox.db"):
        submit(process, "one", holder=held)
        assert process.outbox.inspection.counts().held == 1
        process.outbox.release(held, lambda _: released.set())
        submit(process, "two", holder=held)
    assert released.wait(10)
    assert process.deliver() == ["one"]
    held.close()
    assert process.deliver() == ["two"]


def test_closing_tells_that_turns_in_memory_were_not_stored(home: Path) -> None:
    process, other = Process(home), Process(home)
    with locked(home / "outbox.db"):
        lost, kept = submit(process, "lost"), submit(other, "kept")
        process.close()
        (error,) = lost.said
        assert isinstance(error, StateError)
        assert "NOT stored" in str(error)
        assert kept.said == []
    assert kept.known.wait(10)
    other.outbox.adopt()
    assert other.deliver() == ["kept"]
    other.close()


def test_change_that_cannot_be_made_costs_no_other(process: Process) -> None:
    writer, bad = writer_of(process.outbox.path), Failing(process)
    # All of them come while the writer is at work, and are committed together.
    assert writer._active.acquire(timeout=5)
    with ThreadPoolExecutor(4) as threads:
        calls = [
            threads.submit(process.admit, "one"),
            threads.submit(writer.submit, bad),
            threads.submit(process.admit, "two"),
        ]
        while writer._queue.qsize() < len(calls):
            threading.Event().wait(0.001)
        writer._active.release()
        for call in calls:
            call.result(10)
    assert str(bad.error) == "unexpected UnicodeError; nothing was stored"
    assert sorted(process.deliver()) == ["one", "two"]
    with process.outbox.file.reading() as connection:
        assert connection.execute("SELECT * FROM health WHERE destination = 'half'").fetchall() == []


def test_turns_that_are_stored_together_fill_the_outbox_in_order(home: Path) -> None:
    process = Process(home, max_rows=3)
    told = [Told() for _ in range(3)]
    changes = [
        process.outbox._enqueuer.turn(text, REF, [Message("ada", text)] * 2, process.holder.name, one)
        for text, one in zip("abc", told, strict=True)
    ]
    process.outbox._writer._waiting.extend(changes)
    assert process.outbox._writer._commit()
    assert told[0].said == [Admitted("a", 2)]
    assert [type(one.said[0]) for one in told[1:]] == [Overloaded, Overloaded]
    assert process.deliver() == ["a", "a"]
    process.close()


def test_delivery_is_told_that_another_process_locks_the_file(
    home: Path, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(honcho_exec.outbox.writer, "_JOB_SECONDS", 0.1)
    process.admit("one")
    batch = process.outbox.claim()
    assert batch is not None
    with locked(home / "outbox.db"):
        told = submit(process, "two")
        with pytest.raises(Busy, match="another process locks it"):
            process.outbox.delete_delivered(batch.rows)
        assert process.outbox.inspection.pending() == 2
    assert told.known.wait(10)
    process.outbox.delete_delivered(batch.rows)
    assert process.deliver() == ["two"]


def test_threads_of_many_callers_are_served_by_one_at_a_time(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honcho_exec.outbox.writer, "_IDLE_SECONDS", 0.001)
    monkeypatch.setattr(honcho_exec.outbox.writer, "_CHECK_SECONDS", 0.001)
    threads: set[str] = set()
    inside: set[int] = set()
    met: list[int] = []
    store = honcho_exec.outbox.writer._store_in

    def watched(*args: object) -> None:
        met.extend(inside)
        inside.add(threading.get_ident())
        threads.add(threading.current_thread().name)
        store(*args)  # type: ignore[arg-type]
        inside.discard(threading.get_ident())

    monkeypatch.setattr(honcho_exec.outbox.writer, "_store_in", watched)
    with ThreadPoolExecutor(20) as pool:
        turns = list(pool.map(process.admit, map(str, range(400))))
    assert not met, "two threads store at once"
    assert threads == {"honcho-writer"}
    assert len(set(turns)) == 400
    assert sorted(process.deliver(), key=int) == [str(number) for number in range(400)]


def test_thread_is_given_back_and_made_again(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honcho_exec.outbox.writer, "_IDLE_SECONDS", 0.05)
    for number in range(3):
        process.admit(str(number))
        for thread in threading.enumerate():
            if thread.name == "honcho-writer":
                thread.join(10)
                assert not thread.is_alive()
    assert process.deliver() == ["0", "1", "2"]


def test_turn_whose_caller_is_interrupted_is_stored_as_a_whole_or_not_at_all(process: Process) -> None:
    number = 1
    while interrupted_at(number, lambda: process.admit(f"{number}a", f"{number}b")) is not None:  # noqa: B023
        process.admit(f"{number} after")
        number += 1
    assert number > 10
    there = process.deliver()
    for one in range(1, number):
        assert there.count(f"{one}a") == there.count(f"{one}b") <= 1
        assert there.count(f"{one} after") == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_has_a_writer_of_its_own(home: Path, process: Process) -> None:
    process.admit("parent")
    child = os.fork()
    if child == 0:
        try:
            Process(home).admit("child")
            os._exit(0)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    process.admit("parent again")
    assert process.deliver() == ["parent", "child", "parent again"]


def spilled(home: Path, *texts: str) -> bytes:
    """Lines of `outbox.spill` as earlier versions wrote them."""
    process = Process(home / "elsewhere")
    lines = b""
    for text in texts:
        process.admit(text)
        with process.outbox.file.reading() as connection:
            row = dict(connection.execute("SELECT * FROM rows ORDER BY id DESC LIMIT 1").fetchone())
        earlier = {"must_verify": "look", "ambiguous_until": "settle_at", "dedup_key": "dedup"}
        row = {earlier.get(name, name): row[name] for name in row if name not in {"id", "batch"}}
        lines += json.dumps({"key": row["turn"], "rows": [row], "origin": None, "last": 0}).encode() + b"\n"
    process.close()
    return lines


def test_spill_of_an_earlier_version_is_imported_first_and_once(home: Path) -> None:
    Process(home).close()
    lines = spilled(home, "one", "two")
    (home / "outbox.spill").write_bytes(lines)
    process = Process(home)
    process.admit("three")
    assert not (home / "outbox.spill").exists()
    assert [path.read_bytes() for path in home.glob("outbox.spill.backup-*")] == [lines]
    assert process.deliver() == ["one", "two", "three"]
    process.close()
    # As if the process had been killed before it could remove the file.
    (home / "outbox.spill").write_bytes(lines)
    process = Process(home)
    assert process.deliver() == []
    assert not (home / "outbox.spill").exists()
    process.close()


def test_damaged_lines_of_a_spill_cost_no_other(home: Path) -> None:
    Process(home).close()
    lines = spilled(home, "one", "two").splitlines(keepends=True)
    (home / "outbox.spill").write_bytes(lines[0] + b'{"key": 7, "rows": "x"}\n\xff\xfe\n' + lines[1] + lines[0][:50])
    process = Process(home)
    assert process.deliver() == ["one", "two"]
    (aside,) = process.outbox.file.damaged_files()
    assert aside.name.startswith("outbox.spill.damaged-")
    process.close()
