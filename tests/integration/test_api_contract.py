"""What the provider builds upon, held against the embedded Honcho and against a real server.

With HONCHO_TEST_URL (and HONCHO_TEST_KEY) in the environment every test runs against that server as well, in
workspaces of its own.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from honcho import Honcho
from honcho.api_types import SessionPeerConfig
from honcho.http import NotFoundError, UnprocessableEntityError
from support.openapi import operations

from honcho_exec.embedded import EmbeddedHoncho

# Read when this file is: the tests' own environment has no Honcho variables.
URL = os.environ.get("HONCHO_TEST_URL", "")
KEY = os.environ.get("HONCHO_TEST_KEY", "local")
Connect = Callable[[], Honcho]


@pytest.fixture(params=["embedded", *(["server"] if URL else [])])
def http(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[httpx.Client]:
    if request.param == "server":
        with httpx.Client(base_url=URL, headers={"Authorization": f"Bearer {KEY}"}) as client:
            yield client
        return
    embedded = EmbeddedHoncho(tmp_path / "memory.db")
    with httpx.Client(transport=httpx.WSGITransport(app=embedded.app), base_url="http://embedded") as client:
        yield client
    embedded.close()


@pytest.fixture
def honcho(http: httpx.Client) -> Honcho:
    workspace = f"contract-{uuid.uuid4().hex}"
    return Honcho(workspace_id=workspace, base_url=str(http.base_url), api_key=KEY, http_client=http, max_retries=0)


def test_every_route_of_the_document_is_there(http: httpx.Client) -> None:
    for method, path in operations():
        if path.endswith(("webhooks/test", "schedule_dream")):
            continue
        url = path.replace("{workspace_id}", f"contract-{uuid.uuid4().hex}").replace("{", "").replace("}", "")
        answer = http.request(method, url)
        assert answer.status_code != 405, f"{method} {path}"
        assert answer.json() != {"detail": "Not Found"}, f"{method} {path}"


def test_a_batch_lands_as_a_whole_and_is_found_by_its_metadata_at_once(honcho: Honcho) -> None:
    alice, session = honcho.peer("alice"), honcho.session("s")
    session.add_messages([alice.message(f"part {n}", metadata={"batch": "b1", "n": n}) for n in range(3)])
    session.add_messages(alice.message("other", metadata={"batch": "b2"}))
    found = session.messages(filters={"metadata": {"batch": "b1"}})
    assert [message.content for message in found] == ["part 0", "part 1", "part 2"]
    wanted = {"metadata": {"batch": {"in": ["b2", "b3"]}}}
    assert [message.content for message in session.messages(filters=wanted)] == ["other"]


def test_one_refused_message_refuses_its_batch(honcho: Honcho) -> None:
    alice, session = honcho.peer("alice"), honcho.session("s")
    with pytest.raises(UnprocessableEntityError):
        session.add_messages([alice.message("good"), alice.message("<|endoftext|>")])
    assert list(session.messages()) == []


def test_messages_keep_their_order_and_their_times(honcho: Honcho) -> None:
    alice, session = honcho.peer("alice"), honcho.session("s")
    session.add_messages([alice.message("late", created_at="2024-02-01T00:00:00Z")])
    session.add_messages([alice.message("early", created_at="2024-01-01T00:00:00.5+00:00")])
    found = [(message.content, message.created_at.isoformat()) for message in session.messages()]
    assert found == [("late", "2024-02-01T00:00:00+00:00"), ("early", "2024-01-01T00:00:00.500000+00:00")]


def test_joining_again_hides_earlier_messages(honcho: Honcho) -> None:
    alice, session = honcho.peer("alice"), honcho.session("s")
    session.add_peers([(alice, SessionPeerConfig(observe_me=True, observe_others=False))])
    session.add_messages(alice.message("the heron stands in the reeds"))
    seen = {"peer_perspective": "alice"}
    assert [hit.content for hit in honcho.search("heron", filters=seen)] == ["the heron stands in the reeds"]
    honcho.session("s")
    assert len(honcho.search("heron", filters=seen)) == 1
    session.add_peers(alice)
    assert honcho.search("heron", filters=seen) == []


def test_a_message_makes_its_author_a_member(honcho: Honcho) -> None:
    honcho.session("s").add_messages(honcho.peer("alice").message("hello"))
    assert [peer.id for peer in honcho.session("s").peers()] == ["alice"]


def test_unknown_session_is_empty_and_unknown_peer_a_404(honcho: Honcho) -> None:
    alice = honcho.peer("alice")
    assert list(honcho.session("nobody-was-here").messages()) == []
    with pytest.raises(NotFoundError):
        alice.conclusions_of("nobody").create([{"content": "a fact", "session_id": None}])


def test_a_card_is_what_was_written_last(honcho: Honcho) -> None:
    alice = honcho.peer("alice")
    alice.set_card(["one"])
    alice.set_card(["two", "three"])
    assert alice.get_card() == ["two", "three"]


def test_deleting_a_session_deletes_its_messages(honcho: Honcho, http: httpx.Client) -> None:
    session = honcho.session("s")
    session.add_messages(honcho.peer("alice").message("hello"))
    assert http.delete(f"/v3/workspaces/{honcho.workspace_id}/sessions/s").status_code == 202
    assert http.post(f"/v3/workspaces/{honcho.workspace_id}/sessions/s/messages/list").json()["total"] == 0
