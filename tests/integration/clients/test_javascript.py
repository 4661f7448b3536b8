"""`@honcho-ai/sdk` from the npm registry, every method of it, as a program in Node.js."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from support.serving import Served

SDK = "@honcho-ai/sdk@2.5.0"
PROGRAM = Path(__file__).with_name("javascript.mjs")


def test_the_javascript_sdk_finds_everything_as_on_a_server(served: Served, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    assert npm is not None, "npm is needed"
    assert node is not None, "Node.js is needed"
    folder = tmp_path / "node"
    folder.mkdir()
    shutil.copy(PROGRAM, folder)
    subprocess.run([npm, "install", "--silent", "--prefix", folder, SDK], check=True)
    environ = os.environ | {"HONCHO_URL": served.url, "HONCHO_API_KEY": served.key}
    ran = subprocess.run(
        [node, "--test", PROGRAM.name], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "# pass 12" in ran.stdout, ran.stdout
