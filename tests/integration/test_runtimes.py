"""Programs end cleanly and soon: plain ones, those of gevent, eventlet and asyncio, with and without `shutdown`."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.faulty import Fault, FaultyServer, drip, hang
from support.tls import echoing

pytestmark = pytest.mark.slow

_GEVENT = "from gevent import monkey; monkey."
_EVENTLET = "import eventlet; eventlet.monkey_patch"
_IMPORTED = "import honcho_exec.provider.provider; "
PATCHES = {
    "gevent": f"{_GEVENT}patch_all()",
    "gevent after import": f"{_IMPORTED}{_GEVENT}patch_all()",
    "gevent without threads": f"{_GEVENT}patch_all(thread=False)",
    "gevent without threads after import": f"{_IMPORTED}{_GEVENT}patch_all(thread=False)",
    "gevent without queues": f"{_GEVENT}patch_all(queue=False)",
    "gevent without threads and queues": f"{_GEVENT}patch_all(thread=False, queue=False)",
    "gevent without select": f"{_GEVENT}patch_all(select=False)",
    "gevent's sockets": f"{_GEVENT}patch_socket()",
    "gevent's threads": f"{_GEVENT}patch_thread()",
    "gevent's queues": f"{_GEVENT}patch_queue()",
    "eventlet": f"{_EVENTLET}()",
    "eventlet after import": f"{_IMPORTED}{_EVENTLET}()",
    "eventlet without threads": f"{_EVENTLET}(thread=False)",
    "eventlet's threads": f"{_EVENTLET}(all=False, thread=True)",
}
# Green sockets in threads of the system.
APART = ["gevent without threads", "gevent without threads after import", "eventlet without threads"]
ENDS = {
    "shutdown": "provider.shutdown()",
    "atexit": "import atexit; atexit.register(provider.shutdown)",
    "none": "",
    "exit of a thread": "import sys, threading; threading.Thread(target=sys.exit).start()",
    "unhandled exception": "import sys; print('end', flush=True); sys.exit('the program failed')",
}
FAULTS = {"hangs": hang(), "drips": drip(0.5, "headers")}
SHORT_WAITS = {
    "HONCHO_SYNC_JOIN_TIMEOUT": "0.5",
    "HONCHO_FIRST_TURN_BASE_WAIT": "0.2",
    "HONCHO_FIRST_TURN_DIALECTIC_WAIT": "0.2",
}
USE = """
from honcho_exec import HonchoProvider
provider = HonchoProvider("s")
provider.initialize()
future = provider.sync_turn("a", "b")
provider.prefetch("a")
provider.queue_prefetch("a")
answer = provider.handle_tool_call("honcho_search", {"query": "a"})
assert ("error" in answer) is OUTAGE, answer
assert OUTAGE or future.result(20).written == 2
"""
MANY_THREADS = """
import os, threading, httpx
from honcho_exec.clock import SystemClock
from honcho_exec.net.transport import DeadlineTransport
client = httpx.Client(transport=DeadlineTransport(URL, clock=SystemClock()))
body = os.urandom(300_000)
def ask():
    for _ in range(2):
        assert client.post(URL, content=body).content == body
        answered.append(1)
def use(threads):
    for _ in range(threads):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    return len(os.listdir("/proc/self/fd"))
answered = []
first = use(1)
assert use(10) == first
assert len(answered) == 22
client.close()
"""
TWO_EXECUTORS = """
import threading
from honcho_exec.threads import ThreadPool
def use():
    with ThreadPool(1, "pool") as pool:
        pool.submit(int).result()
threads = [threading.Thread(target=use) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
ASYNC_USE = """
import asyncio
from honcho_exec import HonchoProvider
async def main():
    provider = HonchoProvider("s")
    await asyncio.to_thread(provider.initialize)
    future = await asyncio.to_thread(provider.sync_turn, "a", "b")
    provider.queue_prefetch("a")
    answer = await asyncio.to_thread(provider.handle_tool_call, "honcho_search", {"query": "a"})
    assert ("error" in answer) is OUTAGE, answer
    assert OUTAGE or (await asyncio.wrap_future(future)).written == 2
    if SHUTDOWN:
        await asyncio.to_thread(provider.shutdown)
"""
LOOPS = {"asyncio": "asyncio.run(main())", "uvloop": "import uvloop; uvloop.run(main())"}


@dataclass(frozen=True)
class Programs:
    """Runs programs in a home of their own.

    Attributes:
        home: holds a folder for each program.
    """

    home: Path

    def run(self, name: str, program: str, url: str, *, outage: bool) -> None:
        """Run a program that prints "end"; it ends within 20 s, with no traceback.

        Args:
            name: of its folder.
            program: the source.
            url: where its Honcho is; "" for the embedded one.
            outage: whether that one answers nothing.
        """
        folder = self.home / name
        folder.mkdir(parents=True)
        environ = {
            variable: value for variable, value in os.environ.items() if not variable.startswith(("HONCHO_", "PYTEST_"))
        } | {
            "HOME": str(folder),
            "HONCHO_EXEC_HOME": str(folder / "state"),
            "HONCHO_BASE_URL": url,
            "HONCHO_SYNC_JOIN_TIMEOUT": "1" if outage else "20",
            "HONCHO_SHUTDOWN_TIMEOUT": "1",
            # eventlet warns of its own future.
            "PYTHONWARNINGS": "ignore",
        }
        done = subprocess.run(
            [sys.executable, "-c", f"OUTAGE = {outage}\n{program}\nprint('end', flush=True)"],
            env=environ,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.stdout == "end\n", done.stderr
        # eventlet reports that it cannot look into pydantic, if that is imported before it patches.
        errors = done.stderr.rpartition("patched\n")[2]
        assert "Traceback" not in errors, errors
        assert done.returncode == ("the program failed" in errors), errors


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """Programs in the test's folder."""
    return Programs(tmp_path / "programs")


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_patched_program_ends_cleanly(programs: Programs, patch: str) -> None:
    start = f"{patch}\nimport sys; print('patched', file=sys.stderr)\n{USE}\n"
    with ThreadPoolExecutor(3) as threads:
        runs = [
            threads.submit(programs.run, "embedded", start + ENDS["none"], "", outage=False),
            threads.submit(programs.run, "embedded too", start + ENDS["shutdown"], "", outage=False),
            threads.submit(programs.run, "refused", start + ENDS["atexit"], "http://127.0.0.1:9", outage=True),
        ]
    for run in runs:
        run.result()


@pytest.mark.parametrize("fault", [None, *FAULTS.values()], ids=["works", *FAULTS])
@pytest.mark.parametrize("name", APART)
def test_partly_patched_program_ends_cleanly(
    programs: Programs, server: FaultyServer, name: str, fault: Fault | None
) -> None:
    waits = ""
    if fault is not None:
        server.rule(fault=fault)
        waits = f"import os; os.environ |= {SHORT_WAITS}\n"
    start = f"{waits}{PATCHES[name]}\nimport sys; print('patched', file=sys.stderr)\n{USE}\n"
    ends = ("none", "shutdown", "atexit")
    with ThreadPoolExecutor(len(ends)) as threads:
        runs = [
            threads.submit(programs.run, end, start + ENDS[end], server.url, outage=fault is not None) for end in ends
        ]
    for run in runs:
        run.result()


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("name", APART)
def test_green_sockets_leave_nothing_behind(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, secure: bool
) -> None:
    certificate = tmp_path / "certificate.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with echoing(certificate if secure else None) as url:
        start = f"{PATCHES[name]}\nimport sys; print('patched', file=sys.stderr)\n"
        programs.run("many", f"{start}URL = {url!r}{MANY_THREADS}", "", outage=False)


@pytest.mark.parametrize("name", ["gevent after import", "eventlet after import"])
def test_green_threads_can_begin_with_executors_at_once(programs: Programs, name: str) -> None:
    start = f"{PATCHES[name]}\nimport sys; print('patched', file=sys.stderr)\n"
    programs.run("executors", start + TWO_EXECUTORS, "", outage=False)


@pytest.mark.parametrize("fault", [*FAULTS.values(), None], ids=[*FAULTS, "refuses"])
def test_plain_program_ends_cleanly(programs: Programs, server: FaultyServer, fault: Fault | None) -> None:
    if fault is None:
        server.stop()
    else:
        server.rule(fault=fault)
    with ThreadPoolExecutor(len(ENDS)) as threads:
        runs = [threads.submit(programs.run, end, USE + ENDS[end], server.url, outage=True) for end in ENDS]
    for run in runs:
        run.result()


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_asynchronous_program_ends_cleanly(programs: Programs, server: FaultyServer, loop: str) -> None:
    server.rule(fault=hang())
    with ThreadPoolExecutor(4) as threads:
        runs = [
            threads.submit(
                programs.run, f"{shut} {url[:4]}", f"SHUTDOWN = {shut}{ASYNC_USE}{loop}", url, outage=bool(url)
            )
            for shut in (False, True)
            for url in ("", server.url)
        ]
    for run in runs:
        run.result()
