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
from honcho_exec.errors import Ambiguous, CircuitOpen, StateError, Unreached
from honcho_exec.model import Message, SessionRef
from honcho_exec.net.backoff import CAP_SECONDS, Backoff
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.retry import RetryPolicy
from honcho_exec.outbox.lease import LeaseHolder
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
        self.holder = LeaseHolder(folder / "holders")
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
        self.pass_until(lambda: not self.conversations[0].outbox.inspection.counts().pending, 120)
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


@pytest.mark.parametrize(("seconds", "requests"), [(2, 20), (20, 40), (300, 200)])
def test_an_outage_is_over_soon_after_it_and_costs_few_requests(town: Town, seconds: float, requests: int) -> None:
    town.populate(1)
    assert 3 <= town.outage(seconds) <= requests
    assert town.recover() <= CAP_SECONDS + 0.01


def test_once_one_gets_through_all_others_follow_at_once(town: Town) -> None:
    # One call to a try: the waits between several would have this clock go on while the others stand still.
    town.populate(30, attempts=1)
    # Each tries four times while its waits grow, and then every 2.5 s on average.
    assert town.outage(20) <= 30 * 20
    assert town.recover() <= 1


class User:
    """A user of an endpoint, and the times at which it was told to try again."""

    def __init__(self) -> None:
        self.backoff = Backoff("endpoint", hasten=self.hasten, jitter=lambda _, ceiling: ceiling)
        self.hastened: list[float] = []

    def hasten(self, delay: float) -> None:
        self.hastened.append(delay)


@pytest.mark.parametrize("error", [FAILED, REFUSED, StateError("the disk is full")])
def test_waits_double_up_to_the_cap_and_start_again_after_a_success(error: Exception) -> None:
    user = User()
    assert [user.backoff.next(error) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, CAP_SECONDS, CAP_SECONDS]
    user.backoff.record_success()
    assert user.backoff.next(error) == 0.5


def test_an_open_breaker_is_tried_again_at_its_end_and_grows_no_wait() -> None:
    user = User()
    waits = [user.backoff.next(CircuitOpen("open", retry_after=seconds)) for seconds in (0.7, 600.0)]
    assert waits == [0.7, CAP_SECONDS]
    assert user.backoff.next(FAILED) == 0.5


def test_only_those_that_could_not_connect_are_hastened_and_only_once() -> None:
    first, unreached, failing, closed = User(), User(), User(), User()
    for user, error in ((first, REFUSED), (unreached, REFUSED), (failing, FAILED), (closed, REFUSED)):
        user.backoff.next(error)
    closed.backoff.reset()
    first.backoff.record_success()
    first.backoff.record_success()
    assert [len(user.hastened) for user in (first, unreached, failing, closed)] == [0, 1, 0, 0]
