"""What was accepted is stored once, whatever clocks, proxies, backups and copies of the state folder do."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from support.api import api_of
from support.faulty import (
    Answer,
    Exchange,
    Fault,
    FaultyServer,
    late_work,
    reset_after_work,
    reset_before_work,
    status,
)
from support.hand_clock import HandClock
from support.outboxes import Process
from support.processes import Victim, conclusions_on, messages_on

from honcho_exec import HonchoProvider
from honcho_exec.client.backend import open_backend
from honcho_exec.clock import BootTime, SystemClock
from honcho_exec.delivery.dating import date_messages
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.errors import Inconclusive, Rejected
from honcho_exec.model import Conclusion, Message, SessionRef
from honcho_exec.outbox.rows import OutboxRow, folder_id
from honcho_exec.settings import Settings
from honcho_exec.text.purge_filter import PurgeFilter

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

POST_MESSAGES = ("POST", "/messages$")
POST_CONCLUSIONS = ("POST", "/conclusions$")
LISTS = ("POST", "/list$")
QUICK = {"timeout": 0.8, "retry_deadline": 1, "retry_max_wait": 0.1, "sync_join_timeout": 0.5, "recall_mode": "tools"}
TEA = {"conclusion": "likes tea"}


class Wall(SystemClock):
    """The machine's clock, whose wall time is set by hand."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now(self) -> float:
        return super().now() + self.offset


@contextmanager
def provider_at(home: Path, url: str, clock: SystemClock, session: str = "s1") -> Iterator[HonchoProvider]:
    environ = {f"HONCHO_{name.upper()}": str(value) for name, value in QUICK.items()}
    environ |= {"HONCHO_BASE_URL": url, "HOME": str(home), "LOGNAME": "ada"}
    with HonchoProvider(session, environ=environ, home=home, clock=clock) as provider:
        yield provider


def created_at(url: str, session: str) -> list[datetime]:
    with httpx.Client(base_url=url, trust_env=False) as client:
        path = f"/v3/workspaces/hermes/sessions/{session}/messages/list"
        items = client.post(path, params={"size": 100}, json={}).raise_for_status().json()["items"]
    return [datetime.fromisoformat(item["created_at"]) for item in items]


def dated_answers(skew: float = 0.0) -> Fault:
    """Give each answer the Date of a clock that is so many seconds ahead."""

    def play(exchange: Exchange) -> None:
        answer = exchange.work()
        headers = {**answer.headers, "date": formatdate(SystemClock().now() + skew)}
        exchange.reply(Answer(answer.code, headers, answer.body))

    return Fault("date", play)


# Clocks.


@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
def test_lost_answers_are_answered_for_whatever_the_wall_clock_does(
    server: FaultyServer, tmp_path: Path, hours: int
) -> None:
    clock = Wall()
    with provider_at(tmp_path / "state", server.url, clock) as provider:
        provider.sync_turn("first", "").result(10)
        lost = server.rule(match=("POST", "/(messages|conclusions)$"), fault=reset_after_work())
        provider.sync_turn("second", "")
        provider.handle_tool_call("honcho_conclude", TEA)
        assert server.wait_count(2, *POST_MESSAGES)
        clock.offset = hours * 3600.0
        server.heal()
        server.rule(fault=dated_answers())
        assert provider.flush(20) == 0
        assert lost.used
    assert messages_on(server.url, "s1") == ["first", "second"]
    assert conclusions_on(server.url) == ["likes tea"]


@pytest.mark.parametrize("skew", [-7200, -90, 90, 7200])
def test_date_that_a_proxy_claims_is_not_compared_with_anything(
    server: FaultyServer, tmp_path: Path, skew: int
) -> None:
    lose = server.rule(match=POST_CONCLUSIONS, fault=reset_after_work(), times=1)
    server.rule(fault=dated_answers(skew))
    with provider_at(tmp_path / "state", server.url, SystemClock()) as provider:
        provider.handle_tool_call("honcho_conclude", TEA)
        assert provider.flush(20) == 0
    assert lose.used == 1
    assert conclusions_on(server.url) == ["likes tea"]


@pytest.mark.parametrize("point", ["recorded", "answered"])
def test_clock_set_back_across_a_kill_doubles_nothing(server: FaultyServer, tmp_path: Path, point: str) -> None:
    home = tmp_path / "state"
    settings = {"base_url": server.url, **QUICK}
    with Victim(home, "s1", point=point, **settings) as one, Victim(home, "s1", point=point, **settings) as other:
        one.hear("ready")
        one.order("turn", "said")
        one.wait()
        other.hear("ready")
        other.order("conclude", "likes tea")
        other.wait()
    clock = Wall()
    clock.offset = -3600.0
    server.rule(fault=dated_answers())
    with provider_at(home, server.url, clock, "later") as provider:
        assert provider.flush(20) == 0
    assert messages_on(server.url, "s1") == ["said"]
    assert conclusions_on(server.url) == ["likes tea"]


def test_machine_that_was_booted_again_asks_before_it_sends(server: FaultyServer, tmp_path: Path) -> None:
    class Booted(SystemClock):
        def boot_time(self) -> BootTime:
            return BootTime("another boot", 5.0 + super().boot_time().seconds % 1)

    home = tmp_path / "state"
    with Victim(home, "s1", point="answered", base_url=server.url, **QUICK) as victim:
        victim.hear("ready")
        victim.order("turn", "said")
        victim.wait()
    with provider_at(home, server.url, Booted(), "later") as provider:
        assert provider.flush(20) == 0
    assert messages_on(server.url, "s1") == ["said"]


def test_slow_attempt_is_waited_for_although_the_wall_clock_jumps_forward(server: FaultyServer, tmp_path: Path) -> None:
    clock = Wall()
    with provider_at(tmp_path / "state", server.url, clock) as provider:
        provider.sync_turn("first", "").result(10)
        late = server.rule(match=POST_MESSAGES, fault=late_work(2.0), times=1)
        # The look comes after the attempt was given up, and before the work is done.
        looks = server.count(*LISTS)
        provider.sync_turn("second", "")
        assert server.wait_count(looks + 1, *LISTS)
        clock.offset = 86_400.0
        assert provider.flush(20) == 0
    assert late.used == 1
    assert server.wait_idle()
    assert messages_on(server.url, "s1") == ["first", "second"]


# Intermediaries.


@pytest.mark.parametrize(
    "code", [301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 407, 408, 409, 413, 418, 422, 425, 429, 451, 501]
)
def test_answer_of_an_intermediary_may_hide_that_the_work_was_done(
    server: FaultyServer, tmp_path: Path, code: int
) -> None:
    fault = status(code, {"Location": "/login", "Retry-After": "0"}, b"<html>log in</html>", after_work=True)
    with provider_at(tmp_path / "state", server.url, SystemClock()) as provider:
        provider.sync_turn("first", "").result(10)
        lost = [server.rule(match=match, fault=fault, times=1) for match in (POST_MESSAGES, POST_CONCLUSIONS)]
        provider.sync_turn("second", "")
        provider.handle_tool_call("honcho_conclude", TEA)
        assert provider.flush(20) == 0
        assert provider.status().parked == 0
    assert [rule.used for rule in lost] == [1, 1]
    assert messages_on(server.url, "s1") == ["first", "second"]
    assert conclusions_on(server.url) == ["likes tea"]


class IgnoresFilters:
    """An app in front of a server that takes no notice of what a list is filtered by."""

    def __init__(self, honcho: EmbeddedHoncho) -> None:
        self._honcho = honcho

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"].endswith("/messages/list") or environ["PATH_INFO"].endswith("/conclusions/list"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(b"{}"), "2"
        return self._honcho.app(environ, start)


@pytest.mark.parametrize("fault", [reset_before_work(), reset_after_work()], ids=lambda fault: fault.name)
def test_server_that_ignores_filters_loses_and_doubles_nothing(tmp_path: Path, fault: Fault) -> None:
    honcho = EmbeddedHoncho(tmp_path / "server" / "memory.db")
    with FaultyServer(IgnoresFilters(honcho)) as server:
        with provider_at(tmp_path / "state", server.url, SystemClock()) as provider:
            provider.sync_turn("first", "").result(10)
            provider.remember("s1", "user", "keyed", source_key="k1").result(10)
            provider.handle_tool_call("honcho_conclude", {"conclusion": "likes coffee"})
            lost = [server.rule(match=match, fault=fault, times=1) for match in (POST_MESSAGES, POST_CONCLUSIONS)]
            provider.sync_turn("second", "")
            provider.handle_tool_call("honcho_conclude", TEA)
            provider.remember("s1", "user", "keyed too", source_key="k2")
            assert provider.flush(20) == 0
            assert [rule.used for rule in lost] == [1, 1]
        assert messages_on(server.url, "s1") == ["first", "keyed", "second", "keyed too"]
        assert conclusions_on(server.url) == ["likes coffee", "likes tea"]
    honcho.close()


def endless(exchange: Exchange) -> None:
    """Answer a list with a page that is never the last."""
    body = {"items": [], "total": 10**9, "page": 1, "size": 100, "pages": 10**7}
    exchange.reply(Answer(200, {"content-type": "application/json"}, json.dumps(body).encode()))


@pytest.mark.parametrize("what", ["message", "conclusion"])
def test_list_that_never_ends_blocks_nothing_and_has_nothing_sent_again(
    server: FaultyServer, tmp_path: Path, what: str
) -> None:
    posts = POST_MESSAGES if what == "message" else POST_CONCLUSIONS
    with provider_at(tmp_path / "state", server.url, SystemClock()) as provider:
        provider.sync_turn("first", "").result(10)
        before = server.count(*posts)
        server.rule(match=posts, fault=reset_after_work(), times=1)
        server.rule(match=LISTS, fault=Fault("endless", endless))
        if what == "message":
            with pytest.raises(Rejected, match="is not known"):
                provider.sync_turn("second", "").result(20)
        else:
            provider.handle_tool_call("honcho_conclude", TEA)
            assert provider.flush(20) == 0
        assert server.count(*LISTS) <= 110
        assert server.count(*posts) == before + 1
        status = provider.status()
        assert (status.parked, status.ok) == (1, False)
        provider.sync_turn("third", "").result(10)
    server.heal()
    assert messages_on(server.url, "s1") == ["first", *(["second"] if what == "message" else []), "third"]


def test_look_up_of_a_conclusion_ends_after_100_pages(server: FaultyServer, tmp_path: Path) -> None:
    backend = open_backend(Settings(base_url=server.url), tmp_path, SystemClock())
    api = api_of(backend)
    server.rule(match=LISTS, fault=Fault("endless", endless))
    for ask in (
        lambda: api.known_conclusions("hermes", "ada", {"likes tea"}),
        lambda: api.conclusion_ids("hermes", "ada", {"likes tea"}),
        lambda: api.known_rows("s", {"k"}),
    ):
        server.clear()
        with pytest.raises(Inconclusive):
            ask()
        assert server.count(*LISTS) == 100
    backend.close()


# Equal conclusions are one.


def test_conclusion_given_again_is_stored_once(server: FaultyServer, tmp_path: Path) -> None:
    home = tmp_path / "state"
    with provider_at(home, server.url, SystemClock()) as provider:
        provider.handle_tool_call("honcho_conclude", TEA)
        provider.flush(10)
        assert server.count("POST", "/conclusions/list$") == 0, "the normal path asks nothing"
        assert "is kept" in provider.handle_tool_call("honcho_conclude", TEA)
    with provider_at(home, server.url, SystemClock(), "other session") as provider:
        assert "is kept" in provider.handle_tool_call("honcho_conclude", TEA)
        provider.flush(10)
    assert conclusions_on(server.url) == ["likes tea"]


def ids_of_conclusions(provider: HonchoProvider) -> list[str]:
    listed = json.loads(provider.handle_tool_call("honcho_conclude", {"list": True}))
    return [one["id"] for one in listed["conclusions"]]


@pytest.mark.parametrize("who", ["the same provider", "another provider", "somebody else"])
def test_conclusion_that_was_deleted_can_be_added_again(server: FaultyServer, tmp_path: Path, who: str) -> None:
    home = tmp_path / "state"
    with (
        provider_at(home, server.url, SystemClock()) as provider,
        provider_at(home, server.url, SystemClock(), "s2") as other,
    ):
        provider.handle_tool_call("honcho_conclude", TEA)
        provider.flush(10)
        (conclusion,) = ids_of_conclusions(provider)
        if who == "somebody else":
            with httpx.Client(base_url=server.url, trust_env=False) as client:
                client.delete(f"/v3/workspaces/hermes/conclusions/{conclusion}").raise_for_status()
        else:
            deleting = provider if who == "the same provider" else other
            assert "was deleted" in deleting.handle_tool_call("honcho_conclude", {"delete_id": conclusion})
        assert conclusions_on(server.url) == []
        provider.handle_tool_call("honcho_conclude", TEA)
        provider.flush(10)
    assert conclusions_on(server.url) == ["likes tea"]


# Backups and copies.


def fill(home: Path, server: FaultyServer, turns: int = 5) -> None:
    """Leave turns and a conclusion behind that could not be delivered."""
    server.stop()
    with provider_at(home, server.url, SystemClock()) as provider:
        for number in range(turns):
            provider.sync_turn(f"turn {number}", "")
        provider.handle_tool_call("honcho_conclude", TEA)
    server.start()


def deliver(home: Path, server: FaultyServer) -> None:
    with provider_at(home, server.url, SystemClock(), "later") as provider:
        assert provider.flush(30) == 0


def assert_once(server: FaultyServer, turns: int = 5) -> None:
    assert messages_on(server.url, "s1") == [f"turn {number}" for number in range(turns)]
    assert conclusions_on(server.url) == ["likes tea"]


def test_normal_path_asks_for_no_message(server: FaultyServer, tmp_path: Path) -> None:
    with provider_at(tmp_path / "state", server.url, SystemClock()) as provider:
        for number in range(3):
            provider.sync_turn(f"{number}", "").result(10)
    assert server.count(*LISTS) == 0


def test_backup_restored_to_its_path_doubles_nothing(server: FaultyServer, tmp_path: Path) -> None:
    home = tmp_path / "state"
    fill(home, server, turns=120)
    shutil.copytree(home, tmp_path / "backup")
    deliver(home, server)
    shutil.rmtree(home)
    (tmp_path / "backup").rename(home)
    lists = server.count(*LISTS)
    deliver(home, server)
    assert server.count(*LISTS) - lists < 10, "rows are looked up by the batch"
    assert_once(server, turns=120)


def test_backup_restored_under_a_living_process_doubles_nothing(server: FaultyServer, tmp_path: Path) -> None:
    home = tmp_path / "state"
    server.stop()
    with provider_at(home, server.url, SystemClock()) as provider:
        for number in range(4):
            provider.sync_turn(f"turn {number}", "")
        with (
            closing(sqlite3.connect(home / "outbox.db")) as live,
            closing(sqlite3.connect(tmp_path / "backup.db")) as backup,
        ):
            live.backup(backup)
        server.start()
        assert provider.flush(30) == 0
        (tmp_path / "backup.db").replace(home / "outbox.db")
        provider.sync_turn("turn 4", "")
        provider.handle_tool_call("honcho_conclude", TEA)
        assert provider.flush(30) == 0
    assert_once(server)


@pytest.mark.parametrize("first", ["original", "copy"])
def test_copy_of_the_state_folder_doubles_nothing(server: FaultyServer, tmp_path: Path, first: str) -> None:
    home, copy = tmp_path / "state", tmp_path / "copy"
    fill(home, server)
    shutil.copytree(home, copy)
    for folder in (home, copy) if first == "original" else (copy, home):
        deliver(folder, server)
    assert_once(server)


def test_copy_taken_while_a_batch_is_under_way_doubles_nothing(server: FaultyServer, tmp_path: Path) -> None:
    home, copy = tmp_path / "state", tmp_path / "copy"
    with Victim(home, "s1", point="recorded", base_url=server.url, **QUICK) as victim:
        victim.hear("ready")
        victim.order("turn", "turn 0")
        victim.wait()
    shutil.copytree(home, copy)
    deliver(home, server)
    deliver(copy, server)
    assert messages_on(server.url, "s1") == ["turn 0"]


def test_living_original_goes_first(server: FaultyServer, tmp_path: Path) -> None:
    home, copy = tmp_path / "state", tmp_path / "copy"
    fill(home, server)
    shutil.copytree(home, copy)
    with provider_at(copy, server.url, SystemClock(), "later") as second:
        assert server.wait_count(1, *LISTS, timeout=10), "the copy has looked for its rows"
        assert server.count(*POST_MESSAGES) == 0
        deliver(home, server)
        assert second.flush(30) == 0
    assert_once(server)


def test_wait_for_the_original_goes_on_between_runs(tmp_path: Path) -> None:
    original, copy = tmp_path / "state", tmp_path / "copy"
    clock = HandClock()
    process = Process(original, clock=clock)
    process.admit("said")
    assert process.outbox.history.origin_wait(process.outbox.inspection.rows()) == 0
    process.close()
    shutil.copytree(original, copy)
    waits = []
    for _ in range(4):
        run = Process(copy, clock=clock)
        waits.append(run.outbox.history.origin_wait(run.outbox.inspection.rows()))
        run.close()
        clock.seconds += 1.0
    assert waits == [3.0, 2.0, 1.0, 0.0]
    again = tmp_path / "again"
    shutil.copytree(original, again)
    run = Process(again, clock=clock)
    assert run.outbox.history.origin_wait(run.outbox.inspection.rows()) == 3.0
    clock.reboot()
    assert run.outbox.history.origin_wait(run.outbox.inspection.rows()) == 0.0
    run.close()


def test_folder_has_its_place_until_it_is_copied(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    place = folder_id(folder)
    assert folder_id(tmp_path / "link") == folder_id(folder) == place
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(folder)
    assert folder_id(tmp_path / "copy") != place


def test_purge_leaves_no_digest_and_no_session_name(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.give("t", [Conclusion("likes tea", "hermes", "ada")])
    process.outbox.history.record_date("s", 1.0)
    process.outbox.history.record_date("other", 1.0)
    assert process.deliver() == ["likes tea"]
    assert process.outbox.history.delivered_before([Conclusion("likes tea", "hermes", "ada")])
    process.outbox.history.purge(PurgeFilter(session="s"))
    assert not process.outbox.history.delivered_before([Conclusion("likes tea", "hermes", "ada")])
    assert (process.outbox.history.latest_date("s"), process.outbox.history.latest_date("other")) == (None, 1.0)
    process.outbox.history.purge(PurgeFilter())
    assert process.outbox.history.latest_date("other") is None
    process.close()


def test_metadata_leaves_room_for_what_delivery_adds(server: FaultyServer, tmp_path: Path) -> None:
    with provider_at(tmp_path / "state", server.url, SystemClock()) as provider:
        names = {f"name {number}": number for number in range(90)}
        text = "long " * 8_000
        assert provider.remember("s1", "user", text, metadata=names, source_key="k").result(10).written == 2
    assert (
        max(len(seen.body_json["messages"][0]["metadata"]) for seen in server.requests if seen.is_for(*POST_MESSAGES))
        <= 100
    )


# Times.


def row(clock: HandClock, text: str = "said", *, created_at: str | None = None) -> OutboxRow:
    return OutboxRow(
        id=int(clock.seconds * 10),
        destination="here",
        turn="t",
        ref=SessionRef("w", "s", "ada", "hermes"),
        write=Message("ada", text, created_at=created_at),
        admitted_at=clock.now(),
        attempts=0,
        in_flight=False,
        error=None,
        parked_at=None,
        key=None,
        admitted_by="",
        folder_id=None,
        admitted_boot=clock.boot_time().boot,
        admitted_seconds=clock.boot_time().seconds,
    )


def test_what_waited_long_keeps_its_time_and_the_session_its_order() -> None:
    clock = HandClock()
    first = row(clock)
    clock.seconds += 30
    second = row(clock)
    clock.seconds += 45
    times = date_messages([first, second], clock, dated=None, newest=lambda: None)
    assert times == {first.id: first.admitted_at, second.id: second.admitted_at}


@pytest.mark.parametrize("verify", [False, True])
def test_no_time_is_before_the_newest_of_the_session(*, verify: bool) -> None:
    clock = HandClock()
    waiting = row(clock)
    clock.seconds += 100
    newest = clock.now() - 5
    assert date_messages([waiting], clock, dated=None, newest=lambda: newest, verify=verify) == {waiting.id: newest}


def test_fresh_messages_get_the_servers_time_unless_the_session_was_dated() -> None:
    clock = HandClock()
    fresh = row(clock)
    clock.seconds += 1

    def newest() -> float:
        raise AssertionError("the normal path asks nothing")

    assert date_messages([fresh], clock, dated=None, newest=newest) == {}
    ahead = clock.now() + 3600
    assert date_messages([fresh], clock, dated=ahead, newest=newest) == {fresh.id: ahead}


def test_message_of_before_the_clock_was_set_is_dated_by_how_long_it_waited() -> None:
    clock = HandClock()
    right = clock.now()
    clock.wall_offset = -right
    waiting = row(clock)
    clock.seconds += 100
    clock.wall_offset = 0.0
    assert date_messages([waiting], clock, dated=None, newest=lambda: None) == {waiting.id: pytest.approx(right)}
    clock.reboot()
    assert date_messages([waiting], clock, dated=None, newest=lambda: None) == {}


@pytest.mark.parametrize("offset", [-86_400.0, 86_400.0])
def test_times_of_a_session_never_decrease(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: float
) -> None:
    monkeypatch.setattr("honcho_exec.delivery.dating._LONG_AGO_SECONDS", 0.2)
    home, clock = tmp_path / "state", Wall()
    clock.offset = offset
    with provider_at(home, server.url, clock) as provider:
        provider.sync_turn("0", "").result(10)
    server.stop()
    with provider_at(home, server.url, clock) as provider:
        for number in range(1, 4):
            provider.sync_turn(str(number), "")
            provider.flush(0.1)
    clock.offset = 0.0
    server.start()
    with provider_at(home, server.url, clock, "later") as provider:
        assert provider.flush(20) == 0
    with provider_at(home, server.url, clock) as provider:
        provider.sync_turn("4", "").result(10)
    assert messages_on(server.url, "s1") == [str(number) for number in range(5)]
    times = created_at(server.url, "s1")
    assert times == sorted(times)


@pytest.mark.parametrize("pending", [True, False])
def test_times_of_a_session_do_not_decrease_after_a_backup_is_restored(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pending: bool
) -> None:
    monkeypatch.setattr("honcho_exec.delivery.dating._LONG_AGO_SECONDS", 0.2)
    home, clock = tmp_path / "state", Wall()
    server.stop()
    with provider_at(home, server.url, clock) as provider:
        provider.sync_turn("0", "")
        provider.flush(0.3)
    if not pending:
        server.start()
        with provider_at(home, server.url, clock) as provider:
            assert provider.flush(20) == 0
    shutil.copytree(home, tmp_path / "backup")
    server.start()
    clock.offset = 86_400.0
    with provider_at(home, server.url, clock) as provider:
        provider.sync_turn("1", "").result(10)
    clock.offset = 0.0
    shutil.rmtree(home)
    (tmp_path / "backup").rename(home)
    with provider_at(home, server.url, clock) as provider:
        for number in range(2, 4):
            provider.sync_turn(str(number), "").result(10)
    assert messages_on(server.url, "s1") == [str(number) for number in range(4)]
    times = created_at(server.url, "s1")
    assert times == sorted(times)
