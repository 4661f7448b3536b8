from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from honcho_exec.errors import Closed, LaneError
from honcho_exec.runtime.lane import Lane
from honcho_exec.runtime.timer import call_later


class ManualExecutor(Executor):
    """Runs one job when told to, on the caller's thread."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.jobs.append((future, lambda: fn(*args, **kwargs)))
        return future

    def step(self) -> None:
        future, job = self.jobs.pop(0)
        future.set_result(job())


@pytest.fixture
def lane() -> Any:
    lane = Lane()
    yield lane
    assert lane.close(5.0)


def test_jobs_run_one_at_a_time_in_order(lane: Lane) -> None:
    seen: list[int] = []
    running = threading.Lock()

    def job(number: int) -> None:
        assert running.acquire(blocking=False)
        seen.append(number)
        running.release()

    for future in [lane.submit(lambda number=number: job(number)) for number in range(50)]:  # type: ignore[misc] # a lambda's default
        future.result(5)
    assert seen == list(range(50))


def test_only_a_job_is_on_the_lane(lane: Lane) -> None:
    with pytest.raises(LaneError, match="belongs to the lane"):
        lane.check()
    lane.call(lane.check, 5)
    with pytest.raises(LaneError):
        lane.check()


def test_a_job_that_waits_for_the_lane_is_refused(lane: Lane) -> None:
    with pytest.raises(LaneError, match="must not wait for the lane"):
        lane.call(lambda: lane.call(lambda: None, 5), 5)


def test_context_variables_of_the_caller_reach_the_job(lane: Lane) -> None:
    who = contextvars.ContextVar("who", default="nobody")
    who.set("ada")
    assert lane.call(who.get, 5) == "ada"


def test_a_closed_lane_takes_nothing() -> None:
    lane = Lane()
    assert lane.close(1)
    assert not lane.post(lambda: None)
    with pytest.raises(Closed):
        lane.submit(lambda: None)
    assert lane.close(1)


def test_closing_waits_for_the_job_that_has_begun_but_not_longer_than_told() -> None:
    lane, begun, proceed = Lane(), threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        proceed.wait(10)

    future = lane.submit(job)
    assert begun.wait(5)
    assert not lane.close(0.01)
    proceed.set()
    future.result(5)


def test_a_failing_job_is_logged_and_told(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    told: Future[BaseException] = Future()
    said = "what was said"

    def job() -> None:
        raise KeyError(said)

    assert lane.post(job, failed=told.set_result)
    assert isinstance(told.result(5), KeyError)
    assert "a job of the lane failed unexpectedly with KeyError" in caplog.text
    assert said not in caplog.text


def test_a_manual_executor_steps_through_an_interleaving() -> None:
    executor = ManualExecutor()
    lane, seen = Lane(executor), []
    lane.post(lambda: seen.append("first"))
    lane.post(lambda: seen.append("second"))
    assert seen == []
    executor.step()
    assert seen == ["first"]
    executor.step()
    assert seen == ["first", "second"]
    lane.close(0)


def test_the_alarm_calls_in_the_order_of_time_and_ends() -> None:
    seen: list[str] = []
    done = threading.Event()
    call_later(0.05, done.set)
    call_later(0.02, lambda: seen.append("second"))
    call_later(0.01, lambda: seen.append("first"))
    take_back = call_later(0.03, lambda: seen.append("never"))
    take_back()
    assert done.wait(5)
    assert seen == ["first", "second"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_lane_is_closed_in_a_forked_child_and_a_new_one_works(lane: Lane) -> None:
    lane.call(lambda: None, 5)
    child = os.fork()
    if child == 0:
        try:
            with pytest.raises(Closed, match="created before fork"):
                lane.submit(os.getpid)
            done = lane.close(5) and Lane().call(os.getpid, 5) == os.getpid()
            rung = threading.Event()
            call_later(0.01, rung.set)
            os._exit(0 if done and rung.wait(5) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
