from __future__ import annotations

import httpx
import pytest
from honcho import Honcho

from honcho_exec.embedded.query.representation import CHAT_PREFACE
from honcho_exec.embedded.query.sentences import cut, key_sentences, sentences, statements


@pytest.fixture
def talked(honcho: Honcho) -> Honcho:
    alice, bot, session = honcho.peer("alice"), honcho.peer("bot"), honcho.session("s")
    session.add_peers([alice, bot])
    session.add_messages(
        [
            alice.message("Hello! I moved to Lisbon last spring. Do you know it?", created_at="2024-05-01T00:00:00Z"),
            bot.message("Yes. What do you do there?", created_at="2024-05-01T00:01:00Z"),
            alice.message("I repair old clocks for a museum.", created_at="2024-05-01T00:02:00Z"),
        ]
    )
    bot.conclusions_of("alice").create([{"content": "alice lives in Lisbon"}, {"content": "alice is patient"}])
    return honcho


def test_representation_has_conclusions_and_messages(talked: Honcho) -> None:
    lines = talked.peer("bot").representation(target="alice").splitlines()
    assert lines == [
        "Conclusions:",
        "- [2025-06-15] alice is patient",
        "- [2025-06-15] alice lives in Lisbon",
        "",
        "Said by alice:",
        "- [2024-05-01] I repair old clocks for a museum.",
        "- [2024-05-01] I moved to Lisbon last spring.",
    ]


def test_matches_of_a_query_come_first(talked: Honcho) -> None:
    lines = talked.peer("bot").representation(target="alice", search_query="where is Lisbon").splitlines()
    assert lines == [
        "Conclusions on this:",
        "- [2025-06-15] alice lives in Lisbon",
        "",
        "Said on this:",
        "- [2024-05-01] alice: Hello! I moved to Lisbon last spring. Do you know it?",
        "- [2024-05-01] bot: Yes. What do you do there?",
        "",
        "Conclusions:",
        "- [2025-06-15] alice is patient",
        "",
        "Said by alice:",
        "- [2024-05-01] I repair old clocks for a museum.",
    ]
    few = talked.peer("bot").representation(target="alice", search_query="Lisbon", max_conclusions=1)
    assert "patient" not in few


def test_representation_is_limited_to_sessions(talked: Honcho) -> None:
    inside = talked.peer("bot").representation(target="alice", session="s")
    assert "clocks" in inside
    assert "patient" not in inside
    assert talked.peer("bot").representation(target="alice", session="elsewhere") == ""


def test_messages_to_others_are_not_revealed(honcho: Honcho) -> None:
    bot = honcho.peer("bot")
    for name in ("alice", "eve"):
        session = honcho.session(f"with-{name}")
        session.add_peers([bot, honcho.peer(name)])
        session.add_messages([honcho.peer(name).message(f"My boat is {name}'s own."), bot.message(f"Ahoy {name}.")])
    for text in (
        bot.representation(target="alice", search_query="boat ahoy"),
        bot.chat("Whose boat, ahoy?", target="alice"),
        bot.context(target="alice", search_query="boat ahoy").representation,
    ):
        assert "alice's own" in str(text)
        assert "eve" not in str(text)


def test_peer_outside_a_session_knows_nothing_of_it(talked: Honcho) -> None:
    assert talked.peer("carol").representation(target="alice") == ""


def test_chat_quotes_stored_items_and_says_so(talked: Honcho) -> None:
    answer = talked.peer("bot").chat("Where does she live, Lisbon?", target="alice")
    assert isinstance(answer, str)
    assert answer.splitlines()[0] == CHAT_PREFACE
    assert "- [2025-06-15] alice lives in Lisbon" in answer
    assert "- [2024-05-01] alice: Hello! I moved to Lisbon last spring." in answer
    assert "patient" not in answer


def test_chat_finds_the_answer_behind_a_question(talked: Honcho) -> None:
    answer = talked.peer("alice").chat("What do I do there?")
    assert isinstance(answer, str)
    assert "I repair old clocks for a museum." in answer


def test_chat_says_nothing_when_nothing_is_relevant(talked: Honcho, http: httpx.Client) -> None:
    assert talked.peer("bot").chat("volcanoes", target="alice") is None
    assert talked.peer("bot").chat("volcanoes", target="nobody") is None
    answer = http.post("/v3/workspaces/nowhere/peers/x/chat", json={"query": "x"})
    assert answer.json() == {"content": None}


@pytest.mark.usefixtures("talked")
def test_chat_is_limited_to_sessions(http: httpx.Client) -> None:
    def ask(**body: object) -> httpx.Response:
        return http.post("/v3/workspaces/home/peers/alice/chat", json={"query": "clocks", **body})

    assert "museum" in ask(session_id="s").json()["content"]
    assert ask(session_id="t").json()["content"] is None
    assert "museum" in ask(filters={"session_id": {"in": ["s", "t"]}}).json()["content"]
    assert ask(filters={"session_id": []}).json()["content"] is None
    for filters in ({"peer_id": "x"}, {"session_id": 7}, {"session_id": ["*"]}):
        assert ask(filters=filters).status_code == 422
    assert ask(session_id="s", filters={"session_id": ["t"]}).status_code == 422
    assert ask(query="x" * 10_001).status_code == 422
    assert ask(scope="x").status_code == 501
    assert ask(response_format={"type": "object"}).status_code == 501


@pytest.mark.usefixtures("talked")
def test_workspace_chat_covers_every_peer(http: httpx.Client) -> None:
    def ask(query: str, workspace: str = "home", **body: object) -> str | None:
        answer = http.post(f"/v3/workspaces/{workspace}/chat", json={"query": query, **body})
        assert answer.status_code == 200
        content: str | None = answer.json()["content"]
        return content

    assert "alice: Hello! I moved to Lisbon last spring." in (ask("Lisbon") or "")
    assert ask("Lisbon", session_id="t") is None
    assert ask("volcanoes") is None
    assert ask("Lisbon", workspace="nowhere") is None


def test_chat_streams(talked: Honcho) -> None:
    whole = talked.peer("bot").chat("Lisbon", target="alice")
    assert "".join(talked.peer("bot").chat_stream("Lisbon", target="alice")) == whole
    assert "".join(talked.peer("bot").chat_stream("volcanoes", target="alice")) == ""


def test_card_is_returned_as_set(talked: Honcho) -> None:
    alice, bot = talked.peer("alice"), talked.peer("bot")
    assert alice.get_card() is None
    assert bot.set_card(["likes clocks"], target="alice") == ["likes clocks"]
    assert bot.get_card(target="alice") == ["likes clocks"]
    assert alice.get_card() is None
    assert bot.get_card() is None
    alice.set_card(["Lisbon"])
    assert alice.get_card() == ["Lisbon"]


def test_the_context_of_a_peer(talked: Honcho) -> None:
    bot = talked.peer("bot")
    bot.set_card(["likes clocks"], target="alice")
    context = bot.context(target="alice", search_query="Lisbon")
    assert (context.peer_id, context.target_id, context.peer_card) == ("bot", "alice", ["likes clocks"])
    assert "alice lives in Lisbon" in str(context.representation)


@pytest.mark.usefixtures("talked")
def test_unknown_peers_have_no_card_and_no_context(http: httpx.Client) -> None:
    for path in ("home/peers/nobody/card", "home/peers/nobody/context", "nowhere/peers/alice/card"):
        assert http.get(f"/v3/workspaces/{path}").status_code == 404
    answer = http.post("/v3/workspaces/home/peers/nobody/representation", json={})
    assert (answer.status_code, answer.json()) == (200, {"representation": ""})


def test_the_context_of_a_session(talked: Honcho) -> None:
    talked.peer("bot").set_card(["likes clocks"], target="alice")
    context = talked.session("s").context(peer_target="alice", peer_perspective="bot")
    assert len(context.messages) == 3
    assert context.summary is None
    assert context.peer_card == ["likes clocks"]
    assert "alice is patient" in str(context.peer_representation)
    confined = talked.session("s").context(peer_target="alice", peer_perspective="bot", limit_to_session=True)
    assert "patient" not in str(confined.peer_representation)


def test_a_context_keeps_the_latest_messages_that_fit(talked: Honcho) -> None:
    messages = talked.session("s").messages()
    latest = list(messages)[-1]
    context = talked.session("s").context(tokens=latest.token_count)
    assert [message.id for message in context.messages] == [latest.id]
    assert talked.session("s").context(tokens=1).messages == []


def test_unknown_sessions_have_an_empty_context(http: httpx.Client) -> None:
    answer = http.get("/v3/workspaces/home/sessions/nowhere/context")
    assert answer.json() == {
        "id": "nowhere", "messages": [], "summary": None, "peer_representation": None, "peer_card": None,
    }  # fmt: skip
    answer = http.get("/v3/workspaces/home/sessions/nowhere/summaries")
    assert answer.json() == {"id": "nowhere", "short_summary": None, "long_summary": None}


@pytest.mark.parametrize(
    ("count", "short", "long", "shown"), [(19, 0, 0, 19), (20, 20, 0, 10), (35, 20, 0, 15), (119, 100, 60, 59)]
)
def test_long_sessions_are_summarized(honcho: Honcho, count: int, short: int, long: int, shown: int) -> None:
    alice, session = honcho.peer("alice"), honcho.session("s")
    messages = []
    for start in range(0, count, 50):
        turns = [alice.message(f"Today the harbour got boat number {n}.") for n in range(start, min(start + 50, count))]
        messages += session.add_messages(turns)
    summaries = session.summaries()
    for summary, covered in ((summaries.short_summary, short), (summaries.long_summary, long)):
        assert (summary.message_id if summary else "") == (messages[covered - 1].id if covered else "")
    context = session.context()
    assert len(context.messages) == shown
    assert (context.summary is None) == (short == 0)
    assert session.context(summary=False).summary is None
    assert len(session.context(summary=False).messages) == count


def test_nothing_is_ever_queued(honcho: Honcho) -> None:
    status = honcho.queue_status()
    assert (status.total_work_units, status.pending_work_units, status.in_progress_work_units) == (0, 0, 0)


def test_text_is_cut_into_sentences() -> None:
    assert sentences("One. Two!  Three?\nfour 我来了。好吗？") == ["One.", "Two!", "Three?", "four 我来了。", "好吗？"]  # noqa: RUF001 - that is how it is written
    assert sentences("") == []
    assert statements("Hi! I really like boats. Do you like boats?") == ["I really like boats."]
    assert cut("one two  three", 9) == "one two…"
    assert cut("one\ntwo", 9) == "one two"


def test_key_sentences_keep_the_order_and_the_speaker() -> None:
    said = [("alice", "The museum clock broke again."), ("bob", "Hm."), ("bob", "I mend the museum clock tomorrow.")]
    assert key_sentences(said, 5) == ["alice: The museum clock broke again.", "bob: I mend the museum clock tomorrow."]
    assert key_sentences([], 5) == []
