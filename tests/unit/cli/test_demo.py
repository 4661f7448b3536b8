from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from support.commands import Cli, Program
from support.paths import ROOT

import honcho_exec
from honcho_exec.cli.commands.demo import _conversation
from honcho_exec.conversation.tool_arguments import schemas


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
    for needed in ("embedded", "removed", "took", "honcho-exec install", "HonchoProvider(", "HONCHO_BASE_URL="):
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
    assert list(temporary.iterdir()) == []


def test_a_demo_that_is_kept_can_be_looked_around_in(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert "look around" not in cli("demo").stdout
    found = re.search(r"--hermes-home (\S+) search", cli("demo", "--keep").stdout)
    assert found is not None
    assert "thyroid" in cli("--hermes-home", found[1], "search", "half a tablet every morning").stdout


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, RuntimeError, OSError])
def test_the_folder_is_removed_if_the_demo_does_not_end_well(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trouble: type[BaseException]
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def fail(*_: object) -> None:
        assert list(temporary.iterdir())
        raise trouble

    monkeypatch.setattr("honcho_exec.cli.commands.demo._ask", fail)
    with suppress(RuntimeError):
        assert cli("demo").exit_code == 1
    assert list(temporary.iterdir()) == []


def test_ctrl_c_removes_the_folder(here: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environ = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(Path(honcho_exec.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "honcho_exec", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=here,
        env=environ,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode != 0
    assert list(temporary.iterdir()) == []


def test_the_readme_shows_what_the_demo_prints(cli: Cli) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("honcho-exec demo\n", 1)[1].split("```", 1)[0]
    printed = re.sub(r"\d+\.\d (m?s)", r"0.0 \1", cli("demo").stdout)
    for line in re.sub(r"\d+\.\d (m?s)", r"0.0 \1", shown).splitlines():
        assert line.removesuffix("…").rstrip() in printed
