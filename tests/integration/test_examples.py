"""Every example in docs/examples runs; the one for Hermes is run by hermes/test_example.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.paths import ROOT

EXAMPLES = ROOT / "docs" / "examples"


def run(name: str, home: Path) -> str:
    environ = os.environ | {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", EXAMPLES / name]
    done = subprocess.run(command, env=environ, cwd=home, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_plain_python_finds_what_was_said_in_another_conversation(tmp_path: Path) -> None:
    assert "My sister Noor lives in Marseille." in run("plain_python.py", tmp_path)


def test_gateway_keeps_two_people_apart(tmp_path: Path) -> None:
    assert run("gateway.py", tmp_path) == "17 ['I am allergic to walnuts.']\n42 ['I collect walnuts.']\n"


def test_every_example_has_a_test() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {"plain_python.py", "gateway.py", "hermes.sh"}
