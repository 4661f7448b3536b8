from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from honcho import Honcho, Session
from honcho.api_types import PeerConfig, SessionPeerConfig
from honcho.http import NotFoundError, UnprocessableEntityError
from support.hand_clock import HandClock

from honcho_exec.embedded import EmbeddedHoncho

HOME = "/v3/workspaces/home"


def test_creating_answers_201_and_getting_200(http: httpx.Client) -> None:
    for path in ("/v3/workspaces", f"{HOME}/peers", f"{HOME}/sessions"):
        assert [http.post(path, json={"id": "home"}).status_code for _ in range(2)] == [201, 200]


def test_workspaces_are_listed_and_updated(sdk: Callable[[str], Honcho]) -> None:
    for name in ("home", "work"):
        sdk(name).peer("alice")
    honcho = sdk("home")
    honcho.set_metadata({"plan": "b"})
    assert honcho.get_metadata() == {"plan": "b"}
    assert list(honcho.workspaces()) == ["home", "work"]
    assert list(honcho.workspaces(filters={"metadata": {"plan": "b"}})) == ["home"]


def test_getting_a_workspace_keeps_its_metadata(sdk: Callable[[str], Honcho]) -> None:
    sdk("home").set_metadata({"plan": "b"})
    assert sdk("home").get_metadata() == {"plan": "b"}


def test_peers_of_two_workspaces_never_meet(sdk: Callable[[str], Honcho]) -> None:
    sdk("home").peer("alice")
    sdk("work").peer("bob")
    assert [peer.id for peer in sdk("home").peers()] == ["alice"]
    assert [peer.id for peer in sdk("work").peers()] == ["bob"]


def test_a_peer_has_metadata_and_configuration(honcho: Honcho) -> None:
    honcho.peer("alice", metadata={"age": 7}, configuration=PeerConfig(observe_me=False))
    alice = honcho.peer("alice")
    assert alice.get_metadata() == {"age": 7}
    assert alice.get_configuration().observe_me is False
    alice.set_metadata({"age": 8})
    assert alice.get_metadata() == {"age": 8}


def test_a_session_replaces_its_metadata_and_merges_its_configuration(http: httpx.Client) -> None:
    path = f"{HOME}/sessions"
    http.post(path, json={"id": "s", "metadata": {"a": 1}, "configuration": {"summary": {"enabled": True}}})
    session = http.put(f"{path}/s", json={"metadata": {"b": 2}, "configuration": {"dream": {"enabled": False}}}).json()
    assert session["metadata"] == {"b": 2}
    assert session["configuration"] == {"summary": {"enabled": True}, "dream": {"enabled": False}}


@pytest.mark.parametrize("bad", ["", "a b", "ä", "a.b", "x" * 513, 7, None])
def test_ids_that_honcho_refuses_are_refused(http: httpx.Client, bad: object) -> None:
    for path in ("/v3/workspaces", f"{HOME}/peers", f"{HOME}/sessions"):
        answer = http.post(path, json={"id": bad})
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["body", "id"]
    assert http.post("/v3/workspaces", json={"id": "x" * 512}).status_code == 201


def test_members_come_and_go(honcho: Honcho) -> None:
    session = honcho.session("s")
    session.add_peers(["alice", "bob"])
    assert [peer.id for peer in session.peers()] == ["alice", "bob"]
    session.remove_peers("alice")
    assert [peer.id for peer in session.peers()] == ["bob"]
    session.set_peers(["carol", "alice"])
    assert [peer.id for peer in session.peers()] == ["alice", "carol"]
    assert [found.id for found in honcho.peer("alice").sessions()] == ["s"]
    assert list(honcho.peer("bob").sessions()) == []


def test_a_session_can_be_made_with_its_peers(http: httpx.Client, honcho: Honcho) -> None:
    http.post(f"{HOME}/sessions", json={"id": "s", "peers": {"alice": {"observe_me": False}, "bob": {}}})
    session = honcho.session("s")
    assert [peer.id for peer in session.peers()] == ["alice", "bob"]
    config = session.get_peer_configuration("alice")
    assert (config.observe_me, config.observe_others) == (False, None)


def test_what_a_member_observes_can_be_set(honcho: Honcho) -> None:
    session = honcho.session("s")
    session.add_peers("alice")
    session.set_peer_configuration("alice", SessionPeerConfig(observe_others=True, observe_me=False))
    config = session.get_peer_configuration("alice")
    assert (config.observe_me, config.observe_others) == (False, True)
    with pytest.raises(NotFoundError):
        session.get_peer_configuration("bob")
    honcho.peer("bob")
    with pytest.raises(NotFoundError):
        session.set_peer_configuration("bob", SessionPeerConfig(observe_me=True))


def test_null_does_not_empty_a_session(http: httpx.Client, honcho: Honcho) -> None:
    honcho.session("s").add_peers("alice")
    for method in ("POST", "PUT", "DELETE"):
        assert http.request(method, f"{HOME}/sessions/s/peers", json=None).status_code == 422
    assert [peer.id for peer in honcho.session("s").peers()] == ["alice"]


def test_deleting_a_session_frees_its_name_for_an_empty_one(honcho: Honcho) -> None:
    alice, session = honcho.peer("alice"), honcho.session("s", metadata={"old": True})
    session.add_messages(alice.message("the tide is low"))
    alice.conclusions.create([{"content": "likes the tide", "session_id": "s"}])
    session.delete()
    assert list(honcho.sessions()) == []
    assert honcho.search("tide") == []
    assert list(session.messages()) == []
    assert list(alice.conclusions.list()) == []
    with pytest.raises(NotFoundError):
        session.delete()
    again = honcho.session("s")
    assert (again.get_metadata(), list(again.messages()), again.peers()) == ({}, [], [])
    again.delete()
    session.add_messages(alice.message("again"))
    assert [message.content for message in session.messages()] == ["again"]


def test_names_of_sessions_deleted_by_an_earlier_version_are_free(honcho: Honcho, tmp_path: Path) -> None:
    honcho.session("s")
    with closing(sqlite3.connect(tmp_path / "memory.db")) as connection, connection:
        connection.execute("UPDATE session SET is_active = 0")
        connection.execute("PRAGMA user_version = 1")
    again = EmbeddedHoncho(tmp_path / "memory.db")
    try:
        with again._store.reading() as connection:
            assert connection.execute("SELECT count(*) FROM session").fetchone()[0] == 0
    finally:
        again.close()


def test_deleted_sessions_leave_no_trace_in_the_files(honcho: Honcho, tmp_path: Path) -> None:
    session = honcho.session("s")
    session.add_messages([honcho.peer("alice").message(f"the password is zanzibar{n}") for n in range(50)])
    session.delete()
    held = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("memory.db*")))
    assert b"zanzibar" not in held


def test_a_workspace_without_sessions_can_be_deleted(
    sdk: Callable[[str], Honcho], http: httpx.Client, tmp_path: Path
) -> None:
    home, work = sdk("home"), sdk("work")
    for honcho in (home, work):
        alice, bob = honcho.peer("alice"), honcho.peer("bob")
        alice.conclusions_of(bob).create([{"content": "keeps a zanzibar parrot"}])
        alice.set_card(["a zanzibar card"], bob)
        honcho.session("s").add_messages(alice.message("zanzibar it is"))
    refused = http.delete(HOME)
    assert (refused.status_code, refused.json()) == (
        409,
        {"detail": "Workspace home has 1 sessions; delete them first"},
    )
    home.session("s").delete()
    assert http.delete(HOME).status_code == 202
    assert http.delete(HOME).status_code == 404
    assert list(work.workspaces()) == ["work"]
    assert [message.content for message in work.search("zanzibar")] == ["zanzibar it is"]
    work.session("s").delete()
    work.delete_workspace("work")
    assert b"zanzibar" not in b"".join(path.read_bytes() for path in sorted(tmp_path.glob("memory.db*")))


def test_a_session_is_cloned_up_to_a_message(honcho: Honcho, clock: HandClock) -> None:
    alice, session = honcho.peer("alice"), honcho.session("s", metadata={"k": 1})
    session.add_peers([("alice", SessionPeerConfig(observe_me=False)), "bob"])
    sent = session.add_messages([alice.message(f"tide {n}", metadata={"n": n}) for n in range(3)])
    clock.seconds += 60
    whole, part = session.clone(), session.clone(message_id=sent[1].id)
    assert len({session.id, whole.id, part.id}) == 3
    assert whole.get_metadata() == {"k": 1}
    assert [peer.id for peer in part.peers()] == ["alice", "bob"]
    assert part.get_peer_configuration("alice").observe_me is False
    copies = list(whole.messages())
    assert [(copy.content, copy.metadata, copy.created_at) for copy in copies] == [
        (message.content, message.metadata, message.created_at) for message in sent
    ]
    assert not {copy.id for copy in copies} & {message.id for message in sent}
    assert [message.content for message in part.messages()] == ["tide 0", "tide 1"]
    assert len(part.search("tide", filters={"peer_perspective": "bob"})) == 2
    part.add_messages(alice.message("only here"))
    assert len(list(session.messages())) == 3


def test_failed_clone_creates_nothing(honcho: Honcho) -> None:
    session, other = honcho.session("s"), honcho.session("t")
    elsewhere = other.add_messages(honcho.peer("alice").message("elsewhere"))[0]
    for clone in (
        lambda: session.clone(message_id=elsewhere.id),
        lambda: session.clone(message_id="x"),
        deleted(honcho).clone,
    ):
        with pytest.raises(NotFoundError):
            clone()
    assert [found.id for found in honcho.sessions()] == ["s", "t"]


def deleted(honcho: Honcho) -> Session:
    session = honcho.session("gone")
    session.delete()
    return session


def test_lists_are_paged_in_the_order_of_insertion(honcho: Honcho, clock: HandClock) -> None:
    for number in range(7):
        clock.seconds -= 1
        honcho.session(f"s{number}")
    page = honcho.sessions(page=2, size=3)
    assert [session.id for session in page.items] == ["s3", "s4", "s5"]
    assert (page.total, page.page, page.size, page.pages) == (7, 2, 3, 3)
    assert [session.id for session in honcho.sessions(size=2)] == [f"s{number}" for number in range(7)]
    assert honcho.sessions(reverse=True, size=1).items[0].id == "s6"


@pytest.mark.parametrize("query", ["page=0", "size=0", "size=101", "page=x", "reverse=maybe"])
def test_invalid_pages_are_refused(http: httpx.Client, query: str) -> None:
    answer = http.post(f"{HOME}/sessions/list?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", query.partition("=")[0]]


def test_unknown_resources_list_as_empty(http: httpx.Client) -> None:
    for path in ("peers/list", "sessions/list", "conclusions/list", "peers/x/sessions", "sessions/x/messages/list"):
        answer = http.post(f"/v3/workspaces/nowhere/{path}")
        assert answer.status_code == 200
        assert answer.json() == {"items": [], "total": 0, "page": 1, "size": 50, "pages": 0}


def test_metadata_has_limits(honcho: Honcho) -> None:
    honcho.peer("alice", metadata={f"k{n}": n for n in range(100)})
    honcho.peer("alice", metadata={"1": {"2": {"3": {"4": {"5": 5}}}}})
    for metadata in ({f"k{n}": n for n in range(101)}, {"1": {"2": {"3": {"4": {"5": {}}}}}}):
        with pytest.raises(UnprocessableEntityError):
            honcho.peer("alice", metadata=metadata)
