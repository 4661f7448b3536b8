"""Delivery through every failure, crash and interleaving, on a clock that is moved by hand.

Everything is real from the outbox's file through the SDK to the embedded Honcho's own; only time, threads and the
wire are not. `--hypothesis-profile=long` tries fifty times as much, and other things each time.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.hand_clock import HandTimer
from support.machines import bounds
from support.manual_executor import ManualExecutor, at_once
from support.scripted_honcho import (
    LATE_AFTER_A_KILL,
    LOOK_FAULTS,
    PLACE_FAULTS,
    TIMEOUT,
    WORKSPACE,
    WRITE_FAULTS,
    Killed,
    ScriptedConnection,
    ScriptedHoncho,
)

from honcho_exec.client.api import BATCH_KEY
from honcho_exec.delivery.pump import Pump
from honcho_exec.errors import Closed, RequestError, StateError
from honcho_exec.model import Conclusion, Message, Receipt, SessionRef, Write
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.retry import RetryPolicy
from honcho_exec.outbox.enqueue import Listener
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.outbox import MAX_BATCH, Outbox
from honcho_exec.outbox.rows import Batch
from honcho_exec.runtime.lane import Lane
from honcho_exec.runtime.metrics import Meter
from honcho_exec.settings import Settings
from honcho_exec.text.purge_filter import PurgeFilter

SETTINGS = Settings(timeout=TIMEOUT, base_url="http://honcho")
BREAK_SECONDS = 10.0
SESSIONS = ["a", "b"]
MAX_PROCESSES = 3
REQUESTS_PER_JOB = 80
JOBS_IN_A_ROW = 150
OUTAGE_SECONDS = 600.0
LOCKED_SECONDS = 60.0
GIVEN_IN_AN_OUTAGE = 20
PATIENCE = 400

index = st.integers(0, 10)
sessions = st.sampled_from(SESSIONS)
kinds = st.sampled_from(["said"] * 4 + ["poison", "choke"])
events = st.sampled_from(["run", "run", "kill", "close", "another", "time", "drop", "say"])
whats = st.sampled_from(["messages", "message", "conclusions"])
writes = st.lists(st.sampled_from(["", *WRITE_FAULTS]), max_size=3)
looks = st.lists(st.sampled_from(["", *LOOK_FAULTS]), max_size=3)
shares = st.sampled_from([0.1, 0.5, 0.95])
pauses = st.sampled_from([0.1, 1.0, 3.0, 12.0, 90.0])


class FragileOutbox(Outbox):
    """An outbox in which a process dies, or a disk fails, where it is told to: once."""

    plan: ClassVar[dict[str, str]] = {}
    given_away: ClassVar[set[int]] = set()

    def submit(self, turn: str, ref: Any, writes: Any, listener: Listener, **kwargs: Any) -> None:
        try:
            with self._fragile("admit"):
                super().submit(turn, ref, writes, listener, **kwargs)
        except StateError as error:
            listener.failed(error)

    def claim(self, *args: Any, **kwargs: Any) -> Any:
        with self._fragile("claim"):
            return super().claim(*args, **kwargs)

    def adopt(self) -> int:
        with self._fragile("adopt"):
            return super().adopt()

    def hand_over(self, batch: Batch) -> list[int]:
        with self._fragile("hand_over"):
            given = super().hand_over(batch)
            self.given_away.update(given)
            return given

    def park_overtaken(self, *args: Any, **kwargs: Any) -> Any:
        with self._fragile("park_overtaken"):
            return super().park_overtaken(*args, **kwargs)

    def mark_sent(self, *args: Any, **kwargs: Any) -> Any:
        with self._fragile("mark_sent"):
            return super().mark_sent(*args, **kwargs)

    def delete_delivered(self, *args: Any, **kwargs: Any) -> None:
        with self._fragile("delete_delivered"):
            super().delete_delivered(*args, **kwargs)

    def mark_ambiguous(self, *args: Any, **kwargs: Any) -> None:
        with self._fragile("mark_ambiguous"):
            super().mark_ambiguous(*args, **kwargs)

    def mark_not_sent(self, *args: Any, **kwargs: Any) -> None:
        with self._fragile("mark_not_sent"):
            super().mark_not_sent(*args, **kwargs)

    def bisect(self, *args: Any, **kwargs: Any) -> None:
        with self._fragile("bisect"):
            super().bisect(*args, **kwargs)

    def park(self, *args: Any, **kwargs: Any) -> None:
        with self._fragile("park"):
            super().park(*args, **kwargs)

    @contextmanager
    def _fragile(self, method: str) -> Iterator[None]:
        how = self.plan.pop(method, "")
        if how == "disk":
            raise StateError("the disk is full")
        if how == "before":
            raise Killed
        yield
        if how == "after":
            raise Killed


FRAGILE = [
    "admit", "claim", "adopt", "mark_sent", "delete_delivered", "mark_ambiguous", "mark_not_sent", "bisect", "park",
    "park_overtaken", "hand_over",
]  # fmt: skip


class Process:
    """One process: its delivery with all that belongs to it, in a folder that others share."""

    def __init__(self, folder: Path, machine: DeliveryMachine) -> None:
        timer = machine.timer
        self.busy = False
        self.executor = ManualExecutor()
        self.holder = LeaseHolder(folder / "holders")
        self.outbox = FragileOutbox(
            folder / "outbox.db", destination="here", holder=self.holder, clock=timer, max_rows=1000
        )
        self.lane = Lane(self.executor)
        breaker = Breaker("Honcho", threshold=SETTINGS.breaker_threshold, cooldown=BREAK_SECONDS, clock=timer)
        self.connection = ScriptedConnection(
            machine.honcho, self.lane, folder, breaker, partial(machine.under_way, self)
        )
        self.delivery = Pump(
            lane=self.lane,
            outbox=self.outbox,
            connection=self.connection,
            retry=RetryPolicy(
                attempts=2, max_wait=1.0, deadline=15.0, closing=timer.never(), breaker=breaker, clock=timer
            ),
            breaker=breaker,
            meter=Meter(),
            clock=timer,
            slow_after=5.0,
            on_health_change=lambda _: None,
            run=at_once,
            run_in_order=at_once,
            call_later=timer.after,
        )
        self.futures: list[Future[Receipt]] = []
        self.settled: defaultdict[str, list[int]] = defaultdict(list)

    def end(self) -> None:
        """What the operating system does for a dead process, and no more."""
        self.executor.jobs.clear()
        self.outbox.close()
        self.holder.close()
        self.connection.close()

    def close(self) -> None:
        """End in order."""
        self.delivery.close()
        self.lane.close(0.0)
        self.end()


class DeliveryMachine(RuleBasedStateMachine):
    """Drives deliveries on one outbox; every text names its place in the order of admission."""

    def __init__(self) -> None:
        super().__init__()
        FragileOutbox.plan = {}
        FragileOutbox.given_away = set()
        self.folder = Path(tempfile.mkdtemp(prefix="delivery-"))
        self.home = self.folder / "state"
        self.home.mkdir(mode=0o700)
        # Whoever uses the folder by its other name shares nothing with the others but the files.
        self.other_name = self.folder / "other-name"
        self.other_name.symlink_to(self.home)
        self.timer = HandTimer()
        self.honcho = ScriptedHoncho(self.folder / "server", self.timer)
        self.numbers = itertools.count(1)
        self.processes: list[Process] = []
        self.closed: list[Process] = []
        # Kept, so that nothing depends on when they are collected.
        self.graves: list[Process] = []
        self.accepted: dict[tuple[str, str], int] = {}
        self.concluded: Counter[str] = Counter()
        self.retried: set[str] = set()
        self.dropped: set[str] = set()
        self.sending: set[str] = set()
        self.owners: dict[int, str] = {}
        self.seen_changes = -1
        self.there: dict[str, list[str]] = {}
        self.there_concluded: Counter[str] = Counter()
        self.broken: list[str] = []
        self.backup = self.folder / "backup.db"
        self.holder = LeaseHolder(self.home / "holders")
        self.watch()
        self.open_one(apart=False)

    def watch(self) -> None:
        self.watcher = Outbox(
            self.home / "outbox.db", destination="here", holder=self.holder, clock=self.timer, max_rows=1000
        )
        self.file = sqlite3.connect(self.home / "outbox.db", isolation_level=None)

    def open_one(self, *, apart: bool) -> None:
        process = Process(self.other_name if apart else self.home, self)
        self.processes.append(process)
        process.delivery.wake()

    def teardown(self) -> None:
        try:
            self.drain()
        finally:
            for process in self.processes:
                process.close()
            self.watcher.close()
            self.holder.close()
            self.file.close()
            self.honcho.close()
            shutil.rmtree(self.folder)

    def pick(self, at: int) -> Process:
        return self.processes[at % len(self.processes)]

    # What may happen.

    @rule(
        at=index,
        session=sessions,
        count=st.sampled_from([1, 1, 2, 4]),
        what=st.sampled_from(["said"] * 4 + ["poison", "choke"]),
    )
    def say(self, at: int, session: str, count: int, what: str = "said") -> None:
        texts = [f"{next(self.numbers)} said" for _ in range(count)]
        texts[count // 2] = texts[count // 2].replace("said", what)
        self.give(self.pick(at), session, [Message("ada", text) for text in texts])

    @rule(at=index, session=sessions, key=st.sampled_from(["k1", "k2"]))
    def bring_in(self, at: int, session: str, key: str) -> None:
        self.give(self.pick(at), session, [Message("ada", key, source_key=key)])

    @rule(at=index, session=sessions, content=st.sampled_from(["tea", "coffee"]) | st.none())
    def conclude(self, at: int, session: str, content: str | None) -> None:
        text = content or f"{next(self.numbers)} concluded"
        self.give(self.pick(at), session, [Conclusion(text, "hermes", "ada")])

    def give(self, process: Process, session: str, given: Sequence[Write]) -> None:
        number = next(self.numbers)
        before = {row.id for row in self.watcher.inspection.rows()}
        future: Future[Receipt] | None = None
        try:
            future = process.delivery.turns.admit(SessionRef(WORKSPACE, session, "ada", "hermes"), given)
        except Killed:
            self.bury(process)
        added = [row.write for row in self.watcher.inspection.rows() if row.id not in before]
        for write in added:
            if isinstance(write, Message):
                self.accepted.setdefault((session, write.content), number)
            else:
                self.concluded[text_of(write)] += 1
        if future is None:
            return
        process.futures.append(future)
        refused = future.done() and isinstance(future.exception(), StateError)
        if not refused and isinstance(given[0], Message) and given[0].source_key is None:
            if added != list(given):
                self.broken.append("not all of it was stored when the call returned")
            future.add_done_callback(partial(self.told, process, session, number, [text_of(write) for write in given]))

    def told(self, process: Process, session: str, number: int, texts: list[str], future: Future[Receipt]) -> None:
        if process in self.graves or isinstance(future.exception(), Closed):
            return
        if not {*texts} & (self.dropped | self.retried):
            # Whoever's turn a person takes out is told of it when there is nothing else to do.
            process.settled[session].append(number)
        if future.exception() is None and not set(texts) <= set(self.honcho.messages(session)) | self.dropped:
            self.broken.append(f"{texts} were said to be there, and are not")

    @rule(at=index)
    def step(self, at: int) -> None:
        process = self.pick(at)
        if process.executor.jobs:
            self.run_one(process)

    @rule(at=index)
    def run(self, at: int) -> None:
        self.run_all(self.pick(at))

    def run_one(self, process: Process) -> None:
        requests = self.honcho.requests
        process.busy = True
        try:
            error = process.executor.step()
        except Killed:
            self.bury(process)
        else:
            assert isinstance(error, StateError | None), f"a job of the lane failed: {error!r}"
        finally:
            process.busy = False
        assert self.honcho.requests - requests <= REQUESTS_PER_JOB, "it hammers"

    def run_all(self, process: Process) -> None:
        for _ in range(JOBS_IN_A_ROW):
            if process not in self.processes or not process.executor.jobs:
                return
            self.run_one(process)
        raise AssertionError("it is busy for ever")

    def bury(self, process: Process) -> None:
        process.end()
        self.graves.append(process)
        self.processes.remove(process)
        if not self.processes:
            self.open_one(apart=False)

    @rule(
        at=index,
        session=sessions,
        what=whats,
        write_faults=writes,
        look_faults=looks,
        pause=pauses,
        lateness=shares,
    )
    def trouble(  # noqa: PLR0917 - Hypothesis names them
        self,
        at: int,
        session: str,
        what: str,
        write_faults: list[str],
        look_faults: list[str],
        pause: float,
        lateness: float,
    ) -> None:
        """Something is given, sending it fails, and so do the attempts and looks that follow."""
        self.honcho.writes.extend(write_faults)
        self.honcho.looks.extend(look_faults)
        self.honcho.lateness = lateness
        match what:
            case "conclusions":
                self.conclude(at, session, "tea")
                self.conclude(at, session, None)
            case "message":
                self.say(at, session, 1)
            case _:
                self.say(at, session, 4)
        self.run(at)
        self.timer.advance(pause)
        self.run(at)

    @rule(fault=st.sampled_from(PLACE_FAULTS))
    def a_session_cannot_be_opened(self, fault: str) -> None:
        self.honcho.places.append(fault)

    @rule(
        at=index, what=st.sampled_from(["run", "run", "kill", "close", "another", "time", "drop", "say"]), which=index
    )
    def meanwhile(self, at: int, what: str, which: int) -> None:
        """Something happens while the next write is under way, in another process if there is one."""

        def happens() -> None:
            others = [process for process in self.processes if not process.busy]
            other = others[at % len(others)] if others else None
            match what:
                case "run" if other:
                    self.run_all(other)
                case "kill" if other:
                    self.bury(other)
                case "close" if other:
                    self.close_one(other)
                case "another":
                    self.another(apart=bool(which % 2))
                case "time":
                    self.timer.advance(TIMEOUT * 0.4)
                case "drop":
                    self.drop(which)
                case "say":
                    self.say(at, SESSIONS[which % 2], 1)

        self.honcho.meanwhile.append(happens)

    @rule(what=st.sampled_from(["down", "locked"]))
    def nobody_gets_through(self, what: str) -> None:
        setattr(self.honcho, what, True)

    @rule()
    def heal(self) -> None:
        self.honcho.heal()
        FragileOutbox.plan.clear()

    @rule(method=st.sampled_from(FRAGILE), how=st.sampled_from(["before", "after", "disk"]))
    def break_at(self, method: str, how: str) -> None:
        FragileOutbox.plan[method] = how

    @rule(at=index)
    def kill(self, at: int) -> None:
        self.bury(self.pick(at))

    @rule(at=index)
    def close(self, at: int) -> None:
        self.close_one(self.pick(at))

    def close_one(self, process: Process) -> None:
        process.close()
        self.closed.append(process)
        self.processes.remove(process)
        if not self.processes:
            self.open_one(apart=False)

    @rule(apart=st.booleans())
    def another(self, apart: bool) -> None:
        if len(self.processes) < MAX_PROCESSES:
            self.open_one(apart=apart)

    @rule(seconds=pauses)
    def time_passes(self, seconds: float) -> None:
        self.timer.advance(seconds)

    @rule(seconds=st.sampled_from([-86_400.0, -90.0, 90.0, 86_400.0]))
    def wall_clock_is_set(self, seconds: float) -> None:
        self.timer.wall_offset += seconds

    @rule()
    def reboot(self) -> None:
        """The machine goes down with every process on it; its clock begins at zero, and is not set yet."""
        self.bury_all()
        self.timer.reboot()

    @rule()
    def back_up(self) -> None:
        self.backup.unlink(missing_ok=True)
        with closing(sqlite3.connect(self.backup)) as copy:
            self.file.backup(copy)

    @rule()
    @precondition(lambda self: self.backup.exists())
    def restore(self) -> None:
        """An older copy of the outbox comes to its place, when no attempt is under way any more."""
        self.bury_all(LATE_AFTER_A_KILL)
        self.check_all()
        before = {(row.ref.session, text_of(row.write)) for row in self.watcher.inspection.rows()}
        self.watcher.close()
        self.file.close()
        for path in self.home.glob("outbox.db*"):
            path.unlink()
        shutil.copy(self.backup, self.home / "outbox.db")
        self.watch()
        self.owners.clear()
        waiting = {(row.ref.session, text_of(row.write)) for row in self.watcher.inspection.rows()}
        there = {(session, text) for session, texts in self.there.items() for text in texts}
        # What was stored since is gone with the file, and what was parked or dropped since comes behind others.
        self.dropped |= {text for _, text in before - waiting - there}
        self.retried |= {text for _, text in waiting - there}
        self.open_one(apart=False)

    def bury_all(self, seconds: float = 0.0) -> None:
        for process in self.processes:
            process.end()
        self.graves += self.processes
        self.processes = []
        self.timer.advance(seconds)
        if not seconds:
            self.open_one(apart=False)

    @rule(which=index)
    @precondition(lambda self: self.watcher.inspection.counts().parked)
    def retry(self, which: int) -> None:
        rows = self.watcher.inspection.rows(parked=True)
        row = rows[which % len(rows)]
        assert self.watcher.inspection.retry([row.id]) == 1
        self.owners.pop(row.id, None)
        self.retried.add(text_of(row.write))

    @rule(which=index)
    def drop(self, which: int) -> None:
        rows = self.watcher.inspection.rows()
        if rows and self.watcher.inspection.drop([rows[which % len(rows)].id]):
            self.dropped.add(text_of(rows[which % len(rows)].write))

    # What always holds.

    @contextmanager
    def under_way(self, process: Process, body: bytes) -> Iterator[None]:
        """A process sends this."""
        sent = json.loads(body)
        if "messages" in sent:
            rows = self.waiting_rows("batch", {item["metadata"][BATCH_KEY] for item in sent["messages"]})
        else:
            contents = {item["content"] for item in sent["conclusions"]}
            rows = self.waiting_rows("json_extract(payload, '$.content')", contents, kind="conclusion")
        # What is raised here the SDK takes for a broken connection.
        if len(rows) > MAX_BATCH:
            self.broken.append(f"{len(rows)} rows in one request")
        if set(rows) & self.sending:
            self.broken.append("two send the same row")
        if not set(rows.values()) <= {process.holder.name}:
            self.broken.append("it sends another's row")
        self.sending |= set(rows)
        try:
            yield
        finally:
            self.sending -= set(rows)

    def waiting_rows(self, column: str, values: set[str], *, kind: str = "message") -> dict[int, str]:
        """The rows that wait and have one of these values, with their owners."""
        query = (
            f"SELECT id, owner FROM rows WHERE parked_at IS NULL AND kind = ? AND {column} IN"
            " (SELECT value FROM json_each(?))"
        )
        return dict(self.file.execute(query, (kind, json.dumps(list(values)))).fetchall())

    @invariant()
    def nothing_was_seen_to_break(self) -> None:
        assert self.broken == []

    @invariant()
    def nothing_is_lost(self) -> None:
        """Whatever was accepted is on the server, or in the file, or was dropped by a person."""
        self.look()
        waiting = Counter((row.ref.session, text_of(row.write)) for row in self.watcher.inspection.rows())
        there = {(session, text) for session, texts in self.there.items() for text in texts}
        assert {one for one in self.accepted.keys() - there - waiting.keys() if one[1] not in self.dropped} == set()
        concluded = self.there_concluded.keys() | {text for _, text in waiting} | self.dropped
        assert self.concluded.keys() - concluded == set()

    @invariant()
    def nothing_arrives_twice(self) -> None:
        self.look()
        for session, texts in self.there.items():
            assert len(texts) == len(set(texts)), f"doubled in {session}: {texts}"
        assert self.there_concluded <= self.concluded, f"doubled: {self.there_concluded} of {self.concluded}"

    @invariant()
    def nothing_overtakes(self) -> None:
        self.look()
        for session, texts in self.there.items():
            numbers = [self.accepted[session, text] for text in texts if text not in self.retried | self.dropped]
            assert numbers == sorted(numbers), f"out of order in {session}: {numbers}"

    @invariant()
    def nothing_is_taken_from_the_living(self) -> None:
        living = {process.holder.name for process in self.processes}
        owners = dict(self.file.execute("SELECT id, owner FROM rows WHERE parked_at IS NULL"))
        taken = {row for row, owner in owners.items() if self.owners.get(row, owner) != owner}
        taken -= FragileOutbox.given_away
        FragileOutbox.given_away.clear()
        assert not {self.owners[row] for row in taken} & living
        self.owners = owners

    @invariant()
    def turns_are_told_of_in_their_order(self) -> None:
        for process in self.processes:
            for session, numbers in process.settled.items():
                assert numbers == sorted(numbers), f"told out of order in {session}: {numbers}"

    def look(self) -> None:
        if self.seen_changes != self.honcho.changes:
            self.seen_changes = self.honcho.changes
            self.there = {session: self.honcho.messages(session) for session in SESSIONS}
            self.there_concluded = Counter(self.honcho.conclusions())

    # In the end.

    def drain(self) -> None:
        """When nothing fails any more, everything arrives and everybody is told."""
        self.heal()
        for session in SESSIONS:
            # What the server chokes on is known by what passes behind it.
            self.say(0, session, 1)
        for _ in range(PATIENCE):
            for process in list(self.processes):
                self.run_all(process)
            if not self.watcher.inspection.counts().pending and all(
                future.done() for process in self.processes for future in process.futures
            ):
                break
            self.timer.advance_to_next()
        self.timer.advance(LATE_AFTER_A_KILL)
        self.check_all()
        assert self.watcher.inspection.counts().pending == 0, "it is stuck"
        parked = {(row.ref.session, text_of(row.write)) for row in self.watcher.inspection.rows(parked=True)}
        there = {(session, text) for session, texts in self.there.items() for text in texts}
        assert not parked & there, "parked although it is there"
        for process in [*self.processes, *self.closed]:
            for future in process.futures:
                assert future.done(), "somebody waits for ever"
                assert isinstance(future.exception(), RequestError | StateError | None) or process in self.closed

    def check_all(self) -> None:
        self.nothing_was_seen_to_break()
        self.nothing_is_lost()
        self.nothing_arrives_twice()
        self.nothing_overtakes()
        self.turns_are_told_of_in_their_order()


def text_of(write: Write) -> str:
    assert isinstance(write, Message | Conclusion)
    return write.content


TestDelivery = DeliveryMachine.TestCase
TestDelivery.settings = bounds(runs=100, steps=20)


@pytest.fixture
def machine() -> Iterator[DeliveryMachine]:
    """A machine to tell what happens; in the end it drains and looks at what arrived."""
    machine = DeliveryMachine()
    yield machine
    machine.teardown()


def trouble(machine: DeliveryMachine, what: str, write_faults: list[str], look_faults: list[str] | None = None) -> None:
    machine.trouble(0, "a", what, write_faults, look_faults or [], pause=1.0, lateness=0.95)


@pytest.mark.parametrize("fault", WRITE_FAULTS)
@pytest.mark.parametrize("what", ["messages", "conclusions"])
def test_each_failure_by_itself(machine: DeliveryMachine, what: str, fault: str) -> None:
    machine.another(apart=True)
    trouble(machine, what, [fault])
    if fault != "422":
        assert machine.watcher.inspection.counts().parked == 0


@pytest.mark.parametrize("fault", LOOK_FAULTS)
@pytest.mark.parametrize("what", ["messages", "message", "conclusions"])
def test_a_look_that_fails_says_nothing_of_what_was_looked_for(machine: DeliveryMachine, what: str, fault: str) -> None:
    trouble(machine, "message", [])
    trouble(machine, what, ["500, done"], [fault])
    assert machine.watcher.inspection.counts().parked == 0


def test_a_refused_key_parks_nothing(machine: DeliveryMachine) -> None:
    trouble(machine, "message", ["401"] * 3)
    assert machine.watcher.inspection.counts().parked == 0


def test_turns_that_go_together_are_told_of_in_their_order(machine: DeliveryMachine) -> None:
    for _ in range(3):
        machine.say(0, "a", 1)
    machine.run(0)
    assert len(machine.pick(0).settled["a"]) == 3
    machine.turns_are_told_of_in_their_order()


def test_a_second_suspect_of_a_stream_fails_before_the_poison_behind_it(machine: DeliveryMachine) -> None:
    for _ in range(7):
        machine.say(0, "a", 1)
    machine.say(0, "a", 1, "choke")
    machine.say(0, "a", 1)
    machine.say(0, "a", 1)
    for _ in range(3):
        machine.say(0, "b", 2)
    machine.say(0, "a", 4)
    machine.say(0, "a", 2, "choke")
    machine.say(0, "a", 1, "poison")
    machine.say(0, "b", 1)
    machine.say(0, "a", 1)
    machine.say(0, "b", 4)
    machine.say(0, "b", 2)


def test_what_is_done_while_the_server_looks_is_not_sent_again(machine: DeliveryMachine) -> None:
    trouble(machine, "message", [])
    trouble(machine, "messages", ["reset, done late"], ["slow"])


@pytest.mark.parametrize("before", range(4))
def test_a_list_of_members_that_is_nonsense_joins_nobody_again(machine: DeliveryMachine, before: int) -> None:
    trouble(machine, "message", [])
    for file in machine.home.glob("known.db*"):
        file.unlink()
    machine.kill(0)
    machine.honcho.places.extend([""] * before + ["nonsense"])
    joins = machine.honcho.joins
    trouble(machine, "message", [])
    assert machine.honcho.joins == joins


def test_a_conclusion_that_is_there_already_does_not_vouch_for_those_beside_it(machine: DeliveryMachine) -> None:
    machine.conclude(0, "a", "tea")
    machine.run(0)
    # It was delivered from elsewhere, as far as is known here.
    machine.watcher.history.purge(PurgeFilter())
    # The same once more, with another in the same request, which is not done and whose answer is lost.
    machine.conclude(0, "a", "tea")
    machine.conclude(0, "a", None)
    machine.honcho.writes.append("reset")
    machine.run(0)


@pytest.mark.parametrize("delivered", [False, True])
def test_restored_backup_doubles_nothing(machine: DeliveryMachine, *, delivered: bool) -> None:
    machine.honcho.down = True
    machine.say(0, "a", 4)
    machine.conclude(0, "a", "tea")
    machine.run(0)
    machine.back_up()
    if delivered:
        machine.heal()
        machine.timer.advance(90.0)
        machine.run(0)
        assert machine.honcho.messages("a")
    machine.restore()


@pytest.mark.parametrize("seconds", [-86_400.0, 86_400.0])
@pytest.mark.parametrize("fault", [fault for fault in WRITE_FAULTS if "done" in fault])
@pytest.mark.parametrize("what", ["messages", "conclusions"])
def test_clock_that_is_set_after_a_lost_answer(machine: DeliveryMachine, what: str, fault: str, seconds: float) -> None:
    machine.honcho.meanwhile.append(lambda: machine.wall_clock_is_set(seconds))
    trouble(machine, what, [fault])


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("beside", ["poison", "choke"])
def test_many_that_cannot_go_hold_nobody_up(machine: DeliveryMachine, beside: str, count: int) -> None:
    for session in SESSIONS:
        for _ in range(count):
            machine.say(0, session, 1, "choke")
            machine.say(0, session, 1, beside)
    # What is behind them comes at the end of every test.


def test_one_that_the_server_chokes_on_does_not_hold_up_another_process(machine: DeliveryMachine) -> None:
    machine.another(apart=True)
    for at in (1, 0, 1):
        machine.say(at, "a", 1, "choke")
        machine.run(at)


def suspected(machine: DeliveryMachine) -> None:
    """A message at which the server has failed and is going to fail, and one behind it."""
    machine.say(0, "a", 1)
    machine.honcho.writes.extend(["500"] * 2)
    machine.run(0)
    machine.honcho.writes.extend(["500"] * 2)
    machine.say(0, "a", 1)


@pytest.mark.parametrize("method", ["park_overtaken", "delete_delivered"])
@pytest.mark.parametrize("how", ["before", "after"])
def test_killed_where_a_suspect_is_overtaken(machine: DeliveryMachine, method: str, how: str) -> None:
    suspected(machine)
    machine.break_at(method, how)
    machine.timer.advance(12.0)
    machine.run(0)
    assert machine.graves


@pytest.mark.parametrize("answer", ["500, done", "reset, done", "timeout, done late", "killed, done late"])
def test_a_suspect_whose_overtaking_is_not_known_waits(machine: DeliveryMachine, answer: str) -> None:
    suspected(machine)
    machine.honcho.writes.append(answer)
    # Twice more the server fails at the suspect; then what is behind it is under way, and cannot be looked for.
    machine.honcho.meanwhile.extend([lambda: None] * 2)
    machine.honcho.meanwhile.append(lambda: machine.honcho.looks.append("503"))
    machine.timer.advance(12.0)
    machine.run(0)
    assert not machine.honcho.writes


def test_a_message_that_is_tried_again_lets_nobody_overtake(machine: DeliveryMachine) -> None:
    machine.honcho.writes.extend(["422", "422"])
    machine.say(0, "a", 2)
    process = machine.pick(0)
    while not machine.watcher.inspection.counts().parked:
        machine.run_one(process)
    machine.say(0, "a", 1)
    machine.retry(0)


def test_what_a_process_is_at_is_not_taken_by_another_that_comes_meanwhile(machine: DeliveryMachine) -> None:
    machine.another(apart=True)
    machine.meanwhile(0, "run", 0)
    machine.say(0, "a", 2)
    machine.say(1, "a", 1)
    machine.run(0)


@pytest.mark.parametrize(("how", "pause"), [("down", BREAK_SECONDS), ("locked", LOCKED_SECONDS)])
def test_during_an_outage_it_is_tried_again_and_not_hammered(machine: DeliveryMachine, how: str, pause: float) -> None:
    machine.another(apart=False)
    machine.another(apart=True)
    setattr(machine.honcho, how, True)
    until = machine.timer.seconds + OUTAGE_SECONDS
    number = 0
    while machine.timer.seconds < until:
        for at, process in enumerate(machine.processes):
            machine.run_all(process)
            if number < GIVEN_IN_AN_OUTAGE:
                machine.say(at, SESSIONS[at % 2], 1)
        machine.timer.advance_to_next()
        number += 1
        assert number <= 10 * OUTAGE_SECONDS, "it is busy"
    attempts = machine.honcho.requests / len(machine.processes) / (OUTAGE_SECONDS / pause)
    assert 1 / 3 <= attempts <= 10
