"""How soon a server that is back is noticed, and how often one that is away is tried, on a clock moved by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.hand_clock import HandTimer
from support.manual_executor import ManualExecutor, at_once
from support.scripted_honcho import WORKSPACE, ScriptedConnection, ScriptedHoncho

from honcho_exec.delivery.pump import Pump
from honcho_exec.errors import Ambiguous, RequestError, StateError, Unreached
from honcho_exec.model import Message, SessionRef
from honcho_exec.net.backoff import CAP, SHARE, SOONEST, Waits
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.retry import RetryPolicy
from honcho_exec.outbox.lease import Holder
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.runtime.lane import Lane
from honcho_exec.runtime.metrics import Meter

COOLDOWN = 10.0
THRESHOLD = 5
FAILED = Ambiguous("failed", cause="server_error", status=503)
REFUSED = Unreached("nobody there", cause="connection")


class Conversation:
    """A delivery and all that belongs to it, on a scripted server."""

    def __init__(self, folder: Path, honcho: ScriptedHoncho, number: int, cooldown: float, attempts: int) -> None:
        timer = honcho.timer
        self.executor = ManualExecutor()
        self.holder = Holder(folder / "holders")
        self.outbox = Outbox(folder / "outbox.db", destination="here", holder=self.holder, clock=timer, max_rows=1000)
        self.lane = Lane(self.executor)
        breaker = Breaker("Honcho", threshold=THRESHOLD, cooldown=cooldown, clock=timer)
        self.connection = ScriptedConnection(honcho, self.lane, folder, breaker)
        self.delivery = Pump(
            lane=self.lane,
            outbox=self.outbox,
            connection=self.connection,
            retry=RetryPolicy(
                attempts=attempts, max_wait=2.0, deadline=15.0, closing=timer.never(), breaker=breaker, clock=timer
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
        self.ref = SessionRef(WORKSPACE, f"s{number}", "ada", "hermes")

    def say(self, text: str) -> None:
        self.delivery.turns.admit(self.ref, [Message("ada", text)])

    def run(self) -> None:
        while self.executor.jobs:
            assert self.executor.step() is None

    def close(self) -> None:
        self.delivery.close()
        self.lane.close(0.0)
        self.outbox.close()
        self.holder.close()
        self.connection.close()


class Town:
    """Conversations of one process with one server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "state"
        self.folder.mkdir(mode=0o700)
        self.timer = HandTimer()
        self.honcho = ScriptedHoncho(folder / "server", self.timer)
        self.conversations: list[Conversation] = []

    def populate(self, count: int, *, cooldown: float = COOLDOWN, attempts: int = 3) -> None:
        """Conversations that each have delivered something before."""
        for number in range(count):
            self.conversations.append(Conversation(self.folder, self.honcho, number, cooldown, attempts))
            self.conversations[-1].say("before")
        self.run()

    def run(self) -> None:
        for conversation in self.conversations:
            conversation.run()

    def outage(self, seconds: float) -> int:
        """Everybody has something to say while the server is away; the requests that were tried."""
        self.honcho.down = True
        for conversation in self.conversations:
            conversation.say("during")
        self.honcho.requests = 0
        self.pass_until(lambda: False, seconds)
        self.honcho.down = False
        return self.honcho.requests

    def recover(self) -> float:
        """Seconds until all of it has arrived."""
        back = self.timer.seconds
        self.pass_until(lambda: not self.conversations[0].outbox.counts().pending, 120)
        return self.timer.seconds - back

    def pass_until(self, so: Callable[[], bool], seconds: float) -> None:
        until = self.timer.seconds + seconds
        self.run()
        while self.timer.seconds < until and not so():
            self.timer.advance_to_next(until)
            self.run()

    def close(self) -> None:
        for conversation in self.conversations:
            conversation.close()
        self.honcho.close()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    random.seed(0)
    made = Town(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(("seconds", "bound", "requests"), [(2, 0.5, 20), (20, 5, 40), (300, 10, 100)])
def test_an_outage_is_over_soon_after_it_and_costs_few_requests(
    town: Town, seconds: float, bound: float, requests: int
) -> None:
    town.populate(1)
    assert 3 <= town.outage(seconds) <= requests
    assert town.recover() <= bound + 0.01


def test_of_many_one_knocks_and_all_hear_of_it(town: Town) -> None:
    # One call to a try: the waits between several would have this clock go on while the others stand still.
    town.populate(30, attempts=1)
    # The one that knocks, and of every other the first try and four in the time that the longest wait is for.
    assert town.outage(20) <= 30 + 29 * 5
    assert town.recover() <= 5 + 30 * 0.01 + 0.01


def test_when_the_one_that_knocks_closes_another_follows(town: Town) -> None:
    town.populate(2)
    town.outage(1)
    town.honcho.down = True
    # Kept, so that nothing depends on when it is collected.
    closed = town.conversations.pop(0)
    closed.close()
    town.pass_until(lambda: False, CAP)
    town.honcho.requests = 0
    town.pass_until(lambda: False, CAP)
    # Who only listens tries twice in this time at the most.
    assert town.honcho.requests >= 3


def test_a_cool_down_that_is_shorter_is_the_longest_wait(town: Town) -> None:
    town.populate(1, cooldown=1.0)
    town.outage(300)
    assert town.recover() <= 1.0


class Waiting:
    """Waits for a place, and what was said to it."""

    def __init__(self, clock: HandTimer, cooldown: float = COOLDOWN) -> None:
        self.breaker = Breaker("it", threshold=1, cooldown=cooldown, clock=clock)
        self.waits = Waits("place", self.breaker, clock, sooner=self.hear, jitter=lambda _, ceiling: ceiling)
        self.heard: list[float] = []

    def hear(self, delay: float) -> None:
        self.heard.append(delay)

    def fail(self, error: RequestError) -> float:
        self.breaker.allow_probe()
        self.breaker.acquire()
        self.breaker.record_failure(error)
        return self.waits.next(error)


def test_a_server_that_fails_is_left_alone_for_the_cool_down_and_one_that_is_not_there_is_not() -> None:
    clock = HandTimer()
    waiting = Waiting(clock, cooldown=600)
    assert waiting.fail(FAILED) == 600
    clock.advance(600)
    assert waiting.fail(REFUSED) == SOONEST
    clock.advance(8)
    assert waiting.fail(REFUSED) == 8 * SHARE
    clock.advance(300)
    assert waiting.fail(REFUSED) == CAP
    # What failed meanwhile has answered: it is left alone again, and its being away begins anew.
    assert waiting.fail(FAILED) == 600
    clock.advance(600)
    assert waiting.fail(REFUSED) == SOONEST


def test_waits_without_a_server_to_blame_double_up_to_the_cap_and_start_anew() -> None:
    waiting = Waiting(HandTimer())
    waiting.breaker.record_failure(FAILED)
    full = StateError("the disk is full")
    assert [waiting.waits.next(full) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, CAP]
    waiting.waits.succeeded()
    assert waiting.waits.next(full) == 0.5


def test_who_gets_through_tells_the_others_once() -> None:
    clock = HandTimer()
    first, second, failing = Waiting(clock), Waiting(clock), Waiting(clock)
    assert (first.fail(REFUSED), second.fail(REFUSED), failing.fail(FAILED)) == (SOONEST, CAP, COOLDOWN)
    first.waits.succeeded()
    first.waits.succeeded()
    assert (len(first.heard), len(second.heard), len(failing.heard)) == (0, 1, 0)
    assert second.fail(REFUSED) == SOONEST
