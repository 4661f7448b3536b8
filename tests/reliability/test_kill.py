"""A process that is killed, wherever it is, loses nothing and doubles nothing of what it had accepted."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from support.faulty import FaultyServer, Gate, gate, late_work, latency, status
from support.processes import Victim, conclusions_on, messages_on
from support.providers import MakeProvider

from honcho_exec import HonchoProvider

POST_MESSAGES = ("POST", "/messages$")
POST_CONCLUSIONS = ("POST", "/conclusions$")
POSTS = ("POST", "/(messages|conclusions)$")
QUICK = {"timeout": 0.8, "retry_deadline": 1, "retry_max_wait": 0.1, "sync_join_timeout": 0.3, "recall_mode": "tools"}
ROUNDS = 8
ROUNDS_SECONDS = 12.0


@pytest.fixture
def deliver(server: FaultyServer, make_provider: MakeProvider) -> Callable[[], HonchoProvider]:
    """Deliver, as a later process with another session would, what was left behind."""

    def deliver() -> HonchoProvider:
        provider = make_provider("later", base_url=server.url, **QUICK)
        assert provider.flush(20) == 0
        return provider

    return deliver


def wait_until(true: Callable[[], bool], server: FaultyServer, seconds: float = 8.0) -> bool:
    """Wait until something is true, looking at each request that arrives; returns whether it is."""
    ends = time.monotonic() + seconds
    while not true():
        if time.monotonic() >= ends:
            return False
        server.wait_count(len(server.requests) + 1, timeout=0.1)
    return True


@pytest.mark.parametrize("point", ["frozen", "answered", "settling", "settled"])
def test_killed_inside(server: FaultyServer, tmp_path: Path, deliver: Callable[[], HonchoProvider], point: str) -> None:
    home = tmp_path / "state"
    settings = {"base_url": server.url, **QUICK}
    with Victim(home, "said", point=point, **settings) as one, Victim(home, "kept", point=point, **settings) as other:
        one.hear("ready")
        one.order("turn", "first", "second", "third")
        other.hear("ready")
        other.order("conclude", "likes tea")
        accepted = one.wait()
        other.wait()
    deliver()
    # It may die before it has said that the call returned, and what it gave is there all the same.
    assert accepted == ["first", "second", "third"][: len(accepted)]
    there = messages_on(server.url, "said")
    assert there == ["first", "second", "third"][: max(len(accepted), len(there))]
    assert conclusions_on(server.url) == ["likes tea"]


@pytest.mark.parametrize("point", ["recorded", "answered", "settling"])
def test_killed_while_an_entry_of_the_hosts_memory_is_replaced(
    server: FaultyServer, tmp_path: Path, deliver: Callable[[], HonchoProvider], point: str
) -> None:
    first = deliver()
    first.on_memory_write("add", "user", "Works at a bank").result(10)
    # It would take the victim's rows over.
    first.shutdown()
    with Victim(tmp_path / "state", "said", point=point, base_url=server.url, **QUICK) as victim:
        victim.hear("ready")
        victim.order("replace", "bank", "Works at a school")
        victim.wait()
    deliver()
    assert conclusions_on(server.url) == ["Works at a school"]


def test_killed_right_after_admission(
    server: FaultyServer, tmp_path: Path, deliver: Callable[[], HonchoProvider]
) -> None:
    server.stop()
    with Victim(tmp_path / "state", "said", base_url=server.url, **QUICK) as victim:
        for number in range(5):
            victim.give(f"turn {number}")
        victim.order("conclude", "likes tea")
        victim.hear("accepted")
    server.start()
    deliver()
    assert messages_on(server.url, "said") == [f"turn {number}" for number in range(5)]
    assert conclusions_on(server.url) == ["likes tea"]


@pytest.mark.parametrize("after_work", [False, True], ids=["before the work", "before the answer"])
def test_killed_while_a_request_is_under_way(
    server: FaultyServer, tmp_path: Path, deliver: Callable[[], HonchoProvider], after_work: bool
) -> None:
    said, kept = Gate(), Gate()
    server.rule(match=POST_MESSAGES, fault=gate(said, after_work=after_work), times=1)
    server.rule(match=POST_CONCLUSIONS, fault=gate(kept, after_work=after_work), times=1)
    settings = {"base_url": server.url, **QUICK, "timeout": 5}
    with Victim(tmp_path / "state", "said", **settings) as one, Victim(tmp_path / "state", "kept", **settings) as other:
        one.hear("ready")
        one.give("first")
        other.hear("ready")
        other.order("conclude", "likes tea")
        assert said.arrived.wait(10)
        assert kept.arrived.wait(10)
        one.give("second")
    # The server goes on with what it has received, although nobody waits for the answer any more.
    said.proceed.set()
    kept.proceed.set()
    deliver()
    assert messages_on(server.url, "said") == ["first", "second"]
    assert conclusions_on(server.url) == ["likes tea"]


def test_what_was_never_sent_and_what_the_server_does_long_after_the_kill(
    server: FaultyServer, tmp_path: Path, deliver: Callable[[], HonchoProvider]
) -> None:
    # With a living client this would be within its timeout and what is waited for behind it.
    rule = server.rule(match=POST_MESSAGES, fault=late_work(QUICK["timeout"] + 1.5), times=1)  # type: ignore[operator] # a number
    home, settings = tmp_path / "state", {"base_url": server.url, **QUICK}
    with (
        Victim(home, "late", **settings) as late,
        Victim(home, "unsent", point="recorded", **settings) as unsent,
        Victim(home, "unsent-too", point="recorded", **settings) as conclusion,
    ):
        late.give("first")
        assert server.wait_count(1, *POST_MESSAGES, timeout=10)
        assert rule.used == 1
        unsent.order("turn", "never sent")
        conclusion.order("conclude", "likes tea")
        late.kill()
        unsent.wait()
        conclusion.wait()
    deliver()
    assert server.wait_idle()
    assert messages_on(server.url, "late") == ["first"]
    assert messages_on(server.url, "unsent") == ["never sent"]
    assert conclusions_on(server.url) == ["likes tea"]


@pytest.mark.parametrize("point", ["halved", "parked"])
def test_killed_while_a_refused_message_is_set_aside(
    server: FaultyServer, tmp_path: Path, deliver: Callable[[], HonchoProvider], point: str
) -> None:
    held = Gate()
    server.rule(match=("GET", "/peers$"), fault=gate(held), times=1)
    server.rule(match=lambda seen: seen.is_for(*POST_MESSAGES) and "poison" in str(seen.body_json), fault=status(422))
    with Victim(tmp_path / "state", "said", point=point, base_url=server.url, **QUICK) as victim:
        victim.hear("ready")
        victim.give("a", "b", "poison", "c")
        held.proceed.set()
        victim.wait()
    assert deliver().status().parked == 1
    assert messages_on(server.url, "said") == ["a", "b", "c"]


def test_killed_at_random_moments(server: FaultyServer, tmp_path: Path, deliver: Callable[[], HonchoProvider]) -> None:
    dice = random.Random(20)  # noqa: S311 - moments, not secrets
    server.rule(match=POSTS, fault=latency(0.01))
    runs: list[list[str]] = []
    ends = time.monotonic() + ROUNDS_SECONDS
    while len(runs) < ROUNDS and time.monotonic() < ends:
        with Victim(tmp_path / "state", "said", base_url=server.url, **QUICK) as victim:
            victim.hear("ready")
            victim.order("talk", f"run {len(runs)}", 0.003)
            posts = server.count(*POST_MESSAGES)
            # Between the first turn and a few batches later.
            server.wait_count(posts + dice.randrange(4), *POST_MESSAGES, timeout=dice.uniform(0.0, 0.6))
            runs.append(victim.kill())
    deliver()
    there = messages_on(server.url, "said")
    assert len(there) == len(set(there))
    by_run = [[text for text in there if text.startswith(f"run {run}.")] for run in range(len(runs))]
    assert list(chain.from_iterable(by_run)) == there, "the runs are mixed"
    for accepted, arrived in zip(runs, by_run, strict=True):
        # The turn that was under way may be there as well.
        assert arrived[: len(accepted)] == accepted
        assert len(arrived) <= len(accepted) + 1
    assert sum(map(len, runs)) > 5 * ROUNDS


def has(server: FaultyServer, session: str) -> Callable[[], bool]:
    return lambda: messages_on(server.url, session) != []


def test_a_dead_process_is_followed_within_seconds_and_a_living_one_that_hangs_is_not(
    server: FaultyServer, tmp_path: Path
) -> None:
    home = tmp_path / "state"
    settings = {"base_url": server.url, **QUICK, "timeout": 20}
    held = Gate()
    posts = ("POST", "/sessions/hanging/messages$")
    server.rule(match=posts, fault=gate(held), times=1)
    with (
        Victim(home, "living", **settings) as living,
        Victim(home, "hanging", **settings) as hanging,
        Victim(home, "doomed", point="frozen", **settings) as doomed,
    ):
        hanging.give("of one that hangs")
        assert server.wait_count(1, *posts, timeout=10)
        doomed.order("turn", "of one that dies")
        doomed.wait()
        living.give("of one that lives")
        assert wait_until(has(server, "living"), server)
        assert wait_until(has(server, "doomed"), server), "nobody followed"
        assert server.count(*posts) == 1, "a living one's rows were taken"
        held.proceed.set()
        assert wait_until(has(server, "hanging"), server)
        assert server.wait_idle()
    assert messages_on(server.url, "living") == ["of one that lives"]
    assert messages_on(server.url, "hanging") == ["of one that hangs"]
    assert messages_on(server.url, "doomed") == ["of one that dies"]


def test_a_process_that_has_nothing_to_do_follows_one_that_came_and_died_meanwhile(
    server: FaultyServer, tmp_path: Path
) -> None:
    home = tmp_path / "state"
    with Victim(home, "living", base_url=server.url, **QUICK) as living:
        living.give("of one that lives")
        living.order("flush", 10)
        assert living.hear("left") == [0]
        # Its own delivery is over and done with before the other begins.
        with Victim(home, "doomed", point="frozen", base_url=server.url, **QUICK) as doomed:
            doomed.order("turn", "of one that dies")
            doomed.wait()
        assert wait_until(has(server, "doomed"), server), "nobody followed"
    assert messages_on(server.url, "doomed") == ["of one that dies"]
