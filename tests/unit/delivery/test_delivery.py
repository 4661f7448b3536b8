"""What reaches Honcho, and what a turn's Future says, through outages and lost answers."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.api import api_of
from support.faulty import (
    Fault,
    FaultyServer,
    Gate,
    Seen,
    garbage,
    gate,
    hang,
    late_work,
    latency,
    reset_after_work,
    reset_before_work,
    status,
)
from support.providers import MakeProvider

from honcho_exec import HonchoProvider
from honcho_exec.client.backend import open_backend
from honcho_exec.clock import SystemClock
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.errors import Ambiguous, Closed, Overloaded, Rejected, Unavailable
from honcho_exec.model import Receipt
from honcho_exec.settings import Settings

POST_MESSAGES = ("POST", "/messages$")
POST_CONCLUSIONS = ("POST", "/conclusions$")
QUICK = {"timeout": 0.5, "retry_deadline": 1, "retry_max_wait": 0.1, "retry_attempts": 2}


def stored(server: FaultyServer, tmp_path: Path, session: str = "s1", workspace: str = "hermes") -> list[str]:
    """What the server has of a session, as another client sees it."""
    server.heal()
    backend = open_backend(Settings(base_url=server.url), tmp_path, SystemClock())
    api = api_of(backend, workspace)
    try:
        return [message.content for message in api.reads.session_context(session).messages]
    finally:
        backend.close()


def test_a_turn_is_settled_when_honcho_has_it(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    provider = make_provider(base_url=server.url)
    assert provider.sync_turn("hello", "hi").result(10) == Receipt(written=2)
    assert stored(server, tmp_path) == ["hello", "hi"]


def test_turns_given_right_after_the_start_all_arrive_once_and_in_order(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    server.rule(match=lambda _: True, fault=latency(0.1))
    provider = make_provider(base_url=server.url)
    turns = [provider.sync_turn(f"u{number}", f"a{number}") for number in range(20)]
    assert [turn.result(20).written for turn in turns] == [2] * 20
    assert stored(server, tmp_path) == [f"{who}{number}" for number in range(20) for who in "ua"]
    assert server.count(*POST_MESSAGES) <= 2


def test_an_outage_loses_nothing_and_needs_no_new_turn(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    provider = make_provider(base_url=server.url, **QUICK)
    provider.sync_turn("before", "").result(10)
    server.stop()
    during = [provider.sync_turn(f"during {number}", "") for number in range(5)]
    with pytest.raises(Unavailable, match="cannot be reached"):
        during[0].result(10)
    server.start()
    assert provider.flush(20) == 0
    assert stored(server, tmp_path) == ["before", *(f"during {number}" for number in range(5))]


LOST = [
    reset_after_work(),
    reset_before_work(),
    status(502, after_work=True),
    status(500),
    status(503, {"Retry-After": "0"}),
    status(429, {"Retry-After": "0"}),
    garbage(after_work=True),
    hang(after_work=True),
    late_work(1.0),
]


def lose_an_answer(folder: Path, fault: Fault, path: str) -> tuple[int, list[str], int]:
    """Talk while one answer is lost; returns how many were, and the messages and the conclusion as they are there."""
    honcho = EmbeddedHoncho(folder / "server" / "memory.db")
    environ = {"HOME": str(folder), "HONCHO_TIMEOUT": "0.6", "HONCHO_RETRY_DEADLINE": "1"}
    with FaultyServer(honcho.app) as server:
        environ["HONCHO_BASE_URL"] = server.url
        with HonchoProvider("s1", environ=environ, home=folder / "state") as provider:
            provider.sync_turn("first", "").result(10)
            rule = server.rule(match=("POST", path), fault=fault, times=1)
            provider.sync_turn("second", "answer")
            provider.handle_tool_call("honcho_conclude", {"conclusion": "likes tea"})
            provider.sync_turn("third", "")
            assert provider.flush(30) == 0
            concluded = provider.handle_tool_call("honcho_conclude", {"list": True}).count("likes tea")
        found = rule.used, stored(server, folder), concluded
    honcho.close()
    return found


@pytest.mark.parametrize("path", ["/messages$", "/conclusions$"])
def test_a_lost_answer_neither_loses_nor_doubles(tmp_path: Path, path: str) -> None:
    # They wait for much, each with a server of its own: side by side they take no longer than the longest.
    with ThreadPoolExecutor(len(LOST)) as pool:
        played = [pool.submit(lose_an_answer, tmp_path / str(n), fault, path) for n, fault in enumerate(LOST)]
    found = {f"{n}: {fault.name}": future.result() for n, (fault, future) in enumerate(zip(LOST, played, strict=True))}
    assert found == dict.fromkeys(found, (1, ["first", "second", "answer", "third"], 1))


def test_a_refused_message_is_parked_and_the_others_arrive(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    def refused(seen: object) -> bool:
        body = getattr(seen, "body_json", None) or {}
        return any("poison" in str(message.get("content")) for message in body.get("messages", ()))

    server.rule(match=refused, fault=status(422))
    provider = make_provider(base_url=server.url)
    turns = [provider.sync_turn(text, "") for text in ("a", "b", "poison", "c", "d")]
    with pytest.raises(Rejected):
        turns[2].result(10)
    assert [turn.result(10).written for place, turn in enumerate(turns) if place != 2] == [1] * 4
    assert stored(server, tmp_path) == ["a", "b", "c", "d"]
    assert provider.status().parked == 1
    assert not provider.status().ok


def chokes_on(word: str) -> Callable[[Seen], bool]:
    """Match the writing of a message in which the word is."""
    return lambda seen: seen.is_for(*POST_MESSAGES) and word in str(seen.body_json)


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_message_that_the_server_chokes_on_is_found_and_parked(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path, place: int
) -> None:
    texts = ["a", "b", "c", "d", "e"]
    texts[place] = "poison"
    held = Gate()
    server.rule(match=("GET", "/peers$"), fault=gate(held), times=1)
    choked = server.rule(match=chokes_on("poison"), fault=status(500))
    provider = make_provider(base_url=server.url, retry_max_wait=0.05)
    for text in texts:
        provider.sync_turn(text, "")
    held.proceed.set()
    if place == 4:
        # Nothing is behind it, so that it may be the server that fails: it waits until something has passed.
        assert server.wait_count(len(server.requests) + 30, timeout=20)
        assert choked.used > 6
        assert provider.status().parked == 0
        provider.sync_turn("later", "").exception(20)
    assert provider.flush(20) == 0
    assert provider.status().parked == 1
    expected = [text for text in texts if text != "poison"] + (["later"] if place == 4 else [])
    assert stored(server, tmp_path) == expected


@pytest.mark.usefixtures("brisk")
def test_a_server_that_chokes_on_everything_parks_nothing(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    server.rule(match=POST_MESSAGES, fault=status(500))
    provider = make_provider(base_url=server.url, retry_max_wait=0.05, shutdown_timeout=0.1)
    for number in range(6):
        provider.sync_turn(f"{number}", "", session_id="")
    assert server.wait_count(24, *POST_MESSAGES, timeout=20)
    assert provider.status().parked == 0
    server.heal()
    assert provider.flush(20) == 0
    assert stored(server, tmp_path) == [str(number) for number in range(6)]


@pytest.mark.parametrize("code", [401, 403, 404, 422])
def test_a_server_that_refuses_everything_parks_nothing(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path, code: int
) -> None:
    server.rule(match=lambda _: True, fault=status(code))
    provider = make_provider(base_url=server.url, api_key="wrong")
    with pytest.raises(Rejected if code in {401, 403} else Unavailable):
        provider.sync_turn("kept", "").result(10)
    assert provider.status().parked == 0
    assert len(server.requests) <= 6, "it was hammered"
    provider.shutdown()
    server.heal()
    again = make_provider("another", base_url=server.url, api_key="right")
    assert again.flush(10) == 0
    assert stored(server, tmp_path) == ["kept"]


def test_a_later_process_delivers_to_the_session_the_turn_was_given_in(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    server.stop()
    down = make_provider("whole-conversation", base_url=server.url, **QUICK)
    for number in range(10):
        down.sync_turn(f"u{number}", f"a{number}")
    down.shutdown()
    server.start()
    later = make_provider("another", base_url=server.url)
    assert later.flush(20) == 0
    expected = [f"{who}{number}" for number in range(10) for who in "ua"]
    assert stored(server, tmp_path, "whole-conversation") == expected


def test_what_is_meant_for_another_workspace_stays(server: FaultyServer, make_provider: MakeProvider) -> None:
    server.stop()
    mine = make_provider(base_url=server.url, workspace="mine", **QUICK)
    mine.sync_turn("mine", "")
    mine.shutdown()
    server.start()
    other = make_provider(base_url=server.url, workspace="yours")
    assert other.flush(5) == 0
    assert other.status().elsewhere == 1


def test_two_providers_on_one_folder_send_nothing_twice(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    server.rule(match=POST_MESSAGES, fault=latency(0.02))
    providers = [make_provider(base_url=server.url) for _ in range(3)]
    turns = [provider.sync_turn(f"{number}", "") for number in range(12) for provider in providers]
    for provider in providers:
        assert provider.flush(20) == 0
    assert all(turn.result(0.5).written == 1 for turn in turns if turn.done())
    assert sorted(stored(server, tmp_path), key=int) == sorted([str(n) for n in range(12)] * 3, key=int)


def test_closing_keeps_what_hangs_and_says_so(server: FaultyServer, make_provider: MakeProvider) -> None:
    server.rule(match=POST_MESSAGES, fault=hang())
    provider = make_provider(base_url=server.url, shutdown_timeout=0.3, timeout=30)
    turn = provider.sync_turn("kept", "")
    assert server.wait_count(1, *POST_MESSAGES)
    provider.shutdown()
    with pytest.raises(Closed, match="in the outbox"):
        turn.result(0)
    with pytest.raises(Closed):
        provider.sync_turn("late", "").result(0)


def test_a_callback_may_give_another_turn(make_provider: MakeProvider) -> None:
    provider = make_provider()
    chained: Future[Future[Receipt]] = Future()
    first = provider.sync_turn("first", "")
    first.add_done_callback(lambda _: chained.set_result(provider.sync_turn("second", "")))
    assert chained.result(10).result(10).written == 1


def test_a_full_outbox_says_so(server: FaultyServer, make_provider: MakeProvider) -> None:
    server.stop()
    provider = make_provider(base_url=server.url, outbox_max_rows=2, **QUICK)
    provider.sync_turn("1", "2")
    with pytest.raises(Overloaded, match="full"):
        provider.sync_turn("3", "").result(0)


def test_a_turn_cannot_be_taken_back(server: FaultyServer, make_provider: MakeProvider) -> None:
    held = Gate()
    server.rule(match=POST_MESSAGES, fault=gate(held))
    provider = make_provider(base_url=server.url)
    turn = provider.sync_turn("said", "")
    assert not turn.cancel()
    held.proceed.set()
    assert turn.result(10).written == 1


def test_what_waited_long_carries_the_time_it_was_said(
    server: FaultyServer, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("honcho_exec.delivery.dating._LONG_AGO_SECONDS", 0.0)
    provider = make_provider(base_url=server.url)
    provider.sync_turn("said long ago", "").result(10)
    (post,) = [seen for seen in server.requests if seen.is_for(*POST_MESSAGES)]
    assert post.body_json["messages"][0]["created_at"]


def test_an_ambiguous_failure_is_told_as_such(server: FaultyServer, make_provider: MakeProvider) -> None:
    server.rule(match=POST_MESSAGES, fault=hang())
    provider = make_provider(base_url=server.url, **QUICK, shutdown_timeout=0.2)
    with pytest.raises(Ambiguous, match="did not answer within"):
        provider.sync_turn("said", "").result(10)


def test_conversations_that_share_an_outbox_settle_their_own_turns(make_provider: MakeProvider) -> None:
    providers = [make_provider(f"chat-{number}") for number in range(4)]
    turns = [provider.sync_turn(f"{number}", "ok") for number in range(25) for provider in providers]
    assert [turn.result(20).written for turn in turns] == [2] * 100


def test_providers_that_share_a_session_take_turns_in_order(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    one, other = make_provider(base_url=server.url), make_provider(base_url=server.url)
    turns = [(one if number % 3 else other).sync_turn(str(number), "") for number in range(12)]
    for turn in turns:
        turn.result(20)
    assert stored(server, tmp_path) == [str(number) for number in range(12)]


def test_what_a_dropped_provider_left_is_delivered_by_another(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    held = Gate()
    server.rule(match=POST_MESSAGES, fault=gate(held), times=1)
    closed = make_provider("closed", base_url=server.url, shutdown_timeout=0.1)
    closed.sync_turn("in flight", "")
    assert held.arrived.wait(5)
    closed.sync_turn("behind it", "")
    closed.shutdown()
    held.proceed.set()
    other = make_provider("other", base_url=server.url)
    assert other.flush(20) == 0
    assert stored(server, tmp_path, "closed") == ["in flight", "behind it"]


def test_the_same_conclusion_of_two_providers_is_one_and_both_are_told(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    held = Gate()
    server.rule(match=POST_CONCLUSIONS, fault=gate(held), times=1)
    settings = {"base_url": server.url, "sync_join_timeout": 30}
    one, other = make_provider("one", **settings), make_provider("other", **settings)
    with ThreadPoolExecutor(2) as threads:
        args = {"conclusion": "likes tea"}
        first = threads.submit(one.handle_tool_call, "honcho_conclude", args)
        assert held.arrived.wait(5)
        second = threads.submit(other.handle_tool_call, "honcho_conclude", args)
        assert other._conversation is not None
        while other._conversation.delivery.turns.oldest() is None:
            threading.Event().wait(0.001)
        held.proceed.set()
        assert "is kept" in first.result(30)
        assert "is kept" in second.result(30)
    assert one.handle_tool_call("honcho_conclude", {"list": True}).count("likes tea") == 1


def test_a_message_that_was_parked_says_so_when_it_is_brought_in_again(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    server.rule(match=POST_MESSAGES, fault=status(422))
    provider = make_provider(base_url=server.url)
    for _ in range(2):
        with pytest.raises(Rejected):
            provider.remember("old", "user", "odd", source_key="k1").result(10)


def test_a_turn_that_comes_after_a_switch_goes_to_its_own_session(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    provider = make_provider(None, base_url=server.url, session_strategy="per-session")
    provider.on_session_switch("first")
    provider.on_session_switch("second")
    provider.sync_turn("late", "", session_id="first").result(10)
    assert stored(server, tmp_path, "first") == ["late"]


@pytest.mark.usefixtures("brisk")
def test_a_clock_that_is_set_back_stops_no_delivery(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("honcho_exec.outbox.outbox.LONGEST_LATE", 1.0)

    class Wall(SystemClock):
        off = 0.0

        def now(self) -> float:
            return super().now() + self.off

    clock = Wall()
    environ = {f"HONCHO_{name.upper()}": str(value) for name, value in QUICK.items()}
    environ |= {"HONCHO_BASE_URL": server.url, "HOME": str(tmp_path), "LOGNAME": "ada"}
    with HonchoProvider("s1", environ=environ, home=tmp_path / "state", clock=clock) as provider:
        server.rule(match=POST_MESSAGES, fault=status(502))
        provider.sync_turn("hello", "").exception(15)
        clock.off = -3600
        age = provider.status().oldest_pending_age
        assert age is not None
        assert 0 <= age < 60
        server.heal()
        assert provider.flush(30) == 0
    assert stored(server, tmp_path) == ["hello"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_delivers_nothing_of_its_parents(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    provider = make_provider(base_url=server.url)
    provider.sync_turn("before", "").result(10)
    held = Gate()
    server.rule(match=POST_MESSAGES, fault=gate(held), times=1)
    waiting = provider.sync_turn("the parent's", "")
    assert held.arrived.wait(5)
    provider.sync_turn("the parent's too", "")
    child = os.fork()
    if child == 0:
        try:
            own = make_provider("of-the-child", base_url=server.url)
            settled = own.sync_turn("the child's", "").result(10)
            os._exit(0 if settled.written == 1 and own.shutdown() == 0 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    held.proceed.set()
    assert waiting.result(10).written == 1
    assert provider.flush(10) == 0
    assert stored(server, tmp_path) == ["before", "the parent's", "the parent's too"]
    assert stored(server, tmp_path, "of-the-child") == ["the child's"]


def test_a_backlog_drains_in_few_requests(server: FaultyServer, make_provider: MakeProvider) -> None:
    server.stop()
    provider = make_provider(base_url=server.url, **QUICK)
    for number in range(300):
        provider.sync_turn(f"u{number}", f"a{number}")
    server.start()
    assert provider.flush(30) == 0
    assert server.count(*POST_MESSAGES) <= 10
    posted = [
        message["content"]
        for seen in server.requests
        if seen.is_for(*POST_MESSAGES)
        for message in seen.body_json["messages"]
    ]
    assert posted == [f"{who}{number}" for number in range(300) for who in "ua"]


def test_an_outage_is_not_met_with_a_busy_loop(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url)
    provider.sync_turn("before", "").result(10)
    server.clear()
    server.rule(match=lambda _: True, fault=status(503))
    turns = [provider.sync_turn(f"{number}", "") for number in range(50)]
    assert isinstance(turns[0].exception(20), Ambiguous)
    provider.flush(1)
    assert len(server.requests) < 40


def test_a_turn_that_a_person_drops_is_told_to_whoever_waits(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    held = Gate()
    server.rule(match=POST_MESSAGES, fault=gate(held), times=1)
    provider = make_provider(base_url=server.url)
    first = provider.sync_turn("sent", "")
    assert held.arrived.wait(5)
    second = provider.sync_turn("dropped", "")
    with make_provider("looking", base_url=server.url).outbox() as outbox:
        sent, dropped = outbox.inspection.rows()
        assert (sent.in_flight, dropped.in_flight) == (True, False)
        assert outbox.inspection.drop([sent.id, dropped.id]) == 1
    held.proceed.set()
    assert first.result(10).written == 1
    with pytest.raises(Rejected, match="taken out of the outbox"):
        second.result(10)
    assert stored(server, tmp_path) == ["sent"]


def test_a_parked_turn_that_is_tried_again_is_sent_by_whoever_is_there(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    server.rule(match=POST_MESSAGES, fault=status(422))
    provider = make_provider(base_url=server.url)
    with pytest.raises(Rejected):
        provider.sync_turn("odd", "").result(10)
    server.heal()
    with provider.outbox() as outbox:
        assert outbox.inspection.retry([row.id for row in outbox.inspection.rows(parked=True)]) == 1
    assert server.wait_count(2, *POST_MESSAGES, timeout=10)
    assert provider.flush(5) == 0
    assert stored(server, tmp_path) == ["odd"]


def test_a_session_that_was_deleted_on_the_server_is_made_again(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    provider = make_provider(base_url=server.url)
    provider.sync_turn("before", "").result(10)
    server.rule(match=POST_MESSAGES, fault=status(404), times=1)
    assert provider.sync_turn("after", "").result(10).written == 1
    assert stored(server, tmp_path) == ["before", "after"]
    assert provider.status().parked == 0


def test_status_is_not_green_while_nothing_arrives(server: FaultyServer, make_provider: MakeProvider) -> None:
    server.rule(match=POST_MESSAGES, fault=status(500))
    provider = make_provider(base_url=server.url, **QUICK)
    assert provider.status().ok
    provider.sync_turn("said", "").exception(10)
    found = provider.status()
    assert not found.ok
    assert "delivery is failing" in str(found.problem)
    assert str(provider.trouble) in str(found.problem)


def test_status_says_when_turns_cannot_be_stored(make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        """As on a disk with little room."""
        connection = connect(*args, **kwargs)
        connection.execute("PRAGMA max_page_count = 100")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    provider = make_provider(base_url="http://127.0.0.1:9")
    assert "full" in str(provider.sync_turn("x" * 1_000_000, "").exception(0))
    assert "the last turn was not stored" in str(provider.status().problem)


def test_what_the_lane_has_seen_survives_a_power_cut(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    server.stop()
    provider = make_provider(base_url=server.url, **QUICK)
    assert isinstance(provider.sync_turn("said", "").exception(10), Unavailable)
    # A power cut leaves what was flushed: the file, and of the log beside it perhaps nothing.
    left = tmp_path / "after" / "outbox.db"
    left.parent.mkdir()
    shutil.copy(tmp_path / "state" / "outbox.db", left)
    with closing(sqlite3.connect(left)) as connection:
        (payload,) = connection.execute("SELECT payload FROM rows").fetchone()
    assert "said" in payload


@pytest.mark.usefixtures("brisk")
def test_a_card_that_lands_late_does_not_stand_over_the_next(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url, timeout=0.6, retry_deadline=1)
    provider.sync_turn("said", "").result(10)
    late = server.rule(match=("PUT", "/card$"), fault=late_work(1.0), times=1)
    for card in ("the old one", "the new one"):
        provider.handle_tool_call("honcho_profile", {"card": [card]})
        assert provider.flush(30) == 0
    assert late.used == 1
    assert server.wait_idle()
    assert "the new one" in provider.handle_tool_call("honcho_profile", {})


def test_when_what_failed_is_set_aside_nothing_is_failing(server: FaultyServer, make_provider: MakeProvider) -> None:
    server.rule(match=POST_MESSAGES, fault=status(500), times=2)
    server.rule(match=POST_MESSAGES, fault=status(422))
    provider = make_provider(base_url=server.url, **QUICK)
    assert isinstance(provider.sync_turn("odd", "").exception(10), Ambiguous)
    assert provider.flush(20) == 0
    assert provider.status().parked == 1
    assert "error" not in provider.handle_tool_call("honcho_search", {"query": "anything"})
