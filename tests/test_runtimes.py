"""Programs under gevent and eventlet end cleanly, whether and whenever they call `shutdown`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "gevent after import": "import honcho_exec.provider; from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "eventlet without threads": "import eventlet; eventlet.monkey_patch(thread=False)",
}
ENDS = {
    "shutdown": "provider.shutdown()",
    "atexit": "import atexit; atexit.register(provider.shutdown)",
    "none": "",
}
PROGRAM = """
from honcho_exec import HonchoProvider
provider = HonchoProvider("s")
provider.initialize()
future = provider.sync_turn("a", "b")
provider.prefetch("a")
provider.queue_prefetch("a")
assert ("error" in provider.handle_tool_call("honcho_search", {"query": "a"})) is OUTAGE
assert OUTAGE or future.result(20).written == 2
"""


@pytest.mark.parametrize("outage", [False, True])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_a_patched_program_ends_cleanly(tmp_path: Path, patch: str, end: str, outage: bool) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HONCHO_")} | {
        "HOME": str(tmp_path),
        "HONCHO_EXEC_HOME": str(tmp_path / "state"),
        "HONCHO_BASE_URL": "http://127.0.0.1:9" if outage else "",
        "HONCHO_SYNC_JOIN_TIMEOUT": "1" if outage else "20",
        "HONCHO_SHUTDOWN_TIMEOUT": "1",
        # eventlet warns of its own future.
        "PYTHONWARNINGS": "ignore",
    }
    program = f"OUTAGE = {outage}\n{patch}\n{PROGRAM}\n{end}\nprint('end')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
    assert "Traceback" not in done.stderr
