"""The race that this package exists to end, with the lane's guard and without it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from typing import TypeVar

import pytest
from support.faulty import FaultyServer, Gate, gate, latency
from support.providers import MakeProvider

from honcho_exec import HonchoProvider, LaneError
from honcho_exec.conversation.conversation import Conversation
from honcho_exec.runtime.lane import Lane

T = TypeVar("T")

ROUNDS = 2
CONCLUSIONS = 13
JOINS = ("POST", "/sessions/[^/]+/peers$")


class Unguarded(Lane):
    """A lane that does not serialise: every job runs at once on a thread of its own, as the bundled provider did."""

    def submit(self, job: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(job())
            except Exception as error:  # noqa: BLE001 - handed on, as an executor does
                future.set_exception(error)

        threading.Thread(target=run).start()
        return future

    def check(self) -> None:
        """Let everybody in."""


def unguard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the guard out, and what keeps other processes from joining at the same time."""
    monkeypatch.setattr("honcho_exec.conversation.conversation.Lane", Unguarded)
    monkeypatch.setattr("honcho_exec.client.membership.exclusive", lambda *_, **__: nullcontext())


def conversation(provider: HonchoProvider) -> Conversation:
    """The machine inside."""
    assert provider._conversation is not None
    return provider._conversation


def conclude_while_syncing(provider: HonchoProvider, round_: int) -> list[str]:
    """Thirteen conclusions in a row while turns are synchronised; returns the errors."""
    answers = []
    for number in range(CONCLUSIONS):
        provider.sync_turn(f"turn {round_}.{number}", "noted")
        answers.append(
            json.loads(provider.handle_tool_call("honcho_conclude", {"conclusion": f"fact {round_}.{number}"}))
        )
    return [answer["error"] for answer in answers if "error" in answer]


def storm(server: FaultyServer, make_provider: MakeProvider, rounds: int) -> list[str]:
    """Rounds of it in fresh sessions against a server with 50 ms latency; returns the errors and what is missing."""
    server.rule(match=lambda _: True, fault=latency(0.05))
    errors: list[str] = []
    for round_ in range(rounds):
        provider = make_provider(f"session-{round_}", base_url=server.url, home=f"state-{round_}")
        errors += conclude_while_syncing(provider, round_)
        assert provider.flush(20) == 0
    api = conversation(provider).connect()
    listed = sorted(one.content for one in api.reads.conclusions("hermes", "ada", query=None, limit=100))
    if listed != sorted(f"fact {round_}.{number}" for round_ in range(rounds) for number in range(CONCLUSIONS)):
        errors.append(f"listed: {listed}")
    return errors


def test_thirteen_conclusions_in_a_row_while_turns_are_synchronised(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    assert storm(server, make_provider, ROUNDS) == []
    assert server.count(*JOINS) == ROUNDS


def test_the_same_without_the_guard_is_seen_to_race(
    server: FaultyServer, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    unguard(monkeypatch)
    storm(server, make_provider, 1)
    assert server.count(*JOINS) > 1


def open_a_session_twice_at_once(server: FaultyServer, make_provider: MakeProvider) -> int:
    """Hold the opening of a session between its look and its joining, and want it again; returns the joinings."""
    held = Gate()
    server.rule(match=("GET", "/peers$"), fault=gate(held, after_work=True), times=1)
    provider = make_provider(base_url=server.url)
    assert held.arrived.wait(5)
    turn = provider.sync_turn("meanwhile", "noted")
    if isinstance(conversation(provider).lane, Unguarded):
        turn.result(10)
    held.proceed.set()
    assert turn.result(10).written == 2
    assert "error" not in json.loads(provider.handle_tool_call("honcho_context", {}))
    return server.count(*JOINS)


def test_a_session_is_joined_once_however_many_want_it(server: FaultyServer, make_provider: MakeProvider) -> None:
    assert open_a_session_twice_at_once(server, make_provider) == 1


def test_without_the_guard_it_is_joined_twice(
    server: FaultyServer, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same steps: the second joining is what makes a search forget all that was said before it."""
    unguard(monkeypatch)
    assert open_a_session_twice_at_once(server, make_provider) == 2


def test_the_cache_cannot_be_reached_from_another_thread(make_provider: MakeProvider) -> None:
    provider = make_provider()
    provider.sync_turn("open", "").result(10)
    machine = conversation(provider)
    link = machine.lane.call(machine._connection.open, 5)
    with pytest.raises(LaneError, match="belongs to the lane"):
        link.cache.session(machine.ref)
