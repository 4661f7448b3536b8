from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.faulty import FaultyServer, Gate, gate
from support.processes import messages_on

from honcho_exec.storage.database import Database

MIGRATIONS = ("CREATE TABLE t (a);",)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_finds_nobody_inside_sqlite(tmp_path: Path) -> None:
    stop = threading.Event()

    def use(number: int) -> None:
        while not stop.is_set():
            database = Database(tmp_path / f"{number}.db", MIGRATIONS)
            with database.writing() as connection:
                connection.execute("INSERT INTO t VALUES (1)")
            database.close()

    threads = [threading.Thread(target=use, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(30):
            if (child := os.fork()) == 0:
                Database(tmp_path / f"child-{number}.db", MIGRATIONS).close()
                os._exit(0)
            watch = threading.Timer(10, os.kill, (child, signal.SIGKILL))
            watch.start()
            status = os.waitpid(child, 0)[1]
            watch.cancel()
            assert status == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


PROGRAM = """
import gc, json, os, sys, threading
from pathlib import Path
from honcho_exec import HonchoProvider
from honcho_exec.errors import Closed, HonchoExecError

home, url = Path(sys.argv[1]), sys.argv[2]
environ = {"HOME": str(home), "LOGNAME": "ada", **({"HONCHO_BASE_URL": url} if url else {})}
parent = HonchoProvider("s1", environ=environ, home=home)
parent.initialize()
parent.sync_turn("before", "").result(10)
if url:
    # The server holds the answer back.
    waiting = parent.sync_turn("waiting", "")
unused = HonchoProvider("s2", environ=environ, home=home)

def answers(call):
    try:
        found = call()
    except HonchoExecError as error:
        return "created before fork(); create a new HonchoProvider" in str(error)
    return "created before fork(); create a new HonchoProvider" in str(found)

if (child := os.fork()) == 0:
    watch = threading.Timer(20, os._exit, (3,))
    watch.daemon = True
    watch.start()
    checks = [answers(call) for provider in (parent, unused) for call in (
        lambda: provider.sync_turn("one", "").exception(5),
        lambda: provider.remember("s1", "user", "one").exception(5),
        lambda: provider.on_memory_write("add", "user", "one").exception(5),
        lambda: provider.handle_tool_call("honcho_search", {"query": "before"}),
        lambda: provider.handle_tool_call("honcho_conclude", {"conclusion": "one"}),
        lambda: provider.search("before"),
        lambda: provider.flush(1),
        lambda: provider.initialize() or repr(provider),
        lambda: provider.status().problem,
        lambda: provider.doctor(),
        lambda: provider.outbox().__enter__(),
        lambda: provider.__enter__(),
    )]
    if url:
        checks.append(answers(lambda: waiting.result(5)))
    checks += [provider.shutdown() == 0 and provider.stats().admitted == 0 for provider in (parent, unused)]
    checks += [parent.prefetch("x") == "" and parent.system_prompt_block() == ""]
    parent.queue_prefetch("x"), parent.on_session_end(), parent.on_pre_compress(), parent.on_session_switch("y")
    own = HonchoProvider("s3", environ=environ, home=home)
    own.initialize()
    checks.append(own.sync_turn("child", "").result(10).written == 1)
    checks.append(own.status().ok and own.shutdown() == 0)
    print(json.dumps([number for number, check in enumerate(checks) if not check]), flush=True)
    del parent, unused
    gc.collect()
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
sys.stdin.readline()
if url:
    print(waiting.result(10).written, flush=True)
print(parent.sync_turn("after", "").result(10).written, parent.shutdown(), flush=True)
"""


@pytest.mark.parametrize("backend", ["embedded", "server"])
def test_a_parents_provider_says_so_in_a_forked_child_and_goes_on_in_the_parent(
    server: FaultyServer, tmp_path: Path, backend: str
) -> None:
    held = Gate()
    url = server.url if backend == "server" else ""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, str(tmp_path / "state"), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        if url:
            server.rule(match=lambda seen: "waiting" in str(seen.body_json), fault=gate(held), times=1)
        watch = threading.Timer(40, program.kill)
        watch.start()
        assert program.stdin is not None
        assert program.stdout is not None
        said = [program.stdout.readline(), program.stdout.readline()]
        held.proceed.set()
        out, err = program.communicate("go on\n")
        watch.cancel()
    assert (said, err) == (["[]\n", "0\n"], "")
    assert out.splitlines() == ["1", "1 0"] if url else ["1 0"]
    memory = server.url if url else None
    if memory is not None:
        assert messages_on(memory, "s1") == ["before", "waiting", "after"]
        assert messages_on(memory, "s3") == ["child"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_is_left_no_connection_and_does_not_lose_its_log_when_the_parent_ends(tmp_path: Path) -> None:
    """SQLite in the child would take the parent's locks for its own, and the last to close would take the log away."""
    path, (read_end, write_end) = tmp_path / "t.db", os.pipe()
    middle = os.fork()
    if middle == 0:
        database = Database(path, MIGRATIONS)
        with database.writing() as connection:
            connection.execute("INSERT INTO t VALUES (1)")
        # The grandchild waits for the end of its parent.
        wait_end, end = os.pipe()
        if os.fork() == 0:
            os.close(end)
            own = Database(path, MIGRATIONS)
            with own.writing() as connection:
                connection.execute("INSERT INTO t VALUES (2)")
            os.read(wait_end, 1)
            with own.writing() as connection:
                connection.execute("INSERT INTO t VALUES (3)")
            os.write(write_end, b"." if path.with_name("t.db-wal").exists() else b"!")
            os.kill(os.getpid(), signal.SIGKILL)
        with database.connection() as connection:
            while connection.execute("SELECT count(*) FROM t").fetchone()[0] < 2:
                pass
        database.close()
        os._exit(0)
    os.waitpid(middle, 0)
    assert os.read(read_end, 1) == b"."
    later = Database(path, MIGRATIONS)
    with later.connection() as connection:
        assert [row[0] for row in connection.execute("SELECT a FROM t ORDER BY a")] == [1, 2, 3]
    later.close()
    os.close(read_end)
    os.close(write_end)
