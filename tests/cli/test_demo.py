from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.commands import Cli, Program

from honcho_exec.arguments import schemas
from honcho_exec.cli.demo import _conversation


def test_the_conversation_is_long_and_spans_days() -> None:
    turns = _conversation()
    assert 30 <= len(turns) <= 40
    assert len({turn.session for turn in turns}) == 2
    assert all(turn.user.role == "user" and turn.assistant.role == "assistant" for turn in turns)
    assert {turn.assistant.session for turn in turns} == {turn.session for turn in turns}


def test_all_five_tools_answer_from_the_conversation(program: Program, tmp_path: Path) -> None:
    done = program("demo", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "34 turns delivered" in done.stdout
    answers = dict(re.findall(r"^(honcho_\w+)\((.*?)(?=^honcho_|^  backend)", done.stdout, re.DOTALL | re.MULTILINE))
    assert set(answers) == {schema["name"] for schema in schemas()}
    assert "walnuts" in answers["honcho_search"]
    assert "Biscuit" in answers["honcho_reasoning"]
    assert "is kept" in answers["honcho_conclude"]
    assert "written (3 facts)" in answers["honcho_profile"]
    assert "## Card" in answers["honcho_context"]
    for needed in ("embedded", "kept in", "took", "honcho-exec install", "HonchoProvider(", "HONCHO_BASE_URL="):
        assert needed in done.stdout


def test_runs_again_and_leaves_the_users_folder_and_settings_alone(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary, home = tmp_path / "temporary", tmp_path / "home"
    temporary.mkdir()
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HERMES_HOME", str(home / "hermes"))
    monkeypatch.setenv("HONCHO_EXEC_HOME", str(home / "state"))
    monkeypatch.setenv("HONCHO_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HONCHO_ENABLED", "false")
    monkeypatch.setenv("HONCHO_TIMEOUT", "not a number")
    for _ in range(2):
        assert cli("demo").exit_code == 0
    assert list(home.iterdir()) == []
    assert len(list(temporary.iterdir())) == 2


def test_the_demo_can_be_looked_around_in(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = re.search(r"--hermes-home (\S+) search", cli("demo").stdout)
    assert found is not None
    assert "thyroid" in cli("--hermes-home", found[1], "search", "half a tablet every morning").stdout
