"""The outbox against a model of it: several holders on one file, any order of events."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from support.hand_clock import HandClock
from support.machines import bounds

from honcho_exec.errors import Overloaded
from honcho_exec.model import Conclusion, Message, SessionRef, Write
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.outbox.rows import Admitted, Batch

BOUNDS = bounds(runs=50, steps=40)
SEEN_TO_FAIL = settings(
    BOUNDS, max_examples=300, phases=[Phase.generate], derandomize=True, database=None, report_multiple_bugs=False
)
MAX_HOLDERS = 3
MAX_ROWS = 60
NOBODY = ""

sessions = st.sampled_from(["a", "b"])
keys = st.none() | st.sampled_from(["k1", "k2", "k3"])
index = st.integers(0, 10)


@dataclass(eq=False)
class ModelRow:
    """A row as it should be in the file; `number` is its place in the order of admission."""

    number: int
    here: bool
    stream: tuple[str, ...]
    text: str
    dedup: tuple[str, ...] | None
    turn: str
    owner: str
    batch: str | None = None
    look: bool = False
    parked: str | None = None


@dataclass(eq=False)
class Process:
    """An outbox as one process has it, and the batch that it is at."""

    outbox: Outbox
    holder: LeaseHolder
    held: Batch | None = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.holder.name


class OutboxMachine(RuleBasedStateMachine):
    """Drives outboxes on one file and compares them with `rows`, the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="outbox-"))
        self.clock = HandClock()
        self.numbers = itertools.count(1)
        self.rows: list[ModelRow] = []
        self.delivered: list[ModelRow] = []
        self.frozen: dict[str, tuple[int, ...]] = {}
        self.processes: list[Process] = []
        self.watcher = self.process(destination="here")
        self.elsewhere = self.process(destination="elsewhere")
        self.open_one()

    def process(self, *, destination: str) -> Process:
        holder = self.make_holder()
        outbox = Outbox(
            self.folder / "outbox.db", destination=destination, holder=holder, clock=self.clock, max_rows=MAX_ROWS
        )
        return Process(outbox, holder)

    def make_holder(self) -> LeaseHolder:
        return LeaseHolder(self.folder / "holders")

    def open_one(self) -> None:
        self.processes.append(self.process(destination="here"))

    def teardown(self) -> None:
        try:
            self.drain()
        finally:
            for process in [*self.processes, self.watcher, self.elsewhere]:
                self.end(process)
            shutil.rmtree(self.folder)

    @staticmethod
    def end(process: Process) -> None:
        process.outbox.close()
        process.holder.close()

    # What the model says.

    def waiting(self, stream: tuple[str, ...] | None = None) -> list[ModelRow]:
        return [row for row in self.rows if row.here and row.parked is None and stream in (None, row.stream)]

    def parked(self) -> list[ModelRow]:
        return [row for row in self.rows if row.here and row.parked is not None]

    def living(self) -> set[str]:
        return {process.name for process in [*self.processes, self.watcher, self.elsewhere]}

    def of(self, batch: Batch) -> list[ModelRow]:
        numbers = [self.number(write) for write in batch.writes]
        found = {row.number: row for row in self.rows}
        assert set(numbers) <= set(found), "it hands out what it does not hold"
        return [found[number] for number in numbers]

    @staticmethod
    def number(write: Write) -> int:
        assert isinstance(write, Message | Conclusion)
        return int(write.content.split()[0]) if isinstance(write, Message) else int(str(write.created_at))

    def pick(self, at: int) -> Process:
        return self.processes[at % len(self.processes)]

    def at_work(self, at: int) -> tuple[Process, Batch] | None:
        """A process that holds a batch of which something is left."""
        busy = [process for process in self.processes if process.held is not None and self.left(process.held)]
        if not busy:
            return None
        process = busy[at % len(busy)]
        assert process.held is not None
        return process, process.held

    # What may happen.

    @rule(at=index, session=sessions, given=st.lists(keys, min_size=1, max_size=6))
    def give_messages(self, at: int, session: str, given: list[str | None]) -> None:
        self.give(self.pick(at), session, [("message", key) for key in given])

    @rule(at=index, session=sessions, content=st.sampled_from(["tea", "coffee"]), about=st.sampled_from(["ada", "bob"]))
    def conclude(self, at: int, session: str, content: str, about: str) -> None:
        self.give(self.pick(at), session, [("conclusion", f"{content}/{about}")])

    @rule()
    def give_elsewhere(self) -> None:
        self.give(self.elsewhere, "a", [("message", None)], here=False)

    @rule(at=index, count=st.integers(90, 130))
    @precondition(lambda self: not self.rows)
    def give_many(self, at: int, count: int) -> None:
        with pytest.raises(Overloaded):
            self.give(self.pick(at), "a", [("message", None)] * count)

    def give(
        self, process: Process, session: str, what: Sequence[tuple[str, str | None]], *, here: bool = True
    ) -> None:
        turn, writes, new = self.clock.new_id(), [], []
        for kind, detail in what:
            number = next(self.numbers)
            dedup: tuple[str, ...] | None
            write: Write
            if kind == "message":
                write = Message("ada", f"{number} said", source_key=detail)
                stream: tuple[str, ...] = (session, kind)
                dedup = None if detail is None else (session, detail)
            else:
                content, _, about = str(detail).partition("/")
                # The number travels where the outbox does not look.
                write = Conclusion(content, "hermes", about, created_at=str(number))
                stream, dedup = (session, kind, about), (content, about)
            writes.append(write)
            taken = {row.dedup for row in [*self.rows, *new] if row.dedup is not None}
            if dedup not in taken:
                new.append(ModelRow(number, here, stream, str(number), dedup, turn, process.name))
        ref = SessionRef("w", session, "ada", "hermes")
        if len(self.rows) + len(writes) > MAX_ROWS:
            known = [row.turn for row in self.rows if row.dedup in {self.dedup(session, write) for write in writes}]
            if known:
                assert process.outbox.admit(turn, ref, writes).turn in known
                return
            with pytest.raises(Overloaded):
                process.outbox.admit(turn, ref, writes)
            if len(writes) > MAX_ROWS:
                raise Overloaded
            return
        admitted = process.outbox.admit(turn, ref, writes)
        self.rows += new
        if new:
            assert admitted == Admitted(turn, len(new))
        else:
            assert admitted.added == 0
            assert admitted.turn in {row.turn for row in self.rows if row.dedup is not None}

    @staticmethod
    def dedup(session: str, write: Write) -> tuple[str, ...]:
        match write:
            case Message(source_key=str() as key):
                return (session, key)
            case Conclusion():
                return (write.content, write.observed)
        return ("none of these",)

    @rule(at=index)
    def claim(self, at: int) -> None:
        process = self.pick(at)
        self.take(process, process.outbox.claim())

    @rule(at=index)
    def claim_beyond(self, at: int) -> None:
        if (found := self.at_work(at)) is None:
            return
        process, batch = found
        behind = process.outbox.claim(after=[batch])
        if behind is None:
            return
        assert behind.id != batch.id
        assert not set(self.of(behind)) & set(self.left(batch))
        self.freeze(process, behind)

    def take(self, process: Process, batch: Batch | None) -> None:
        """Check what a process was handed."""
        heads = [self.waiting(stream)[0] for stream in {row.stream for row in self.waiting()}]
        mine = sorted((row for row in heads if row.owner == process.name), key=lambda row: row.number)
        process.held = batch
        if batch is None:
            assert not mine, "it has something to send and does not say so"
            return
        rows = self.freeze(process, batch)
        assert rows[0] in mine, "another's, or not the oldest, comes first"
        oldest = min(
            row.number
            for row in self.waiting()
            if row.owner == process.name and row.stream in {head.stream for head in mine}
        )
        assert oldest in {row.number for row in self.waiting(rows[0].stream)}, "an older stream is passed over"
        assert rows == self.waiting(rows[0].stream)[: len(rows)], "it overtakes"

    def freeze(self, process: Process, batch: Batch) -> list[ModelRow]:
        rows = self.of(batch)
        assert 0 < len(rows) <= 100
        assert len({(row.stream, row.here) for row in rows}) == 1
        assert {row.owner for row in rows} == {process.name}, "it hands out another's"
        assert all(row.parked is None for row in rows)
        for other in self.processes:
            if other is not process and other.held is not None:
                assert not set(rows) & set(self.left(other.held)), "two have the same row"
        before = self.frozen.get(batch.id)
        if before is None:
            assert all(row.batch is None for row in rows), "a frozen batch changed its id"
            self.frozen[batch.id] = tuple(row.number for row in rows)
            for row in rows:
                row.batch = batch.id
        else:
            left = [row.number for row in self.rows if row.batch == batch.id and row.parked is None]
            assert [row.number for row in rows] == [number for number in before if number in left]
            assert batch.must_verify == rows[0].look
        return rows

    def left(self, batch: Batch) -> list[ModelRow]:
        numbers = {self.number(write) for write in batch.writes}
        return [row for row in self.rows if row.number in numbers and row.batch == batch.id and row.parked is None]

    @rule(at=index, late=st.sampled_from([0.0, 5.0]))
    def send(self, at: int, late: float) -> None:
        if (found := self.at_work(at)) is not None:
            process, batch = found
            rows = process.outbox.refresh(batch).rows
            assert process.outbox.mark_sent(rows, may_land_for=late) == list(rows)
            self.mark(batch, look=True)

    @rule(at=index)
    def fail(self, at: int) -> None:
        if (found := self.at_work(at)) is not None:
            process, batch = found
            process.outbox.mark_not_sent(batch, "refused")
            self.mark(batch, look=False)

    @rule(at=index)
    def lose_the_answer(self, at: int) -> None:
        if (found := self.at_work(at)) is not None:
            process, batch = found
            process.outbox.mark_ambiguous(batch, "lost", may_land_for=1)
            self.mark(batch, look=True)

    def mark(self, batch: Batch, *, look: bool) -> None:
        for row in self.left(batch):
            row.look = look

    @rule(at=index, share=st.sampled_from([1, 1, 2]))
    def settle(self, at: int, share: int) -> None:
        if (found := self.at_work(at)) is None:
            return
        process, batch = found
        current = process.outbox.refresh(batch)
        self.take_off(process, batch, current.rows[: -(-len(current.rows) // share)])

    def take_off(self, process: Process, batch: Batch, rows: Sequence[object]) -> None:
        done = self.left(batch)[: len(rows)]
        process.outbox.delete_delivered(process.outbox.refresh(batch).rows[: len(rows)])
        self.forget(done)
        self.delivered += done
        if not self.left(batch):
            process.held = None

    def forget(self, rows: Iterable[ModelRow]) -> None:
        gone = set(rows)
        self.rows = [row for row in self.rows if row not in gone]

    @rule(at=index)
    def halve(self, at: int) -> None:
        if (found := self.at_work(at)) is None:
            return
        process, batch = found
        rows = self.left(batch)
        if len(rows) > 1 and not rows[0].look:
            self.halve_held(process, batch)

    def halve_held(self, process: Process, batch: Batch) -> None:
        batch, rows = process.outbox.refresh(batch), self.left(batch)
        process.outbox.bisect(batch)
        process.held = None
        middle = len(rows) // 2
        found_ids = self.batch_ids(rows)
        assert len({*found_ids[:middle]}) == len({*found_ids[middle:]}) == 1
        assert found_ids[0] != found_ids[-1]
        assert batch.id not in found_ids
        for half in (rows[:middle], rows[middle:]):
            half_id = self.batch_ids(half)[0]
            self.frozen[half_id] = tuple(row.number for row in half)
            for row in half:
                row.batch = half_id

    def batch_ids(self, rows: Sequence[ModelRow]) -> list[str]:
        """The ids that the file has."""
        with sqlite3.connect(self.folder / "outbox.db") as connection:
            found = dict(connection.execute("SELECT json_extract(payload, '$.content'), batch FROM rows").fetchall())
            made = dict(connection.execute("SELECT json_extract(payload, '$.created_at'), batch FROM rows").fetchall())
        connection.close()
        return [found.get(f"{row.number} said") or made[str(row.number)] for row in rows]

    @rule(at=index)
    def park(self, at: int) -> None:
        if (found := self.at_work(at)) is None:
            return
        process, batch = found
        if not self.left(batch)[0].look:
            self.park_held(process, batch)

    def park_held(self, process: Process, batch: Batch) -> None:
        rows = self.left(batch)
        process.outbox.park(batch, "because")
        process.held = None
        for row in rows:
            row.parked = "because"

    @rule(at=index, which=index)
    def refuse(self, at: int, which: int) -> None:
        """A row of the next batch is refused: halve until it is found, and park it."""
        process = self.pick(at)
        self.take(process, process.outbox.claim())
        if process.held is None:
            return
        rows = self.left(process.held)
        refused = rows[which % len(rows)]
        while not rows[0].look and refused in rows:
            if len(rows) == 1:
                self.park_held(process, process.held)
                return
            self.halve_held(process, process.held)
            self.take(process, process.outbox.claim())
            if process.held is None:
                return
            rows = self.left(process.held)

    @rule(at=index)
    def let_go(self, at: int) -> None:
        """The attempt is over for now; the batch stays as it is."""
        if (found := self.at_work(at)) is not None:
            found[0].held = None

    @rule(at=index)
    def crash(self, at: int) -> None:
        process = self.pick(at)
        self.processes.remove(process)
        self.end(process)
        if not self.processes:
            self.open_one()

    @rule()
    @precondition(lambda self: len(self.processes) < MAX_HOLDERS)
    def another(self) -> None:
        self.open_one()

    @rule(at=index)
    def adopt(self, at: int) -> None:
        self.adopt_for(self.pick(at))

    def adopt_for(self, process: Process) -> None:
        dead = {row.owner for row in self.waiting()} - self.living()
        taken = [row for row in self.rows if row.here and row.owner in dead]
        assert process.outbox.adopt() == len(taken)
        for row in taken:
            row.owner = process.name

    @rule(which=st.lists(index, max_size=3))
    def retry(self, which: list[int]) -> None:
        chosen = self.choose(self.parked(), which)
        assert self.watcher.outbox.inspection.retry(self.ids(chosen)) == len(chosen)
        for row in chosen:
            row.parked, row.batch, row.look, row.owner = None, None, False, NOBODY

    @rule(which=st.lists(index, max_size=3))
    def drop(self, which: list[int]) -> None:
        chosen = self.choose([row for row in self.rows if row.here], which)
        gone = [row for row in chosen if row.parked is not None or not row.look]
        assert self.watcher.outbox.inspection.drop(self.ids(chosen)) == len(gone)
        self.forget(gone)

    @staticmethod
    def choose(rows: Sequence[ModelRow], which: Iterable[int]) -> list[ModelRow]:
        return [rows[at] for at in sorted({at % len(rows) for at in which})] if rows else []

    def ids(self, rows: Sequence[ModelRow]) -> list[int]:
        by_number = {self.number(row.write): row.id for row in self.watcher.outbox.inspection.rows()}
        return [by_number[row.number] for row in rows]

    @rule(seconds=st.sampled_from([0.1, 5.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.seconds += seconds

    # What always holds.

    @invariant()
    def nothing_is_lost_and_nothing_is_left(self) -> None:
        here = [row for row in self.rows if row.here]
        found = self.watcher.outbox.inspection.rows()
        assert [(self.number(row.write), row.error if row.parked_at else None) for row in found] == [
            (row.number, row.parked) for row in here
        ]

    @invariant()
    def the_counts_agree(self) -> None:
        counts = self.watcher.outbox.inspection.counts()
        waiting = self.waiting()
        assert (counts.pending, counts.parked, counts.elsewhere) == (
            len(waiting),
            len(self.parked()),
            sum(not row.here for row in self.rows),
        )
        assert counts.in_flight == sum(row.look for row in waiting)
        assert (counts.oldest_at is None) == (not waiting)
        for process in self.processes:
            mine = sum(row.owner == process.name for row in waiting)
            assert process.outbox.inspection.pending() == mine

    @invariant()
    def every_turn_knows_its_fate(self) -> None:
        for turn in {row.turn for row in self.rows[-3:]}:
            rows = [row for row in self.rows if row.turn == turn]
            reason = next((row.parked for row in rows if row.parked), None)
            assert self.watcher.outbox.turn_state(turn) == (len(rows), reason)

    def drain(self) -> None:
        """A last process, when all others are dead, delivers everything that waits, in order."""
        for process in self.processes:
            self.end(process)
        self.processes = [self.process(destination="here")]
        (last,) = self.processes
        expected = [row.number for row in self.waiting()]
        delivered: list[ModelRow] = []
        while True:
            self.adopt_for(last)
            batch = last.outbox.claim()
            self.take(last, batch)
            if batch is None:
                break
            delivered += self.of(batch)
            self.take_off(last, batch, batch.rows)
        assert sorted(row.number for row in delivered) == expected
        for stream in {row.stream for row in delivered}:
            numbers = [row.number for row in delivered if row.stream == stream]
            assert numbers == sorted(numbers)


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = BOUNDS


class TwoClaim(OutboxMachine):
    """Every process is the same holder, so that two of them are handed the same rows."""

    def make_holder(self) -> LeaseHolder:
        if not hasattr(self, "only"):
            self.only = super().make_holder()
        return self.only


class LivingAreTakenFrom(OutboxMachine):
    """Every other holder is taken for dead."""

    def make_holder(self) -> LeaseHolder:
        holder = super().make_holder()
        holder.alive = lambda name: name == holder.name  # type: ignore[method-assign]
        return holder


class Unfrozen(OutboxMachine):
    """A batch forgets its id when something is given."""

    def give(
        self, process: Process, session: str, what: Sequence[tuple[str, str | None]], *, here: bool = True
    ) -> None:
        super().give(process, session, what, here=here)
        with sqlite3.connect(self.folder / "outbox.db") as connection:
            connection.execute("UPDATE rows SET batch = NULL")
        connection.close()


class Forgetful(OutboxMachine):
    """A process takes what it is at with it when it dies."""

    @staticmethod
    def end(process: Process) -> None:
        if process.held is not None:
            process.outbox.delete_delivered(process.held.rows)
        OutboxMachine.end(process)


def test_a_row_that_is_tried_again_does_not_let_others_overtake(tmp_path: Path) -> None:
    holder = LeaseHolder(tmp_path / "holders")
    outbox = Outbox(tmp_path / "outbox.db", destination="here", holder=holder, clock=HandClock(), max_rows=9)
    ref = SessionRef("w", "s", "ada", "hermes")
    outbox.admit("t1", ref, [Message("ada", "1"), Message("ada", "2")])
    both = outbox.claim()
    assert both is not None
    outbox.bisect(both)
    first = outbox.claim()
    assert first is not None
    outbox.park(first, "because")
    outbox.admit("t2", ref, [Message("ada", "3")])
    outbox.inspection.retry([first.rows[0].id])
    outbox.adopt()
    sent: list[Write] = []
    while (batch := outbox.claim()) is not None:
        sent += batch.writes
        outbox.delete_delivered(batch.rows)
    assert sent == [Message("ada", "1"), Message("ada", "2"), Message("ada", "3")]
    outbox.close()
    holder.close()


def test_a_living_process_is_not_taken_for_dead_when_files_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from honcho_exec.outbox.lease import LeaseHolder\n"
        "holder = LeaseHolder(Path(sys.argv[1]))\n"
        "print(holder.name, flush=True)\n"
        "sys.stdin.read()\n"
    )
    mine = LeaseHolder(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert mine.alive(name)

        def too_many(*_: object) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", too_many)
            alive = mine.alive(name)
        process.communicate()
    assert alive
    assert not mine.alive(name)
    mine.close()


@pytest.mark.parametrize("broken", [LivingAreTakenFrom, Unfrozen])
def test_without_the_protection_it_is_seen(broken: Callable[[], OutboxMachine]) -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(broken, settings=SEEN_TO_FAIL)


def test_two_that_claim_the_same_rows_are_seen() -> None:
    machine = TwoClaim()
    machine.another()
    machine.give_messages(0, "a", [None])
    machine.claim(0)
    with pytest.raises(AssertionError, match="two have the same row"):
        machine.claim(1)
    machine.processes[1].held = None
    machine.teardown()


def test_a_row_that_is_lost_is_seen() -> None:
    machine = Forgetful()
    machine.give_messages(0, "a", [None])
    machine.claim(0)
    machine.crash(0)
    with pytest.raises(AssertionError):
        machine.nothing_is_lost_and_nothing_is_left()
    machine.rows.clear()
    machine.teardown()
