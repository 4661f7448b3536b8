from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from support.commands import Cli, WriteLines, in_a_terminal
from support.faulty import FaultyServer, Gate, Seen, gate, status
from support.providers import MakeProvider

from honcho_exec.cli.main import main

LONG = (
    "My sister lives in Marseille, and she has three cats, \x1b[2Ja dog\nand a long story to tell about each of them."
)
FIELDS = "id state kind destination workspace session who turn admitted_at age attempts reason parked_at text write"
POST_MESSAGES = ("POST", "/messages$")
PATIENCE = ("--timeout", "0.2")


def mentions(word: str) -> Callable[[Seen], bool]:
    return lambda seen: seen.is_for(*POST_MESSAGES) and word in str(seen.body_json)


def answer(cli: Cli, *args: object, code: int = 0) -> dict[str, Any]:
    done = cli("outbox", *map(str, args), "--json")
    assert (done.exit_code, done.stderr) == (code, "")
    known: dict[str, Any] = json.loads(done.stdout)
    return known


def rows(cli: Cli, *args: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer(cli, "list", *args)["rows"]
    return found


@pytest.fixture
def away(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> FaultyServer:
    """The server that the settings choose, which does not run yet."""
    monkeypatch.setenv("HONCHO_BASE_URL", server.url)
    monkeypatch.setenv("HONCHO_RETRY_ATTEMPTS", "1")
    server.stop()
    return server


@pytest.fixture
def said(cli: Cli, write_lines: WriteLines) -> Callable[..., None]:
    """Bring messages in; whether they arrive is the test's affair."""

    def say(*texts: str) -> None:
        cli("ingest", str(write_lines("chat.jsonl", [{"role": "user", "content": text} for text in texts])), *PATIENCE)

    return say


def test_every_help_teaches_with_an_example(cli: Cli) -> None:
    group = main.get_command(click.Context(main), "outbox")
    shown = cli("outbox", "--help").stdout
    assert "..." not in shown.split("Commands:")[1].split("Examples:")[0]
    for name in ("list", "show", "retry", "drop", "flush", "redirect"):
        assert name in getattr(group, "commands", {})
        assert f"Examples:\n  honcho-exec outbox {name}" in cli("outbox", name, "--help").stdout


def test_an_empty_outbox_says_so(cli: Cli) -> None:
    assert cli("outbox", "list").stdout == "The outbox is empty: nothing is pending or parked.\n"
    assert cli("outbox", "list", "--parked").stdout == "Nothing is parked.\n"
    assert cli("outbox", "list", "--waiting", "--all").stdout == "Nothing is pending.\n"
    assert cli("outbox", "retry", "--all-parked").stdout == "Nothing is parked.\n"
    assert cli("outbox", "flush").stdout == "Nothing is pending.\n"
    assert answer(cli, "list") == {"rows": [], "more": 0, "elsewhere": 0, "last_error": None}
    assert answer(cli, "flush") == {"delivered": 0, "left": 0, "refused": 0, "elsewhere": 0}


@pytest.mark.usefixtures("unreachable")
def test_each_pending_row_is_one_line(cli: Cli, said: Callable[..., None]) -> None:
    said(LONG, "ok")
    cli("conclude", "Likes tea")
    heads, *lines = cli("outbox", "list").stdout.splitlines()
    assert heads.split() == ["id", "state", "kind", "session", "who", "age", "tries", "text"]
    assert [line.split()[1:5] for line in lines[:3]] == [
        ["waiting", "message", "chat", "ada"],
        ["waiting", "message", "chat", "ada"],
        ["waiting", "conclusion", "work", "hermes"],
    ]
    assert lines[0].endswith("0      My sister lives in Marseille, and she has three cats, [2Ja…")
    assert lines[3].startswith("The last attempt failed: http://127.0.0.1:9 cannot be reached")
    assert len(lines) == 4


@pytest.mark.usefixtures("unreachable")
def test_rows_in_json(cli: Cli, said: Callable[..., None]) -> None:
    said(LONG)
    (row,) = rows(cli)
    assert list(row) == FIELDS.split()
    assert (row["state"], row["kind"], row["who"], row["text"]) == ("waiting", "message", "ada", LONG)
    assert (row["destination"], row["workspace"]) == ("http://127.0.0.1:9 hermes", "hermes")
    assert (row["attempts"], row["reason"], row["parked_at"]) == (0, None, None)
    assert 0 <= row["age"] < 20
    assert answer(cli, "show", row["id"]) | {"age": 0} == row | {"age": 0}


@pytest.mark.usefixtures("unreachable")
def test_the_limit_says_how_many_more_there_are(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, said: Callable[..., None]
) -> None:
    said("a", "b", "c")
    assert cli("outbox", "list", "--limit", "2").stdout.splitlines()[3] == "… and 1 more; --limit 3 shows all"
    assert "more" not in cli("outbox", "list", "--limit", "3").stdout
    assert answer(cli, "list", "--limit", "1", "--waiting")["more"] == 2
    monkeypatch.setenv("HONCHO_WORKSPACE", "other")
    done = cli("outbox", "list").stdout
    assert done.endswith("3 rows are for another Honcho or workspace; --all shows them too\n")
    assert answer(cli, "list")["elsewhere"] == 3
    assert answer(cli, "list", "--all", "--waiting", "--limit", "1")["more"] == 2
    assert "  http://127.0.0.1:9 hermes  a\n" in cli("outbox", "list", "--all").stdout
    done = cli("outbox", "flush").stdout
    assert done == "Nothing is pending.\nLeft alone: 3 rows for another Honcho or workspace.\n"


@pytest.mark.usefixtures("unreachable")
def test_a_row_is_shown_in_full(cli: Cli, said: Callable[..., None]) -> None:
    said(LONG)
    done = cli("outbox", "show", "1")
    assert done.exit_code == 0
    assert "  state        waiting\n" in done.stdout
    assert "  destination  http://127.0.0.1:9 hermes\n" in done.stdout
    assert done.stdout.endswith("\n\n  " + LONG.replace("\x1b", "").replace("\n", "\n  ") + "\n")


def test_wrong_and_unknown_ids_are_refused(cli: Cli) -> None:
    for command in ("show", "retry", "drop"):
        done = cli("outbox", command, "x")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "'x' is not a valid integer" in done.stderr
    done = cli("outbox", "show", "99")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Error: there is no row 99 in the outbox; it may have been delivered\n"
    assert answer(cli, "show", 10**30, code=1)["cause"] == "not_found"
    for args in (["retry"], ["retry", "1", "--all-parked"], ["drop"], ["flush", "--timeout", "0"]):
        assert cli("outbox", *args).exit_code == 2


def test_a_parked_row_is_retried_and_delivered(cli: Cli, away: FaultyServer, said: Callable[..., None]) -> None:
    away.rule(match=mentions("poison"), fault=status(422, body=b'{"detail": "too bitter"}'))
    away.start()
    said("green tea", "poison ivy", "black coffee")
    (row,) = rows(cli)
    assert (row["state"], row["text"]) == ("parked", "poison ivy")
    assert row["reason"] == f"{away.url} refused the request (422)"
    line = cli("outbox", "list", "--parked").stdout.splitlines()[1]
    assert line.split()[1:3] == ["parked", "message"]
    assert line.endswith("poison ivy  refused the request (422)")
    shown = cli("outbox", "show", str(row["id"])).stdout
    assert "  state        parked, since 20" in shown
    assert "too bitter" not in shown
    assert cli("outbox", "list", "--waiting").stdout == "Nothing is pending.\n"

    assert answer(cli, "retry", row["id"]) == {"retried": [row["id"]], "not_retried": []}
    assert [one["state"] for one in rows(cli)] == ["waiting"]
    done = cli("outbox", "flush")
    assert (done.exit_code, done.stdout) == (1, "0 of 1 row was delivered.\n")
    assert done.stderr.startswith("Error: 1 row was refused and parked (honcho-exec outbox list --parked says why)")

    away.heal()
    done = cli("outbox", "retry", "--all-parked")
    assert done.exit_code == 0
    assert done.stdout.startswith("1 row will be sent again: by a running host")
    done = cli("outbox", "flush")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "1 of 1 row was delivered.\n", "")
    assert rows(cli) == []
    hits = json.loads(cli("search", "poison", "--json").stdout)["hits"]
    assert [hit["content"] for hit in hits].count("poison ivy") == 1


def test_rows_that_are_not_retried_are_reported(cli: Cli, away: FaultyServer, said: Callable[..., None]) -> None:
    said("still to come")
    assert answer(cli, "retry", 1, 1, 7, code=1) == {
        "error": "row 1 was not retried: it is not parked, and is sent automatically;"
        " row 7 was not retried: the row does not exist; it may have been delivered",
        "cause": "not_done",
        "retryable": False,
        "retried": [],
        "not_retried": [{"id": 1, "why": "not_parked"}, {"id": 7, "why": "not_there"}],
    }
    away.start()
    assert answer(cli, "flush") == {"delivered": 1, "left": 0, "refused": 0, "elsewhere": 0}


@pytest.mark.usefixtures("unreachable")
def test_a_dropped_row_is_gone_and_a_missing_one_reported(cli: Cli, said: Callable[..., None]) -> None:
    said("a", "b", "c")
    done = cli("outbox", "drop", "1", stdin="y\n")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "there is no terminal to ask on; --yes drops the rows without asking" in done.stderr
    assert len(rows(cli)) == 3
    assert cli("outbox", "drop", "1", "--yes").stdout == "1 row was dropped.\n"
    done = cli("outbox", "drop", "1", "2", "--yes")
    assert (done.exit_code, done.stdout) == (1, "1 row was dropped.\n")
    assert done.stderr == "Error: row 1 was not dropped: the row does not exist; it may have been delivered\n"
    assert answer(cli, "drop", 3, "--yes") == {"dropped": [3], "not_dropped": []}
    assert rows(cli) == []


@pytest.mark.usefixtures("unreachable")
def test_drop_asks_on_a_terminal(cli: Cli, said: Callable[..., None]) -> None:
    said("a" * 200, "b")
    code, seen = in_a_terminal("outbox", "drop", "1", typed="n\n")
    assert code == 1
    assert "Delete this row for good? [y/N]: " in seen
    assert "Error: nothing was dropped" in seen
    assert len(rows(cli)) == 2
    code, seen = in_a_terminal("outbox", "drop", "1", "2", typed="y\n")
    assert code == 0
    assert "Delete these 2 rows for good? [y/N]: " in seen
    assert "2 rows were dropped." in seen
    assert rows(cli) == []


@pytest.mark.usefixtures("unreachable")
def test_on_a_terminal_a_row_takes_one_line(said: Callable[..., None]) -> None:
    said(LONG, "ok")
    code, seen = in_a_terminal("outbox", "list", "--all", columns=60)
    assert code == 0
    assert "\x1b[2m" in seen
    assert "\x1b[2J" not in seen
    lines = seen.splitlines()
    assert lines[1].startswith("1   waiting  message  chat")
    assert lines[1].endswith("…")
    assert len(lines[1]) <= 60
    assert lines[2].startswith("2   waiting")


def test_rows_that_a_running_host_sends_are_left_to_it(
    cli: Cli, away: FaultyServer, make_provider: MakeProvider
) -> None:
    held = Gate()
    away.rule(match=POST_MESSAGES, fault=gate(held))
    away.start()
    turn = make_provider(home=".honcho/exec", base_url=away.url).sync_turn("on its way", "")
    assert held.arrived.wait(10)
    (row,) = rows(cli)
    assert (row["state"], row["attempts"]) == ("in_flight", 1)
    assert "in flight" in cli("outbox", "list", "--waiting").stdout
    assert answer(cli, "drop", row["id"], "--yes", code=1)["not_dropped"] == [{"id": row["id"], "why": "being_sent"}]
    left = answer(cli, "flush", "--timeout", "1.5", code=1)
    assert (left["left"], left["cause"], left["retryable"]) == (1, "timeout", True)
    assert "a running host has them, and sends them itself" in left["error"]
    held.proceed.set()
    assert turn.result(10).written == 1
    assert rows(cli) == []


def test_flush_after_an_outage(cli: Cli, away: FaultyServer, said: Callable[..., None]) -> None:
    said(*(f"message {number}" for number in range(120)))
    done = cli("outbox", "flush", "--timeout", "0.6")
    assert (done.exit_code, done.stdout) == (1, "0 of 120 rows were delivered.\n")
    assert done.stderr.startswith("Error: 120 rows are left in the outbox and sent later (")
    assert "cannot be reached" in done.stderr
    away.start()
    code, seen = in_a_terminal("outbox", "flush")
    assert code == 0
    assert "120/120" in seen
    assert seen.splitlines()[-1].endswith("120 of 120 rows were delivered.")
    assert rows(cli) == []


def test_flush_ends_early_when_the_key_is_refused(
    cli: Cli, away: FaultyServer, monkeypatch: pytest.MonkeyPatch, said: Callable[..., None]
) -> None:
    said("for later")
    away.rule(fault=status(401))
    away.start()
    monkeypatch.setenv("HONCHO_API_KEY", "hch-secret")
    done = cli("outbox", "flush", "--timeout", "600")
    assert (done.exit_code, done.stdout) == (1, "0 of 1 row was delivered.\n")
    assert "1 row is left in the outbox and sent later" in done.stderr
    assert "refused the key (401)" in done.stderr
    left = answer(cli, "flush", "--timeout", "600", code=1)
    assert left.pop("error").startswith("1 row is left in the outbox")
    counts = {"delivered": 0, "left": 1, "refused": 0, "elsewhere": 0}
    assert left == {"cause": "auth", "retryable": False, **counts}
    assert "hch-secret" not in done.output + json.dumps(left) + cli("outbox", "list").output
    assert [row["text"] for row in rows(cli)] == ["for later"]


@pytest.mark.usefixtures("unreachable")
def test_a_password_in_the_url_is_not_shown(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, said: Callable[..., None]
) -> None:
    monkeypatch.setenv("HONCHO_BASE_URL", "http://bob:sesame@127.0.0.1:9")
    said("a")
    for args in (["list", "--all"], ["list", "--json"], ["show", "1"], ["show", "1", "--json"], ["flush", *PATIENCE]):
        done = cli("outbox", *args)
        assert "127.0.0.1:9" in done.output
        assert "sesame" not in done.output


@pytest.mark.usefixtures("unreachable")
def test_the_outbox_of_a_host(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "hermes").mkdir()
    hermes = ("--hermes-home", str(tmp_path / "hermes"))
    cli(*hermes, "conclude", "Likes tea")
    assert rows(cli) == []
    assert "Likes tea" in cli(*hermes, "outbox", "list").stdout
    assert cli(*hermes, "outbox", "drop", "1", "--yes").exit_code == 0
    assert cli(*hermes, "outbox", "list").stdout.startswith("The outbox is empty")


def test_unusable_settings_are_reported(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONCHO_BASE_URL", "htp://x")
    for args in (["list"], ["show", "1"], ["retry", "1"], ["drop", "1", "--yes"], ["flush"]):
        done = cli("outbox", *args)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("Error: HONCHO_BASE_URL: must be an http:// or https:// URL")
