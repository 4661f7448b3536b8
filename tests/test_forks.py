from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from honcho_exec.sqlite import Database

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
