"""What the host keeps beside the conversation reaches Honcho durably and once."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from support.faulty import Fault, FaultyServer, late_work, reset_after_work, status
from support.processes import conclusions_on, messages_on
from support.providers import MakeProvider

from honcho_exec import HonchoProvider

QUICK = {"timeout": 0.6, "retry_deadline": 1, "retry_max_wait": 0.1, "retry_attempts": 2}
CONCLUDE = ("POST", "/conclusions$")
DELETE = ("DELETE", "/conclusions/")
FILES_SESSION = "memory-files-ada"


def replace(provider: HonchoProvider, old: str, new: str, target: str = "user") -> None:
    provider.on_memory_write("replace", target, new, metadata={"old_text": old}).exception(20)


def conclusion_id(provider: HonchoProvider, content: str) -> str:
    listed = json.loads(provider.handle_tool_call("honcho_conclude", {"list": True}))["conclusions"]
    return next(str(one["id"]) for one in listed if one["content"] == content)


def test_what_the_host_adds_replaces_and_removes_is_so_in_honcho(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    provider = make_provider(base_url=server.url)
    provider.handle_tool_call("honcho_conclude", {"conclusion": "Ada's tea was cold on Monday"})
    provider.on_memory_write("add", "user", "Takes tea without milk").result(10)
    provider.on_memory_write("add", "user", "Takes tea without milk").result(10)
    provider.on_memory_write("add", "memory", "The build needs make").result(10)
    assert conclusions_on(server.url) == [
        "Ada's tea was cold on Monday",
        "Takes tea without milk",
        "The build needs make",
    ]
    replace(provider, "tea", "Takes coffee")
    provider.on_memory_write("remove", "memory", "", metadata={"old_text": "make"}).result(10)
    assert conclusions_on(server.url) == ["Ada's tea was cold on Monday", "Takes coffee"]
    # Somebody deletes it by hand, and the host adds it anew.
    provider.handle_tool_call("honcho_conclude", {"delete_id": conclusion_id(provider, "Takes coffee")})
    provider.on_memory_write("add", "user", "Takes coffee").result(10)
    assert conclusions_on(server.url) == ["Ada's tea was cold on Monday", "Takes coffee"]
    about = {
        (one.observer, one.observed)
        for one in provider._lifecycle.begun()
        .conversation.connect()
        .reads.conclusions("hermes", "ada", query=None, limit=9)
    }
    assert about == {("hermes", "ada")}
    provider.on_memory_write("look", "user", "nothing").result(0)
    assert len(conclusions_on(server.url)) == 2


def test_a_later_process_knows_what_an_earlier_one_gave(server: FaultyServer, make_provider: MakeProvider) -> None:
    server.stop()
    first = make_provider(base_url=server.url, **QUICK)
    first.on_memory_write("add", "user", "Lives in Lisbon, near the river")
    first.on_memory_write("replace", "user", "Lives in Lisbon, near the sea", metadata={"old_text": "river"})
    first.shutdown()
    server.start()
    second = make_provider("another", base_url=server.url)
    replace(second, "Lisbon", "Lives in Porto")
    assert second.flush(20) == 0
    assert conclusions_on(server.url) == ["Lives in Porto"]


def test_the_oldest_of_many_conclusions_is_found(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url)
    provider.on_memory_write("add", "user", "Number 0").result(10)
    url = f"{server.url}/v3/workspaces/hermes/conclusions"
    for start in (1, 101):
        many = [
            {"content": f"Number {number}", "observer_id": "hermes", "observed_id": "ada", "session_id": "s1"}
            for number in range(start, start + 100)
        ]
        httpx.post(url, json={"conclusions": many}, trust_env=False).raise_for_status()
    provider.on_memory_write("remove", "user", "", metadata={"old_text": "Number 0"}).result(10)
    assert conclusions_on(server.url) == [f"Number {number}" for number in range(1, 201)]


def test_adding_again_what_was_removed_while_the_server_was_away(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    server.stop()
    provider = make_provider(base_url=server.url, **QUICK)
    for action in ("add", "remove", "add", "remove", "add"):
        provider.on_memory_write(
            action, "user", "Likes jazz" if action == "add" else "", metadata={"old_text": "jazz", "session_id": action}
        )
    server.start()
    assert provider.flush(20) == 0
    assert conclusions_on(server.url) == ["Likes jazz"]


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize(
    ("request_", "fault"),
    [(CONCLUDE, reset_after_work()), (CONCLUDE, late_work(0.8)), (DELETE, reset_after_work()), (DELETE, status(500))],
    ids=["written", "written late", "deleted", "not deleted"],
)
def test_a_lost_answer_leaves_one_of_the_new_and_none_of_the_old(
    server: FaultyServer, make_provider: MakeProvider, request_: tuple[str, str], fault: Fault
) -> None:
    provider = make_provider(base_url=server.url, recall_mode="tools", **QUICK)
    provider.on_memory_write("add", "user", "Works at a bank").result(10)
    rule = server.rule(match=request_, fault=fault, times=1)
    replace(provider, "bank", "Works at a school")
    assert provider.flush(30) == 0
    assert rule.used == 1
    assert conclusions_on(server.url) == ["Works at a school"]


def test_an_entry_from_before_is_known_from_the_hosts_file(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    """As the bundled provider gave it, which remembered nothing."""
    make_provider("old", base_url=server.url, home="other").handle_tool_call(
        "honcho_conclude", {"conclusion": "Plays chess on Sundays"}
    )
    (tmp_path / "hermes" / "memories").mkdir(parents=True)
    (tmp_path / "hermes" / "memories" / "USER.md").write_text("Has a dog\n§\nPlays chess on Sundays\n")
    environ = {"HOME": str(tmp_path), "LOGNAME": "ada", "HONCHO_BASE_URL": server.url}
    provider = HonchoProvider("s1", environ=environ)
    provider.initialize(hermes_home=str(tmp_path / "hermes"))
    replace(provider, "chess", "Plays go on Sundays")
    provider.shutdown()
    assert conclusions_on(server.url) == ["Plays go on Sundays"]


def host(tmp_path: Path, server: FaultyServer, **settings: object) -> HonchoProvider:
    """A provider in a host whose memory has files from before."""
    home = tmp_path / "hermes"
    (home / "memories").mkdir(parents=True, exist_ok=True)
    (home / "memories" / "MEMORY.md").write_text("Uses pytest\n§\nAuthorization: Bearer abcdef0123456789abcdef")
    (home / "memories" / "USER.md").write_text("Has a dog")
    (home / "SOUL.md").write_text("Kind and short " * 20)
    environ = {"HOME": str(tmp_path), "LOGNAME": "ada", "HONCHO_BASE_URL": server.url}
    environ |= {f"HONCHO_{name.upper()}": str(value) for name, value in settings.items()}
    provider = HonchoProvider("s1", environ=environ)
    provider.initialize(hermes_home=str(home))
    return provider


def test_memory_files_are_given_once_for_each_workspace_and_user(server: FaultyServer, tmp_path: Path) -> None:
    host(tmp_path, server).shutdown()
    assert messages_on(server.url, FILES_SESSION) == []
    wanted = {"migrate_memory_files": True, "message_max_chars": 200}
    server.stop()
    host(tmp_path, server, **wanted, **QUICK).shutdown()
    server.start()
    for round_ in range(3):
        if round_ == 2:
            # The machine has forgotten; the server has not.
            (tmp_path / "hermes" / "honcho_exec" / "known.db").unlink()
        again = host(tmp_path, server, **wanted)
        assert again.flush(20) == 0
        again.shutdown()
        given = messages_on(server.url, FILES_SESSION)
        assert [text.partition("(")[2].partition(")")[0] for text in given] == ["MEMORY.md", "USER.md", "SOUL.md", ""]
    assert "Has a dog" in given[1]
    assert "abcdef0123456789" not in str(given)
    other = host(tmp_path, server, **wanted, peer_name="bob")
    assert other.flush(20) == 0
    other.shutdown()
    assert len(messages_on(server.url, "memory-files-bob")) == 4


def test_memory_files_are_not_given_where_nothing_is_to_be_written(server: FaultyServer, tmp_path: Path) -> None:
    for settings in ({"save_messages": False}, {"enabled": False}):
        host(tmp_path, server, migrate_memory_files=True, **settings).shutdown()
    assert messages_on(server.url, FILES_SESSION) == []


def test_a_subagents_answer_is_the_assistants_and_stored_once(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    provider = make_provider(base_url=server.url)
    for _ in range(2):
        provider.on_delegation("Find a hotel", "The Ritz has rooms", child_session_id="child-1").result(10)
    provider.on_delegation("Find a train", "", child_session_id="child-2").result(0)
    [said] = messages_on(server.url, "s1")
    assert "Find a hotel" in said
    assert "The Ritz has rooms" in said
    [posted] = [seen for seen in server.requests if seen.is_for("POST", "/messages$")]
    assert [message["peer_id"] for message in posted.body_json["messages"]] == ["hermes"]


def test_runs_that_only_read_mirror_nothing(server: FaultyServer, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "LOGNAME": "ada", "HONCHO_BASE_URL": server.url}
    provider = HonchoProvider("s1", environ=environ)
    provider.initialize(agent_context="cron")
    provider.on_memory_write("add", "user", "Never").result(0)
    provider.on_delegation("task", "result").result(0)
    assert provider.on_pre_compress([]) == ""
    assert "conclusions" in provider.handle_tool_call("honcho_conclude", {"list": True})
    provider.on_session_switch("another")
    provider.shutdown()
    # Reading makes no workspace and no session either, and joins nobody.
    assert {seen.path.rpartition("/hermes")[2] for seen in server.requests} == {"/conclusions/list"}
