from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from honcho_exec.cli.hermes.config_yaml import read_provider, write_provider
from honcho_exec.cli.main import main
from honcho_exec.errors import StateError

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
def test_it_is_looked_at_first_then_done_and_undone(home: Path, config: str) -> None:
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


@pytest.mark.parametrize(
    "config", ["memory: {provider: honcho,\n  x: 1}\n", "{memory: {provider: honcho}}\n", "memory: honcho\n"]
)
def test_what_cannot_be_changed_safely_stays_and_is_said(home: Path, config: str) -> None:
    (home / "config.yaml").write_text(config)
    with pytest.raises(StateError, match="only Hermes understands"):
        write_provider(home, "mem0")
    assert (home / "config.yaml").read_text() == config


def test_what_cannot_be_migrated_is_said(home: Path) -> None:
    assert "nothing was migrated" in run("--undo").stderr
    assert "uses no memory provider" in run("--from", "honcho", "--apply").stderr
    (home / "config.yaml").write_text("memory:\n  provider: mem0\n")
    assert "'mem0'" in run("--from", "honcho", "--apply").stderr
    assert run().exit_code == run("--undo", "--apply").exit_code == 2
    assert (home / "config.yaml").read_text() == "memory:\n  provider: mem0\n"


@pytest.mark.parametrize(
    "config",
    [
        b"p: &p honcho\nmemory:\n  provider: *p\n",
        b"b: &b\n  provider: honcho\nmemory:\n  <<: *b\n",
        b"memory:\n  provider: >-\n    honcho\n",
        b"memory:\n  provider: honcho\nmemory:\n  provider: honcho\n",
        b"\xef\xbb\xbfmemory:\n  provider: honcho\n",
        b'memory: {provider: honcho, x: "a # b"}\n',
        "memory:\n  provider: honcho\n".encode("utf-16"),
    ],
)
def test_what_only_the_host_can_change_is_said_before_anything_is_done(home: Path, config: bytes) -> None:
    (home / "config.yaml").write_bytes(config)
    for words in ((), ("--apply",)):
        told = run("--from", "honcho", *words)
        assert told.exit_code == 1
        assert "hermes config set memory.provider honcho_exec" in told.stderr or "cannot be changed" in told.stderr
    assert sorted(one.name for one in home.iterdir()) == ["config.yaml", "honcho.json"]
    assert (home / "config.yaml").read_bytes() == config


NAMES = st.sampled_from(["honcho", "mem0", "honcho_exec", "a-b.c"])
TEXTS = st.sampled_from(["x", "provider: y", "# z", ""])
VALUES = st.one_of(st.integers(), st.booleans(), TEXTS, st.lists(st.integers()))
MEMORY = st.dictionaries(st.sampled_from(["memory_enabled", "providers", "limit"]), VALUES, max_size=3)
WITH_PROVIDER = st.builds(lambda rest, name: {**rest, "provider": name}, MEMORY, NAMES)
REST = st.dictionaries(st.sampled_from(["model", "tools", "z"]), VALUES | st.dictionaries(NAMES, VALUES), max_size=3)


@given(
    rest=REST,
    memory=st.none() | st.just("absent") | MEMORY | WITH_PROVIDER,
    flow=st.booleans(),
    provider=NAMES,
)
def test_only_the_provider_is_changed(
    tmp_path_factory: pytest.TempPathFactory, rest: dict[str, object], memory: object, flow: bool, provider: str
) -> None:
    home = tmp_path_factory.mktemp("home")
    value = rest if memory == "absent" else {**rest, "memory": memory}
    text = yaml.safe_dump(value, default_flow_style=None if flow else False, width=1000)
    (home / "config.yaml").write_text(text)
    if text.startswith("{"):
        with pytest.raises(StateError, match="only Hermes understands"):
            write_provider(home, provider)
        assert (home / "config.yaml").read_text() == text
        return
    write_provider(home, provider)
    kept = memory if isinstance(memory, dict) else {}
    assert yaml.safe_load((home / "config.yaml").read_text()) == {**rest, "memory": {**kept, "provider": provider}}
    assert read_provider(home) == provider
