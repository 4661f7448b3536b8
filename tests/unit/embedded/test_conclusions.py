from __future__ import annotations

import httpx
import pytest
from honcho import Honcho
from honcho.http import NotFoundError, UnprocessableEntityError

CONCLUSIONS = "/v3/workspaces/home/conclusions"


@pytest.fixture
def pair(honcho: Honcho) -> Honcho:
    honcho.peer("bot")
    honcho.peer("alice")
    return honcho


def draft(content: str = "likes tea", **fields: object) -> dict[str, object]:
    return {"content": content, "observer_id": "bot", "observed_id": "alice", **fields}


def test_conclusions_are_listed_the_newest_first(pair: Honcho) -> None:
    view = pair.peer("bot").conclusions_of("alice")
    created = view.create([{"content": text} for text in ("one", "two", "three")])
    assert [item.content for item in created] == ["one", "two", "three"]
    assert {(item.observer_id, item.observed_id) for item in created} == {("bot", "alice")}
    assert [item.content for item in view.list()] == ["three", "two", "one"]
    assert [item.content for item in view.list(reverse=True, size=2)] == ["one", "two", "three"]
    assert list(pair.peer("alice").conclusions.list()) == []


def test_conclusions_are_searched_within_their_pair(pair: Honcho) -> None:
    view = pair.peer("bot").conclusions_of("alice")
    view.create([{"content": "likes green tea"}, {"content": "lives by the sea"}])
    pair.peer("alice").conclusions.create([{"content": "likes tea too"}])
    assert [item.content for item in view.query("what tea does she like?")] == ["likes green tea"]
    assert view.query("mountains") == []


def test_no_conclusion_is_derived_from_another(pair: Honcho, http: httpx.Client) -> None:
    (created,) = pair.peer("bot").conclusions_of("alice").create([{"content": "likes green tea"}])
    found = http.post(f"{CONCLUSIONS}/list", json={"filters": {"source_ids": {"contains": created.id}}})
    assert (found.status_code, found.json()["items"]) == (200, [])


def test_equal_conclusions_are_stored_twice(pair: Honcho) -> None:
    view = pair.peer("bot").conclusions_of("alice")
    for _ in range(2):
        view.create([{"content": "likes tea"}])
    assert len(list(view.list())) == 2


def test_conclusions_are_filtered(pair: Honcho) -> None:
    pair.session("s")
    view = pair.peer("bot").conclusions_of("alice")
    first, _ = view.create([{"content": "likes tea", "session_id": "s"}, {"content": "likes sea"}])
    assert [item.content for item in view.list(session="s")] == ["likes tea"]
    assert [item.content for item in view.list(filters={"id": {"in": [first.id]}})] == ["likes tea"]
    assert [item.content for item in view.list(filters={"content": "likes sea"})] == ["likes sea"]
    assert [item.content for item in view.list(filters={"NOT": [{"session_id": "s"}]})] == ["likes sea"]
    assert [item.content for item in view.query("likes", filters={"session_id": "s"})] == ["likes tea"]
    assert list(view.list(filters={"created_at": {"gt": "2030-01-01"}})) == []
    with pytest.raises(UnprocessableEntityError):
        view.list(filters={"colour": "blue"})


@pytest.mark.parametrize("bad", [{"observer_id": "x"}, {"observed_id": "x"}, {"session_id": "x"}])
def test_peers_and_session_must_exist(pair: Honcho, http: httpx.Client, bad: dict[str, str]) -> None:
    answer = http.post(CONCLUSIONS, json={"conclusions": [draft(), draft(**bad)]})
    assert answer.status_code == 404
    assert isinstance(answer.json()["detail"], str)
    assert http.post(f"{CONCLUSIONS}/list").json()["total"] == 0
    assert pair.peer("bot").conclusions_of("alice").query("tea") == []


@pytest.mark.parametrize("bad", ["", "x" * 65_536, None, "<|endoftext|>"])
@pytest.mark.usefixtures("pair")
def test_one_bad_conclusion_refuses_its_batch(http: httpx.Client, bad: object) -> None:
    answer = http.post(CONCLUSIONS, json={"conclusions": [draft(), {**draft(), "content": bad}]})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "conclusions", 1, "content"]
    assert http.post(f"{CONCLUSIONS}/list").json()["total"] == 0


@pytest.mark.usefixtures("pair")
def test_a_query_needs_observer_and_observed(http: httpx.Client) -> None:
    for filters in (None, {}, {"observer_id": "bot"}, {"observed": "alice"}):
        assert http.post(f"{CONCLUSIONS}/query", json={"query": "x", "filters": filters}).status_code == 422
    ready = {"query": "x", "filters": {"observer": "bot", "observed": "alice"}}
    assert http.post(f"{CONCLUSIONS}/query", json=ready).json() == []
    assert http.post("/v3/workspaces/nowhere/conclusions/query", json=ready).json() == []


def test_deleting_twice_is_a_404(pair: Honcho, http: httpx.Client) -> None:
    view = pair.peer("bot").conclusions_of("alice")
    kept, dropped = view.create([{"content": "likes tea"}, {"content": "plays chess"}])
    assert [http.delete(f"{CONCLUSIONS}/{dropped.id}").status_code for _ in range(2)] == [204, 404]
    with pytest.raises(NotFoundError):
        view.delete(dropped.id)
    assert [item.id for item in view.query("tea")] == [kept.id]
    assert view.query("chess") == []
