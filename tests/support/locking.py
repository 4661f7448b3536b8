"""Somebody else's lock on a SQLite file, as a backup or a browser of databases has it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

__all__ = ["locked"]


@contextmanager
def locked(path: Path, how: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Keep a process of its own in the middle of writing to the file."""
    with subprocess.Popen(
        [sys.executable, __file__, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as somebody:
        assert somebody.stdin is not None
        assert somebody.stdout is not None
        assert somebody.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            somebody.stdin.close()


def main() -> None:
    """Lock until stdin ends."""
    with closing(sqlite3.connect(sys.argv[1], isolation_level=None)) as connection:
        for statement in sys.argv[2].split(";"):
            connection.execute(statement).fetchall()
        sys.stdout.write("locked\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
