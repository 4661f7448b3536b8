"""Which memory a command uses, and hints that work as they are printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Cli

from honcho_exec import HonchoProvider
from honcho_exec.cli.host import run


@pytest.fixture
def hermes(tmp_path: Path) -> Path:
    """A Hermes home with a memory of its own, in a home that has another one."""
    home = tmp_path / ".hermes"
    for state in (home / "honcho_exec", tmp_path / ".honcho" / "exec"):
        with HonchoProvider("s", environ={"HOME": str(tmp_path)}, home=state) as provider:
            provider.sync_turn("I like herons.", "Noted.").result(20)
    return home


def test_a_command_says_which_memory_it_used_if_hermes_has_another(
    cli: Cli, hermes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    told = f"The memory in {tmp_path}/.honcho/exec is used; Hermes's own is in {hermes}/honcho_exec"
    for command in (
        ["search", "heron"],
        ["outbox", "list", "--json"],
        ["export", "-"],
        ["profile"],
        ["outbox", "flush"],
    ):
        done = cli(*command)
        assert done.stderr.count(told) == 1, command
        assert told not in done.stdout
        assert told not in cli("--hermes-home", str(hermes), *command).stderr
    assert f"honcho-exec --hermes-home {hermes} …" in cli("search", "heron").stderr
    monkeypatch.setenv("HERMES_HOME", str(hermes))
    assert cli("search", "heron").stderr == ""


def test_without_another_memory_nothing_is_said_of_it(cli: Cli) -> None:
    assert cli("search", "heron").stderr == ""


def test_a_home_that_does_not_exist_is_an_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("typo", "file"):
        for command in (["search", "heron"], ["status"], ["conclude", "Likes tea"], ["outbox", "list"]):
            done = cli("--hermes-home", str(tmp_path / name), *command)
            assert (done.exit_code, f"there is no folder {tmp_path / name}" in done.stderr) == (2, True)
    assert not (tmp_path / "typo").exists()


@pytest.fixture
def wrong_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONCHO_TIMEOUT", "soon")


@pytest.mark.usefixtures("wrong_timeout")
@pytest.mark.parametrize(
    ("folder", "called"),
    [("hermes", "hermes honcho_exec"), ("hermes/profiles/work", "hermes -p work honcho_exec")],
)
def test_hints_name_the_command_as_it_was_called(
    cli: Cli,
    tmp_path: Path,
    folder: str,
    called: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / folder
    home.mkdir(parents=True)

    def by_host(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            run(arguments, hermes_home=str(home))
        return capsys.readouterr().out

    def by_itself(*arguments: str) -> str:
        return cli("--hermes-home", str(home), *arguments).stdout

    def advice(call: Callable[..., str], command: str) -> str:
        return " ".join(finding["advice"] for finding in json.loads(call(command, "--json"))["findings"])

    for call, name in ((by_host, called), (by_itself, f"honcho-exec --hermes-home {home}")):
        for command in ("doctor", "status"):
            assert f"{name} config" in advice(call, command)
            assert f"{name} config" in call(command)
        assert f"{name} search" in call("search", "--help")
        played = call("demo")
        assert f"{name} install" in played
        assert f"{name} demo --keep" in played
    for command in ("doctor", "status"):
        assert "honcho-exec config" not in advice(by_host, command)


def test_hints_of_a_plain_call_are_plain(cli: Cli) -> None:
    assert "\n  honcho-exec search " in cli("search", "--help").output
