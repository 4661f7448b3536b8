"""What callers and operators see while the server fails: breaker, notices, logs and counters."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import CancelledError, Future
from pathlib import Path

import pytest
from support.faulty import FaultyServer, Gate, gate, hang, latency, reset_after_work, status
from support.processes import messages_on
from support.providers import MakeProvider

from honcho_exec import HonchoProvider
from honcho_exec.errors import HonchoExecError
from honcho_exec.model import Receipt

COOLDOWN = 0.4
QUICK = {
    "timeout": 1,
    "retry_attempts": 1,
    "breaker_threshold": 2,
    "breaker_cooldown": COOLDOWN,
    "sync_join_timeout": 5,
}


def answer(provider: HonchoProvider, tool: str = "honcho_search", **args: object) -> dict[str, object]:
    told = json.loads(provider.handle_tool_call(tool, args or {"query": "x"}))
    assert isinstance(told, dict)
    return told


def wait_until(happens: threading.Event) -> None:
    assert happens.wait(15)


def test_with_an_open_breaker_tools_answer_at_once_and_say_when_to_try(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    provider = make_provider(base_url=server.url, **{**QUICK, "breaker_cooldown": 600})
    server.rule(match=lambda _: True, fault=status(503))
    provider.sync_turn("kept", "").exception(15)
    provider.flush(0.2)
    assert "breaker open" in repr(provider)
    provider.sync_turn("kept as well", "")
    before = server.count()
    start = time.monotonic()
    told = answer(provider)
    kept = answer(provider, "honcho_conclude", conclusion="likes tea")
    took = time.monotonic() - start
    assert took < 1
    assert (told["cause"], told["retryable"]) == ("circuit_open", True)
    assert 500 < float(str(told["retry_after"])) <= 600
    assert "is left alone for another" in str(told["error"])
    assert kept["queued"] is True
    # Durability does not wait for the server, and nothing is asked of it.
    assert provider.status().pending == 3
    assert server.count() - before <= 1


def test_a_server_that_is_back_is_used_again_within_the_cool_down(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    provider = make_provider(base_url=server.url, **QUICK)
    server.rule(match=lambda _: True, fault=status(500))
    provider.sync_turn("first", "").exception(15)
    assert server.wait_count(3)
    server.heal()
    back = time.monotonic()
    assert provider.sync_turn("second", "").result(15).written == 1
    assert time.monotonic() - back < COOLDOWN + 2
    assert provider.flush(5) == 0
    assert "breaker" not in repr(provider)


@pytest.mark.usefixtures("brisk")
def test_a_server_that_was_away_at_the_start_is_tried_again_without_anybody_asking(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    server.rule(match=lambda _: True, fault=status(503), times=3)
    make_provider(base_url=server.url, **QUICK)
    assert server.wait_count(1, "POST", "/sessions$", timeout=20)


def test_what_the_server_refuses_does_not_open_the_breaker(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url, **QUICK)
    provider.sync_turn("there", "").result(10)
    for code in (404, 422, 429, 400):
        server.heal()
        server.rule(match=("POST", "/search"), fault=status(code))
        for _ in range(3):
            assert "error" in answer(provider)
    assert provider.stats().breaker_opened == 0


def test_a_language_model_that_fails_does_not_hold_back_turns(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    provider = make_provider(base_url=server.url, **QUICK)
    provider.sync_turn("there", "").result(10)
    server.rule(match=("POST", "/chat$"), fault=status(500))
    for _ in range(5):
        assert "error" in answer(provider, "honcho_reasoning", query="who am I?")
    assert provider.sync_turn("still", "works").result(10).written == 2
    assert provider.stats().breaker_opened == 0


def test_degrading_and_recovering_are_told_once_each(
    server: FaultyServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[HonchoExecError | None] = []
    recovered = threading.Event()

    def notice(error: HonchoExecError | None) -> None:
        told.append(error)
        if error is None:
            recovered.set()

    environ = {f"HONCHO_{name.upper()}": str(value) for name, value in QUICK.items()}
    provider = HonchoProvider(
        "s",
        environ={"HONCHO_BASE_URL": server.url, "HOME": str(tmp_path), **environ},
        home=tmp_path,
        on_health_change=notice,
    )
    server.rule(match=lambda _: True, fault=status(503))
    with caplog.at_level(logging.WARNING), provider:
        provider.sync_turn("secret words", "").exception(15)
        assert provider.flush(3 * COOLDOWN) == 1
        server.heal()
        wait_until(recovered)
        assert provider.flush(10) == 0
    assert [error is None for error in told] == [False, True]
    lines = [record.getMessage() for record in caplog.records]
    assert sum("is failing" in line for line in lines) == 1
    assert sum("works again" in line for line in lines) == 1
    assert "secret words" not in caplog.text


def test_a_notice_that_raises_disturbs_nothing(
    server: FaultyServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[HonchoExecError | None] = []
    said = "secret words"

    def notice(error: HonchoExecError | None) -> None:
        told.append(error)
        raise ValueError(said)

    environ = {f"HONCHO_{name.upper()}": str(value) for name, value in QUICK.items()}
    provider = HonchoProvider(
        "s",
        environ={"HONCHO_BASE_URL": server.url, "HOME": str(tmp_path), **environ},
        home=tmp_path,
        on_health_change=notice,
    )
    server.rule(match=lambda _: True, fault=status(503))
    with caplog.at_level(logging.WARNING), provider:
        assert provider.sync_turn("first", "").exception(15) is not None
        server.heal()
        recovering = provider.sync_turn("second", "")
        assert provider.flush(15) == 0
        assert recovering.done()
    assert [error is None for error in told] == [False, True]
    lines = [record.getMessage() for record in caplog.records]
    assert (
        sum(line.startswith("the on_health_change callback failed unexpectedly with ValueError") for line in lines) == 2
    )
    assert not any("a job of the lane failed" in line for line in lines)
    assert said not in caplog.text


def test_a_sync_that_takes_long_is_logged_once_with_its_age(server: FaultyServer, make_provider: MakeProvider) -> None:
    lines: list[str] = []
    said = threading.Event()

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            said.set()

    watch = Watch()
    logging.getLogger("honcho_exec.delivery.watchdog").addHandler(watch)
    try:
        held = Gate()
        server.rule(match=("POST", "/messages$"), fault=gate(held))
        provider = make_provider(base_url=server.url, timeout=30, sync_join_timeout=0.2)
        turn = provider.sync_turn("secret words", "")
        wait_until(said)
        # Time for it to be looked at again, and again.
        assert provider.flush(0.4) == 1
        held.proceed.set()
        turn.result(10)
        assert len(lines) == 1
        assert "has been going for" in lines[0]
        assert "secret" not in lines[0]
    finally:
        logging.getLogger("honcho_exec.delivery.watchdog").removeHandler(watch)


def test_stats_count_what_was_done(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url, timeout=1, outbox_max_rows=4, retry_max_wait=0.05)
    provider.sync_turn("one", "two").result(10)
    server.rule(match=("POST", "/messages$"), fault=reset_after_work(), times=1)
    provider.sync_turn("lost answer", "").result(10)
    server.rule(match=("POST", "/messages$"), fault=status(422))
    provider.sync_turn("refused", "").exception(10)
    server.heal()
    stats = provider.stats()
    assert (stats.admitted, stats.delivered, stats.parked) == (4, 3, 1)
    assert (stats.reconciled, stats.overloaded, stats.join_timeouts) == (1, 0, 0)
    assert stats.retried >= 1
    assert stats.sync.count == 2
    assert 0 < stats.request.p50 <= stats.request.p95 <= stats.request.p99 <= stats.request.longest
    assert json.loads(json.dumps(stats.to_dict()))["sync"]["count"] == 2


def test_stats_count_refusals_and_waits_that_ran_out(server: FaultyServer, make_provider: MakeProvider) -> None:
    server.rule(match=("POST", "/messages$"), fault=hang())
    provider = make_provider(
        base_url=server.url, timeout=30, outbox_max_rows=2, sync_join_timeout=0.5, shutdown_timeout=0.2
    )
    provider.sync_turn("one", "two")
    assert provider.sync_turn("three", "four").exception(1) is not None
    assert answer(provider)["cause"] == "sync_pending"
    # The same stuck sync is not waited out again, and not counted again.
    assert answer(provider)["cause"] == "sync_pending"
    stats = provider.stats()
    assert (stats.admitted, stats.delivered, stats.overloaded, stats.join_timeouts) == (2, 0, 1, 1)
    server.release()


@pytest.mark.usefixtures("brisk")
def test_the_next_try_comes_in_its_time_however_long_the_idle_looks_are_apart(
    server: FaultyServer, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with hundreds of providers in one process.
    monkeypatch.setattr("honcho_exec.delivery.schedule._IDLE_POLL_SECONDS", 600.0)
    provider = make_provider(base_url=server.url, **QUICK)
    provider.sync_turn("before", "").result(10)
    # At rest: the next idle look is far away.
    assert provider.flush(10) == 0
    server.rule(match=lambda _: True, fault=status(503))
    assert provider.sync_turn("during", "").exception(10) is not None
    server.clear()
    server.heal()
    assert server.wait_count(1, "POST", "/messages$", timeout=15)


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("code", [302, 400, 402, 422])
def test_a_server_that_suddenly_refuses_everything_parks_nothing(
    server: FaultyServer, make_provider: MakeProvider, code: int
) -> None:
    provider = make_provider(base_url=server.url, **QUICK)
    provider.sync_turn("before", "").result(10)
    server.rule(match=lambda _: True, fault=status(code))
    assert provider.sync_turn("during 0", "").exception(15) is not None
    for number in range(1, 4):
        provider.sync_turn(f"during {number}", "")
    provider.flush(0.3)
    assert (provider.stats().parked, provider.status().pending) == (0, 4)
    server.heal()
    assert provider.flush(15) == 0


@pytest.mark.usefixtures("brisk")
def test_writes_that_are_all_refused_are_not_parked_one_by_one(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    provider = make_provider(base_url=server.url, **QUICK)
    provider.sync_turn("before", "").result(10)
    server.rule(match=("POST", "/messages$"), fault=status(422))
    for number in range(10):
        provider.sync_turn(f"during {number}", "")
    provider.flush(1)
    assert provider.stats().parked <= 3
    # On the lane, so that no batch is under way: what is refused just before parks more, and rightly so.
    assert provider._conversation is not None
    provider._conversation.lane.call(server.heal, 20)
    assert provider.flush(30) == 0
    assert provider.stats().parked <= 3


def test_a_session_that_cannot_be_opened_is_waited_for_once_and_is_not_green(
    server: FaultyServer, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("honcho_exec.conversation.pending_sync._BRIEF_SECONDS", 0.2)
    monkeypatch.setattr("honcho_exec.provider.checks._OPENING_SECONDS", 0.2)
    server.rule(match=("POST", "/sessions$"), fault=hang())
    provider = make_provider(base_url=server.url, timeout=30, sync_join_timeout=1, shutdown_timeout=0.2)
    waits, ages = [], []
    for _ in range(3):
        start = time.monotonic()
        told = answer(provider)
        waits.append(time.monotonic() - start)
        assert told["retryable"] is True
        assert told["cause"] in ("sync_pending", "timeout")
        ages.append(told["error"])
    assert waits[0] >= 0.9
    assert max(waits[1:]) < 0.8
    assert provider.stats().join_timeouts == 1
    assert not provider.status().ok
    server.release()


def test_a_tools_reads_share_one_deadline(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url, timeout=10, retry_deadline=1)
    provider.sync_turn("said", "").result(10)
    server.rule(
        match=lambda seen: seen.path.endswith(("/card", "/search", "/sessions/list", "/sessions")), fault=latency(0.9)
    )
    for tool in ("honcho_profile", "honcho_search"):
        start = time.monotonic()
        answer(provider, tool, **({"query": "x"} if tool == "honcho_search" else {"peer": "user"}))
        assert time.monotonic() - start < 1.6


def test_callback_may_wait_for_another_turn(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url)
    waited: Future[Receipt] = Future()
    held = Gate()
    server.rule(match=("POST", "/messages$"), fault=gate(held), times=1)
    first = provider.sync_turn("first", "")
    first.add_done_callback(lambda _: waited.set_result(provider.sync_turn("second", "").result(10)))
    held.proceed.set()
    assert waited.result(20).written == 1


@pytest.mark.parametrize("error", [CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_delivery_survives_callbacks_that_raise_base_exceptions(
    server: FaultyServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    told: list[object] = []

    def fail(said: object) -> None:
        told.append(said)
        raise error

    environ = {f"HONCHO_{name.upper()}": str(value) for name, value in QUICK.items()}
    provider = HonchoProvider(
        "s",
        environ={"HONCHO_BASE_URL": server.url, "HOME": str(tmp_path), **environ},
        home=tmp_path,
        on_health_change=fail,
    )
    with provider:
        server.rule(match=lambda _: True, fault=status(503))
        failing = provider.sync_turn("first", "")
        failing.add_done_callback(fail)
        assert failing.exception(15) is not None
        server.heal()
        assert provider.flush(15) == 0
        delivered = provider.sync_turn("second", "")
        delivered.add_done_callback(fail)
        assert delivered.result(10).written == 1
        assert provider.sync_turn("third", "").result(10).written == 1
    assert len(told) == 4
    assert f"failed unexpectedly with {error.__name__}" in caplog.text
    assert messages_on(server.url, "s") == ["first", "second", "third"]


def test_what_another_process_cannot_send_is_not_green(server: FaultyServer, make_provider: MakeProvider) -> None:
    other = make_provider("other", base_url=server.url, **QUICK)
    server.rule(match=("POST", "/messages$"), fault=status(503))
    other.sync_turn("waits", "").exception(10)
    looking = make_provider("looking", base_url=server.url, **QUICK).status()
    assert looking.reachable
    assert not looking.ok
    assert any("the last try to send one failed" in finding.what for finding in looking.findings)


def test_tool_calls_in_an_outage_do_not_add_up_to_more_and_more_tries(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    server.rule(match=("POST", "/sessions$"), fault=status(503))
    provider = make_provider(base_url=server.url, retry_attempts=1, breaker_threshold=1000, recall_mode="tools")
    for _ in range(10):
        assert answer(provider)["retryable"] is True
    server.clear()
    # Each of these tries may have been due once in this time.
    assert not server.wait_count(4, "POST", "/sessions$", timeout=2)
