"""`outbox redirect`, as a person uses it after a URL was mistyped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.commands import Cli, WriteLines, in_a_terminal
from support.faulty import FaultyServer

WRONG = "http://127.0.0.1:9"


@pytest.fixture
def mistyped(cli: Cli, server: FaultyServer, write_lines: WriteLines, monkeypatch: pytest.MonkeyPatch) -> FaultyServer:
    """Three messages that wait for an address where nothing is, and settings that name the right one now."""
    monkeypatch.setenv("HONCHO_RETRY_ATTEMPTS", "1")
    monkeypatch.setenv("HONCHO_BASE_URL", WRONG)
    chat = write_lines("chat.jsonl", [{"role": "user", "content": text} for text in ("one", "two", "three")])
    assert cli("ingest", str(chat), "--timeout", "0.2").exit_code == 1
    monkeypatch.setenv("HONCHO_BASE_URL", server.url)
    return server


def said_at(server: FaultyServer) -> list[str]:
    posted = [seen.body_json for seen in server.requests if seen.is_for("POST", "/messages$")]
    return [message["content"] for body in posted for message in body["messages"]]


def test_rows_for_a_mistyped_address_arrive_once_and_in_order(cli: Cli, mistyped: FaultyServer) -> None:
    done = cli("outbox", "redirect", "--yes")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"3 rows for {WRONG}, workspace hermes, the oldest for")
    assert done.stdout.endswith("3 rows moved. Send them now with: honcho-exec outbox flush\n")
    assert cli("outbox", "flush").stdout == "3 of 3 rows were delivered.\n"
    assert said_at(mistyped) == ["one", "two", "three"]
    assert cli("outbox", "redirect", "--yes").stdout == "There are no rows for another address.\nNothing was moved.\n"


@pytest.mark.usefixtures("mistyped")
def test_status_and_doctor_print_the_command(cli: Cli) -> None:
    for command in ("status", "doctor"):
        assert "honcho-exec outbox redirect" in " ".join(cli(command).stdout.split())


def test_answers_in_json(cli: Cli, mistyped: FaultyServer) -> None:
    done = cli("outbox", "redirect", "--from", WRONG, "--yes", "--json")
    known: dict[str, Any] = json.loads(done.stdout)
    assert known == {"to": mistyped.url, "moved": 3, "duplicates": 0, "left": []}


@pytest.mark.usefixtures("mistyped")
def test_nothing_is_moved_before_the_person_agrees(cli: Cli) -> None:
    done = cli("outbox", "redirect")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--yes moves the rows without asking" in done.stderr
    code, seen = in_a_terminal("outbox", "redirect", typed="n\n")
    assert code == 1
    assert "nothing was moved" in seen
    assert json.loads(cli("outbox", "list", "--json").stdout)["elsewhere"] == 3
    code, seen = in_a_terminal("outbox", "redirect", typed="y\n")
    assert code == 0
    assert "3 rows moved" in seen


@pytest.mark.usefixtures("mistyped")
def test_one_of_several_addresses_is_chosen(
    cli: Cli, server: FaultyServer, write_lines: WriteLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONCHO_BASE_URL", "http://127.0.0.1:10")
    chat = write_lines("more.jsonl", [{"role": "user", "content": "four"}])
    cli("ingest", str(chat), "--timeout", "0.2")
    monkeypatch.setenv("HONCHO_BASE_URL", server.url)
    done = cli("outbox", "redirect", "--yes")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"3 rows for '{WRONG} hermes'" in done.stderr
    assert "1 row for 'http://127.0.0.1:10 hermes'" in done.stderr
    done = cli("outbox", "redirect", "--from", "http://nowhere", "--yes")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "there are no rows for" in done.stderr
    assert json.loads(cli("outbox", "redirect", "--from", f"{WRONG} hermes", "--yes", "--json").stdout)["moved"] == 3
    assert cli("outbox", "flush").exit_code == 0
    assert said_at(server) == ["one", "two", "three"]
