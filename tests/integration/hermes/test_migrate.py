from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from honcho_exec.cli.main import main

CONFIGS = [
    "memory:\n  provider: honcho\n",
    "model: {default: fake}\nmemory:\n  memory_enabled: true\n  provider: 'honcho'  # mine\nother: 1\n",
    "# memory: {provider: x}\nmemory: {memory_enabled: true, provider: honcho}\ntools: [a, b]\n",
    'memory:\n    nested:\n        provider: other\n    "provider": "honcho"\n\n# end',
    "memory:\r\n  provider: honcho\r\n  x: 1\r\n",
]


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["migrate", *args])


@pytest.fixture
def home(hermes_environ: Path) -> Path:
    hermes_environ.mkdir(parents=True)
    (hermes_environ / "honcho.json").write_text(
        '{"apiKey": "k-secret", "baseUrl": "http://127.0.0.1:9", "workspace": "w7"}'
    )
    return hermes_environ


@pytest.mark.parametrize("config", CONFIGS)
def test_a_migration_is_shown_then_applied_and_undone_to_the_byte(home: Path, config: str) -> None:
    path = home / "config.yaml"
    path.write_bytes(config.encode())
    before = yaml.safe_load(config)
    looked = run("--from", "honcho")
    assert (looked.exit_code, "Nothing was changed" in looked.stdout) == (0, True)
    for told in ("http://127.0.0.1:9", "w7", "memory.provider: honcho becomes honcho_exec", "honcho.json"):
        assert told in looked.stdout
    assert "k-secret" not in looked.stdout
    assert path.read_bytes() == config.encode()
    assert sorted(one.name for one in home.iterdir()) == ["config.yaml", "honcho.json"]
    assert run("--from", "honcho", "--apply").exit_code == 0
    before["memory"]["provider"] = "honcho_exec"
    assert yaml.safe_load(path.read_text()) == before
    assert (home / "plugins" / "honcho_exec" / "plugin.yaml").exists()
    assert json.loads(run("--from", "honcho", "--apply", "--json").stdout)["changes"] == []
    assert run("--undo").exit_code == 0
    assert path.read_bytes() == config.encode()


@pytest.fixture
def no_hermes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("honcho_exec.cli.hermes.config_yaml.find_hermes", lambda: None)


@pytest.mark.usefixtures("no_hermes")
def test_without_hermes_the_line_to_run_is_printed(home: Path) -> None:
    config = home / "config.yaml"
    config.write_text(CONFIGS[0])
    done = run("--from", "honcho", "--apply")
    assert (done.exit_code, "hermes config set memory.provider honcho_exec" in done.stdout) == (0, True)
    assert (home / "plugins" / "honcho_exec" / "plugin.yaml").exists()
    assert config.read_text() == CONFIGS[0]
    answer = json.loads(run("--from", "honcho", "--apply", "--json").stdout)
    assert (answer["done"], answer["provider"]) == (False, "honcho")
    assert answer["next"] == "hermes config set memory.provider honcho_exec"
    config.write_text("memory:\n  provider: honcho_exec\n")
    assert "hermes config set memory.provider honcho\n" in run("--undo").stdout


def test_undo_keeps_what_was_changed_since(home: Path) -> None:
    config = home / "config.yaml"
    config.write_text(CONFIGS[0])
    assert run("--from", "honcho", "--apply").exit_code == 0
    config.write_text(config.read_text() + "later: 1\n")
    assert run("--undo").exit_code == 0
    assert yaml.safe_load(config.read_text()) == {"memory": {"provider": "honcho"}, "later": 1}


def test_a_configuration_that_only_hermes_understands_is_migrated(home: Path) -> None:
    config, text = home / "config.yaml", "p: &p honcho\nmemory:\n  provider: *p\n"
    config.write_text(text)
    assert run("--from", "honcho", "--apply").exit_code == 0
    assert yaml.safe_load(config.read_text()) == {"p": "honcho", "memory": {"provider": "honcho_exec"}}
    assert run("--undo").exit_code == 0
    assert config.read_text() == text


def test_a_setting_that_hermes_does_not_change_is_an_error(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (home / "config.yaml").write_text(CONFIGS[0])
    script = tmp_path / "hermes.sh"
    monkeypatch.setattr("honcho_exec.cli.hermes.config_yaml.find_hermes", lambda: str(script))
    for lines, told in (("exit 3", "config set memory.provider honcho_exec failed"), ("echo managed", "managed")):
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        done = run("--from", "honcho", "--apply")
        assert (done.exit_code, told in done.stderr) == (1, True)
    assert (home / "config.yaml").read_text() == CONFIGS[0]


@pytest.mark.usefixtures("no_hermes")
def test_migrate_reports_why_nothing_can_be_migrated(home: Path) -> None:
    assert "nothing was migrated" in run("--undo").stderr
    assert "uses no memory provider" in run("--from", "honcho", "--apply").stderr
    (home / "config.yaml").write_text("memory:\n  provider: mem0\n")
    assert "'mem0'" in run("--from", "honcho", "--apply").stderr
    assert run().exit_code == run("--undo", "--apply").exit_code == 2
    assert (home / "config.yaml").read_text() == "memory:\n  provider: mem0\n"
