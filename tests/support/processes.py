"""Real processes that use a provider and are killed, and what a server has in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from queue import Empty, Queue
from types import MappingProxyType
from typing import Any, Self

import httpx

import honcho_exec

__all__ = ["Victim", "conclusions_on", "dated_messages_on", "messages_on"]

_PROGRAM = Path(__file__).with_name("victim.py")
_PACKAGE = Path(honcho_exec.__file__).parents[1]


class Victim:
    """A process that runs `victim.py`; a context manager that kills and reaps it at the end.

    Args:
        home: its state folder, which several may share.
        session: the session that it talks in.
        point: where it kills itself, or None.
        options: further options of `victim.py`, by name.
        settings: the provider's settings.

    Attributes:
        home: its state folder.
        accepted: what it has printed so far.
        times: when the call for each of these began and ended, on the clock that all processes share.
        refused: what was not accepted, and why.
        unknown: what may be stored or not, since the call was interrupted or another process locks the file.
        interrupts: how many of its calls were interrupted.
    """

    def __init__(
        self,
        home: Path,
        session: str,
        *,
        point: str | None = None,
        options: Mapping[str, object] = MappingProxyType({}),
        **settings: object,
    ) -> None:
        self.home = home
        arguments = [str(home), session, json.dumps(settings), *([point] if point else [])]
        arguments += [f"--{name}={value}" for name, value in options.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(_PROGRAM), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            env={"HOME": str(home), "LOGNAME": "ada", "PYTHONPATH": str(_PACKAGE)},
        )
        self._said: Queue[list[Any] | None] = Queue()
        self.accepted: list[str] = []
        self.times: dict[str, tuple[float, float]] = {}
        self.refused: dict[str, str] = {}
        self.unknown: set[str] = set()
        self.interrupts = 0
        self._reader = threading.Thread(target=self._read, name="victim-reader")
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def order(self, *what: object) -> None:
        """Tell it to do something; a process that is dead does not hear it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(what) + "\n")

    def hear(self, what: str, timeout: float = 15.0) -> list[Any]:
        """Wait until it says this, and return what it says with it; AssertionError when it does not."""
        while True:
            try:
                said = self._said.get(timeout=timeout)
            except Empty:
                said = None
            assert said is not None, f"it ended, or said nothing, before {what!r}"
            if said[0] == what:
                return said[1:]

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def pause(self) -> None:
        """Stop it, and return once it stands still, or has ended."""
        self.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def give(self, *texts: str) -> None:
        """Have it give turns, and wait until they are accepted."""
        self.order("turn", *texts)
        for _ in texts:
            self.hear("accepted")

    def kill(self) -> list[str]:
        """Kill it and return what was accepted: what it had printed."""
        self._process.kill()
        return self.wait()

    def wait(self, timeout: float = 20.0) -> list[str]:
        """Wait until it has ended, by itself or otherwise, and return what was accepted."""
        self._process.wait(timeout)
        self._reader.join(timeout)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        return self.accepted

    def finish(self, timeout: float = 20.0) -> list[str]:
        """Let it shut down in order."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        return self.wait(timeout)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            match said:
                case ["accepted", text, begun, ended]:
                    self.accepted.append(text)
                    self.times[text] = (begun, ended)
                case ["refused", text, why]:
                    self.refused[text] = why
                case ["interrupted" | "unstored", text]:
                    self.unknown.add(text)
                    self.interrupts += said[0] == "interrupted"
            self._said.put(said)
        self._said.put(None)


def messages_on(url: str, session: str, *, workspace: str = "hermes") -> list[str]:
    """Everything that a server has of a session, in its order."""
    return [text for text, _ in dated_messages_on(url, session, workspace=workspace)]


def dated_messages_on(url: str, session: str, *, workspace: str = "hermes") -> list[tuple[str, datetime]]:
    """Everything that a server has of a session, in its order, and when each was created."""
    listed = _listed(url, f"/v3/workspaces/{workspace}/sessions/{session}/messages/list")
    return [(item["content"], datetime.fromisoformat(item["created_at"])) for item in listed]


def conclusions_on(url: str, *, workspace: str = "hermes") -> list[str]:
    """Every conclusion that a server has, the oldest first."""
    listed = [item["content"] for item in _listed(url, f"/v3/workspaces/{workspace}/conclusions/list")]
    return listed[::-1]


def _listed(url: str, path: str) -> Iterator[dict[str, Any]]:
    with _client(url) as client:
        page, pages = 1, 1
        while page <= pages:
            answer = client.post(path, params={"page": page, "size": 100}, json={}).raise_for_status().json()
            yield from answer["items"]
            page, pages = page + 1, answer["pages"]


@contextmanager
def _client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        yield client
