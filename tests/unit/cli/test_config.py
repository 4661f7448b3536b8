from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic.alias_generators import to_camel
from support.commands import Cli

from honcho_exec.settings import Settings


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")


def test_every_setting_is_shown_with_its_value_source_and_meaning(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / ".honcho" / "config.json", {"peerName": "grace", "hosts": {"hermes": {"timeout": 7}}})
    monkeypatch.setenv("HONCHO_RETRY_ATTEMPTS", "4")
    done = cli("config", "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert list(told["settings"]) == [to_camel(name) for name in Settings.model_fields]
    file = str(tmp_path / ".honcho" / "config.json")
    assert (told["backend"], told["host"], told["file"]) == ("embedded", "hermes", file)
    assert told["state"] == str(tmp_path / ".honcho" / "exec")
    named = (told["workspace"], told["user_peer"], told["ai_peer"], told["session"])
    assert named == ("hermes", "grace", "hermes", "work")
    assert {name: (told["settings"][name]["value"], told["settings"][name]["source"]) for name in SAMPLE} == {
        "peerName": ("grace", f"peerName in {file}"),
        "timeout": (7.0, f"hosts.hermes.timeout in {file}"),
        "retryAttempts": (4, "HONCHO_RETRY_ATTEMPTS"),
        "sessions": ({}, "default"),
    }
    assert all(one["meaning"] and one["variables"] for one in told["settings"].values())


SAMPLE = ("peerName", "timeout", "retryAttempts", "sessions")


def test_a_person_reads_a_table(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONCHO_TIMEOUT", "2.5")
    monkeypatch.setenv("HONCHO_TIMOUT", "1")
    lines = cli("config").stdout.splitlines()
    (timeout,) = (line for line in lines if line.startswith("timeout "))
    assert timeout.split(maxsplit=4)[:4] == ["timeout", "2.5", "s", "HONCHO_TIMEOUT"]
    assert "Wall clock limit of one request" in timeout
    assert "  warning  HONCHO_TIMOUT is not a setting; did you mean HONCHO_TIMEOUT?" in lines


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_secret_is_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch, form: list[str]) -> None:
    monkeypatch.setenv("HONCHO_API_KEY", "hch-qqq")
    monkeypatch.setenv("HONCHO_LLM_API_KEY", "sk-qqq")
    monkeypatch.setenv("HONCHO_BASE_URL", "http://bob:qq@qqq@h:1")
    monkeypatch.setenv("HONCHO_LLM_BASE_URL", "http://bob:qqq@l:1/v1")
    done = cli("config", *form)
    assert done.exit_code == 0
    assert "http://h:1" in done.stdout
    assert "http://l:1/v1" in done.stdout
    assert "qq" not in done.output


def test_every_bad_setting_is_named_at_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONCHO_TIMEOUT", "soon")
    monkeypatch.setenv("HONCHO_RECALL_MODE", "loud")
    monkeypatch.setenv("HONCHO_API_KEY", "hch-top secret")
    monkeypatch.setenv("HONCHO_EXEC_HOME", "~nosuchuser/x")
    named = ("HONCHO_API_KEY", "HONCHO_EXEC_HOME", "HONCHO_RECALL_MODE", "HONCHO_TIMEOUT")
    done = cli("config")
    assert (done.exit_code, done.stdout) == (2, "")
    assert sorted(line.split()[1].rstrip(":") for line in done.stderr.splitlines()) == sorted(named)
    done = cli("config", "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["cause"], len(told["problems"])) == (2, "configuration", 4)
    assert "top" not in done.output


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """Hermes's folder with a profile `coder`, which keeps variables of its own."""
    root = tmp_path / ".hermes"
    (root / "profiles" / "coder").mkdir(parents=True)
    write(root / "honcho.json", {"hosts": {"hermes": {"aiPeer": "jeeves"}, "hermes_coder": {"aiPeer": "ada-bot"}}})
    return root


def test_a_profile_is_looked_at_by_its_name(cli: Cli, profiles: Path) -> None:
    told = json.loads(cli("--profile", "Coder", "config", "--json").stdout)
    assert (told["host"], told["settings"]["workspace"]["value"]) == ("hermes_coder", "hermes_coder")
    assert told["settings"]["aiPeer"]["value"] == "ada-bot"
    assert told["state"] == str(profiles / "profiles" / "coder" / "honcho_exec")
    told = json.loads(cli("-p", "default", "config", "--json").stdout)
    assert (told["host"], told["settings"]["aiPeer"]["value"]) == ("hermes", "jeeves")
    assert told["state"] == str(profiles / "honcho_exec")


def test_the_memory_of_a_profile_is_not_the_default_ones(cli: Cli, profiles: Path) -> None:
    assert cli("-p", "coder", "conclude", "Likes tea").exit_code == 0
    assert "Likes tea" in cli("-p", "coder", "conclude", "--list").stdout
    assert "Likes tea" not in cli("-p", "default", "conclude", "--list").stdout
    assert (profiles / "profiles" / "coder" / "honcho_exec" / "memory.db").is_file()


def test_hermes_home_names_the_profile_too(cli: Cli, profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_HOME", str(profiles / "profiles" / "coder"))
    assert json.loads(cli("status", "--json").stdout)["workspace"] == "hermes_coder"
    assert json.loads(cli("-p", "default", "status", "--json").stdout)["workspace"] == "hermes"


@pytest.mark.parametrize("name", ["writer", "../coder", "", "profiles/coder", "a" * 100])
def test_an_unknown_profile_is_wrong_use(cli: Cli, profiles: Path, name: str) -> None:
    done = cli("--hermes-home", str(profiles), "--profile", name, "config")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "there are: default, coder" in done.stderr


def test_what_hermes_keeps_beside_its_configuration_counts(cli: Cli, profiles: Path) -> None:
    kept = 'OTHER=1\nexport HONCHO_API_KEY=\'hch-x\'\nHONCHO_PEER_NAME="Ada \\"L\\" " # mine\nHONCHO_TIMEOUT=5 # s\n'
    home = profiles / "profiles" / "coder"
    write(home / ".env", kept)
    told = json.loads(cli("-p", "coder", "config", "--json").stdout)
    shown = {name: told["settings"][name]["value"] for name in ("apiKey", "peerName", "timeout")}
    assert shown == {"apiKey": "********", "peerName": 'Ada "L"', "timeout": 5.0}
    assert told["backend"] == "cloud"
    assert told["settings"]["timeout"]["source"] == f"HONCHO_TIMEOUT in {home}{os.sep}.env"
    assert json.loads(cli("-p", "default", "config", "--json").stdout)["backend"] == "embedded"
