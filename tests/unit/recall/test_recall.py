"""What is put before a turn, and what each setting of it does."""

from __future__ import annotations

import json
import threading
import time

import pytest
from support.faulty import FaultyServer, Gate, gate, hang, status
from support.providers import MakeProvider
from support.recalling import at_rest, chats, levels, script, turn, under_way

from honcho_exec import HonchoProvider

# For tests of something else than the first turn: its waits are generous enough for any machine.
PATIENT = {"first_turn_base_wait": 20, "first_turn_dialectic_wait": 20}
LONG = "The weather on the coast has been changing all through this long week of sailing. "


def bases(server: FaultyServer) -> int:
    """How often the base context was asked for."""
    return server.count("GET", "/sessions/.*/context")


class TestBaseContext:
    """What is known without a language model."""

    def test_what_is_known_is_put_before_the_first_turn(self, make_provider: MakeProvider) -> None:
        provider = make_provider(**PATIENT)
        provider.handle_tool_call("honcho_conclude", {"conclusion": "Likes green tea"})
        provider.handle_tool_call("honcho_profile", {"card": ["Name: Ada"]})
        provider.handle_tool_call("honcho_profile", {"card": ["Speaks plainly"], "peer": "ai"})
        text = provider.prefetch("What do I drink?")
        assert "## User representation\n" in text
        assert "Likes green tea" in text
        assert "## User card\nName: Ada" in text
        assert "## Assistant's own card\nSpeaks plainly" in text

    def test_a_long_session_comes_with_its_summary(self, make_provider: MakeProvider) -> None:
        provider = make_provider(**PATIENT)
        for number in range(20):
            provider.sync_turn(f"Fact number {number} about the garden.", "I see.")
        provider.flush(20)
        assert provider.prefetch("garden").startswith("## Session summary\n")

    def test_injection_keeps_to_the_budget(self, make_provider: MakeProvider) -> None:
        provider = make_provider(context_tokens=50, **PATIENT)
        for number in range(20):
            provider.handle_tool_call("honcho_conclude", {"conclusion": f"Conclusion number {number} on green tea"})
        text = provider.prefetch("tea")
        assert 100 < len(text) <= 50 * 4
        assert text.removesuffix("…").rstrip().endswith("on green tea")

    def test_it_is_fetched_at_its_cadence(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        provider = make_provider(base_url=server.url, context_cadence=3, **PATIENT)
        counted = []
        for number in range(7):
            turn(provider, f"question {number}")
            counted.append(bases(server))
        # Before turn 1, then after turns 3 and 6.
        assert counted == [1, 1, 2, 2, 2, 3, 3]

    def test_it_is_put_before_every_turn_or_once(self, make_provider: MakeProvider) -> None:
        make_provider("x").handle_tool_call("honcho_profile", {"card": ["Name: Ada"]})
        always, once = make_provider("x", **PATIENT), make_provider("x", injection_frequency="first-turn", **PATIENT)
        assert ["Ada" in turn(always, f"question {number}") for number in range(3)] == [True, True, True]
        assert ["Ada" in turn(once, f"question {number}") for number in range(3)] == [True, False, False]

    def test_what_is_asked_decides_what_is_told(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        turn(make_provider(base_url=server.url, **PATIENT), "Which tea?")
        asked = [seen.query for seen in server.requests if seen.is_for("GET", "/peers/ada/context|/peers/.*/context")]
        assert any("search_query=Which" in query for query in asked)

    def test_what_grew_too_old_is_dropped(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        provider = make_provider(base_url=server.url, **PATIENT)
        provider.handle_tool_call("honcho_profile", {"card": ["Name: Ada"]})
        assert "Ada" in turn(provider, "one")
        server.rule(match=("GET", "/context"), fault=status(503))
        assert ["Ada" in turn(provider, f"question {number}") for number in range(3)] == [True, True, False]
        server.heal()
        turn(provider, "again")
        assert "Ada" in turn(provider, "and again")


class TestRecallMode:
    """Who is told at all."""

    def test_nothing_is_injected_where_only_tools_are_wanted(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        provider = make_provider(base_url=server.url, recall_mode="tools")
        provider.queue_prefetch("x")
        assert provider.prefetch("x") == ""
        assert provider.get_tool_schemas()
        assert make_provider(recall_mode="context").get_tool_schemas() == []
        provider.flush(10)
        assert bases(server) + len(chats(server)) == 0

    @pytest.mark.parametrize("context", ["cron", "flush", "subagent"])
    def test_nothing_is_injected_in_runs_that_only_read(self, server: FaultyServer, context: str) -> None:
        provider = HonchoProvider("s", environ={"HONCHO_BASE_URL": server.url})
        provider.initialize("run", agent_context=context)
        provider.queue_prefetch("tea")
        assert provider.prefetch("tea") == ""
        provider.shutdown()
        assert bases(server) + len(chats(server)) == 0

    def test_nothing_is_asked_before_there_is_a_turn(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        provider = make_provider(base_url=server.url)
        provider.handle_tool_call("honcho_profile", {})
        assert bases(server) + len(chats(server)) == 0


class TestDialectic:
    """What the language model is asked, how often, and what of its answer is told."""

    def test_its_answer_is_told_once(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        script(server, "She is tired.", None)
        provider = make_provider(base_url=server.url, **PATIENT)
        assert "## What matters now\nShe is tired." in turn(provider, "one")
        assert "She is tired." not in turn(provider, "two")

    def test_it_is_asked_at_its_cadence(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        script(server, "She is tired.")
        provider = make_provider(base_url=server.url, dialectic_cadence=3, **PATIENT)
        counted = []
        for number in range(7):
            turn(provider, f"question {number}")
            counted.append(len(chats(server)))
        assert counted == [1, 1, 2, 2, 2, 3, 3]
        assert bases(server) == 8

    def test_the_cadence_survives_a_restart(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        script(server, "She is tired.")
        for number in range(7):
            provider = make_provider(base_url=server.url, dialectic_cadence=3, **PATIENT)
            turn(provider, f"question {number}")
            provider.shutdown()
        assert len(chats(server)) == 3
        assert provider_turns(make_provider(base_url=server.url)) == 7

    def test_empty_answers_are_asked_for_ever_less_often(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        script(server, None)
        provider = make_provider(base_url=server.url, **PATIENT)
        asked_in = []
        for number in range(1, 41):
            before = len(chats(server))
            turn(provider, f"question {number}")
            asked_in += [number] * (len(chats(server)) - before)
        # Before and after turn 1; then the wait doubles up to eight times the cadence.
        assert asked_in == [1, 1, 3, 7, 15, 23, 31, 39]

    def test_an_empty_answer_does_not_use_up_the_cadence(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        script(server, None, "She is tired.")
        provider = make_provider(base_url=server.url, dialectic_cadence=5, **PATIENT)
        assert "tired" not in turn(provider, "one")
        assert len(chats(server)) == 2
        assert "tired" in turn(provider, "two")
        assert len(chats(server)) == 2

    def test_a_server_that_cannot_be_reached_uses_up_nothing(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        server.rule(match=("POST", "/chat$"), fault=status(429))
        provider = make_provider(base_url=server.url, breaker_threshold=100, **PATIENT)
        for number in range(5):
            turn(provider, f"question {number}")
        assert len(chats(server)) == 6
        assert provider_costs(provider) == 0

    def test_it_asks_of_the_person_first_and_of_the_conversation_later(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        script(server, "She is tired.")
        provider = make_provider(base_url=server.url, **PATIENT)
        turn(provider, "Shall I sleep?")
        cold, warm = chats(server)
        assert cold.startswith("Who is the user?")
        assert "in this conversation" in warm
        assert warm.endswith("Shall I sleep?")

    def test_each_pass_builds_on_the_one_before(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        script(server, "She is tired.", "She works at night.", "She works at night, so she is tired.")
        provider = make_provider(base_url=server.url, dialectic_depth=3, dialectic_reasoning_level="high", **PATIENT)
        text = provider.prefetch("Shall I sleep?")
        assert "What matters now\nShe works at night, so she is tired." in text
        _, second, third = chats(server)
        assert "Assessment 1:\nShe is tired." in second
        assert "Assessment 2:\nShe works at night." in third
        assert levels(server) == ["minimal", "high", "low"]

    @pytest.mark.parametrize("strong", [LONG * 5, "# Now\n- tired\n- at sea\n" + LONG * 2])
    def test_a_strong_first_pass_is_enough(
        self, server: FaultyServer, make_provider: MakeProvider, strong: str
    ) -> None:
        script(server, strong)
        make_provider(base_url=server.url, dialectic_depth=3, **PATIENT).prefetch("Shall I sleep?")
        assert len(chats(server)) == 1

    def test_after_an_empty_pass_the_first_question_is_asked_again(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        script(server, None, "She is tired.")
        provider = make_provider(base_url=server.url, dialectic_depth=2, **PATIENT)
        assert "She is tired." in provider.prefetch("Shall I sleep?")
        first, second = chats(server)
        assert first == second

    @pytest.mark.parametrize(
        ("given", "asked"), [("medium,max", ["medium", "max"]), ('["high"]', ["high", "low"]), ("", ["minimal", "low"])]
    )
    def test_each_pass_has_its_level(
        self, server: FaultyServer, make_provider: MakeProvider, given: str, asked: list[str]
    ) -> None:
        script(server, "Tired.")
        provider = make_provider(base_url=server.url, dialectic_depth=2, dialectic_depth_levels=given, **PATIENT)
        provider.prefetch("Shall I sleep?")
        assert levels(server) == asked

    @pytest.mark.parametrize(
        ("length", "chosen", "level"),
        [
            (119, {}, "low"),
            (120, {}, "medium"),
            (400, {}, "high"),
            (400, {"reasoning_level_cap": "medium"}, "medium"),
            (400, {"reasoning_heuristic": "false"}, "low"),
            (400, {"dialectic_reasoning_level": "high", "reasoning_level_cap": "max"}, "max"),
            (10, {"dialectic_reasoning_level": "minimal"}, "minimal"),
        ],
    )
    def test_the_level_follows_the_length_of_the_request(
        self, server: FaultyServer, make_provider: MakeProvider, length: int, chosen: dict[str, str], level: str
    ) -> None:
        script(server, "Tired.")
        make_provider(base_url=server.url, **chosen, **PATIENT).prefetch("x" * length)
        assert levels(server) == [level]

    def test_an_answer_and_a_question_are_cut(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        script(server, LONG * 20)
        provider = make_provider(base_url=server.url, **PATIENT)
        told = provider.prefetch(LONG).split("What matters now\n")[1]
        assert 580 < len(told) <= 600
        assert told.endswith("…")
        short = make_provider("t", base_url=server.url, dialectic_max_chars=50, dialectic_max_input_chars=90, **PATIENT)
        assert len(short.prefetch(LONG).split("What matters now\n")[1]) <= 50
        assert len(chats(server)[-1]) <= 90
        assert len(chats(server)[0]) > 200
        whole = make_provider("u", base_url=server.url, dialectic_max_chars=0, **PATIENT)
        assert len(whole.prefetch(LONG).split("What matters now\n")[1]) > 1000

    def test_a_question_of_the_models_own_takes_its_turn(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        script(server, "She is tired.")
        provider = make_provider(base_url=server.url, **PATIENT)
        provider.prefetch("Shall I sleep?")
        provider.handle_tool_call("honcho_reasoning", {"query": "Is she tired?"})
        provider.queue_prefetch("Shall I sleep?")
        at_rest(provider)
        assert len(chats(server)) == 2

    def test_the_hosts_rewriter_words_the_first_question(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        def rewrite(message: str) -> str:
            return f"What is known of the user's {message.rsplit(maxsplit=1)[-1]}?"

        script(server, "Tired.")
        for wanted in ("true", "false"):
            provider = make_provider(base_url=server.url, query_rewriter=rewrite, query_rewrite=wanted, **PATIENT)
            provider.prefetch("Shall I sleep")
            provider.shutdown()
            server.rule(match=("POST", "/chat$"), fault=status(200))
        first, second = chats(server)
        assert first == "What is known of the user's sleep?"
        assert second.startswith("What do you know")

    @pytest.mark.parametrize("fault", ["raises", "hangs", "empty"])
    def test_a_rewriter_that_fails_costs_the_wording_only(
        self, server: FaultyServer, make_provider: MakeProvider, fault: str
    ) -> None:
        free = threading.Event()

        def rewrite(_: str) -> str:
            if fault == "raises":
                raise OSError("no model")
            if fault == "hangs":
                free.wait(20)
            return ""

        script(server, "Tired.")
        provider = make_provider(
            base_url=server.url, query_rewriter=rewrite, query_rewrite="true", timeout=0.5, **PATIENT
        )
        assert "Tired." in provider.prefetch("Shall I sleep?")
        free.set()
        assert chats(server)[0].startswith("Who is the user?")


class TestTurns:
    """What counts as a turn."""

    def test_an_announced_turn_is_one_however_often_it_is_recalled_for(self, make_provider: MakeProvider) -> None:
        provider = make_provider(**PATIENT)
        for number in range(1, 4):
            provider.on_turn_start(number, "tea?")
            provider.prefetch("tea?")
            provider.prefetch("tea?")
            provider.queue_prefetch("tea?")
        provider.on_turn_start(4, "a skill, for which nothing is recalled")
        provider.on_turn_start(5, "tea?")
        provider.prefetch("tea?")
        assert provider_turns(provider) == 5

    def test_without_announcements_recalling_begins_a_turn(self, make_provider: MakeProvider) -> None:
        provider = make_provider(**PATIENT)
        provider.queue_prefetch("tea?")
        provider.prefetch("tea?")
        provider.prefetch("the one before was interrupted")
        provider.queue_prefetch("tea?")
        assert provider_turns(provider) == 3


class TestTrivial:
    """A prompt that asks for nothing starts nothing."""

    @pytest.mark.parametrize(
        "prompt",
        ["ok", "Thanks!", "yes, go ahead", "/help", "/title My talk", "👍", "", "  ", "OK, thank you!", "谢谢"],
    )
    def test_it_starts_nothing(self, server: FaultyServer, make_provider: MakeProvider, prompt: str) -> None:
        provider = make_provider(base_url=server.url, **PATIENT)
        turn(provider, prompt)
        assert bases(server) + len(chats(server)) == 0

    @pytest.mark.parametrize("prompt", ["hi", "/etc/hosts is empty, why?", "ok, and the garden?", "no idea", "是吗"])
    def test_a_short_question_does(self, server: FaultyServer, make_provider: MakeProvider, prompt: str) -> None:
        provider = make_provider(base_url=server.url, **PATIENT)
        turn(provider, prompt)
        assert bases(server) == 2


class TestWaiting:
    """Only the first turn waits, and only as long as it was told."""

    def test_the_first_turn_waits_as_long_as_it_was_told(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        provider = make_provider(base_url=server.url, first_turn_base_wait=0.2, first_turn_dialectic_wait=0.4)
        provider.flush(10)
        held = Gate()
        server.rule(match=("*", "/context|/chat$"), fault=gate(held))
        start = time.monotonic()
        assert provider.prefetch("tea") == ""
        assert 0.4 <= time.monotonic() - start < 2
        start = time.monotonic()
        assert provider.prefetch("tea") == ""
        assert time.monotonic() - start < 1
        held.proceed.set()

    def test_no_wait_is_no_wait(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        provider = make_provider(base_url=server.url, first_turn_base_wait=0, first_turn_dialectic_wait=0)
        held = Gate()
        server.rule(match=("*", "/context|/chat$"), fault=gate(held))
        start = time.monotonic()
        assert provider.prefetch("tea") == ""
        assert time.monotonic() - start < 1
        held.proceed.set()

    def test_a_hung_answer_costs_nothing_elsewhere(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        provider = make_provider(base_url=server.url, shutdown_timeout=1, first_turn_dialectic_wait=0)
        provider.handle_tool_call("honcho_profile", {"card": ["Name: Ada"]})
        server.rule(match=("POST", "/chat$"), fault=hang())
        provider.prefetch("tea")
        assert server.wait_count(1, "POST", "/chat$")
        start = time.monotonic()
        provider.queue_prefetch("tea")
        assert provider.sync_turn("meanwhile", "").result(5).written == 1
        assert "result" in json.loads(provider.handle_tool_call("honcho_search", {"query": "tea"}))
        under_way(provider)[0].result(5)
        assert "Name: Ada" in provider.prefetch("tea")
        assert time.monotonic() - start < 5
        start = time.monotonic()
        provider.shutdown()
        assert time.monotonic() - start < 3

    def test_each_is_asked_once_at_a_time_however_often_it_is_due(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        provider = make_provider(base_url=server.url, first_turn_base_wait=0, first_turn_dialectic_wait=0)
        held = Gate()
        server.rule(match=("*", "/context|/chat$"), fault=gate(held))
        for number in range(50):
            provider.prefetch(f"tea {number}")
            provider.queue_prefetch(f"tea {number}")
        assert server.wait_count(2, "*", "/context$|/chat$")
        assert recalling_threads() <= 2
        held.proceed.set()
        at_rest(provider)
        assert len(chats(server)) == 1

    def test_conversations_share_a_bounded_number_of_threads(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        held = Gate()
        settings = {"base_url": server.url, "first_turn_base_wait": 0, "first_turn_dialectic_wait": 0}
        providers = [make_provider(f"s{number}", **settings) for number in range(40)]
        assert all(provider.flush(20) == 0 for provider in providers)
        server.rule(match=("*", "/context|/chat$"), fault=gate(held))
        script(server, "She is tired.")
        for provider in providers:
            assert provider.prefetch("tea?") == ""
        assert server.wait_count(32, "*", "/context$|/chat$", timeout=20)
        assert recalling_threads() == 32
        held.proceed.set()
        for provider in providers:
            at_rest(provider)
            assert "She is tired." in provider.prefetch("ok")


class TestStaleness:
    """What belongs to another session, or comes too late, is never told."""

    def test_an_answer_that_comes_late_is_told_while_it_is_fresh(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        for turns, told in ((1, True), (3, False)):
            held = Gate()
            server.heal()
            server.rule(match=("POST", "/chat$"), fault=gate(held), times=1)
            script(server, "She is tired.", None)
            provider = make_provider(f"s{turns}", base_url=server.url, first_turn_dialectic_wait=0)
            for number in range(turns):
                provider.prefetch(f"question {number}")
                provider.queue_prefetch("ok")
            held.proceed.set()
            at_rest(provider)
            assert ("She is tired." in provider.prefetch("and now?")) is told

    @pytest.mark.parametrize("way", [["b"], ["b", "a"]], ids=["to another", "there and back"])
    def test_nothing_late_of_another_session_is_told(
        self, server: FaultyServer, make_provider: MakeProvider, way: list[str]
    ) -> None:
        provider = make_provider(
            None, base_url=server.url, session_strategy="per-session", first_turn_base_wait=0,
            first_turn_dialectic_wait=0,
        )  # fmt: skip
        provider.on_session_switch("a")
        provider.handle_tool_call("honcho_profile", {"card": ["Name: Ada"]})
        held = Gate()
        server.rule(match=("*", "/chat$|/context$"), fault=gate(held))
        script(server, "She is tired.")
        provider.prefetch("tea?")
        assert server.wait_count(2, "*", "/chat$|/context$")
        late = under_way(provider)
        for session in way:
            provider.on_session_switch(session)
        held.proceed.set()
        assert [bool(job.result(20)) for job in late] == [True, True]
        assert provider.prefetch("ok") == ""

    @pytest.mark.parametrize("how", ["reset", "rewound"])
    def test_nothing_is_told_of_what_was_taken_back(
        self, server: FaultyServer, make_provider: MakeProvider, how: str
    ) -> None:
        script(server, "She is tired.")
        provider = make_provider(base_url=server.url, **PATIENT)
        turn(provider, "tea?")
        provider.on_session_switch("same", **{how: True})
        assert provider.prefetch("ok") == ""

    def test_a_late_request_for_another_run_is_not_answered(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        provider = make_provider(None, base_url=server.url, session_strategy="per-session", **PATIENT)
        provider.on_session_switch("a")
        provider.on_session_switch("b")
        provider.queue_prefetch("tea?", session_id="a")
        assert provider.prefetch("tea?", session_id="a") == ""
        at_rest(provider)
        assert bases(server) == 0
        provider.queue_prefetch("tea?", session_id="b")
        at_rest(provider)
        assert bases(server) == 1


class TestCurrentQuery:
    """With recallSync a turn is told what was asked for its own request, or nothing."""

    def test_it_is_asked_with_the_request_and_waited_for(
        self, server: FaultyServer, make_provider: MakeProvider
    ) -> None:
        script(server, "She sleeps badly.", "She drinks tea.", None)
        provider = make_provider(base_url=server.url, recall_sync="true")
        assert "She sleeps badly." in turn(provider, "Shall I sleep?")
        assert "She drinks tea." in turn(provider, "What do I drink?")
        first, second = chats(server)
        assert first.endswith("The request:\nShall I sleep?")
        assert second.endswith("The request:\nWhat do I drink?")
        assert [seen.query for seen in server.requests if "search_query" in seen.query][-1].count("drink") == 1
        assert turn(provider, "ok") == ""

    def test_what_is_late_is_left_out_and_not_replaced(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        script(server, "She sleeps badly.", "She drinks tea.", None)
        provider = make_provider(base_url=server.url, recall_sync="true", timeout=1)
        provider.handle_tool_call("honcho_profile", {"card": ["Name: Ada"]})
        assert "badly" in turn(provider, "Shall I sleep?")
        server.heal()
        server.rule(match=("*", "/chat$|/context$"), fault=hang())
        start = time.monotonic()
        assert provider.prefetch("What do I drink?") == ""
        assert 0.9 < time.monotonic() - start < 3
        server.heal()
        server.release()
        script(server, "She rides.")
        at_rest(provider)
        text = provider.prefetch("What do I ride?")
        assert "She rides." in text
        assert "tea" not in text

    def test_what_fails_is_left_out(self, server: FaultyServer, make_provider: MakeProvider) -> None:
        provider = make_provider(base_url=server.url, recall_sync="true")
        provider.handle_tool_call("honcho_profile", {"card": ["Name: Ada"]})
        server.rule(match=("POST", "/chat$"), fault=status(500))
        assert provider.prefetch("Who am I?") == "## User card\nName: Ada"


def test_later_turns_go_to_the_session_that_was_switched_to(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(None, base_url=server.url, session_strategy="per-session")
    provider.on_session_switch("first")
    provider.sync_turn("in the first", "")
    provider.on_session_switch("second")
    provider.sync_turn("in the second", "")
    assert provider.flush(10) == 0
    posted = {
        seen.path.split("/")[5]: seen.body_json["messages"][0]["content"]
        for seen in server.requests
        if seen.is_for("POST", "/messages$")
    }
    assert posted == {"first": "in the first", "second": "in the second"}


def recalling_threads() -> int:
    names = [thread.name for thread in threading.enumerate()]
    return sum(name.startswith(("honcho-recall", "honcho-dialectic")) for name in names)


def provider_turns(provider: HonchoProvider) -> int:
    assert provider._lifecycle.components is not None
    return provider._lifecycle.components.usage.costs("s1")[0].turns


def provider_costs(provider: HonchoProvider) -> int:
    assert provider._lifecycle.components is not None
    return provider._lifecycle.components.usage.costs("s1")[0].llm_calls
