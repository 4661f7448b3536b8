from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from support.commands import Cli
from support.faulty import FaultyServer, status

from honcho_exec import HonchoProvider
from honcho_exec.provider.status import Status


def test_says_which_honcho_is_in_use(cli: Cli, tmp_path: Path) -> None:
    done = cli("status")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "Honcho memory works"
    assert "  backend     embedded (on this machine, no server)" in lines
    assert "  workspace   hermes" in lines
    assert "  peers       ada (user), hermes (assistant)" in lines
    assert "  session     work" in lines
    assert f"  state       {tmp_path}/.honcho/exec" in lines
    assert "  outbox      0 pending, 0 in flight, 0 parked, 0 for other destinations" in lines
    assert "  delivered   nothing yet" in lines
    assert "  last error  none" in lines
    assert "hint" not in done.stdout


def test_json_has_every_field(cli: Cli) -> None:
    done = cli("status", "--json")
    known = json.loads(done.stdout)
    assert list(known) == [*(field.name for field in fields(Status)), "hint"]
    assert (known["ok"], known["backend"], known["hint"]) == (True, "embedded", None)
    assert known["latency"] < 5


def test_what_recall_costs_is_told_for_each_session(cli: Cli, tmp_path: Path) -> None:
    assert "\n  recall" not in cli("status").stdout
    environ = {"LOGNAME": "ada", "HONCHO_LLM_BASE_URL": "http://127.0.0.1:9/v1", "HONCHO_LLM_MODEL": "small"}
    for session in ("work", "play"):
        with HonchoProvider(session, environ=environ, home=tmp_path / ".honcho" / "exec") as provider:
            provider.handle_tool_call("honcho_profile", {"card": ["Name: Ada"]})
            text = provider.prefetch("What is my name?")
            provider.handle_tool_call("honcho_reasoning", {"query": "Who am I?"})
    told = cli("status").stdout
    own = f"  recall      2 LLM calls and {len(text)} characters injected in this session"
    assert f"{own}, 4 and {2 * len(text)} in the 2 sessions used last\n" in told
    known = json.loads(cli("status", "--json").stdout)
    assert (known["llm_calls"], known["injected_characters"]) == (2, len(text))
    assert [(cost["session"], cost["turns"], cost["llm_calls"]) for cost in known["recalled"]] in (
        [("play", 1, 2), ("work", 1, 2)], [("work", 1, 2), ("play", 1, 2)],
    )  # fmt: skip


@pytest.mark.usefixtures("unreachable")
def test_an_unreachable_server_is_1_and_names_the_problem(cli: Cli) -> None:
    assert cli("conclude", "Likes tea").exit_code == 1
    done = cli("status")
    assert done.exit_code == 1
    assert done.stdout.startswith("Honcho memory does not work\n\n  problem     http://127.0.0.1:9 cannot be reached")
    assert "  url         http://127.0.0.1:9" in done.stdout
    assert "  outbox      1 pending (the oldest for 0 s), 0 in flight" in done.stdout
    assert "Connection refused (2" in done.stdout.split("last error")[1]
    known = json.loads(cli("status", "--json").stdout)
    assert (known["ok"], known["reachable"], known["pending"], known["latency"]) == (False, False, 1, None)


def test_a_broken_url_is_told_and_nothing_else_is_used(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONCHO_BASE_URL", "htp://x")
    done = cli("status")
    assert done.exit_code == 1
    assert "problem   HONCHO_BASE_URL: must be an http:// or https:// URL" in done.stdout
    assert "backend   none" in done.stdout
    done = cli("status", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["backend"] == "none"


def test_an_unusable_state_folder_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("HONCHO_EXEC_HOME", str(tmp_path / "file" / "state"))
    done = cli("status")
    assert done.exit_code == 1
    assert "Not a directory" in done.stdout
    assert f"state     {tmp_path}/file/state" in done.stdout
    assert json.loads(cli("status", "--json").stdout)["ok"] is False


def test_a_refused_key_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch, server: FaultyServer) -> None:
    server.rule(fault=status(401))
    monkeypatch.setenv("HONCHO_BASE_URL", server.url)
    monkeypatch.setenv("HONCHO_API_KEY", "hch-secret")
    done = cli("status")
    assert done.exit_code == 1
    assert "refused the key" in done.stdout
    assert "hch-secret" not in done.output


def test_a_misspelt_variable_is_a_note(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONCHO_TIMOUT", "5")
    done = cli("status")
    assert done.exit_code == 0
    assert "note        HONCHO_TIMOUT is not a setting; did you mean HONCHO_TIMEOUT?" in done.stdout


def test_hints_at_the_memory_of_hermes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".hermes" / "honcho_exec").mkdir(parents=True)
    hint = json.loads(cli("status", "--json").stdout)["hint"]
    assert f"honcho-exec --hermes-home {tmp_path}/.hermes status" in hint
    assert "hint" in cli("status").stdout
    assert json.loads(cli("--hermes-home", str(tmp_path / ".hermes"), "status", "--json").stdout)["hint"] is None


def test_no_hint_for_whoever_chose_a_folder(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".hermes" / "honcho_exec").mkdir(parents=True)
    monkeypatch.setenv("HONCHO_EXEC_HOME", str(tmp_path / "mine"))
    assert json.loads(cli("status", "--json").stdout)["hint"] is None
