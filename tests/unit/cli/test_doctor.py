from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from support.commands import Cli
from support.faulty import FaultyServer, hang, status

from honcho_exec import HonchoProvider


def findings(cli: Cli) -> dict[str, list[str]]:
    """What the doctor found, by its level."""
    told = json.loads(cli("doctor", "--json").stdout)
    by_level: dict[str, list[str]] = {"ok": [], "note": [], "problem": []}
    for finding in told["findings"]:
        by_level[finding["level"]].append(finding["what"])
        assert finding["level"] != "problem" or finding["advice"] or ";" in finding["what"]
    assert told["ok"] == (not by_level["problem"])
    return by_level


@pytest.fixture
def served(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> FaultyServer:
    monkeypatch.setenv("HONCHO_BASE_URL", server.url)
    monkeypatch.setenv("HONCHO_TIMEOUT", "1")
    monkeypatch.setenv("HONCHO_SYNC_JOIN_TIMEOUT", "0.5")
    monkeypatch.setenv("HONCHO_SHUTDOWN_TIMEOUT", "1")
    return server


def test_a_machine_without_settings_is_healthy(cli: Cli) -> None:
    done = cli("doctor")
    assert done.exit_code == 0
    assert "the embedded Honcho answers in" in done.stdout
    assert done.stdout.endswith("Nothing needs you.\n")


def test_a_server_is_asked_and_its_answers_are_told(cli: Cli, served: FaultyServer) -> None:
    queue = {"total_work_units": 9, "completed_work_units": 2, "in_progress_work_units": 3, "pending_work_units": 4}
    told = {"/openapi.json$": {"info": {"title": "Honcho", "version": "3.0"}}, "/queue/status$": queue}
    for path, answer in told.items():
        served.rule(match=("GET", path), fault=status(200, body=json.dumps(answer).encode()))
    found = findings(cli)
    assert any(what.endswith(" ms, as Honcho 3.0") for what in found["ok"])
    assert "7 pieces are stored but not yet derived by the server" in found["note"]
    assert found["problem"] == []


@pytest.mark.parametrize(
    ("fault", "said", "advice"),
    [
        (status(401), "refused the key", "set HONCHO_API_KEY"),
        (status(503), "failed (503)", "the server's log"),
        (hang(), "did not answer", "check that the server runs"),
    ],
    ids=["key", "failing", "hanging"],
)
def test_what_is_wrong_with_the_server_comes_with_advice(
    cli: Cli, served: FaultyServer, fault: object, said: str, advice: str
) -> None:
    served.rule(fault=fault)  # type: ignore[arg-type] # any fault
    done = cli("doctor")
    assert done.exit_code == 1
    problem = done.stdout.split("PROBLEM", 1)[1]
    assert said in problem
    assert advice in problem
    served.release()


def test_what_is_parked_needs_a_person(cli: Cli, served: FaultyServer) -> None:
    served.rule(match=("POST", "/conclusions$"), fault=status(422))
    cli("conclude", "Likes tea")
    served.heal()
    assert findings(cli)["problem"] == ["1 writes are parked: Honcho refused them, and nothing waits for them"]
    assert cli("status").exit_code == 1


def test_writes_that_do_not_leave_although_honcho_answers_are_not_green(
    cli: Cli, served: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("honcho_exec.provider.status._STUCK_SECONDS", 0.2)
    monkeypatch.setattr("honcho_exec.cli.commands.status._GRACE_SECONDS", 0.3)
    monkeypatch.setenv("HONCHO_RETRY_ATTEMPTS", "1")
    served.rule(match=("POST", "/conclusions$"), fault=status(500))
    cli("conclude", "Likes tea")
    problems = findings(cli)["problem"]
    assert any("a write has been waiting for" in what or "delivery is failing" in what for what in problems)
    assert cli("status").exit_code == 1


def test_files_that_others_may_read_are_restricted(cli: Cli, tmp_path: Path) -> None:
    cli("conclude", "Likes tea")
    file = tmp_path / ".honcho" / "exec" / "outbox.db"
    file.chmod(0o644)
    assert not any("others" in problem for problem in findings(cli).get("problem", []))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(("chosen", "level"), [("honcho_exec", "ok"), ("honcho", "note")])
def test_whether_hermes_uses_it_is_told(cli: Cli, tmp_path: Path, chosen: str, level: str) -> None:
    (tmp_path / ".hermes").mkdir()
    (tmp_path / ".hermes" / "config.yaml").write_text(f"memory:\n  provider: {chosen}\n", encoding="utf-8")
    assert any(what.startswith("Hermes Agent in") and chosen in what for what in findings(cli)[level])


def test_the_provider_tells_the_same_without_the_command_line(tmp_path: Path) -> None:
    with HonchoProvider("s", environ={"HOME": str(tmp_path), "LOGNAME": "ada"}, home=tmp_path / "state") as provider:
        assert [finding for finding in provider.doctor() if finding.level == "problem"] == []


def test_directories_that_share_a_session_are_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONCHO_SESSIONS", '{"/srv/a": "my notes", "/srv/b": "my-notes", "/srv/c": "other"}')
    (told,) = [what for what in findings(cli)["note"] if "sessions" in what]
    assert told == "`sessions` gives /srv/a and /srv/b the same session, my-notes"
