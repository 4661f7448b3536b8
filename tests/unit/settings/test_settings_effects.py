"""Every setting changes what is sent, injected, stored or waited for: here, or in the test that the table names."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.faulty import FaultyServer, Seen, hang, status
from support.paths import TESTS

from honcho_exec import HonchoProvider
from honcho_exec.settings import Settings
from honcho_exec.settings import schema as declared

EFFECTS = {
    "api_key": "test_the_key_goes_with_every_request",
    "base_url": "test_requests_go_to_the_server_that_is_set",
    "environment": "test_a_key_without_a_url_chooses_a_known_server",
    "enabled": "test_switched_off_nothing_is_stored_or_sent",
    "workspace": "test_names_are_those_that_are_set",
    "peer_name": "test_names_are_those_that_are_set",
    "ai_peer": "test_names_are_those_that_are_set",
    "timeout": "test_a_request_is_cut_off_when_its_time_is_up",
    "sync_join_timeout": "test_a_tool_call_waits_for_a_stuck_sync_as_long_as_it_was_told",
    "retry_attempts": "test_a_request_is_made_so_many_times",
    "retry_max_wait": "test_retry_after_is_capped",
    "retry_deadline": "test_no_request_is_begun_after_the_deadline",
    "shutdown_timeout": "test_closing_drains_as_long_as_it_was_told",
    "breaker_threshold": "test_with_an_open_breaker_tools_answer_at_once_and_say_when_to_try",
    "breaker_cooldown": "test_a_server_that_is_back_is_used_again_within_the_cool_down",
    "outbox_max_rows": "test_a_full_outbox_says_so",
    "pin_user_peer": "test_the_user_is_the_peer_that_is_set",
    "user_peer_aliases": "test_the_user_is_the_peer_that_is_set",
    "runtime_peer_prefix": "test_the_user_is_the_peer_that_is_set",
    "session_strategy": "test_the_session_is_the_one_that_is_set",
    "session_peer_prefix": "test_the_session_is_the_one_that_is_set",
    "sessions": "test_the_session_is_the_one_that_is_set",
    "save_messages": "test_without_saving_no_message_is_written_by_itself",
    "write_frequency": "test_what_is_held_back_is_sent_at_the_end_in_few_requests",
    "save_assistant_messages": "test_without_the_assistants_side_only_the_users_is_written",
    "message_max_chars": "test_a_message_is_split_at_the_length_that_is_set",
    "recall_mode": "test_nothing_is_injected_where_only_tools_are_wanted",
    "context_tokens": "test_injection_keeps_to_the_budget",
    "context_cadence": "test_it_is_fetched_at_its_cadence",
    "dialectic_cadence": "test_it_is_asked_at_its_cadence",
    "injection_frequency": "test_it_is_put_before_every_turn_or_once",
    "init_on_session_start": "test_with_tools_only_the_session_is_made_when_it_is_needed",
    "first_turn_base_wait": "test_the_first_turn_waits_as_long_as_it_was_told",
    "first_turn_dialectic_wait": "test_the_first_turn_waits_as_long_as_it_was_told",
    "recall_sync": "test_it_is_asked_with_the_request_and_waited_for",
    "query_rewrite": "test_the_hosts_rewriter_words_the_first_question",
    "dialectic_depth": "test_each_pass_has_its_level",
    "dialectic_depth_levels": "test_each_pass_has_its_level",
    "dialectic_reasoning_level": "test_the_model_may_choose_a_level_or_not",
    "dialectic_dynamic": "test_the_model_may_choose_a_level_or_not",
    "reasoning_heuristic": "test_the_level_follows_the_length_of_the_request",
    "reasoning_level_cap": "test_the_level_follows_the_length_of_the_request",
    "dialectic_max_chars": "test_an_answer_and_a_question_are_cut",
    "dialectic_max_input_chars": "test_an_answer_and_a_question_are_cut",
    "observation_mode": "test_peers_join_with_the_observation_that_is_set",
    "observation": "test_peers_join_with_the_observation_that_is_set",
    "migrate_memory_files": "test_memory_files_are_given_once_for_each_workspace_and_user",
    "redact": "test_nothing_that_is_kept_on_the_disk_holds_a_secret",
    "llm_base_url": "test_the_tool_and_the_turn_are_answered_by_it",
    "llm_model": "test_the_tool_and_the_turn_are_answered_by_it",
    "llm_api_key": "test_the_model_answers_from_what_is_stored_and_is_named",
}
"""For every setting the test that shows its effect; one without is read and ignored, for all that is known."""


def test_every_setting_has_a_test_of_its_effect() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")}
    defined = {name for text in sources.values() for name in re.findall(r"def (test_\w+)\(", text)}
    assert list(EFFECTS) == list(Settings.model_fields)
    assert {name for name, test in EFFECTS.items() if test not in defined} == set()


Begin = Callable[..., HonchoProvider]


@pytest.fixture
def begin(server: FaultyServer, tmp_path: Path) -> Iterator[Begin]:
    """Begin a conversation of the host with settings, and with what the host says of it in `stated`."""
    made: list[HonchoProvider] = []

    def begin(stated: dict[str, str] | None = None, **settings: object) -> HonchoProvider:
        environ = {"HOME": str(tmp_path), "LOGNAME": "os-user", "HONCHO_BASE_URL": server.url}
        for name, value in settings.items():
            environ[f"HONCHO_{name.upper()}"] = json.dumps(value) if isinstance(value, dict | list) else str(value)
        provider = HonchoProvider(environ=environ, home=tmp_path / "state")
        provider.initialize("run-1", platform="cli", **(stated or {}))
        made.append(provider)
        return provider

    yield begin
    for provider in made:
        provider.shutdown()


def messages(server: FaultyServer) -> list[tuple[str, str, str]]:
    """(path of the session, who, what) of every message that was sent."""
    return [
        (seen.path.removesuffix("/messages").rpartition("/workspaces/")[2], message["peer_id"], message["content"])
        for seen in server.requests
        if seen.is_for("POST", "/messages$")
        for message in seen.body_json["messages"]
    ]


def is_search(seen: Seen) -> bool:
    return seen.is_for("POST", "/search$")


def searched(provider: HonchoProvider) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(provider.handle_tool_call("honcho_search", {"query": "x"}))
    return answer


def test_the_key_goes_with_every_request(server: FaultyServer, begin: Begin) -> None:
    begin(api_key="hch-1").sync_turn("a", "b").result(10)
    assert {seen.headers.get("authorization") for seen in server.requests} == {"Bearer hch-1"}


def test_requests_go_to_the_server_that_is_set(server: FaultyServer, begin: Begin) -> None:
    begin(base_url="embedded").sync_turn("a", "b").result(10)
    assert server.requests == []
    begin(base_url=f"{server.url}/v3/").sync_turn("a", "b").result(10)
    assert len(messages(server)) == 2


@pytest.mark.parametrize("environment", ["production", "local"])
def test_a_key_without_a_url_chooses_a_known_server(
    server: FaultyServer, begin: Begin, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    known = {name: server.url if name == environment else "http://127.0.0.1:9" for name in declared._CLOUD}
    monkeypatch.setattr(declared, "_CLOUD", known)
    begin(base_url="", api_key="hch-1", environment=environment).sync_turn("a", "b").result(10)
    assert len(messages(server)) == 2


def test_switched_off_nothing_is_stored_or_sent(server: FaultyServer, begin: Begin, tmp_path: Path) -> None:
    provider = begin(enabled="false")
    assert provider.sync_turn("a", "b").result(0).written == 0
    assert (provider.prefetch("x"), provider.get_tool_schemas(), provider.system_prompt_block()) == ("", [], "")
    assert searched(provider)["cause"] == "disabled"
    assert "HONCHO_ENABLED" in str(provider.status().problem)
    assert server.requests == []
    assert not (tmp_path / "state").exists()


def test_names_are_those_that_are_set(server: FaultyServer, begin: Begin) -> None:
    begin(workspace="w1", peer_name="ada", ai_peer="jeeves").sync_turn("a", "b").result(10)
    sent = messages(server)
    assert [(path.split("/")[0], peer) for path, peer, _ in sent] == [("w1", "ada"), ("w1", "jeeves")]


@pytest.mark.parametrize(
    ("settings", "peer"),
    [
        ({}, "77"),
        ({"peer_name": "ada"}, "77"),
        ({"peer_name": "ada", "pin_user_peer": "true"}, "ada"),
        ({"user_peer_aliases": {"77": "grace"}}, "grace"),
        ({"user_peer_aliases": {"alt": "grace"}}, "grace"),
        ({"runtime_peer_prefix": "telegram_"}, "telegram_77"),
    ],
)
def test_the_user_is_the_peer_that_is_set(
    server: FaultyServer, begin: Begin, settings: dict[str, object], peer: str
) -> None:
    begin({"user_id": "77", "user_id_alt": "alt"}, **settings).sync_turn("a", "b").result(10)
    assert [who for _, who, _ in messages(server)] == [peer, "hermes"]


@pytest.mark.parametrize(
    ("settings", "session"),
    [
        ({}, "src"),
        ({"session_strategy": "per-repo"}, "repo"),
        ({"session_strategy": "per-session"}, "run-1"),
        ({"session_strategy": "global"}, "hermes"),
        ({"session_peer_prefix": "true", "peer_name": "ada"}, "ada-src"),
        ({"sessions": {"{cwd}": "by hand"}}, "by-hand"),
    ],
)
def test_the_session_is_the_one_that_is_set(
    server: FaultyServer, begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, settings: Any, session: str
) -> None:
    folder = tmp_path.resolve() / "repo" / "src"
    folder.mkdir(parents=True)
    (tmp_path / "repo" / ".git").mkdir()
    monkeypatch.chdir(folder)
    if "sessions" in settings:
        settings = {"sessions": {str(folder): settings["sessions"]["{cwd}"]}}
    begin(**settings).sync_turn("a", "b").result(10)
    assert {path.rpartition("/")[2] for path, _, _ in messages(server)} == {session}


def test_without_saving_no_message_is_written_by_itself(server: FaultyServer, begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "memories").mkdir()
    (tmp_path / "memories" / "USER.md").write_text("Likes tea.", encoding="utf-8")
    provider = begin({"hermes_home": str(tmp_path)}, save_messages="false", migrate_memory_files="true")
    assert provider.sync_turn("a", "b").result(0).written == 0
    provider.on_delegation("find", "found", child_session_id="c1")
    # What is asked for is done.
    assert json.loads(provider.handle_tool_call("honcho_conclude", {"conclusion": "Likes tea."}))["result"]
    provider.remember("s", "user", "by hand").result(10)
    provider.on_session_end([])
    provider.shutdown()
    assert [text for _, _, text in messages(server)] == ["by hand"]


def test_without_the_assistants_side_only_the_users_is_written(server: FaultyServer, begin: Begin) -> None:
    provider = begin(save_assistant_messages="false")
    assert provider.sync_turn("a", "b").result(10).written == 1
    provider.on_delegation("find", "found", child_session_id="c1")
    provider.shutdown()
    assert [text for _, _, text in messages(server)] == ["a"]


def test_a_message_is_split_at_the_length_that_is_set(server: FaultyServer, begin: Begin) -> None:
    begin(message_max_chars=100).sync_turn("word " * 50, "short").result(10)
    sent = [text for _, who, text in messages(server) if who == "os-user"]
    assert len(sent) == 3
    assert all(len(text) <= 100 for text in sent)


@pytest.mark.parametrize(
    ("settings", "user", "ai"),
    [
        ({}, (True, True), (True, True)),
        ({"observation_mode": "unified"}, (True, False), (False, True)),
        ({"observation": {"ai": {"observeMe": False}}}, (True, True), (False, True)),
    ],
)
def test_peers_join_with_the_observation_that_is_set(
    server: FaultyServer, begin: Begin, settings: dict[str, object], user: tuple[bool, bool], ai: tuple[bool, bool]
) -> None:
    begin(**settings).sync_turn("a", "b").result(10)
    (joined,) = [seen.body_json for seen in server.requests if seen.is_for("POST", "/sessions/[^/]+/peers$")]
    observed = {peer: (config["observe_me"], config["observe_others"]) for peer, config in joined.items()}
    assert observed == {"os-user": user, "hermes": ai}


@pytest.mark.parametrize(("at_once", "made"), [("false", 0), ("true", 1)])
def test_with_tools_only_the_session_is_made_when_it_is_needed(
    server: FaultyServer, begin: Begin, at_once: str, made: int
) -> None:
    provider = begin(recall_mode="tools", init_on_session_start=at_once)
    provider.flush(10)
    provider.status()
    assert server.count("POST", "/workspaces/hermes/sessions$") == made
    searched(provider)
    assert server.count("POST", "/workspaces/hermes/sessions$") == 1


@pytest.mark.parametrize(
    ("settings", "level"),
    [({}, "max"), ({"dialectic_dynamic": "false", "dialectic_reasoning_level": "medium"}, "medium")],
)
def test_the_model_may_choose_a_level_or_not(
    server: FaultyServer, begin: Begin, settings: dict[str, object], level: str
) -> None:
    provider = begin(**settings)
    provider.handle_tool_call("honcho_reasoning", {"query": "x", "reasoning_level": "max"})
    (asked,) = [seen.body_json for seen in server.requests if seen.is_for("POST", "/chat$")]
    assert asked["reasoning_level"] == level


def test_a_request_is_cut_off_when_its_time_is_up(server: FaultyServer, begin: Begin) -> None:
    provider = begin(timeout=0.3, retry_attempts=1)
    assert "result" in searched(provider)
    server.rule(match=is_search, fault=hang())
    start = time.monotonic()
    assert searched(provider)["cause"] == "timeout"
    assert time.monotonic() - start < 5


def test_a_tool_call_waits_for_a_stuck_sync_as_long_as_it_was_told(server: FaultyServer, begin: Begin) -> None:
    server.rule(match=("POST", "/messages$"), fault=hang())
    provider = begin(sync_join_timeout=0.3, shutdown_timeout=0.1)
    provider.sync_turn("a", "b")
    start = time.monotonic()
    assert searched(provider)["cause"] == "sync_pending"
    assert 0.2 < time.monotonic() - start < 5


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_request_is_made_so_many_times(server: FaultyServer, begin: Begin, attempts: int) -> None:
    provider = begin(retry_attempts=attempts, retry_max_wait=0.01)
    searched(provider)
    before = server.count("POST", "/search$")
    server.rule(match=is_search, fault=status(503))
    assert searched(provider)["retryable"]
    assert server.count("POST", "/search$") - before == attempts


def test_retry_after_is_capped(server: FaultyServer, begin: Begin) -> None:
    provider = begin(retry_max_wait=0.05)
    searched(provider)
    server.rule(match=is_search, fault=status(429, headers={"Retry-After": "30"}), times=2)
    start = time.monotonic()
    assert "result" in searched(provider)
    assert time.monotonic() - start < 10


def test_no_request_is_begun_after_the_deadline(server: FaultyServer, begin: Begin) -> None:
    provider = begin(retry_attempts=20, retry_max_wait=60, retry_deadline=0.3)
    searched(provider)
    before = server.count("POST", "/search$")
    server.rule(match=is_search, fault=status(429, headers={"Retry-After": "30"}))
    start = time.monotonic()
    assert searched(provider)["retryable"]
    assert time.monotonic() - start < 10
    assert server.count("POST", "/search$") - before < 20


def test_closing_drains_as_long_as_it_was_told(server: FaultyServer, begin: Begin) -> None:
    provider = begin(shutdown_timeout=0.3)
    searched(provider)
    server.rule(match=("POST", "/messages$"), fault=hang())
    provider.sync_turn("a", "b")
    start = time.monotonic()
    provider.shutdown()
    assert 0.2 < time.monotonic() - start < 8
