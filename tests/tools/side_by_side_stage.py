"""What the side-by-side benchmark is played on: a server that misbehaves, and a provider's process before it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Lock, Thread
from typing import Any, Self

import httpx
from support.faulty import FaultyServer

from honcho_exec.embedded import EmbeddedHoncho

__all__ = [
    "CALL_LIMIT",
    "PROVIDERS",
    "TIMEOUT",
    "Agent",
    "Curtain",
    "Measured",
    "Stage",
    "TimeUpError",
    "TooLongError",
    "staged",
]

PROGRAM = Path(__file__).with_name("side_by_side_agent.py")
PROVIDERS = ("ours", "bundled")
TIMEOUT = 2.0
"""`timeout` in the `honcho.json` of both, in seconds; everything else is each one's default."""
CALL_LIMIT = 40.0
"""No call and no exit is waited for longer, in seconds."""
READY_LIMIT = 15.0
WORKSPACE = "side-by-side"
Measured = dict[str, tuple[float | None, str]]


class TooLongError(Exception):
    """A call did not come back within CALL_LIMIT."""


class TimeUpError(Exception):
    """The time for all of it is up."""


class Curtain:
    """Falls when the time is up: every process that plays is killed, and every wait ends."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._fallen = Event()
        self._agents: set[Agent] = set()

    def fall(self) -> None:
        """Let it fall; on any thread."""
        with self._lock:
            self._fallen.set()
            agents = list(self._agents)
        for agent in agents:
            agent.die()

    def enter(self, agent: Agent) -> None:
        """A process begins to play."""
        with self._lock:
            self._agents.add(agent)
        self.check()

    def leave(self, agent: Agent) -> None:
        """It has ended."""
        with self._lock:
            self._agents.discard(agent)

    def check(self) -> None:
        """Raise `TimeUpError` when it has fallen."""
        if self._fallen.is_set():
            raise TimeUpError

    def pause(self, seconds: float) -> None:
        """Wait; raises `TimeUpError` when it falls meanwhile."""
        if self._fallen.wait(seconds):
            raise TimeUpError


class Agent:
    """A provider's process; killed at the end of the context if it is still there."""

    def __init__(self, name: str, home: Path, curtain: Curtain) -> None:
        self._curtain = curtain
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HONCHO_", "HERMES_"))}
        own = {
            "HOME": str(home),
            "HERMES_HOME": str(home),
            "LOGNAME": "ada",
            "HERMES_DISABLE_LAZY_INSTALLS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(PROGRAM), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=inherited | own,
            cwd=home,
            text=True,
            bufsize=1,
        )
        self._said: Queue[str | None] = Queue()
        Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        try:
            self._curtain.enter(self)
        except TimeUpError:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._curtain.leave(self)
        self.kill()

    def begin(self, *operation: object) -> None:
        """Have one operation begun, whose end nobody waits for."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(operation) + "\n")

    def do(self, *operation: object) -> tuple[float, Any]:
        """Have one operation done; returns the seconds that its caller waited, and its result."""
        self.begin(*operation)
        try:
            said = self._said.get(timeout=CALL_LIMIT)
        except Empty:
            said = None
        if said is None:
            self._curtain.check()
            raise TooLongError(f"{operation[:2]}")
        seconds, result = json.loads(said)
        return seconds, result

    def turn(self, number: int) -> float:
        """Give a turn as the host's worker does; the seconds that `sync_turn` took."""
        return self.do("provider", "sync_turn", f"question {number}", f"answer {number}")[0]

    def begin_turn(self, number: int) -> None:
        """Give a turn, and do not wait until `sync_turn` returns."""
        self.begin("provider", "sync_turn", f"question {number}", f"answer {number}")

    def turn_by_manager(self, number: int) -> float:
        """Give a turn to the host's manager, which gives it to the provider on its worker."""
        return self.do("manager", "sync_all", f"question {number}", f"answer {number}")[0]

    def tool(self) -> float:
        """Read the user's card with a tool call; the seconds that it took."""
        return self.do("manager", "handle_tool_call", "honcho_profile", {})[0]

    def ready(self, session: str = "first") -> int:
        """Begin a conversation and wait until a tool call succeeds; how many did not.

        The bundled provider opens its session in the background: until then it answers tool calls with an error and
        takes no turn, so that nothing is measured before.

        Raises:
            TooLongError: none did within READY_LIMIT.
        """
        self.do("begin", session)
        until, refused = time.perf_counter() + READY_LIMIT, 0
        while "error" in json.loads(self.do("manager", "handle_tool_call", "honcho_profile", {})[1]):
            refused += 1
            if time.perf_counter() > until:
                raise TooLongError("a conversation's beginning")
            self._curtain.pause(0.02)
        return refused

    def leave(self) -> float | None:
        """Let the interpreter end without a word to the provider; the seconds it took, None beyond the limit."""
        assert self._process.stdin is not None
        start = time.perf_counter()
        self._process.stdin.write('["leave"]\n')
        try:
            self._process.wait(CALL_LIMIT)
        except subprocess.TimeoutExpired:
            return None
        self._curtain.check()
        return time.perf_counter() - start

    def die(self) -> None:
        """SIGKILL, without waiting for its end."""
        self._process.send_signal(signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL, and its end."""
        self.die()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError, ValueError):
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError):
            for line in self._process.stdout:
                self._said.put(line)
        self._said.put(None)


class Stage:
    """A server of its own for one scenario and one provider."""

    def __init__(self, name: str, server: FaultyServer, honcho: EmbeddedHoncho, home: Path, curtain: Curtain) -> None:
        self.name, self.server, self.home = name, server, home
        self._curtain = curtain
        self._client = httpx.Client(transport=httpx.WSGITransport(honcho.app), base_url="http://behind")

    def agent(self) -> Agent:
        """A process of the provider's, in the scenario's home."""
        return Agent(self.name, self.home, self._curtain)

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self._curtain.pause(seconds)

    def messages(self) -> list[list[str]]:
        """What the server has, for each session in its order; asked past the faults and the count of requests."""
        listed = f"/v3/workspaces/{WORKSPACE}/sessions"
        names = [session["id"] for session in self._listed(f"{listed}/list")]
        return [[item["content"] for item in self._listed(f"{listed}/{name}/messages/list")] for name in names]

    def arrived(self, turns: Collection[int], seconds: float) -> float | None:
        """Wait until these turns are there; the seconds it took, None if they were not there in time."""
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            if {text for texts in self.messages() for text in texts}.issuperset(_said(turns)):
                return time.perf_counter() - start
            self._curtain.pause(0.1)
        return None

    def tally(self, turns: Collection[int], *, what: str = "") -> Measured:
        """How many messages are lost of two for each of these turns, and how many of all are doubled or out of order.

        Args:
            turns: the numbers of those that were accepted.
            what: said after each measure.
        """
        sessions = [[text for text in texts if text.startswith(("question", "answer"))] for texts in self.messages()]
        counts = Counter(text for texts in sessions for text in texts)
        wanted = _said(turns)
        backwards = 0
        for texts in sessions:
            places = [(int(text.split()[1]), text.startswith("answer")) for text in dict.fromkeys(texts)]
            backwards += sum(before > after for before, after in pairwise(places))
        return {
            f"messages lost, of {len(wanted)}{what}": (sum(text not in counts for text in wanted), ""),
            f"messages doubled{what}": (sum(count - 1 for count in counts.values()), ""),
            f"messages out of order{what}": (backwards, ""),
        }

    def _listed(self, path: str) -> Iterator[dict[str, Any]]:
        page, pages = 1, 1
        while page <= pages:
            answer = self._client.post(path, params={"page": page, "size": 100}, json={})
            if answer.is_error:
                return
            body = answer.json()
            yield from body["items"]
            page, pages = page + 1, body["pages"]


def _said(turns: Collection[int]) -> list[str]:
    return [f"{kind} {number}" for number in turns for kind in ("question", "answer")]


@contextmanager
def staged(name: str, curtain: Curtain) -> Iterator[Stage]:
    """A fresh server and a fresh home with the same `honcho.json` for either provider."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        honcho = EmbeddedHoncho(folder / "memory.db")
        stack.callback(honcho.close)
        server = stack.enter_context(FaultyServer(honcho.app))
        home = folder / "home"
        home.mkdir()
        config = {
            "baseUrl": server.url,
            "workspace": WORKSPACE,
            "peerName": "ada",
            "aiPeer": "hermes",
            "sessionStrategy": "per-session",
            "timeout": TIMEOUT,
            "enabled": True,
        }
        (home / "honcho.json").write_text(json.dumps(config))
        yield Stage(name, server, honcho, home, curtain)
