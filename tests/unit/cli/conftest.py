from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.commands import Cli, Program, WriteLines

import honcho_exec
from honcho_exec.cli.main import main


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; it names the session."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refuses the connection, and settings that do not wait long for it."""
    monkeypatch.setenv("HONCHO_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HONCHO_RETRY_ATTEMPTS", "1")
    monkeypatch.setenv("HONCHO_RETRY_DEADLINE", "1")
    monkeypatch.setenv("HONCHO_SYNC_JOIN_TIMEOUT", "1")
    monkeypatch.setenv("HONCHO_SHUTDOWN_TIMEOUT", "1")


@pytest.fixture
def cli() -> Cli:
    """Run a command in this process."""

    def run(*args: str, stdin: str | bytes = "") -> Result:
        return CliRunner().invoke(main, args, input=stdin, prog_name="honcho-exec", catch_exceptions=False)

    return run


@pytest.fixture
def program(here: Path) -> Program:
    """Run a command as a process of its own."""

    def run(*args: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "honcho_exec", *args],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            cwd=here,
            env=os.environ | {"PYTHONPATH": str(Path(honcho_exec.__file__).parents[1])} | environ,
        )

    return run


@pytest.fixture
def write_lines(here: Path) -> WriteLines:
    """Write a file of JSON lines; text stands as it is."""

    def write(name: str, lines: Iterable[object]) -> Path:
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        path.write_text(text, encoding="utf-8")
        return path

    return write
