"""The package as it is published: its version, and a wheel in an environment that has nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

import honcho_exec

BUILT_FROM = ("setup.cfg", "setup.py", "README.md", "LICENSE")


def test_every_file_states_the_version_of_the_package() -> None:
    plugin = (ROOT / "honcho_exec/hermes/plugin/plugin.yaml").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", plugin, re.MULTILINE) == [honcho_exec.__version__]
    assert re.findall(r"^## \[(\d.*?)\]", changes, re.MULTILINE)[0] == honcho_exec.__version__
    assert "version = attr: honcho_exec.__version__" in (ROOT / "setup.cfg").read_text(encoding="utf-8")


@pytest.mark.slow
def test_wheel_in_a_clean_environment_runs_the_demo(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("HONCHO_", "PYTHON"))}
    environ |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    source, scripts = tmp_path / "source", tmp_path / "venv" / "bin"
    source.mkdir()
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "honcho_exec", source / "honcho_exec", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "venv", scripts.parent)
    run(scripts / "python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("honcho_exec-*.whl")
    run(scripts / "python", "-m", "pip", "install", wheel)
    assert "34 turns delivered" in run(scripts / "honcho-exec", "demo")
    assert run(scripts / "honcho-exec", "--version").split()[-1] == honcho_exec.__version__
