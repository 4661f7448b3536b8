from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import pytest
from support.hand_clock import HandClock

import honcho_exec
from honcho_exec.clock import Clock, SystemClock
from honcho_exec.errors import Overloaded, StateError
from honcho_exec.model import Card, Conclusion, Deletion, Message, SessionRef
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.outbox import LONGEST_LATE, MAX_BATCH, Outbox
from honcho_exec.outbox.rows import Admitted
from honcho_exec.storage.database import Database, set_aside
from honcho_exec.storage.folders import private_folder

REF = SessionRef("w", "s", "ada", "hermes")
CLOCK = SystemClock()


class Process:
    """An outbox as one process (or one provider) has it."""

    def __init__(
        self, folder: Path, *, destination: str = "here", max_rows: int = 10_000, clock: Clock = CLOCK
    ) -> None:
        self.holder = LeaseHolder(folder / "holders")
        self.outbox = Outbox(
            folder / "outbox.db", destination=destination, holder=self.holder, clock=clock, max_rows=max_rows
        )

    def close(self) -> None:
        self.outbox.close()
        self.holder.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    yield process
    process.close()


def admit(process: Process, *texts: str, session: str = "s") -> None:
    ref = SessionRef("w", session, "ada", "hermes")
    process.outbox.admit(CLOCK.new_id(), ref, [Message("ada", text) for text in texts])


def contents(process: Process) -> list[list[str]]:
    """Deliver everything and return it, a list for each batch."""
    batches = []
    while (batch := process.outbox.claim()) is not None:
        batches.append([write.content for write in batch.writes if isinstance(write, Message | Conclusion)])
        process.outbox.delete_delivered(batch.rows)
    return batches


def test_rows_come_out_in_order_in_batches_of_at_most_100(process: Process) -> None:
    for number in range(150):
        admit(process, f"u{number}", f"a{number}")
    batches = contents(process)
    assert [len(batch) for batch in batches] == [100, 100, 100]
    assert list(chain.from_iterable(batches)) == [f"{who}{number}" for number in range(150) for who in "ua"]


def test_a_batch_has_one_session_and_is_bounded_in_size(process: Process) -> None:
    admit(process, "one", session="a")
    admit(process, "other", session="b")
    for _ in range(30):
        admit(process, "x" * 25_000, session="a")
    batches = contents(process)
    assert batches[0][0] == "one"
    assert ["other"] in batches
    assert max(sum(map(len, batch)) for batch in batches) <= 400_000


def test_a_batch_is_frozen_when_it_is_first_claimed(process: Process) -> None:
    admit(process, "first")
    batch = process.outbox.claim()
    assert batch is not None
    process.outbox.mark_sent(batch.rows, may_land_for=10)
    admit(process, "second")
    again = process.outbox.claim()
    assert again is not None
    assert (again.id, again.writes) == (batch.id, batch.writes)
    assert again.must_verify
    process.outbox.mark_not_sent(again, "refused")
    assert not process.outbox.refresh(again).must_verify


def test_wait_for_an_attempt_does_not_follow_the_wall_clock(tmp_path: Path) -> None:
    clock = HandClock()
    process = Process(tmp_path, clock=clock)
    admit(process, "hello")
    batch = process.outbox.claim()
    assert batch is not None
    process.outbox.mark_sent(batch.rows, may_land_for=LONGEST_LATE)
    ends = replace(clock.boot_time(), seconds=clock.boot_time().seconds + LONGEST_LATE)
    for clock.wall_offset in (0, -3600, 3600):
        assert process.outbox.refresh(batch).ambiguous_until == ends
    process.close()
    clock.seconds += 2
    later = Process(tmp_path, clock=clock)
    assert later.outbox.refresh(batch).ambiguous_until == ends
    later.close()


def test_after_a_reboot_an_attempt_is_waited_for_once_from_the_first_look_on(tmp_path: Path) -> None:
    clock = HandClock()
    process = Process(tmp_path, clock=clock)
    admit(process, "hello")
    batch = process.outbox.claim()
    assert batch is not None
    process.outbox.mark_ambiguous(batch, "lost", may_land_for=1.0)
    process.close()
    clock.reboot()
    later = Process(tmp_path, clock=clock)
    ends = replace(clock.boot_time(), seconds=LONGEST_LATE)
    assert later.outbox.refresh(batch).ambiguous_until == ends
    clock.seconds += 2
    assert later.outbox.refresh(batch).ambiguous_until == ends
    later.close()


def test_what_was_admitted_survives_the_process(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from honcho_exec.clock import SystemClock\n"
        "from honcho_exec.outbox.lease import LeaseHolder\n"
        "from honcho_exec.model import Message, SessionRef\n"
        "from honcho_exec.outbox.outbox import Outbox\n"
        "folder = Path(sys.argv[1])\n"
        "outbox = Outbox(folder / 'outbox.db', destination='here', holder=LeaseHolder(folder / 'holders'),\n"
        "                clock=SystemClock(), max_rows=10)\n"
        "outbox.admit('t', SessionRef('w', 's', 'ada', 'hermes'), [Message('ada', 'kept')])\n"
        "outbox.claim()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == -9
    process = Process(tmp_path)
    assert process.outbox.adopt() == 1
    assert contents(process) == [["kept"]]
    process.close()


def test_a_row_is_its_holders_until_that_is_dead(tmp_path: Path) -> None:
    first, second = Process(tmp_path), Process(tmp_path)
    admit(first, "one", session="a")
    admit(second, "two", session="b")
    assert second.outbox.adopt() == 0
    assert contents(second) == [["two"]]
    first.close()
    assert second.outbox.adopt() == 1
    assert contents(second) == [["one"]]
    second.close()


def test_within_a_stream_only_the_holder_of_the_oldest_row_may_send(tmp_path: Path) -> None:
    first, second = Process(tmp_path), Process(tmp_path)
    admit(first, "1")
    admit(second, "2")
    admit(first, "3")
    assert second.outbox.claim() is None
    held = first.outbox.claim()
    assert held is not None
    assert [write.content for write in held.writes if isinstance(write, Message)] == ["1"]
    assert second.outbox.claim() is None
    first.outbox.delete_delivered(held.rows)
    assert first.outbox.claim() is None
    assert contents(second) == [["2"]]
    assert contents(first) == [["3"]]
    first.close()
    second.close()


def test_conclusions_do_not_wait_behind_messages(process: Process) -> None:
    admit(process, "said")
    process.outbox.admit("c", REF, [Conclusion("kept", "hermes", "ada")])
    process.outbox.admit("d", REF, [Conclusion("of another", "hermes", "bob")])
    process.outbox.admit("e", REF, [Card("hermes", "ada", ("fact",)), Deletion("x")])
    assert contents(process) == [["said"], ["kept"], ["of another"], [], []]


def test_the_same_conclusion_waits_once(process: Process) -> None:
    first = process.outbox.admit("t1", REF, [Conclusion("tea", "hermes", "ada")])
    again = process.outbox.admit("t2", REF, [Conclusion("tea", "hermes", "ada")])
    other = process.outbox.admit("t3", REF, [Conclusion("tea", "hermes", "bob")])
    assert (first, again, other) == (Admitted("t1", 1), Admitted("t1", 0), Admitted("t3", 1))
    assert contents(process) == [["tea"], ["tea"]]
    assert process.outbox.admit("t4", REF, [Conclusion("tea", "hermes", "ada")]).added == 1


def test_other_destinations_are_left_alone_and_counted(tmp_path: Path) -> None:
    here, there = Process(tmp_path), Process(tmp_path, destination="there")
    admit(here, "for here")
    assert there.outbox.claim() is None
    assert (there.outbox.inspection.counts().pending, there.outbox.inspection.counts().elsewhere) == (0, 1)
    here.close()
    there.close()


def test_a_full_outbox_takes_all_of_a_turn_or_nothing(tmp_path: Path) -> None:
    process = Process(tmp_path, max_rows=3)
    admit(process, "1", "2")
    with pytest.raises(Overloaded, match="HONCHO_OUTBOX_MAX_ROWS"):
        admit(process, "3", "4")
    admit(process, "3")
    with pytest.raises(Overloaded):
        admit(process, "4")
    assert contents(process) == [["1", "2", "3"]]
    admit(process, "4")
    process.close()


def test_halves_are_batches_of_their_own_and_a_parked_row_holds_nothing_up(process: Process) -> None:
    admit(process, *"abcd")
    batch = process.outbox.claim()
    assert batch is not None
    process.outbox.bisect(batch)
    half = process.outbox.claim()
    assert half is not None
    assert [row.write for row in half.rows] == [Message("ada", "a"), Message("ada", "b")]
    process.outbox.park(half, "because")
    assert contents(process) == [["c", "d"]]
    assert process.outbox.inspection.counts().parked == 2
    assert [row.error for row in process.outbox.inspection.rows(parked=True)] == ["because", "because"]


def test_nothing_of_what_was_delivered_stays_in_the_files(tmp_path: Path) -> None:
    process = Process(tmp_path)
    for number in range(MAX_BATCH):
        admit(process, f"a secret that nobody should find {number}")
    contents(process)
    process.outbox.file.vacuum()
    for file in tmp_path.glob("outbox.db*"):
        assert b"a secret that" not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    process.close()


def test_the_log_stays_below_four_times_the_pending_rows(process: Process, tmp_path: Path) -> None:
    text, given = "x" * 1000, 0
    for number in range(3000):
        admit(process, f"{number} {text}")
        given += len(text)
        log = (tmp_path / "outbox.db-wal").stat().st_size
        assert log < max(4 * given, 3_000_000)
    assert log < 4 * given / 3


def test_a_drained_outbox_gives_its_space_back(process: Process, tmp_path: Path) -> None:
    for _ in range(300):
        admit(process, "x" * 20_000)
    process.outbox.file.flush()
    assert (tmp_path / "outbox.db").stat().st_size > 6_000_000
    assert sum(map(len, contents(process))) == 300
    process.outbox.file.vacuum()
    assert sum(path.stat().st_size for path in tmp_path.glob("outbox.db*")) < 300_000
    admit(process, "goes on")
    assert contents(process) == [["goes on"]]


def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Process(tmp_path).close()
    with sqlite3.connect(tmp_path / "outbox.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateError, match="newer version") as caught:
        Process(tmp_path)
    assert not caught.value.retryable


@pytest.mark.parametrize("below", ["file/state", "/dev/null/state"])
def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="state"):
        Process(tmp_path / below)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_keep_its_dead_parents_streams(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        process = Process(tmp_path)
        admit(process, "left behind")
        process.outbox.claim()
        if (child := os.fork()) == 0:
            signal.pause()
        os.write(write_end, str(child).encode())
        os._exit(0)
    os.waitpid(parent, 0)
    child = int(os.read(read_end, 20))
    os.kill(child, 0)
    process = Process(tmp_path)
    assert process.outbox.adopt() == 1
    assert contents(process) == [["left behind"]]
    process.close()
    os.kill(child, signal.SIGKILL)
    os.close(read_end)
    os.close(write_end)


def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "outbox.db").write_bytes(b"this was a database once " * 200)
    process = Process(tmp_path)
    admit(process, "goes on")
    assert contents(process) == [["goes on"]]
    (aside,) = process.outbox.file.damaged_files()
    assert aside.read_bytes().startswith(b"this was a database once")
    assert str(aside) in caplog.text
    process.close()


def forget_what_was_read(process: Process) -> None:
    """Close the idle connections: what they have read would hide the damage."""
    idle = process.outbox.file._db._pool._idle
    while idle:
        idle.pop().close()


def test_a_file_that_is_damaged_meanwhile_takes_the_next_turn_all_the_same(tmp_path: Path) -> None:
    process = Process(tmp_path)
    admit(process, "lost with the file")
    process.outbox.file.vacuum()
    process.close()
    process = Process(tmp_path)
    forget_what_was_read(process)
    with (tmp_path / "outbox.db").open("r+b") as file:
        file.write(b"\x00" * 8192)
    admit(process, "goes on")
    process.outbox.adopt()
    assert contents(process) == [["goes on"]]
    assert len(process.outbox.file.damaged_files()) == 1
    process.close()


def test_two_who_find_the_same_damage_set_aside_one_file_and_share_the_next(tmp_path: Path) -> None:
    first, second = Process(tmp_path), Process(tmp_path)
    admit(first, "lost with the file")
    first.outbox.file.vacuum()
    forget_what_was_read(first)
    with (tmp_path / "outbox.db").open("r+b") as file:
        file.write(b"\x00" * 8192)
    admit(first, "one")
    # As if the second had met the damage at the same moment.
    second.outbox.file.replace_damaged()
    admit(second, "two")
    assert len(first.outbox.file.damaged_files()) == 1
    assert sorted(row.write.content for row in first.outbox.inspection.rows()) == ["one", "two"]  # type: ignore[union-attr]
    first.close()
    second.close()


def test_others_of_a_process_go_on_with_the_new_file_when_one_is_set_aside(tmp_path: Path) -> None:
    process, other = Process(tmp_path), Process(tmp_path)
    set_aside(tmp_path / "outbox.db", datetime.now(UTC))
    writer = threading.Thread(target=admit, args=(other, "hello"), daemon=True)
    writer.start()
    writer.join(10)
    assert not writer.is_alive()
    assert contents(other) == [["hello"]]
    other.close()
    process.close()


def test_another_process_that_closes_the_file_leaves_its_log(tmp_path: Path) -> None:
    process, other = Process(tmp_path), Process(tmp_path)
    admit(process, "hello")
    log = (tmp_path / "outbox.db-wal").stat().st_ino
    look = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM rows').fetchall(); c.close()"
    )
    subprocess.run([sys.executable, "-c", look, str(tmp_path / "outbox.db")], check=True)
    assert (tmp_path / "outbox.db-wal").stat().st_ino == log
    other.close()
    process.close()


def test_a_full_disk_is_said_and_what_was_stored_stays(tmp_path: Path) -> None:
    process = Process(tmp_path)
    admit(process, "stored")
    with process.outbox.file.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StateError, match="full") as caught:
        admit(process, "x" * 100_000)
    assert (caught.value.retryable, caught.value.retry_after) == (True, 30.0)
    assert contents(process) == [["stored"]]
    process.close()


@pytest.mark.slow
def test_processes_that_begin_the_same_file_at_once_all_can_use_it(tmp_path: Path) -> None:
    begin = (
        "import sys, pathlib\n"
        "from honcho_exec.embedded import EmbeddedHoncho\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    EmbeddedHoncho(pathlib.Path(line.strip()) / 'memory.db').close()\n"
        "    print('used', flush=True)\n"
    )
    command = [sys.executable, "-c", begin]
    environ = os.environ | {"PYTHONPATH": str(Path(honcho_exec.__file__).parents[1])}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
            )
            for _ in range(3)
        ]
        stack.callback(lambda: [process.stdin.close() for process in processes if process.stdin])
        for number in range(-1, 100):
            for process in processes:
                assert process.stdin is not None
                if number >= 0:
                    process.stdin.write(f"{tmp_path / str(number)}\n")
                    process.stdin.flush()
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == ("used\n" if number >= 0 else "ready\n")


@pytest.mark.parametrize("made_first", ["home", "holders", "database"])
def test_the_state_folder_is_private_whatever_makes_it(tmp_path: Path, made_first: str) -> None:
    home = tmp_path / "deep" / "state"
    if made_first == "holders":
        LeaseHolder(home / "holders").close()
    elif made_first == "database":
        Database(home / "outbox.db", ()).close()
    else:
        private_folder(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) != 0o700


def test_a_loop_in_place_of_the_state_folder_is_named(tmp_path: Path) -> None:
    home = tmp_path / "state"
    home.symlink_to(home)
    with pytest.raises(StateError, match=f"^the state folder {home} cannot be used: .*HONCHO_EXEC_HOME"):
        LeaseHolder(home / "holders")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "holders").write_text("")
    with pytest.raises(
        StateError, match=f"^the state folder {tmp_path} cannot be used: Not a directory: {tmp_path}/holders"
    ):
        LeaseHolder(tmp_path / "holders")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")])
def test_a_folder_that_takes_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def refuse(*_: object) -> int:
        raise error

    monkeypatch.setattr(os, "open", refuse)
    said = f"the state folder {tmp_path} cannot be used: {error.strerror}; make it writable or set HONCHO_EXEC_HOME"
    with pytest.raises(StateError, match=f"^{said}$"):
        LeaseHolder(tmp_path / "holders")
    with pytest.raises(StateError) as caught:
        Database(tmp_path / "outbox.db", ())
    assert ("HONCHO_EXEC_HOME" in str(caught.value)) == isinstance(error, PermissionError)
