"""Every block of code in the documentation runs here, or in the test that ELSEWHERE names.

Of scripts that take minutes only the options are checked.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.faulty import FaultyServer
from support.paths import ROOT
from support.serving import start_serving

from honcho_exec import HonchoProvider
from honcho_exec.cli.hermes.installer import install
from honcho_exec.cli.main import main

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
SERVER = "http://localhost:8000"
BLOCK = re.compile(r"^```(\{?[\w-]*\}?)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)

# Commands that take too long, or belong to another program, and the test or script that runs them.
ELSEWHERE = {
    "pip install": ".ci/run",
    "pytest": ".ci/run",
    "hermes memory setup": "test_a_person_sets_it_up_and_uses_it_with_the_hosts_own_commands",
    "hermes honcho_exec": "test_a_person_sets_it_up_and_uses_it_with_the_hosts_own_commands",
}
NOT_CODE = {"", "{toctree}", "{eval-rst}", "text"}


@dataclass(frozen=True)
class Block:
    page: Path
    number: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}-{self.number}"


def blocks(*languages: str) -> list[Block]:
    found = [
        Block(page, number, language, code)
        for page in PAGES
        for number, (language, code) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), 1)
    ]
    return [block for block in found if block.language in languages]


def test_every_block_is_in_a_known_language() -> None:
    every = {language for page in PAGES for language, _ in BLOCK.findall(page.read_text(encoding="utf-8"))}
    assert every - NOT_CODE - {"python", "console", "json"} == set()


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_is_valid(block: Block) -> None:
    json.loads(block.code)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_runs(block: Block) -> None:
    exec(compile(block.code, str(block), "exec"), {"__name__": "example"})  # noqa: S102 - it is our own


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FaultyServer) -> FaultyServer:
    """A home with the files, memory and Hermes configuration that the documented commands need."""
    monkeypatch.chdir(tmp_path)
    hermes = tmp_path / ".hermes"
    hermes.mkdir()
    (hermes / "config.yaml").write_text("memory:\n  provider: honcho\n")
    message = {"role": "user", "content": "Green tea, as ever.", "session": "tuesday"}
    for name in ("chat.jsonl", "more.jsonl"):
        Path(name).write_text(json.dumps(message) + "\n")
    Path("chat.json").write_text(json.dumps([message]))
    Path("memory.jsonl").write_text('{"kind": "honcho_exec", "version": 1}\n')
    with HonchoProvider("tuesday", environ={"HOME": str(tmp_path)}) as provider:
        provider.sync_turn("Green tea, as ever. 4111 1111 1111 1111", "Noted.").result(20)
    return server


@pytest.mark.parametrize("block", blocks("console"), ids=str)
def test_commands_run(block: Block, sandbox: FaultyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for line in re.findall(r"^\$ (.*)$", block.code, re.MULTILINE):
        for command in re.sub(r"\s+#.*", "", line).replace(SERVER, sandbox.url).split(" && "):
            run(command.strip(), monkeypatch, tmp_path)


def run(command: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    words = shlex.split(command)
    while (words and "=" in words[0]) or words[0] == "export":
        if words[0] != "export":
            monkeypatch.setenv(*words[0].split("=", 1))
        words = words[1:]
        if not words:
            return
    if words in (["honcho-exec", "serve"], ["honcho-exec", "serve", "--open"]):
        # Other tests open the page; no browser is started here.
        served = start_serving(home / "state")
        assert served.end() == 0
        served.process.communicate()
    elif words[0] == "honcho-exec":
        if "state.db" in command:
            make_store(home / ".hermes" / "state.db")
        if "--undo" in words:
            install(home / ".hermes")
        done = CliRunner().invoke(main, [word.replace("~", str(home)) for word in words[1:]])
        assert done.exit_code == 0, (command, done.output, done.stderr)
    elif words[0] == "python" and "side_by_side" in words[1] and find_spec("agent") is None:
        pytest.skip("Hermes Agent is not installed")
    elif words[0] == "python":
        shown = subprocess.run([sys.executable, ROOT / words[1], "--help"], capture_output=True, text=True, check=True)
        assert [word for word in words if word.startswith("--") and word not in shown.stdout] == []
    else:
        assert any(" ".join(words).startswith(known) for known in ELSEWHERE), command


def make_store(path: Path) -> None:
    """Create the tables of Hermes's session store that are read, with one message."""
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE sessions (id TEXT PRIMARY KEY, started_at REAL);"
            "CREATE TABLE messages (id INTEGER PRIMARY KEY, session_id, role, content, timestamp, active, compacted);"
            "INSERT INTO sessions VALUES ('s', 1);"
            "INSERT INTO messages VALUES (1, 's', 'user', 'Hello.', 1735689600.0, 1, 0);"
        )
    connection.close()


def test_tests_and_scripts_in_elsewhere_exist() -> None:
    tests = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for where in ELSEWHERE.values():
        assert (ROOT / where).exists() or f"def {where}(" in tests, where
