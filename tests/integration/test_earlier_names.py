"""Sessions of earlier versions: a chat continues its own, and never one that somebody else was in.

Earlier versions gave the same name to chats whose keys differ only in characters that Honcho does not take, and let a
title name the session of another chat.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.api import api_of
from support.faulty import FaultyServer, status

from honcho_exec import HonchoProvider
from honcho_exec.client.api import HonchoApi
from honcho_exec.client.backend import open_backend
from honcho_exec.clock import SystemClock
from honcho_exec.model import Message, SessionRef
from honcho_exec.settings import Settings
from honcho_exec.transfer.local_purge import _session_of

GROUP = "agent:main:telegram:group:-100123"
EARLIER_GROUP = "agent-main-telegram-group--100123"
DIRECT = "agent:main:telegram:dm:333"
EARLIER_DIRECT = "agent-main-telegram-dm-333"
MAIL = "agent:main:email:dm:anna.b@victim.com"
OTHER_MAIL = "agent:main:email:dm:anna@b-victim.com"
EARLIER_MAIL = "agent-main-email-dm-anna-b-victim-com"
SECRET = "The vault opens with a marmalade jar."

Begin = Callable[..., HonchoProvider]


on_server = pytest.mark.parametrize("url", ["server"], indirect=True)


@pytest.fixture(params=["server", "embedded"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a server, or nothing for the embedded backend."""
    return request.getfixturevalue("server").url if request.param == "server" else ""


@pytest.fixture
def begin(tmp_path: Path, url: str) -> Iterator[Begin]:
    """Begin conversations of one gateway."""
    with ExitStack() as stack:

        def begin(key: str = "", *, user: str = "", home: str = "state", **stated: str) -> HonchoProvider:
            environ = {"HOME": str(tmp_path), "LOGNAME": "operator", "HONCHO_FIRST_TURN_BASE_WAIT": "20"}
            environ |= {"HONCHO_BASE_URL": url} if url else {}
            provider = HonchoProvider(environ=environ, home=tmp_path / home)
            stack.callback(provider.shutdown)
            provider.initialize("run", gateway_session_key=key, user_id=user, cwd="/srv/project", **stated)
            return provider

        yield begin


@pytest.fixture
def api(tmp_path: Path, url: str) -> Iterator[HonchoApi]:
    settings = Settings(base_url=url or None)
    (tmp_path / "state").mkdir(mode=0o700)
    backend = open_backend(settings, tmp_path / "state", SystemClock())
    yield api_of(backend, "hermes")
    backend.close()


def had(api: HonchoApi, session: str, *users: str, text: str = SECRET) -> None:
    """Make a session as an earlier version did."""
    api.ensure_session(session)
    api.join(session, dict.fromkeys((*users, "hermes"), (True, True)))
    api.add_messages(session, [Message(user, text) for user in users], batch="before")


def session_of(provider: HonchoProvider) -> str:
    """Where a turn of this provider goes."""
    assert provider.sync_turn("hello there", "").result(20).written == 1
    return provider.status().session


def everything(provider: HonchoProvider) -> str:
    """What the provider lets somebody read."""
    calls = [
        ("honcho_search", {"query": SECRET}),
        ("honcho_reasoning", {"query": SECRET}),
        ("honcho_context", {}),
        ("honcho_profile", {}),
        ("honcho_conclude", {"list": True}),
        ("honcho_search", {"query": SECRET, "peer": "ai"}),
        ("honcho_context", {"peer": "ai"}),
    ]
    told = [provider.prefetch(SECRET)]
    told += [provider.handle_tool_call(tool, arguments) for tool, arguments in calls]
    assert [one for one in told[1:] if "error" in json.loads(one)] == []
    return " ".join(told)


@pytest.mark.parametrize(
    ("key", "earlier"), [(DIRECT, EARLIER_DIRECT), (MAIL, EARLIER_MAIL), (GROUP, EARLIER_GROUP), ("", "project")]
)
def test_a_chat_continues_its_session_if_nobody_else_is_in_it(
    api: HonchoApi, begin: Begin, key: str, earlier: str
) -> None:
    had(api, earlier, "42")
    provider = begin(key, user="42")
    assert "marmalade" in everything(provider)
    assert session_of(provider) == earlier


@pytest.mark.parametrize(
    ("key", "earlier"), [(DIRECT, EARLIER_DIRECT), (MAIL, EARLIER_MAIL), (GROUP, EARLIER_GROUP), ("", "project")]
)
@pytest.mark.parametrize("others", [("mallory",), ("42", "mallory"), ("operator",)])
def test_a_session_that_somebody_else_is_in_is_left_alone(
    api: HonchoApi, begin: Begin, key: str, earlier: str, others: tuple[str, ...]
) -> None:
    had(api, earlier, *others)
    provider = begin(key, user="42")
    session = session_of(provider)
    assert session.startswith(earlier)
    assert session != earlier
    assert [one.content for one in api.reads.session_context(earlier).messages] == [SECRET] * len(others)
    if "42" not in others:
        assert "marmalade" not in everything(provider)
    (finding,) = [one for one in provider.doctor() if earlier in one.what and session not in one.what]
    assert "left alone" in finding.what


def test_a_session_is_continued_by_one_of_two_chats_that_had_its_name(api: HonchoApi, begin: Begin) -> None:
    had(api, EARLIER_MAIL, "42")
    first = begin(MAIL, user="42")
    assert session_of(first) == EARLIER_MAIL
    other = begin(OTHER_MAIL, user="42")
    assert session_of(other) not in {EARLIER_MAIL, session_of(first)}
    assert session_of(begin(EARLIER_MAIL, user="42")) != EARLIER_MAIL
    findings = [one.what for one in first.doctor()]
    assert any("continues" in what and EARLIER_MAIL in what for what in findings)


def test_the_decision_is_remembered(api: HonchoApi, begin: Begin, tmp_path: Path) -> None:
    """Whoever joins the session later, and also if the memory of it is lost."""
    had(api, EARLIER_MAIL, "42")
    assert session_of(begin(MAIL, user="42")) == EARLIER_MAIL
    api.join(EARLIER_MAIL, {"mallory": (True, True)})
    assert session_of(begin(MAIL, user="42")) == EARLIER_MAIL
    fresh = session_of(begin(OTHER_MAIL, user="43"))
    (tmp_path / "state" / "known.db").unlink()
    assert session_of(begin(OTHER_MAIL, user="43")) == fresh


@on_server
def test_nothing_is_continued_that_waits_for_another_user(api: HonchoApi, begin: Begin, server: FaultyServer) -> None:
    """Rows from before keep their session, so that must not become another chat's meanwhile."""
    server.rule(match=("POST", "/messages$"), fault=status(503))
    had_ref = SessionRef("hermes", EARLIER_MAIL, "mallory", "hermes")
    before = begin("agent:main:x:dm:1", user="mallory")
    assert before._conversation is not None
    kept = before._conversation.delivery.turns.admit(had_ref, [Message("mallory", SECRET)])
    provider = begin(MAIL, user="42")
    server.heal()
    assert session_of(provider) != EARLIER_MAIL
    assert kept.result(20).written == 1
    assert [one.content for one in api.reads.session_context(EARLIER_MAIL).messages] == [SECRET]
    assert "marmalade" not in everything(provider)


@on_server
def test_nothing_is_read_or_written_before_the_session_is_decided(
    api: HonchoApi, begin: Begin, server: FaultyServer
) -> None:
    had(api, EARLIER_MAIL, "mallory")
    server.clear()
    server.rule(match=("GET", "/peers$"), fault=status(503))
    provider = begin(MAIL, user="42")
    provider.sync_turn("hello there", "")
    assert provider.prefetch("hello") == ""
    assert json.loads(provider.handle_tool_call("honcho_context", {}))["retryable"]
    assert not [seen for seen in server.requests if seen.is_for("*", f"/sessions/{EARLIER_MAIL}/(?!peers$)")]
    assert server.count("POST", "/messages$") == 0
    server.heal()
    assert provider.flush(30) == 0
    assert [one.content for one in api.reads.session_context(EARLIER_MAIL).messages] == [SECRET]


def test_a_group_whose_name_no_other_key_has_keeps_its_session(api: HonchoApi, begin: Begin) -> None:
    had(api, "agent-main-discord-group-9", "42", "43")
    assert session_of(begin("agent:main:discord:group:9", user="44")) == "agent-main-discord-group-9"


def test_rows_from_before_keep_their_session(api: HonchoApi, begin: Begin) -> None:
    had(api, EARLIER_DIRECT, "mallory")
    provider = begin(DIRECT, user="42")
    assert provider._conversation is not None
    before = SessionRef("hermes", EARLIER_DIRECT, "42", "hermes")
    assert provider._conversation.delivery.turns.admit(before, [Message("42", "from before")]).result(20).written == 1
    assert session_of(provider) != EARLIER_DIRECT
    assert "from before" in [one.content for one in api.reads.session_context(EARLIER_DIRECT).messages]


@on_server
def test_a_purge_of_a_session_finds_the_rows_on_their_way_there(
    api: HonchoApi, begin: Begin, server: FaultyServer, tmp_path: Path
) -> None:
    had(api, EARLIER_MAIL, "42")
    provider = begin(MAIL, user="42")
    assert session_of(provider) == EARLIER_MAIL
    server.rule(match=("POST", "/messages$"), fault=status(503))
    provider.sync_turn(SECRET, "")
    assert provider._conversation is not None
    rows = provider._conversation.outbox.inspection.rows()
    assert [_session_of(row, tmp_path / "state") for row in rows] == [EARLIER_MAIL]


def test_a_key_may_hold_any_character(begin: Begin) -> None:
    provider = begin("agent:main:x:dm:\ud800\u0000☃", user="42")
    assert session_of(provider).startswith("agent-main-x-dm-")


def test_a_run_that_only_reads_reads_its_own_session(api: HonchoApi, begin: Begin) -> None:
    had(api, EARLIER_MAIL, "42")
    reader = begin(MAIL, user="42", agent_context="subagent")
    assert "marmalade" in reader.handle_tool_call("honcho_context", {})
    stranger = begin(OTHER_MAIL, user="43", agent_context="subagent")
    assert "marmalade" not in stranger.handle_tool_call("honcho_context", {})


def test_a_program_continues_the_session_that_it_named(api: HonchoApi, tmp_path: Path, url: str) -> None:
    name = "my session!"
    had(api, f"my-session--{hashlib.sha256(name.encode()).hexdigest()[:8]}", "operator")
    environ = {"HOME": str(tmp_path), "LOGNAME": "operator", "HONCHO_BASE_URL": url or "embedded"}
    with HonchoProvider(name, environ=environ, home=tmp_path / "state") as provider:
        assert "marmalade" in provider.handle_tool_call("honcho_context", {})
        provider.remember(name, "user", "and one more").result(20)
        assert "and one more" in provider.handle_tool_call("honcho_context", {})
