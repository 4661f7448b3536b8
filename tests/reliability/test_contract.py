"""What this package needs of a Honcho server and promises on it: on the embedded one, or on yours.

    HONCHO_TEST_URL=http://localhost:8000 [HONCHO_TEST_KEY=…] pytest -m slow tests/reliability/test_contract.py

Each test works in a workspace of its own, through a proxy that misbehaves.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest
from support.api import api_of
from support.faulty import Fault, FaultyServer, Gate, Seen, garbage, gate, reset_after_work, status, wrong_json
from support.processes import conclusions_on, messages_on
from support.providers import MakeProvider
from support.proxy import Proxy

from honcho_exec import HonchoProvider
from honcho_exec.client.api import HonchoApi
from honcho_exec.client.backend import Backend, open_backend
from honcho_exec.clock import SystemClock
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.errors import Rejected
from honcho_exec.model import Card, Conclusion, Message
from honcho_exec.settings import Settings

# Read before a test's own environment is made clean.
URL = os.environ.get("HONCHO_TEST_URL")
KEY = os.environ.get("HONCHO_TEST_KEY")

POST_MESSAGES = ("POST", "/messages$")
POST_CONCLUSIONS = ("POST", "/conclusions$")
POSTS = ("POST", "/(messages|conclusions)$")
LISTS = ("POST", "/(messages|conclusions)/list$")
MAX_BATCH = 100
SECONDS = 20
BOTH = {"ada": (True, True), "hermes": (True, True)}


@dataclass(frozen=True)
class Place:
    """A workspace of its own on a server that misbehaves on demand."""

    server: FaultyServer
    workspace: str
    make: MakeProvider
    backend: Backend
    api: HonchoApi

    def provider(self, session: str = "s1") -> HonchoProvider:
        return self.make(
            session, base_url=self.server.url, workspace=self.workspace, recall_mode="tools", timeout=SECONDS
        )

    def messages(self, session: str = "s1") -> list[str]:
        return messages_on(self.server.url, session, workspace=self.workspace)

    def conclusions(self) -> list[str]:
        return conclusions_on(self.server.url, workspace=self.workspace)

    def posts(self) -> list[Seen]:
        return [seen for seen in self.server.requests if seen.is_for(*POST_MESSAGES)]


@pytest.fixture
def place(tmp_path: Path, make_provider: MakeProvider) -> Iterator[Place]:
    with ExitStack() as stack:
        url = URL
        if url is None:
            honcho = EmbeddedHoncho(tmp_path / "server" / "memory.db")
            stack.callback(honcho.close)
            url = stack.enter_context(FaultyServer(honcho.app)).url
        proxy = Proxy(url, KEY)
        stack.callback(proxy.close)
        server = stack.enter_context(FaultyServer(proxy))
        workspace = f"contract-{uuid.uuid4().hex[:12]}"
        backend = open_backend(Settings(base_url=server.url), tmp_path, SystemClock())
        stack.callback(backend.close)
        api = api_of(backend, workspace, timeout=SECONDS)
        yield Place(server, workspace, make_provider, backend, api)


@pytest.fixture
def api(place: Place) -> HonchoApi:
    return place.api


class TestWhatTheServerDoes:
    """What exactly-once delivery, joining and recall are built upon."""

    def test_a_batch_is_all_or_nothing(self, place: Place, api: HonchoApi) -> None:
        api.ensure_session("s1")
        with pytest.raises(Rejected):
            api.add_messages("s1", [Message("ada", "good"), Message("not a peer!", "bad")], batch="b1")
        assert not api.has_batch("s1", "b1")
        assert place.messages() == []

    def test_messages_stand_in_the_order_of_their_batches(self, place: Place, api: HonchoApi) -> None:
        for batch in range(3):
            texts = [Message("ada", f"{batch}.{number}") for number in range(MAX_BATCH)]
            api.add_messages("s1", texts, batch=f"b{batch}")
        assert place.messages() == [f"{batch}.{number}" for batch in range(3) for number in range(MAX_BATCH)]

    def test_a_batch_and_where_messages_came_from_are_found_at_once(self, api: HonchoApi) -> None:
        assert not api.has_batch("s1", "b1")
        api.add_messages("s1", [Message("ada", "said", source_key="k1"), Message("ada", "and more")], batch="b1")
        assert api.has_batch("s1", "b1")
        assert not api.has_batch("s1", "b2")
        assert not api.has_batch("s2", "b1")
        api.add_messages("s1", [Message("ada", "named")], batch="b3", keys=["r1"])
        assert api.known_rows("s1", ["r0", "r1"]) == {"r1"}
        assert api.known_rows("s2", ["r1"]) == frozenset()
        assert api.known_sources("s1", ["k0", "k1", "k2"]) == {"k1"}
        assert api.known_sources("s2", ["k1"]) == frozenset()

    def test_conclusions_are_found_at_once_by_their_content(self, api: HonchoApi) -> None:
        api.ensure_session("s1")
        api.join("s1", BOTH)
        assert api.known_conclusions("hermes", "ada", {"likes tea"}) == frozenset()
        api.add_conclusions("s1", [Conclusion("likes tea", "hermes", "ada")])
        assert api.known_conclusions("hermes", "ada", {"likes tea", "likes coffee"}) == {"likes tea"}
        assert api.known_conclusions("ada", "ada", {"likes tea"}) == frozenset()
        (found,) = api.reads.conclusions("hermes", "ada", query=None, limit=10)
        assert found.id is not None
        api.delete_conclusion(found.id)
        assert api.reads.conclusions("hermes", "ada", query=None, limit=10) == []
        with pytest.raises(Rejected) as refused:
            api.delete_conclusion(found.id)
        assert refused.value.cause == "not_found"

    def test_the_last_card_stands(self, api: HonchoApi) -> None:
        api.ensure_session("s1")
        api.join("s1", BOTH)
        assert api.reads.card("hermes", "ada") == ()
        for facts in (("likes tea",), ("likes coffee", "lives in Lisbon")):
            api.set_card(Card("hermes", "ada", facts))
            assert api.reads.card("hermes", "ada") == facts
        assert api.reads.card("ada", None) == ()

    def test_joining_again_hides_what_was_said_before(self, place: Place, api: HonchoApi) -> None:
        api.ensure_session("s1")
        api.join("s1", BOTH)
        assert api.members("s1") == (frozenset(BOTH), True)
        api.add_messages("s1", [Message("ada", "the tide is high")], batch="b1")
        assert self.seen_by_ada(place) == ["the tide is high"]
        api.ensure_session("s1")
        assert self.seen_by_ada(place) == ["the tide is high"]
        api.join("s1", BOTH)
        assert self.seen_by_ada(place) == []

    @staticmethod
    def seen_by_ada(place: Place) -> list[str]:
        url = f"{place.server.url}/v3/workspaces/{place.workspace}/search"
        asked = {"query": "tide", "limit": 10, "filters": {"peer_perspective": "ada"}}
        return [found["content"] for found in place.backend.http.post(url, json=asked).raise_for_status().json()]

    def test_what_was_said_is_read_back(self, api: HonchoApi) -> None:
        api.ensure_session("s1")
        api.join("s1", BOTH)
        api.add_messages("s1", [Message("ada", "the tide is high"), Message("hermes", "so it is")], batch="b1")
        assert [hit.content for hit in api.reads.session_context("s1").messages] == ["the tide is high", "so it is"]
        found = api.reads.search("tide", members=["ada", "hermes"], limit=10)
        assert "the tide is high" in {hit.content for hit in found.hits}
        assert not api.reads.search("tide", members=["ada", "grace"], limit=10).hits
        assert api.reads.peers("ada") == (True, [])
        assert set(api.reads.peers("grace")[1]) == set(BOTH)


class TestWhatIsPromisedOnIt:
    """Exactly once and in order, whatever happens on the way."""

    @pytest.mark.parametrize(
        "fault", [reset_after_work(), status(500, after_work=True), garbage(after_work=True)], ids=lambda it: it.name
    )
    def test_a_lost_answer_neither_loses_nor_doubles(self, place: Place, fault: Fault) -> None:
        provider = place.provider()
        provider.sync_turn("first", "").result(SECONDS)
        messages = place.server.rule(match=POST_MESSAGES, fault=fault, times=1)
        conclusions = place.server.rule(match=POST_CONCLUSIONS, fault=fault, times=1)
        provider.sync_turn("second", "answer")
        provider.handle_tool_call("honcho_conclude", {"conclusion": "likes tea"})
        provider.sync_turn("third", "")
        assert provider.flush(SECONDS) == 0
        assert (messages.used, conclusions.used) == (1, 1)
        assert place.messages() == ["first", "second", "answer", "third"]
        assert place.conclusions() == ["likes tea"]

    @pytest.mark.parametrize("fault", [wrong_json(), garbage(), status(404), status(422)], ids=lambda it: it.name)
    def test_a_failing_look_says_nothing_of_what_was_looked_for(self, place: Place, fault: Fault) -> None:
        provider = place.provider()
        provider.sync_turn("first", "").result(SECONDS)
        place.server.rule(match=POSTS, fault=garbage(after_work=True), times=2)
        looks = place.server.rule(match=LISTS, fault=fault, times=2)
        provider.sync_turn("second", "")
        provider.handle_tool_call("honcho_conclude", {"conclusion": "likes tea"})
        assert provider.flush(SECONDS) == 0
        assert looks.used == 2
        assert place.messages() == ["first", "second"]
        assert place.conclusions() == ["likes tea"]

    @pytest.mark.parametrize("look", ["known_rows", "known_conclusions"])
    def test_without_the_look_it_is_doubled(self, place: Place, monkeypatch: pytest.MonkeyPatch, look: str) -> None:
        monkeypatch.setattr(HonchoApi, look, lambda *_: frozenset())
        provider = place.provider()
        place.server.rule(
            match=POST_MESSAGES if look == "known_rows" else POST_CONCLUSIONS, fault=garbage(after_work=True), times=1
        )
        provider.sync_turn("said", "")
        provider.handle_tool_call("honcho_conclude", {"conclusion": "likes tea"})
        assert provider.flush(SECONDS) == 0
        doubled, once = (place.messages(), place.conclusions())[:: 1 if look == "known_rows" else -1]
        assert (len(doubled), len(once)) == (2, 1)

    def test_turns_stay_in_order_whoever_gives_them(self, place: Place) -> None:
        one, other = place.provider(), place.provider()
        turns = [(one if number % 3 else other).sync_turn(f"u{number}", f"a{number}") for number in range(12)]
        assert [turn.result(SECONDS).written for turn in turns] == [2] * 12
        assert place.messages() == [f"{who}{number}" for number in range(12) for who in "ua"]

    def test_a_backlog_of_300_turns_drains_in_few_requests(self, place: Place) -> None:
        held = Gate()
        place.server.rule(match=("GET", "/peers$"), fault=gate(held), times=1)
        provider = place.provider()
        for number in range(300):
            provider.sync_turn(f"u{number}", f"a{number}")
        held.proceed.set()
        assert provider.flush(3 * SECONDS) == 0
        assert len(place.posts()) <= 10
        assert max(len(seen.body_json["messages"]) for seen in place.posts()) <= MAX_BATCH
        assert place.messages() == list(chain.from_iterable((f"u{number}", f"a{number}") for number in range(300)))

    def test_peers_join_once(self, place: Place) -> None:
        for number in range(3):
            provider = place.provider()
            provider.sync_turn(f"{number}", "").result(SECONDS)
            provider.shutdown()
        assert place.server.count("POST", "/sessions/s1/peers$") == 1
        assert place.messages() == ["0", "1", "2"]
