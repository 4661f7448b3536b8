from __future__ import annotations

import pytest
from support.hand_clock import HandClock

from honcho_exec.errors import CircuitOpen, Unavailable
from honcho_exec.net.breaker import Breaker

FAILURE = Unavailable("http://h cannot be reached", cause="connection")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def breaker(clock: HandClock) -> Breaker:
    return Breaker("http://h", threshold=3, cooldown=10, clock=clock)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.acquire()
        breaker.record_failure(FAILURE)


def test_failures_in_a_row_open_it_and_an_answer_begins_the_row_anew(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.acquire()
    breaker.record_success()
    fail(breaker, 2)
    assert breaker.state == "closed"
    breaker.acquire()
    assert breaker.record_failure(FAILURE)
    assert breaker.state == "open"


def test_while_it_is_open_nothing_passes_and_the_refusal_says_when(breaker: Breaker, clock: HandClock) -> None:
    fail(breaker, 3)
    clock.seconds += 4
    with pytest.raises(
        CircuitOpen, match=r"another 6 s: it failed 3 times in a row \(last: .*cannot be reached"
    ) as told:
        breaker.acquire()
    assert (told.value.retryable, told.value.retry_after) == (True, 6)
    assert repr(breaker) == "<Breaker open 6 s>"
    with pytest.raises(CircuitOpen):
        breaker.raise_if_open()


def test_half_open_it_lets_one_through_whose_success_closes_it(breaker: Breaker, clock: HandClock) -> None:
    fail(breaker, 3)
    clock.seconds += 10
    assert breaker.state == "half-open"
    breaker.raise_if_open()
    breaker.acquire()
    with pytest.raises(CircuitOpen):
        breaker.acquire()
    breaker.record_success()
    assert breaker.state == "closed"
    breaker.acquire()


def test_half_open_one_failure_opens_it_again(breaker: Breaker, clock: HandClock) -> None:
    fail(breaker, 3)
    clock.seconds += 10
    fail(breaker)
    assert (breaker.state, breaker.remaining()) == ("open", 10)


def test_a_probe_that_says_nothing_gives_its_turn_back(breaker: Breaker, clock: HandClock) -> None:
    fail(breaker, 3)
    clock.seconds += 10
    breaker.acquire()
    breaker.cancel()
    breaker.acquire()


def test_a_failure_that_may_not_be_the_servers_never_opens_it_but_keeps_it_open(
    breaker: Breaker, clock: HandClock
) -> None:
    for _ in range(9):
        breaker.acquire()
        assert not breaker.record_failure(FAILURE, counts=False)
    assert breaker.state == "closed"
    fail(breaker, 3)
    clock.seconds += 10
    breaker.acquire()
    assert breaker.record_failure(FAILURE, counts=False)
    assert breaker.state == "open"


def test_a_person_may_look_at_any_time(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.acquire(ignore=True)
    breaker.record_success()
    assert breaker.state == "closed"
