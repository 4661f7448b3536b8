"""Commands that only read create nothing on a server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.commands import Cli, WriteLines
from support.faulty import FaultyServer, Seen

READING = {
    "status": ("status",),
    "doctor": ("doctor",),
    "search": ("search", "where does she live"),
    "search of the assistant": ("search", "Lisbon", "--peer", "ai", "--limit", "100"),
    "profile": ("profile",),
    "profile of the assistant": ("profile", "--peer", "ai"),
    "context": ("context",),
    "context of the assistant": ("context", "--peer", "ai"),
    "conclusions": ("conclude", "--list"),
    "conclusions found": ("conclude", "--list", "--query", "tea"),
}
# What Honcho answers from what it has; everything else that is a POST creates, or changes, something.
READS = re.compile(r"/(list|query|search|chat|representation)$|/peers/[^/]+/sessions$")


@pytest.fixture
def asked(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> FaultyServer:
    monkeypatch.setenv("HONCHO_BASE_URL", server.url)
    return server


def changing(server: FaultyServer) -> list[Seen]:
    return [seen for seen in server.requests if seen.method != "GET" and not READS.search(seen.path)]


@pytest.mark.parametrize("args", READING.values(), ids=READING)
def test_reading_creates_nothing(cli: Cli, asked: FaultyServer, write_lines: WriteLines, args: tuple[str, ...]) -> None:
    done = cli(*args)
    assert (done.exit_code, done.stderr) == (0, "")
    assert asked.requests
    assert changing(asked) == []

    chat = write_lines("chat.jsonl", [{"role": "user", "content": "I live in Lisbon"}])
    assert cli("ingest", str(chat)).exit_code == 0
    assert changing(asked)
    asked.clear()
    done = cli(*args)
    assert (done.exit_code, done.stderr) == (0, "")
    assert asked.requests
    assert changing(asked) == []


def test_reading_does_not_take_the_hosts_memory_files_to_the_server(
    cli: Cli, asked: FaultyServer, tmp_path: Path
) -> None:
    memories = tmp_path / "hermes" / "memories"
    memories.mkdir(parents=True)
    (memories / "USER.md").write_text("Lives in Lisbon")
    for args in READING.values():
        assert cli("--hermes-home", str(tmp_path / "hermes"), *args).exit_code == 0
    assert changing(asked) == []


@pytest.mark.usefixtures("asked")
def test_what_is_read_of_a_server_that_knows_nothing_says_so(cli: Cli) -> None:
    assert cli("search", "Lisbon").stdout == "Nothing was found.\n"
    assert json.loads(cli("search", "Lisbon", "--json").stdout) == {"hits": []}
    assert cli("context").stdout == "Nothing is stored for this session yet.\n"
    assert cli("profile").stdout.startswith("There are no facts on this card yet.\n")
    assert cli("conclude", "--list").stdout == "There are no conclusions.\n"
    assert cli("search", "Lisbon", "--peer", "nobody").exit_code == 2
