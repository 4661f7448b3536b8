from __future__ import annotations

import json
import string
from collections.abc import Iterator
from typing import Any

import pytest
from honcho import Honcho
from honcho.http import UnprocessableEntityError
from hypothesis import given, settings
from hypothesis import strategies as st

from honcho_exec.clock import SystemClock
from honcho_exec.embedded.query.filters import MESSAGE_COLUMNS, compile_filters
from honcho_exec.embedded.query.metadata import contains
from honcho_exec.embedded.store.database import Store
from honcho_exec.embedded.store.writing import add_messages
from honcho_exec.embedded.wire import ApiError, NewMessage


@pytest.fixture
def stored(honcho: Honcho) -> Honcho:
    alice, bob, session = honcho.peer("alice"), honcho.peer("bob"), honcho.session("s")
    session.add_messages(
        [
            alice.message("one", metadata={"turn": "a", "n": 1}, created_at="2024-01-01T00:00:00Z"),
            bob.message(
                "two", metadata={"turn": "b", "n": 2, "deep": {"x": {"y": 1}}}, created_at="2024-02-01T00:00:00Z"
            ),
            alice.message(
                "three", metadata={"turn": "c", "n": "10", "tags": ["p", "q"]}, created_at="2024-03-01T00:00:00Z"
            ),
            bob.message("four", created_at="2024-04-01T00:00:00Z"),
        ]
    )
    return honcho


def found(honcho: Honcho, filters: dict[str, Any]) -> list[str]:
    return [message.content for message in honcho.session("s").messages(filters=filters)]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "one two three four"),
        ({"peer_id": "alice"}, "one three"),
        ({"peer_id": {"in": ["bob", "nobody"]}}, "two four"),
        ({"peer_id": ["bob"]}, "two four"),
        ({"peer_id": {"in": []}}, ""),
        ({"peer_id": {"ne": "alice"}}, "two four"),
        ({"peer_id": {"contains": "LI"}}, "one three"),
        ({"peer_id": "*"}, "one two three four"),
        ({"peer_id": {"in": ["*"]}}, "one two three four"),
        ({"session_id": "s", "workspace_id": "home"}, "one two three four"),
        ({"session_id": "other"}, ""),
        ({"created_at": {"gte": "2024-02-01", "lt": "2024-04-01"}}, "two three"),
        ({"created_at": {"gt": "2024-02-01T01:00:00+01:00"}}, "three four"),
        ({"created_at": "2024-01-01T00:00:00Z"}, "one"),
        ({"token_count": {"lte": 1}}, "one two four"),
        ({"metadata": {"turn": "a"}}, "one"),
        ({"metadata": {"turn": "a", "n": 2}}, ""),
        ({"metadata": {"turn": {"in": ["a", "c"]}}}, "one three"),
        ({"metadata": {"turn": {"ne": "a"}}}, "two three four"),
        ({"metadata": {"turn": {"contains": "B"}}}, "two"),
        ({"metadata": {"turn": "*"}}, "one two three four"),
        ({"metadata": {"n": {"gt": 1}}}, "two three"),
        ({"metadata": {"n": {"gte": 1, "lt": "3"}}}, "one two"),
        ({"metadata": {"n": 1.0}}, "one"),
        ({"metadata": {"n": True}}, ""),
        ({"metadata": {"deep": {"x": {"y": 1}}}}, "two"),
        ({"metadata": {"deep": {"x": {}}}}, "two"),
        ({"metadata": {"deep": {"x": {"y": {"gte": 1}}}}}, ""),
        ({"metadata": {"tags": ["q"]}}, "three"),
        ({"metadata": {"contains": {"turn": "b"}}}, "two"),
        ({"metadata": {}}, "one two three four"),
        ({"AND": [{"peer_id": "alice"}, {"metadata": {"turn": "c"}}]}, "three"),
        ({"OR": [{"peer_id": "alice"}, {"metadata": {"turn": "b"}}]}, "one two three"),
        ({"NOT": [{"peer_id": "alice"}]}, "two four"),
        ({"NOT": [{"peer_id": "alice"}, {"metadata": {"turn": "b"}}]}, "four"),
        ({"OR": [{"metadata": {"n": 1}}, {"AND": [{"peer_id": "bob"}, {"token_count": 1}]}]}, "one two four"),
        ({"OR": [{"peer_id": "*"}, {"peer_id": "alice"}]}, "one three"),
        ({"OR": [], "NOT": []}, "one two three four"),
        ({"OR": [{"peer_id": "alice"}, {"peer_id": "bob"}], "metadata": {"turn": "b"}}, "two"),
    ],
)  # fmt: skip
def test_filters_find_what_the_real_server_finds(stored: Honcho, filters: dict[str, Any], expected: str) -> None:
    assert found(stored, filters) == expected.split()


@pytest.mark.parametrize(
    "filters",
    [
        {"id": "x"},
        {"content": "x"},
        {"nonsense": 1},
        {"peer_id": 7},
        {"peer_id": {"like": "x"}},
        {"peer_id": {"in": "x"}},
        {"created_at": "soon"},
        {"created_at": {"gte": 7}},
        {"created_at": {"contains": "2024"}},
        {"token_count": "many"},
        {"metadata": "x"},
        {"metadata": {"gt": 1}},
        {"metadata": {"turn": {"in": "a"}}},
        {"metadata": {"turn": {"gt": 1, "like": 2}}},
        {"metadata": {"turn": {"gt": {}}}},
        {"OR": {"peer_id": "x"}},
        {"AND": ["x"]},
        {"OR": [{"OR": [{"OR": [{"OR": [{"OR": [{"OR": [{"peer_id": "x"}]}]}]}]}]}]},
        {"OR": [{"peer_id": "x"}] * 101},
    ],
)
def test_invalid_filters_are_refused(stored: Honcho, filters: dict[str, Any]) -> None:
    with pytest.raises(UnprocessableEntityError):
        found(stored, filters)


def test_every_list_has_its_own_columns(stored: Honcho) -> None:
    assert [peer.id for peer in stored.peers(filters={"id": {"in": ["bob", "carol"]}})] == ["bob"]
    stored.session("t", metadata={"title": "tea"})
    assert [session.id for session in stored.sessions(filters={"metadata": {"title": "tea"}})] == ["t"]
    assert [session.id for session in stored.sessions(filters={"id": {"contains": "t"}, "is_active": True})] == ["t"]
    assert list(stored.workspaces(filters={"id": "home"})) == ["home"]
    with pytest.raises(UnprocessableEntityError):
        stored.peers(filters={"is_active": True})


def test_filters_limit_a_search(stored: Honcho) -> None:
    stored.session("t").add_messages(stored.peer("alice").message("two teas", metadata={"turn": "t"}))

    def search(**filters: object) -> list[str]:
        return [hit.content for hit in stored.search("two", filters=filters)]

    assert search(session_id={"in": ["t", "u"]}) == ["two teas"]
    assert search(session_id={"in": ["s", "t"]}, metadata={"turn": "b"}) == ["two"]
    assert search(session_id=["u"]) == []
    assert search(peer_id="alice", peer_perspective="alice") == ["two teas"]
    with pytest.raises(UnprocessableEntityError):
        search(peer_perspective=["alice"])
    assert search(OR=[{"session_id": "t"}, {"peer_id": "nobody"}]) == ["two teas"]


leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "a", "b", "é", '"', "*"])
names = st.sampled_from(["a", "b", "gt", 'k"', "ü"])
documents = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
objects = st.dictionaries(names, documents, max_size=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("filters") / "memory.db", SystemClock())
    yield store
    store.close()


@given(document=objects, wanted=st.dictionaries(st.sampled_from(["a", "b", 'k"']), documents, min_size=1, max_size=2))
@settings(max_examples=150, deadline=None)
def test_containment_in_sql_is_containment_in_python(
    store: Store, document: dict[str, Any], wanted: dict[str, Any]
) -> None:
    # Without operators and wildcards: then a metadata filter is containment and nothing else.
    wanted = {key: value for key, value in wanted.items() if value != "*" and not isinstance(value, dict)}
    with store.writing() as writer:
        (row,) = add_messages(writer, "home", "s", [NewMessage(content="x", peer_id="alice", metadata=document)])
    condition = compile_filters({"metadata": wanted}, MESSAGE_COLUMNS)
    with store.reading() as connection:
        matched = connection.execute(
            f"SELECT 1 FROM message WHERE message.key = ? AND {condition.sql}", (row["key"], *condition.values)
        ).fetchone()
    assert bool(matched) == contains(document, wanted)


@given(document=objects)
@settings(max_examples=50, deadline=None)
def test_a_document_contains_itself_and_its_parts(document: dict[str, Any]) -> None:
    assert contains(document, document)
    assert contains(document, {})
    assert all(contains(document, {key: value}) for key, value in document.items())
    assert json.loads(json.dumps(document)) == document


columns = st.sampled_from(["peer_id", "session_id", "created_at", "token_count", "metadata", "AND", "OR", "NOT", "id"])
operators = st.sampled_from(["in", "gt", "lte", "ne", "contains", "icontains", "x", "*"])
operands = leaves | st.floats(allow_nan=False, allow_infinity=False) | st.text(string.printable, max_size=5)
anything = st.recursive(
    operands,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(columns | operators, inner, max_size=3),
    max_leaves=8,
)


@given(filters=st.dictionaries(columns, anything, max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_filter_is_either_run_or_refused(store: Store, filters: dict[str, Any]) -> None:
    try:
        condition = compile_filters(filters, MESSAGE_COLUMNS)
    except ApiError:
        return
    with store.reading() as connection:
        connection.execute(f"SELECT count(*) FROM message WHERE {condition.sql}", condition.values).fetchall()


def test_no_value_of_a_request_is_part_of_the_sql() -> None:
    evil = "x' OR 1=1 --"
    condition = compile_filters({"peer_id": evil, "metadata": {evil: evil, "n": {"gt": evil}}}, MESSAGE_COLUMNS)
    assert evil not in condition.sql
