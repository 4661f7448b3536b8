from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from honcho_exec.cli.hermes.installer import install

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Host:
    """The real host in a home of its own, with the plugin installed and chosen and nothing else set."""

    root: Path

    @property
    def hermes_home(self) -> Path:
        return self.root / "hermes"

    @property
    def state(self) -> Path:
        return self.hermes_home / "honcho_exec"

    def environ(self, settings: Mapping[str, str] | None = None) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HONCHO_", "HERMES_"))}
        own = {"HOME": str(self.root), "HERMES_HOME": str(self.hermes_home), "LOGNAME": "ada"}
        return inherited | own | dict(settings or {})

    def use_model(self, url: str) -> None:
        (self.hermes_home / "config.yaml").write_text(
            f"model:\n  default: fake\n  provider: custom\n  base_url: {url}\n  api_key: x\n"
            "memory:\n  provider: honcho_exec\n"
        )

    def hermes(self, *arguments: str, settings: Mapping[str, str] | None = None) -> str:
        """Run the `hermes` script in a project folder and return what it prints; it must exit with 0."""
        script = Path(sys.executable).with_name("hermes")
        done = self._run([str(script), *arguments], settings)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def python(self, program: str, settings: Mapping[str, str] | None = None) -> Any:
        """Run a program in a fresh interpreter, warnings being errors; returns what it prints, which is JSON."""
        done = self._run([sys.executable, "-W", "error", "-c", program], settings)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _run(self, command: list[str], settings: Mapping[str, str] | None) -> subprocess.CompletedProcess[str]:
        folder = self.root / "project"
        folder.mkdir(exist_ok=True)
        return subprocess.run(
            command, env=self.environ(settings), cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    install(host.hermes_home)
    host.use_model("http://127.0.0.1:9/v1")
    return host


@pytest.fixture
def hermes_environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put this process's environment into a home of its own too; returns HERMES_HOME."""
    host = Host(tmp_path)
    for name in [name for name in os.environ if name.startswith(("HONCHO_", "HERMES_"))]:
        monkeypatch.delenv(name)
    for name in ("HOME", "HERMES_HOME", "LOGNAME"):
        monkeypatch.setenv(name, host.environ()[name])
    return host.hermes_home
