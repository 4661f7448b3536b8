from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from support.commands import Cli, Program, in_a_terminal

import honcho_exec
from honcho_exec.cli.main import COMMANDS, main


def test_help_teaches_with_examples(cli: Cli) -> None:
    for name in COMMANDS:
        shown = cli(name, "--help")
        assert shown.exit_code == 0
        assert f"Examples:\n  honcho-exec {name}" in shown.output.replace("--hermes-home ~/.hermes ", "")


def test_every_command_is_described_in_one_line(cli: Cli) -> None:
    shown = cli("--help").output
    assert "..." not in shown.split("Commands:")[1]
    assert next(iter(COMMANDS)) == "demo"


def test_the_short_helps_are_those_of_the_commands() -> None:
    context = click.Context(main)
    for name, (_, short_help) in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert (command.name, command.get_short_help_str(80)) == (name, short_help)


def test_version(program: Program) -> None:
    assert program("--version").stdout == f"honcho-exec, version {honcho_exec.__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from honcho_exec.cli.main import COMMANDS, main; main(['--help'], standalone_mode=False);"
        "sys.exit(', '.join({'rich', 'pydantic', 'httpx', 'honcho', 'sqlite3'} & set(sys.modules)) or None)"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(honcho_exec.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environ)
    assert (done.returncode, done.stderr) == (0, "")


def test_wrong_use_is_2_and_on_stderr(cli: Cli) -> None:
    for args in (["no-such-command"], ["search"], ["search", "x", "--limit", "0"], ["status", "--no-such-option"]):
        done = cli(*args)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "Error:" in done.stderr


def test_an_error_is_one_sentence_without_a_traceback(program: Program) -> None:
    done = program("search", "x", HONCHO_BASE_URL="htp://x")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: HONCHO_BASE_URL: must be an http:// or https:// URL")
    assert done.stderr.count("\n") == 1


def test_an_error_shows_no_secret(program: Program) -> None:
    done = program("-v", "search", "x", HONCHO_API_KEY="hch-top secret", HONCHO_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "HONCHO_API_KEY" in done.stderr
    assert "top" not in done.stdout + done.stderr


def test_verbose_logs_to_stderr_and_otherwise_nothing_does(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONCHO_TIMEOUTT", "5")
    assert cli("search", "x").stderr == ""
    done = cli("-v", "search", "x")
    assert "HONCHO_TIMEOUTT is not a setting" in done.stderr
    assert done.stdout == "Nothing was found.\n"
    assert cli("search", "x").stderr == ""


def test_hermes_home_is_where_memory_and_settings_are(cli: Cli, tmp_path: Path) -> None:
    hermes = tmp_path / "hermes"
    hermes.mkdir()
    (hermes / "honcho.json").write_text('{"peerName": "grace"}', encoding="utf-8")
    done = cli("--hermes-home", str(hermes), "conclude", "Likes tea")
    assert done.stdout == "The conclusion about grace is kept: Likes tea\n"
    assert (hermes / "honcho_exec" / "memory.db").is_file()
    assert not (tmp_path / ".honcho").exists()


def test_a_refusal_of_the_system_is_a_sentence(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not-there"))
    done = cli("demo")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert "No such file or directory" in done.stderr


def test_colour_is_for_terminals_only(program: Program) -> None:
    assert "\x1b" not in program("status").stdout
    code, seen = in_a_terminal("status")
    assert (code, "\x1b[" in seen) == (0, True)


def test_stored_text_cannot_drive_the_terminal(cli: Cli) -> None:
    assert cli("conclude", "Likes \x1b[2J[red]tea[/red]\x07").exit_code == 0
    listed = cli("conclude", "--list").stdout
    assert "Likes ␛[2J[red]tea[/red]␇" in listed


def test_a_narrow_character_set_does_not_break_the_answer(program: Program) -> None:
    done = program("conclude", "Lives in Tromsø", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "Troms?" in done.stdout


def test_streams_that_are_closed_are_empty(cli: Cli) -> None:
    assert cli("conclude", "likes tea").exit_code == 0
    environ = os.environ | {"PYTHONPATH": str(Path(honcho_exec.__file__).parents[1])}
    empty = "Error: there are no messages in stdin"
    expected = {"ingest - <&-": (1, empty), "purge --text tea <&-": (0, ""), "status <&- >&- 2>&-": (0, "")}
    for words, (code, told) in expected.items():
        script = f"{sys.executable} -m honcho_exec {words}"
        done = subprocess.run(["/bin/sh", "-c", script], env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr[: len(empty)]) == (code, told), words


def test_output_that_cannot_be_written_is_a_sentence(cli: Cli) -> None:
    assert cli("conclude", "likes tea").exit_code == 0
    environ = os.environ | {"PYTHONPATH": str(Path(honcho_exec.__file__).parents[1])}
    for words in ("--help", "config --json"):
        script = f"{sys.executable} -m honcho_exec {words} >/dev/full"
        done = subprocess.run(["/bin/sh", "-c", script], env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.splitlines()) == (
            1, ["Error: the output cannot be written: No space left on device"],
        )  # fmt: skip
