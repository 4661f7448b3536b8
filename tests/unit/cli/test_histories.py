from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support.commands import Cli

OPENAI: list[dict[str, Any]] = [
    {"role": "system", "content": "You are helpful."},
    {"role": "user", "content": [{"type": "text", "text": "Look at this."}, {"type": "image_url", "image_url": {}}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
    {"role": "tool", "tool_call_id": "c1", "content": "42"},
    {"role": "assistant", "content": "A heron.", "timestamp": 1735689600.5},
]


def kept(cli: Cli, *args: str, stdin: str = "") -> list[tuple[str, str, str, str]]:
    """Bring something in, and return session, peer, content and time of what is remembered then."""
    done = cli("ingest", *args, stdin=stdin)
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    again = json.loads(cli("ingest", *args, "--json", stdin=stdin).stdout)
    assert again["written"] == 0
    records = map(json.loads, cli("export", "-").stdout.splitlines())
    return [
        (record["session"], record["peer"], record["content"], record["created_at"][:19])
        for record in records
        if record["kind"] == "message"
    ]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_of_messages_as_of_openai(cli: Cli, here: Path, indent: int | None) -> None:
    (here / "chat.json").write_text(json.dumps(OPENAI, indent=indent))
    found = kept(cli, "chat.json")
    assert [said[:3] for said in found] == [("chat", "ada", "Look at this."), ("chat", "hermes", "A heron.")]
    assert found[1][3] == "2025-01-01T00:00:00"


def test_conversations_in_a_list_or_one_a_line(cli: Cli, here: Path) -> None:
    first = {"id": "monday", "messages": OPENAI[:2]}
    second = {"title": "tuesday", "messages": [{"role": "user", "content": "And now?"}]}
    (here / "all.json").write_text(json.dumps([first, second]))
    (here / "all.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    sessions = [said[0] for said in kept(cli, "all.json")]
    assert sessions == ["monday", "tuesday"]
    assert [said[0] for said in kept(cli, "all.jsonl")] == sessions, "the same messages are not doubled"
    assert kept(cli, "-", stdin=(here / "all.json").read_text())


@pytest.mark.parametrize("indent", [None, 2])
def test_one_conversation_in_a_file_of_its_own(cli: Cli, here: Path, indent: int | None) -> None:
    (here / "20250101_a1.json").write_text(json.dumps({"session_id": "20250101_a1", "messages": OPENAI}, indent=indent))
    assert [said[0] for said in kept(cli, "20250101_a1.json")] == ["20250101_a1"] * 2


def test_what_a_machine_said_as_the_user_is_left_out(cli: Cli, here: Path) -> None:
    notice = "[System note: the gateway was restarted]"
    (here / "chat.json").write_text(json.dumps([{"role": "user", "content": notice}, OPENAI[4]]))
    assert [said[2] for said in kept(cli, "chat.json")] == ["A heron."]


def test_a_dry_run_says_what_would_go_in(cli: Cli, here: Path) -> None:
    (here / "chat.json").write_text(json.dumps(OPENAI))
    assert (
        "2 messages of 1 sessions would be imported. Nothing was sent."
        in cli("ingest", "chat.json", "--dry-run").stdout
    )
    told = json.loads(cli("ingest", "chat.json", "--dry-run", "--json").stdout)
    assert told == {"dry_run": True, "messages": 2, "sessions": {"chat": 2}}
    assert cli("export", "-").exit_code == 1, "there is no memory yet"


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ('[{"role": "user", "content": 7}]', "`content` must be text, not 7"),
        ('[{"role": "user"}, 3]', "chat[2]: `role` must be"),
        ('[{"role": "user", "content": "x"', "is not JSON"),
        ('{\n"role": "user"\n', "chat:1: is not JSON"),
        ('[{"messages": [{"role": "user", "content": "x", "timestamp": "soon"}]}]', "[1][1]: `created_at` must be"),
        ('{"messages": [{"role": 3, "content": "x"}]}', ':1[1]: `role` must be "user" or "assistant", not 3'),
    ],
)
def test_what_is_wrong_is_named_and_nothing_sent(cli: Cli, here: Path, content: str, wrong: str) -> None:
    (here / "chat").write_text(content)
    refused = cli("ingest", "chat")
    assert (refused.exit_code, wrong in refused.stderr) == (1, True), refused.stderr


def test_another_database_is_named(cli: Cli, here: Path) -> None:
    with sqlite3.connect(here / "other.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    refused = cli("ingest", "other.db")
    assert (refused.exit_code, "is not Hermes's session store" in refused.stderr) == (1, True)
