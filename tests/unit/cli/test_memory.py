from __future__ import annotations

import json

import pytest
from support.commands import Cli, WriteLines


@pytest.fixture
def told(cli: Cli, write_lines: WriteLines) -> None:
    """A conversation that was brought in."""
    said = [
        {"role": "user", "content": "My sister lives in Marseille.", "created_at": "2025-03-01T09:30:00Z", "id": "m1"},
        {"role": "assistant", "content": "A fine city.", "created_at": "2025-03-01T09:30:05Z"},
    ]
    assert cli("ingest", str(write_lines("family.jsonl", said))).exit_code == 0


@pytest.mark.usefixtures("told")
def test_search_cites_who_when_and_where(cli: Cli) -> None:
    done = cli("search", "sister")
    assert done.exit_code == 0
    assert done.stdout.startswith("ada · 2025-03-01 09:30 · family\n  My sister lives in Marseille.\n")


@pytest.mark.usefixtures("told")
def test_search_in_json(cli: Cli) -> None:
    (hit,) = json.loads(cli("search", "sister", "--limit", "1", "--json").stdout)["hits"]
    assert set(hit) == {"id", "peer", "created_at", "session", "content", "metadata"}
    assert (hit["peer"], hit["session"], hit["metadata"]["source_id"]) == ("ada", "family", "m1")


def test_nothing_found_is_no_failure(cli: Cli) -> None:
    done = cli("search", "walrus")
    assert (done.exit_code, done.stdout) == (0, "Nothing was found.\n")
    assert json.loads(cli("search", "walrus", "--json").stdout) == {"hits": []}


def test_an_unknown_peer_is_wrong_use(cli: Cli) -> None:
    for args in (["search", "x"], ["context"], ["profile"], ["conclude", "x"]):
        done = cli(*args, "--peer", "nobody")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "there is no peer 'nobody'" in done.stderr
        done = cli(*args, "--peer", "nobody", "--json")
        assert (done.exit_code, done.stderr) == (2, "")
        assert json.loads(done.stdout)["cause"] == "argument"


@pytest.mark.usefixtures("unreachable")
def test_an_unreachable_server_is_1(cli: Cli) -> None:
    for args in (["search", "x"], ["context"], ["profile"], ["conclude", "--list"]):
        done = cli(*args)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("Error: http://127.0.0.1:9 cannot be reached")
        done = cli(*args, "--json")
        assert (done.exit_code, done.stderr) == (1, "")
        known = json.loads(done.stdout)
        assert (known["cause"], known["retryable"]) == ("connection", True)


@pytest.mark.usefixtures("unreachable")
def test_a_conclusion_for_an_unreachable_server_is_kept(cli: Cli) -> None:
    done = cli("conclude", "Likes tea")
    assert done.exit_code == 1
    assert "the write is kept and will be delivered automatically" in done.stderr


def test_conclusions_are_kept_listed_and_deleted(cli: Cli) -> None:
    assert cli("conclude", "Likes tea").stdout == "The conclusion about ada is kept: Likes tea\n"
    assert cli("conclude", "Plays chess on Sundays").exit_code == 0
    (found, *_) = json.loads(cli("conclude", "--list", "--query", "tea", "--json").stdout)["conclusions"]
    assert found["content"] == "Likes tea"
    shown = cli("conclude", "--list").stdout
    assert f"{found['id']} · {found['created_at'][:10]}\n  Likes tea\n" in shown
    assert cli("conclude", "--delete", found["id"]).exit_code == 0
    assert "Likes tea" not in cli("conclude", "--list").stdout
    gone = cli("conclude", "--delete", found["id"])
    assert gone.exit_code == 2
    assert "there is no conclusion with the id" in gone.stderr


def test_conclude_does_one_thing(cli: Cli) -> None:
    for args in ([], ["x", "--list"], ["x", "--delete", "y"], ["x", "--query", "y"], [""]):
        done = cli("conclude", *args)
        assert (done.exit_code, done.stdout) == (2, "")


def test_a_profile_is_written_and_shown(cli: Cli) -> None:
    assert "There are no facts on this card yet." in cli("profile").stdout
    assert cli("profile", "--set", "Lives in Tromsø", "Has a cat").exit_code == 0
    assert cli("profile").stdout == "- Lives in Tromsø\n- Has a cat\n"
    assert cli("profile", "--set", "Has two cats", "--set", "Sings").exit_code == 0
    assert json.loads(cli("profile", "--json").stdout) == {"result": ["Has two cats", "Sings"]}
    assert "no facts" in cli("profile", "--peer", "ai").stdout


def test_facts_go_with_set(cli: Cli) -> None:
    assert cli("profile", "Has a cat").exit_code == 2
    assert cli("profile", "--set").exit_code == 2


def test_context_shows_what_is_known(cli: Cli) -> None:
    assert cli("context").stdout == "Nothing is stored for this session yet.\n"
    cli("conclude", "Likes tea")
    assert "Likes tea" in cli("context").stdout
    assert "Likes tea" in json.loads(cli("context", "--json").stdout)["result"]


def test_switched_off_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONCHO_ENABLED", "false")
    for args in (["search", "x"], ["conclude", "x"]):
        done = cli(*args)
        assert done.exit_code == 1
        assert "switched off" in done.stderr


def test_an_empty_query_is_wrong_use(cli: Cli) -> None:
    for query in ("", "  "):
        done = cli("search", query)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "must not be empty" in done.stderr
    assert json.loads(cli("search", "", "--json").stdout)["cause"] == "argument"
