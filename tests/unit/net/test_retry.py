from __future__ import annotations

import threading
import time

import pytest

from honcho_exec.clock import Deadline, SystemClock
from honcho_exec.errors import Ambiguous, Rejected, Unavailable
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.retry import RetryPolicy

CLOCK = SystemClock()


class Flaky:
    """Fails with the given errors, one a call, and then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def policy(
    *,
    attempts: int = 3,
    max_wait: float = 0.05,
    deadline: float = 5.0,
    breaker: Breaker | None = None,
    closing: threading.Event | None = None,
) -> RetryPolicy:
    return RetryPolicy(
        attempts=attempts,
        max_wait=max_wait,
        deadline=deadline,
        closing=closing or threading.Event(),
        breaker=breaker or Breaker("it", threshold=99, cooldown=60, clock=CLOCK),
        clock=CLOCK,
    )


@pytest.mark.parametrize("error", [Unavailable("x", cause="c"), Ambiguous("x", cause="c")])
def test_what_may_be_tried_again_is(error: Exception) -> None:
    call = Flaky(error, error)
    assert policy().call(call) == "done"
    assert call.calls == 3


@pytest.mark.parametrize("error", [Rejected("x", cause="c"), ValueError("x")])
def test_what_may_not_is_raised_at_once(error: Exception) -> None:
    call = Flaky(error)
    with pytest.raises(type(error)):
        policy().call(call)
    assert call.calls == 1


def test_patience_ends_after_the_attempts_with_the_last_error() -> None:
    call = Flaky(*[Unavailable(f"failure {number}", cause="c") for number in range(9)])
    with pytest.raises(Unavailable, match="failure 2"):
        policy().call(call)
    assert call.calls == 3


def test_a_wait_that_ends_after_the_deadline_is_not_begun() -> None:
    call = Flaky(*[Unavailable("x", cause="c", retry_after=10)] * 9)
    start = time.monotonic()
    with pytest.raises(Unavailable):
        policy(attempts=9, max_wait=60, deadline=0.2).call(call)
    with pytest.raises(Unavailable):
        policy(attempts=9, max_wait=60).call(call, deadline=Deadline.after(0.1, CLOCK))
    assert time.monotonic() - start < 0.1
    assert call.calls == 2


def test_what_the_server_asks_to_wait_is_honoured_up_to_the_cap() -> None:
    start = time.monotonic()
    policy(max_wait=0.2).call(Flaky(Unavailable("x", cause="c", retry_after=60)))
    assert 0.2 <= time.monotonic() - start < 0.4


def test_closing_ends_a_wait_at_once() -> None:
    closing = threading.Event()
    retry = policy(attempts=9, max_wait=60, deadline=600, closing=closing)
    call = Flaky(*[Unavailable("x", cause="c", retry_after=60)] * 9)
    timer = threading.Timer(0.05, closing.set)
    timer.start()
    start = time.monotonic()
    with pytest.raises(Unavailable):
        retry.call(call)
    timer.join()
    assert time.monotonic() - start < 1
    assert call.calls == 2
