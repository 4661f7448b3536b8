"""The example for Hermes Agent runs, in a home in which nothing is set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT


@pytest.mark.slow
def test_example_gives_hermes_a_memory(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("HONCHO_", "HERMES_"))}
    scripts = Path(sys.executable).parent
    environ |= {"HOME": str(tmp_path), "HERMES_HOME": str(tmp_path / "hermes"), "PYTHONPATH": str(ROOT)}
    environ["PATH"] = f"{scripts}{os.pathsep}{environ['PATH']}"
    script = ROOT / "docs" / "examples" / "hermes.sh"
    done = subprocess.run(["/bin/sh", script], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "My sister Noor lives in Marseille." in done.stdout
    assert "Honcho memory works" in done.stdout
