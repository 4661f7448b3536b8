from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import Cli


def test_install_and_uninstall(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / ".hermes" / "plugins" / "honcho_exec"
    done = cli("install")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"Installed in {folder}\n")
    assert "\n  hermes config set memory.provider honcho_exec\n" in done.stdout
    assert (folder / "__init__.py").is_file()
    assert cli("install").stdout.startswith(f"Already installed in {folder}\n")
    assert cli("uninstall").stdout.startswith(f"Removed {folder}\n")
    assert not folder.exists()
    assert cli("uninstall").stdout.startswith("Nothing to remove")


def test_nothing_is_left_to_do_when_hermes_uses_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".hermes").mkdir()
    (tmp_path / ".hermes" / "config.yaml").write_text("memory:\n  provider: honcho_exec\n", encoding="utf-8")
    assert "nothing is left to do" in cli("install").stdout
    assert json.loads(cli("install", "--json").stdout)["next"] is None
    assert "\n  hermes config unset memory.provider\n" in cli("uninstall").stdout


def test_json(cli: Cli, tmp_path: Path) -> None:
    folder = str(tmp_path / ".hermes" / "plugins" / "honcho_exec")
    line = "hermes config set memory.provider honcho_exec"
    first = {"folder": folder, "changed": True, "active": False, "next": line}
    assert json.loads(cli("install", "--json").stdout) == first
    assert json.loads(cli("install", "--json").stdout) == first | {"changed": False}
    assert json.loads(cli("uninstall", "--json").stdout) == first | {"next": None}


def test_the_folder_is_the_options_then_the_environments(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HERMES_HOME", str(tmp_path / "variable"))
    done = cli("install")
    assert (tmp_path / "variable" / "plugins").is_dir()
    assert "\n  hermes config set" in done.stdout
    done = cli("--hermes-home", str(tmp_path / "global"), "install")
    assert (tmp_path / "global" / "plugins").is_dir()
    assert f"\n  HERMES_HOME={tmp_path}/global hermes config set" in done.stdout
    cli("--hermes-home", str(tmp_path / "global"), "install", "--hermes-home", str(tmp_path / "own"))
    assert (tmp_path / "own" / "plugins").is_dir()


def test_a_folder_that_cannot_be_used_is_a_sentence(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for command in ("install", "uninstall"):
        done = cli(command, "--hermes-home", str(tmp_path / "file"))
        if command == "install":
            assert (done.exit_code, done.stdout) == (1, "")
            assert done.stderr.count("\n") == 1
    done = cli("install", "--hermes-home", str(tmp_path / "file"), "--json")
    assert done.exit_code == 1
    assert set(json.loads(done.stdout)) == {"error", "cause", "retryable"}
