from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from support.paths import ROOT

# Runs pytest, and prints each path below the first argument that anything was done with.
WATCHED = """
import os, sys
home, seen = sys.argv[1], set()
def watch(event, values):
    for value in values[:1]:
        path = os.fsdecode(value) if isinstance(value, (str, bytes)) else ""
        if path.startswith(home + os.sep):
            seen.add(f"{event} {path}")
sys.addaudithook(watch)
import pytest
code = pytest.main(sys.argv[2:])
print("touched:", sorted(seen))
sys.exit(code)
"""
SIGINT_IGNORED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])
"""


def run(program: str, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    # A user site in the real home is on the path of the interpreter, not of the suite.
    return subprocess.run(
        [sys.executable, "-s", "-c", program, *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env=os.environ | environ,
    )


@pytest.mark.slow
def test_collecting_the_suite_leaves_the_real_home_alone(tmp_path: Path) -> None:
    home = tmp_path / "real"
    (home / ".hermes").mkdir(parents=True)
    environ = {"HOME": str(home), "HERMES_HOME": str(home / ".hermes"), "HONCHO_EXEC_HOME": str(home / "state")}
    done = run(
        WATCHED,
        str(home),
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/integration/hermes",
        "tests/unit/cli",
        **environ,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "touched: []"
    assert list(home.rglob("*")) == [home / ".hermes"]


@pytest.mark.slow
def test_the_suite_passes_when_it_is_started_with_sigint_ignored() -> None:
    interrupting = "tests/unit/cli/test_ingest.py::test_ctrl_c_ends_it_at_once_and_says_what_is_kept"
    done = run(SIGINT_IGNORED, "-q", "-p", "no:cacheprovider", interrupting)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_warning_of_an_installed_pytest_asyncio_is_no_error() -> None:
    told = 'The configuration option "asyncio_default_fixture_loop_scope" is unset.\nThe event loop scope'
    warnings.warn(pytest.PytestDeprecationWarning(told), stacklevel=1)
