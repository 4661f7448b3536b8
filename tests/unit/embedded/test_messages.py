from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest
from honcho import Honcho
from honcho.http import NotFoundError, UnprocessableEntityError
from support.hand_clock import NOON, HandClock

MESSAGES = "/v3/workspaces/home/sessions/s/messages"


def contents(honcho: Honcho, session: str = "s", **options: object) -> list[str]:
    return [message.content for message in honcho.session(session).messages(**options)]  # type: ignore[arg-type]


def post(http: httpx.Client, *messages: object) -> httpx.Response:
    return http.post(MESSAGES, json={"messages": list(messages)})


def test_messages_come_back_as_they_were_sent(honcho: Honcho) -> None:
    alice = honcho.peer("alice")
    sent = alice.message("héllo 😀", metadata={"k": {"n": [1, None, "ü"]}}, created_at="2024-02-03T04:05:06+01:00")
    honcho.session("s").add_messages(sent)
    (message,) = honcho.session("s").messages()
    assert (message.content, message.peer_id, message.session_id) == ("héllo 😀", "alice", "s")
    assert message.metadata == {"k": {"n": [1, None, "ü"]}}
    assert message.created_at == datetime(2024, 2, 3, 3, 5, 6, tzinfo=UTC)
    assert honcho.session("s").get_message(message.id).content == "héllo 😀"


def test_messages_without_a_time_get_the_present_one(honcho: Honcho) -> None:
    (message,) = honcho.session("s").add_messages(honcho.peer("alice").message("now"))
    assert message.created_at == datetime.fromtimestamp(NOON, UTC)


def test_messages_are_in_insertion_order_whatever_their_dates(honcho: Honcho) -> None:
    alice, session = honcho.peer("alice"), honcho.session("s")
    for batch in (("c", "2024-03-01"), ("a", "2024-01-01")), (("b", "2024-02-01"),):
        session.add_messages([alice.message(text, created_at=f"{day}T00:00:00Z") for text, day in batch])
    assert contents(honcho) == ["c", "a", "b"]
    assert contents(honcho, reverse=True) == ["b", "a", "c"]


def test_the_same_batch_twice_is_stored_twice(honcho: Honcho) -> None:
    for _ in range(2):
        honcho.session("s").add_messages(honcho.peer("alice").message("again"))
    assert contents(honcho) == ["again", "again"]


def test_posting_messages_creates_session_and_workspace(http: httpx.Client, honcho: Honcho) -> None:
    assert post(http, {"content": "hi", "peer_id": "alice"}).status_code == 201
    assert [session.id for session in honcho.sessions()] == ["s"]
    assert [peer.id for peer in honcho.session("s").peers()] == ["alice"]


@pytest.mark.parametrize(
    "bad",
    [
        {"content": "x" * 25_001, "peer_id": "alice"},
        {"content": "x", "peer_id": "no spaces"},
        {"content": "x"},
        {"peer_id": "alice"},
        {"content": None, "peer_id": "alice"},
        {"content": "x", "peer_id": "alice", "metadata": [1]},
        {"content": "x", "peer_id": "alice", "created_at": "yesterday"},
        {"content": "x", "peer_id": "alice", "created_at": 1_700_000_000},
        {"content": "what is <|endoftext|>?", "peer_id": "alice"},
        {"content": "<|endofprompt|>", "peer_id": "alice"},
        "text",
    ],
)
def test_one_bad_message_refuses_its_batch(http: httpx.Client, honcho: Honcho, bad: object) -> None:
    answer = post(http, {"content": "good", "peer_id": "alice"}, bad)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:3] == ["body", "messages", 1]
    assert contents(honcho) == []


@pytest.mark.parametrize("token", ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"])
def test_special_tokens_that_break_the_real_server_are_a_500(http: httpx.Client, honcho: Honcho, token: str) -> None:
    answer = post(http, {"content": "good", "peer_id": "alice"}, {"content": f"a {token}", "peer_id": "alice"})
    assert answer.status_code == 500
    assert contents(honcho) == []
    assert post(http, {"content": "<|im_start|>", "peer_id": "alice"}).status_code == 201


@pytest.mark.parametrize("raw", [rb'"\ud800"', rb'"a\udfff b"', b"NaN", b"Infinity", b"-1e999"])
def test_json_that_breaks_the_real_server_is_a_500(http: httpx.Client, honcho: Honcho, raw: bytes) -> None:
    body = b'{"messages": [{"content": "x", "peer_id": "alice", "metadata": {"k": %b}}]}' % raw
    answer = http.post(MESSAGES, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json() != {"detail": "An unexpected error occurred"}) == (500, True)
    assert contents(honcho) == []


@pytest.mark.parametrize("raw", [b"{", b"\xff", b'{"messages": [}', b'{"messages": "\xed\xa0\x80"}'])
def test_invalid_json_is_refused(http: httpx.Client, raw: bytes) -> None:
    answer = http.post(MESSAGES, content=raw)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["type"] == "json_invalid"


def test_nul_is_stripped(honcho: Honcho) -> None:
    honcho.session("s").add_messages(honcho.peer("alice").message("a\0b", metadata={"k\0": ["\0v"]}))
    (message,) = honcho.session("s").messages()
    assert (message.content, message.metadata) == ("ab", {"k": ["v"]})


def test_surrogate_pairs_are_characters(http: httpx.Client, honcho: Honcho) -> None:
    body = rb'{"messages": [{"content": "\ud83d\ude00", "peer_id": "alice"}]}'
    assert http.post(MESSAGES, content=body).status_code == 201
    assert contents(honcho) == ["😀"]


def test_a_batch_has_1_to_100_messages(http: httpx.Client) -> None:
    message = {"content": "x", "peer_id": "alice"}
    assert [post(http, *[message] * count).status_code for count in (0, 1, 100, 101)] == [422, 201, 201, 422]


def test_content_may_be_empty_and_25000_characters_long(http: httpx.Client, honcho: Honcho) -> None:
    post(http, {"content": "", "peer_id": "alice"}, {"content": "ü" * 25_000, "peer_id": "alice"})
    assert [len(content) for content in contents(honcho)] == [0, 25_000]


def test_metadata_of_a_message_is_replaced(honcho: Honcho) -> None:
    session = honcho.session("s")
    (message,) = session.add_messages(honcho.peer("alice").message("x", metadata={"a": 1}))
    session.update_message(message, {"b": 2})
    assert session.get_message(message.id).metadata == {"b": 2}


def test_an_unknown_message_is_a_404(honcho: Honcho) -> None:
    (message,) = honcho.session("s").add_messages(honcho.peer("alice").message("x"))
    with pytest.raises(NotFoundError):
        honcho.session("s").get_message("nope")
    with pytest.raises(NotFoundError):
        honcho.session("other").get_message(message.id)


def test_posting_keeps_the_join_time_of_a_member(honcho: Honcho, clock: HandClock) -> None:
    alice, session = honcho.peer("alice"), honcho.session("s")
    session.add_messages(alice.message("first tide"))
    clock.seconds += 60
    session.add_messages(alice.message("second tide"))
    assert len(honcho.search("tide", filters={"peer_perspective": "alice"})) == 2


def test_joining_again_hides_earlier_messages(honcho: Honcho, clock: HandClock) -> None:
    alice, session = honcho.peer("alice"), honcho.session("s")
    session.add_messages(alice.message("first tide"))
    clock.seconds += 60
    honcho.session("s")
    assert len(honcho.search("tide", filters={"peer_perspective": "alice"})) == 1
    session.add_peers("alice")
    assert honcho.search("tide", filters={"peer_perspective": "alice"}) == []
    session.add_messages(alice.message("second tide"))
    assert [hit.content for hit in honcho.search("tide", filters={"peer_perspective": "alice"})] == ["second tide"]


def test_former_member_sees_messages_until_it_left(honcho: Honcho, clock: HandClock) -> None:
    alice, bob, session = honcho.peer("alice"), honcho.peer("bob"), honcho.session("s")
    session.add_messages([alice.message("first tide"), bob.message("low tide")])
    clock.seconds += 60
    session.remove_peers("alice")
    clock.seconds += 60
    session.add_messages(bob.message("second tide"))
    found = honcho.search("tide", filters={"peer_perspective": "alice"})
    assert sorted(hit.content for hit in found) == ["first tide", "low tide"]
    assert honcho.search("tide", filters={"peer_perspective": "nobody"}) == []


def test_messages_are_not_filtered_by_id_or_content(honcho: Honcho) -> None:
    for name in ("id", "content", "nonsense"):
        with pytest.raises(UnprocessableEntityError):
            honcho.session("s").messages(filters={name: "x"})
