from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import pytest
from support.api import api_of
from support.faulty import (
    Fault,
    FaultyServer,
    garbage,
    hang,
    reset_after_work,
    reset_before_work,
    status,
    wrong_json,
)

from honcho_exec.client.api import HonchoApi
from honcho_exec.client.backend import Backend, open_backend
from honcho_exec.clock import SystemClock
from honcho_exec.errors import Ambiguous, Rejected, RequestError, StateError, Unavailable, Unreached
from honcho_exec.model import Card, Conclusion, Context, Message
from honcho_exec.net.failures import timed_out
from honcho_exec.outbox.outbox import LONGEST_LATE
from honcho_exec.settings import Settings

CLOCK = SystemClock()
TIMEOUT = 0.3
TEA = Conclusion("likes tea", "hermes", "ada")
BOTH = {"ada": (True, True), "hermes": (True, True)}


@pytest.fixture
def backend(server: FaultyServer, tmp_path: Path) -> Iterator[Backend]:
    settings = Settings(base_url=server.url, timeout=TIMEOUT, api_key="sk-secret-key")
    backend = open_backend(settings, tmp_path, CLOCK)
    yield backend
    backend.close()


@pytest.fixture
def api(backend: Backend) -> HonchoApi:
    # Not the test's own requests, which a busy machine may hold up for longer than that.
    api = api_of(backend)
    api.ensure_session("s")
    api.join("s", BOTH)
    return api_of(backend, timeout=TIMEOUT)


def write(api: HonchoApi) -> None:
    api.add_messages("s", [Message("ada", "hello")], batch="b1")


def test_no_attempt_is_waited_for_longer_than_the_outbox_believes(backend: Backend) -> None:
    assert api_of(backend, timeout=600).patience == LONGEST_LATE


@pytest.mark.parametrize(
    ("fault", "fate", "cause"),
    [
        (status(400), Rejected, "refused"),
        (status(401), Rejected, "auth"),
        (status(403), Rejected, "auth"),
        (status(404), Rejected, "not_found"),
        (status(413), Rejected, "refused"),
        (status(422), Rejected, "refused"),
        (status(501), Rejected, "refused"),
        (status(301, {"Location": "http://elsewhere.invalid"}), Ambiguous, "refused"),
        (status(302, {"Location": "/login"}, b"<html>", after_work=True), Ambiguous, "refused"),
        (status(407, body=b"<html>", after_work=True), Ambiguous, "refused"),
        (status(418, body=b"<html>", after_work=True), Ambiguous, "refused"),
        (status(418), Rejected, "refused"),
        (status(429), Unavailable, "rate_limited"),
        (status(429, body=b"slow down", after_work=True), Ambiguous, "rate_limited"),
        (status(429, body=b'{"error": "slow down"}', after_work=True), Ambiguous, "rate_limited"),
        (status(500), Ambiguous, "server_error"),
        (status(502, after_work=True), Ambiguous, "server_error"),
        (status(503), Ambiguous, "server_error"),
        (status(504, after_work=True), Ambiguous, "server_error"),
        (reset_before_work(), Ambiguous, "connection"),
        (reset_after_work(), Ambiguous, "connection"),
        (hang(), Ambiguous, "timeout"),
        (garbage(after_work=True), Ambiguous, "bad_answer"),
        (wrong_json(after_work=True), Ambiguous, "bad_answer"),
        (replace(status(201, {"Content-Encoding": "gzip"}), name="gzip"), Ambiguous, "bad_answer"),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "__name__", value)),
)
def test_every_failure_has_one_fate(
    server: FaultyServer, api: HonchoApi, fault: Fault, fate: type[RequestError], cause: str
) -> None:
    server.rule(match=("POST", "/messages$"), fault=fault)
    with pytest.raises(RequestError) as caught:
        write(api)
    assert (type(caught.value), caught.value.cause) == (fate, cause)
    assert server.count("POST", "/messages$") == 1, "the SDK tried again by itself"
    assert "sk-secret-key" not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"


CALLS: dict[str, Callable[[HonchoApi], object]] = {
    "add_messages": write,
    "add_conclusions": lambda api: api.add_conclusions("s", [TEA]),
    "delete_conclusion": lambda api: api.delete_conclusion("c1"),
    "set_card": lambda api: api.set_card(Card("hermes", "ada", ("likes tea",))),
    "ensure_session": lambda api: api.ensure_session("s2"),
    "join": lambda api: api.join("s", BOTH),
    "members": lambda api: api.members("s"),
    "ping": HonchoApi.ping,
    "deriving": lambda api: api.reads.deriving(),
    "has_batch": lambda api: api.has_batch("s", "b1"),
    "known_sources": lambda api: api.known_sources("s", ["k"]),
    "known_rows": lambda api: api.known_rows("s", ["k"]),
    "newest_message_at": lambda api: api.newest_message_at("s"),
    "known_conclusions": lambda api: api.known_conclusions("hermes", "ada", {"likes tea"}),
    "conclusion_ids": lambda api: api.conclusion_ids("hermes", "ada", {"likes tea"}),
    "conclusions": lambda api: api.reads.conclusions("hermes", "ada", query=None, limit=5),
    "search of conclusions": lambda api: api.reads.conclusions("hermes", "ada", query="tea", limit=5),
    "search": lambda api: api.reads.search("tea", members=["ada"], limit=5),
    "peers": lambda api: api.reads.peers("ada"),
    "chat": lambda api: api.reads.chat("what?", observer="hermes", target="ada", level="low"),
    "card": lambda api: api.reads.card("hermes", "ada"),
    "peer_context": lambda api: api.reads.peer_context("hermes", "ada"),
    "self_context": lambda api: api.reads.self_context("hermes", "s", "ada"),
    "has_conclusion": lambda api: api.has_conclusion("c1", "hermes", "ada", session=None),
    "session_context": lambda api: api.reads.session_context("s"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_other_json_is_taken_for_an_empty_answer(
    server: FaultyServer, api: HonchoApi, call: Callable[[HonchoApi], object]
) -> None:
    for body in (b"{}", b"null", b'"items"'):
        server.heal()
        server.rule(fault=wrong_json(body))
        with pytest.raises(Ambiguous) as caught:
            call(api)
        assert caught.value.cause == "bad_answer", body


READS_ABOUT_A_PEER = ("chat", "card", "peer_context", "self_context")


@pytest.mark.parametrize("call", READS_ABOUT_A_PEER)
def test_only_honcho_says_that_nothing_is_known_of_a_peer(server: FaultyServer, api: HonchoApi, call: str) -> None:
    server.rule(fault=status(404, body=b'{"detail": "Peer ada not found in workspace hermes"}'))
    assert not any(vars_of(CALLS[call](api)))
    server.heal()
    for body in (b"<html>404</html>", b"{}", b'"detail"', b""):
        server.rule(fault=status(404, body=body))
        with pytest.raises(Rejected):
            CALLS[call](api)
        server.heal()


def vars_of(answer: object) -> list[object]:
    return list(asdict(answer).values()) if isinstance(answer, Context) else [answer]


@pytest.mark.parametrize("call", ["add_messages", "add_conclusions"])
def test_a_write_whose_answer_holds_less_than_was_sent_is_in_doubt(
    server: FaultyServer, api: HonchoApi, call: str
) -> None:
    server.rule(match=("POST", "/(messages|conclusions)$"), fault=wrong_json(b"[]"))
    with pytest.raises(Ambiguous) as caught:
        CALLS[call](api)
    assert caught.value.cause == "bad_answer"


@pytest.mark.parametrize("body", [b"{}", b"null", b"[]"], ids=repr)
def test_a_workspace_is_made_only_when_the_server_says_so(server: FaultyServer, backend: Backend, body: bytes) -> None:
    server.rule(match=("POST", "/workspaces$"), fault=wrong_json(body))
    api = api_of(backend, timeout=TIMEOUT)
    for call in (HonchoApi.workspace_since, lambda api: api.ensure_session("s1")):
        with pytest.raises(Ambiguous) as caught:
            call(api)
        assert caught.value.cause == "bad_answer"
    assert server.count("POST", "/messages$") == 0


ODD_DETAILS = (
    "no: tea in Kyoto",
    [{"loc": 7, "msg": "tea in Kyoto"}],
    [{"loc": {}}],
    {"x": "tea in Kyoto"},
    7,
    [[]],
    None,
)


@pytest.mark.parametrize("code", [400, 404, 422, 500], ids=str)
def test_no_answer_to_a_refused_request_is_repeated_or_breaks_anything(
    server: FaultyServer, api: HonchoApi, code: int
) -> None:
    for detail in ODD_DETAILS:
        server.heal()
        server.rule(match=("POST", "/messages$"), fault=status(code, body=json.dumps({"detail": detail}).encode()))
        with pytest.raises(RequestError) as caught:
            api.add_messages("s", [Message("ada", "I had tea in Kyoto")], batch="b1")
        assert caught.value.status == code
        assert "Kyoto" not in "".join(traceback.format_exception(caught.value)).replace('"I had tea in Kyoto"', "")


def test_a_refused_connection_was_surely_not_done(server: FaultyServer, api: HonchoApi) -> None:
    server.stop()
    with pytest.raises(Unreached, match="cannot be reached") as caught:
        write(api)
    assert caught.value.cause == "connection"


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (httpx.ConnectTimeout("x"), Unreached),
        # That all of this program's connections are in use says nothing of the server.
        (httpx.PoolTimeout("x"), Unavailable),
        (httpx.ReadTimeout("x"), Ambiguous),
    ],
)
def test_only_a_request_without_a_connection_reached_nobody(error: Exception, fate: type[RequestError]) -> None:
    assert type(timed_out("http://h", error, 1.0)) is fate


@pytest.mark.parametrize("code", [429, 503])
def test_what_the_server_asks_to_wait_is_handed_on(server: FaultyServer, api: HonchoApi, code: int) -> None:
    server.rule(match=("POST", "/messages$"), fault=status(code, {"Retry-After": "7"}))
    with pytest.raises(RequestError) as caught:
        write(api)
    assert caught.value.retry_after == 7


def test_a_file_that_breaks_under_the_embedded_backend_is_said(tmp_path: Path) -> None:
    (tmp_path / "memory.db").write_bytes(b"this is no database " * 100)
    with pytest.raises(StateError, match=r"memory\.db"):
        open_backend(Settings(), tmp_path, CLOCK)


@pytest.mark.parametrize(
    "date",
    [
        f"Wed, 21 Oct {'9' * 20} 07:28:00 GMT",
        "yesterday",
        "Mon, 99 Foo 2026 99:99:99",
        "Fri, 31 Dec 9999 23:59:59 -0000",
        "",
    ],
)
def test_a_date_that_is_none_breaks_nothing(server: FaultyServer, api: HonchoApi, date: str) -> None:
    server.rule(match=("POST", "/messages$"), fault=status(500, {"Date": date, "Retry-After": date}))
    with pytest.raises(Ambiguous) as caught:
        write(api)
    assert caught.value.cause == "server_error"


class TestEachBackend:
    """What the rest relies on, over HTTP and inside the process alike."""

    @pytest.fixture(params=["server", "embedded"])
    def api(self, request: pytest.FixtureRequest, server: FaultyServer, tmp_path: Path) -> Iterator[HonchoApi]:
        settings = Settings(base_url=server.url if request.param == "server" else None)
        backend = open_backend(settings, tmp_path, CLOCK)
        api = api_of(backend)
        api.ensure_session("s")
        api.join("s", BOTH)
        yield api
        backend.close()

    def test_a_batch_is_found_by_its_id(self, api: HonchoApi) -> None:
        assert not api.has_batch("s", "b1")
        api.add_messages("s", [Message("ada", "one"), Message("hermes", "two")], batch="b1")
        assert api.has_batch("s", "b1")
        assert not api.has_batch("s", "b2")
        assert not api.has_batch("elsewhere", "b1")

    def test_sources_are_known_by_their_keys(self, api: HonchoApi) -> None:
        api.add_messages("s", [Message("ada", str(n), source_key=f"k{n}") for n in range(100)], batch="b1")
        keys = [f"k{n}" for n in range(50, 150)]
        assert api.known_sources("s", keys) == {f"k{n}" for n in range(50, 100)}

    def test_rows_are_known_by_their_keys(self, api: HonchoApi) -> None:
        api.add_messages(
            "s", [Message("ada", str(n)) for n in range(100)], batch="b", keys=[f"k{n}" for n in range(100)]
        )
        assert api.known_rows("s", [f"k{n}" for n in range(50, 150)]) == {f"k{n}" for n in range(50, 100)}

    def test_conclusion_is_known_by_its_content_whatever_its_date(self, api: HonchoApi) -> None:
        assert api.known_conclusions("hermes", "ada", {"likes tea"}) == frozenset()
        api.add_conclusions("s", [Conclusion("likes tea", "hermes", "ada")])
        assert api.known_conclusions("hermes", "ada", {"likes tea", "likes coffee"}) == {"likes tea"}
        assert api.known_conclusions("ada", "ada", {"likes tea"}) == frozenset()

    def test_members_are_those_who_joined_or_spoke(self, api: HonchoApi) -> None:
        api.add_messages("s", [Message("bob", "hi")], batch="b1")
        assert api.members("s") == ({"ada", "hermes", "bob"}, True)

    def test_a_search_keeps_to_the_sessions_of_its_members(self, api: HonchoApi) -> None:
        api.add_messages("s", [Message("ada", "the tea is green")], batch="b1")
        api.add_messages("t", [Message("bob", "the tea is black")], batch="b2")
        api.add_messages("u", [Message("ada", "no tea"), Message("bob", "hi")], batch="b3")

        def found(*members: str) -> set[str]:
            return {hit.content for hit in api.reads.search("tea", members=members, limit=5).hits}

        assert found("ada") == {"the tea is green", "no tea", "hi"}
        assert found("ada", "bob") == {"no tea", "hi"}
        assert found("ada", "nobody") == set()

    def test_cards_conclusions_and_context_go_there_and_back(self, api: HonchoApi) -> None:
        api.add_conclusions("s", [Conclusion("likes tea", "hermes", "ada")])
        (found,) = api.reads.conclusions("hermes", "ada", query="tea", limit=5)
        assert (found.content, found.observer, found.observed) == ("likes tea", "hermes", "ada")
        assert "likes tea" in api.reads.peer_context("hermes", "ada").representation
        assert "tea" in api.reads.chat("What does Ada like?", observer="hermes", target="ada", level="low")
        assert found.id is not None
        api.delete_conclusion(found.id)
        with pytest.raises(Rejected) as caught:
            api.delete_conclusion(found.id)
        assert caught.value.cause == "not_found"
