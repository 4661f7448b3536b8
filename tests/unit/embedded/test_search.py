from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest
from honcho import Honcho
from honcho.http import UnprocessableEntityError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from honcho_exec.embedded.query.words import day_words, indexed, match_expressions, query_words


def store(honcho: Honcho, *said: str, session: str = "s", peer: str = "alice") -> None:
    honcho.session(session).add_messages([honcho.peer(peer).message(text) for text in said])


def hits(honcho: Honcho, query: str, limit: int = 10) -> list[str]:
    return [hit.content for hit in honcho.search(query, limit=limit)]


def test_stored_messages_are_found_at_once(honcho: Honcho) -> None:
    store(honcho, "The harbour was full of painted boats.")
    for query in ("boats", "BOAT", "painting", "harbour?", "a full harbour"):
        assert hits(honcho, query) == ["The harbour was full of painted boats."]


def test_the_best_match_comes_first(honcho: Honcho) -> None:
    store(honcho, "I like tea", session="a")
    store(honcho, "I like green tea with jasmine", session="b")
    store(honcho, "I like coffee", session="c")
    assert hits(honcho, "jasmine tea")[0] == "I like green tea with jasmine"


def test_among_equals_the_newest_comes_first(honcho: Honcho) -> None:
    for session in ("a", "b", "c"):
        store(honcho, f"tea in {session}", session=session)
    assert hits(honcho, "tea", limit=2) == ["tea in c", "tea in b"]


def test_an_answer_is_found_by_its_question(honcho: Honcho) -> None:
    store(honcho, "something else entirely", session="other")
    store(honcho, "What is your favourite colour?")
    store(honcho, "Ultramarine.", peer="bob")
    assert hits(honcho, "favourite colour") == ["What is your favourite colour?", "Ultramarine."]


def test_neighbours_come_from_the_same_session_and_obey_the_filter(honcho: Honcho) -> None:
    store(honcho, "about tea", session="a")
    store(honcho, "unrelated", session="b")
    store(honcho, "also unrelated", session="a", peer="bob")
    assert hits(honcho, "tea") == ["about tea", "also unrelated"]
    assert [hit.content for hit in honcho.peer("alice").search("tea")] == ["about tea"]
    assert [hit.content for hit in honcho.session("b").search("tea")] == []


def test_messages_of_a_named_peer_come_first(honcho: Honcho) -> None:
    store(honcho, "the boat is blue", session="a", peer="bob-jones")
    store(honcho, "the boat is green", session="b", peer="carol")
    assert hits(honcho, "which boat has Bob")[0] == "the boat is blue"


def test_days_are_words(honcho: Honcho) -> None:
    alice = honcho.peer("alice")
    honcho.session("a").add_messages(alice.message("we went sailing", created_at="2023-05-08T10:00:00Z"))
    honcho.session("b").add_messages(alice.message("we went sailing again", created_at="2023-09-10T10:00:00Z"))
    assert day_words("2023-05-08T10:00:00.000000Z") == "2023-05-08 may monday"
    for query in ("sailing in May 2023", "2023-05-08", "monday sailing"):
        assert hits(honcho, query)[0] == "we went sailing"


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("我喜欢喝绿茶", "绿茶"),
        ("我喜欢喝绿茶", "你喜欢什么茶"),
        ("明日は東京に行きます", "東京"),
        ("저는 서울에 삽니다", "서울"),
        ("ผมชอบกินข้าวผัด", "ข้าวผัด"),
        ("мы живём в Москве", "москве"),
        ("Café crème, déjà vu", "cafe"),
        ("launch 🚀 day", "🚀"),
        ("set HONCHO_BASE_URL=x", "base_url"),
        ("see foo/bar.py:12", "bar.py"),
        ("price is 100%", "%"),
        ("the who", "who are you"),
        ("a paragliding course", "paragli"),
    ],
)
def test_text_of_every_kind_is_found(honcho: Honcho, text: str, query: str) -> None:
    store(honcho, "nothing of the kind", session="other")
    store(honcho, text)
    assert hits(honcho, query)[0] == text


@pytest.mark.parametrize("query", ["", "   ", '"', "* OR NEAR(", "zzz", "('", "\0", "content:x", "^a + -b", "x AND"])
def test_odd_queries_find_nothing_and_harm_nothing(
    honcho: Honcho, http_search: Callable[[str], int], query: str
) -> None:
    store(honcho, "the tide is low")
    assert http_search(query) == 0


@pytest.fixture
def http_search(honcho: Honcho) -> Callable[[str], int]:
    def search(query: str) -> int:
        answer = honcho._http._client.post("/v3/workspaces/home/search", json={"query": query})
        assert answer.status_code == 200
        return len(answer.json())

    return search


@given(query=st.text(max_size=60))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_can_be_searched(http_search: Callable[[str], int], query: str) -> None:
    http_search(query)


@given(text=st.text(max_size=80))
@settings(max_examples=300, deadline=None)
def test_fts5_takes_every_expression(text: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE words USING fts5(content, tokenize = 'porter unicode61')")
    connection.execute("INSERT INTO words VALUES (?)", (indexed(text),))
    for expression in match_expressions(text):
        connection.execute("SELECT * FROM words WHERE words MATCH ?", (expression,)).fetchall()
    connection.close()


def test_a_query_as_long_as_a_message_is_cut(honcho: Honcho) -> None:
    store(honcho, "word7 and word9")
    assert hits(honcho, " ".join(f"word{n}" for n in range(3000))) == ["word7 and word9"]
    assert len(query_words("x " * 3 + " ".join(f"w{n}" for n in range(99)))) == 48


def test_the_limit_is_kept(honcho: Honcho) -> None:
    store(honcho, *[f"tea number {n}" for n in range(30)])
    assert len(hits(honcho, "tea", limit=7)) == 7
    assert len(hits(honcho, "tea", limit=100)) == 30
    for limit in (0, 101):
        with pytest.raises((UnprocessableEntityError, ValueError)):
            honcho.search("tea", limit=limit)


def test_search_of_an_unknown_workspace_is_empty(honcho: Honcho, sdk: Callable[[str], Honcho]) -> None:
    post = honcho._http._client.post
    store(honcho, "tea")
    for place in ("home/peers/nobody", "home/sessions/nowhere", "nowhere", "nowhere/peers/nobody"):
        answer = post(f"/v3/workspaces/{place}/search", json={"query": "tea"})
        assert (answer.status_code, answer.json()) == (200, [])
    assert sdk("work").search("tea") == []
