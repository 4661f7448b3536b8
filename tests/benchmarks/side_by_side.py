"""This provider and the one that Hermes Agent bundles, on the same misbehaving server, measured in one run.

    python tests/benchmarks/side_by_side.py [--quick] [--only NAME] [--json FILE] [--write]

Each provider runs in a process of its own with an empty home, under the host's own manager; the server is an embedded
Honcho behind `tests/support/faulty.py` in this process. `--write` renews docs/benchmarks.md, its JSON and its plot.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, Self

# A checkout is enough: nothing has to be installed but what the package and the host need.
sys.path[:0] = [str(Path(__file__).parent), *map(str, Path(__file__).parents[1:3])]

import httpx
from side_by_side_page import write
from support.faulty import FaultyServer, Seen, hang, latency, reset_after_work

from honcho_exec.embedded import EmbeddedHoncho

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


class Agent:
    """A provider's process; killed at the end of the context if it is still there."""

    def __init__(self, name: str, home: Path) -> None:
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
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def do(self, *operation: object) -> tuple[float, Any]:
        """Have one operation done; returns the seconds that its caller waited, and its result."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(operation) + "\n")
        try:
            said = self._said.get(timeout=CALL_LIMIT)
        except Empty:
            said = None
        if said is None:
            raise TooLongError(f"{operation[:2]}")
        seconds, result = json.loads(said)
        return seconds, result

    def turn(self, number: int) -> float:
        """Give a turn as the host's worker does; the seconds that `sync_turn` took."""
        return self.do("provider", "sync_turn", f"question {number}", f"answer {number}")[0]

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
            time.sleep(0.02)
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
        return time.perf_counter() - start

    def kill(self) -> None:
        """SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
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

    def __init__(self, name: str, server: FaultyServer, honcho: EmbeddedHoncho, home: Path) -> None:
        self.name, self.server, self.home = name, server, home
        self._client = httpx.Client(transport=httpx.WSGITransport(honcho.app), base_url="http://behind")

    def agent(self) -> Agent:
        """A process of the provider's, in the scenario's home."""
        return Agent(self.name, self.home)

    def messages(self) -> list[str]:
        """What the server has, in its order; asked past the faults and the count of requests."""
        listed = f"/v3/workspaces/{WORKSPACE}/sessions"
        found: list[str] = []
        for session in self._listed(f"{listed}/list"):
            found += [item["content"] for item in self._listed(f"{listed}/{session['id']}/messages/list")]
        return found

    def arrived(self, turns: int, seconds: float) -> float | None:
        """Wait until so many turns are there; the seconds it took, None if they were not there in time."""
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            if len(set(self.messages())) >= 2 * turns:
                return time.perf_counter() - start
            time.sleep(0.1)
        return None

    def tally(self, turns: int) -> Measured:
        """How many messages are lost, doubled and out of order, of two for each turn."""
        found = [text for text in self.messages() if text.startswith(("question", "answer"))]
        counts = Counter(found)
        wanted = [f"{kind} {number}" for number in range(turns) for kind in ("question", "answer")]
        places = [wanted.index(text) for text in dict.fromkeys(found)]
        return {
            f"messages lost, of {2 * turns}": (sum(text not in counts for text in wanted), ""),
            "messages doubled": (sum(count - 1 for count in counts.values()), ""),
            "messages out of order": (sum(a > b for a, b in pairwise(places)), ""),
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


@contextmanager
def staged(name: str) -> Iterator[Stage]:
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
        yield Stage(name, server, honcho, home)


def _spread(what: str, times: Sequence[float]) -> Measured:
    ordered = sorted(times)
    milliseconds = [second * 1000 for second in ordered]
    return {
        f"{what}, p50": (statistics.median(milliseconds), "ms"),
        f"{what}, p99": (milliseconds[min(len(milliseconds) - 1, int(len(milliseconds) * 0.99))], "ms"),
        f"{what}, longest": (milliseconds[-1], "ms"),
    }


def wait(stage: Stage, quick: bool) -> Measured:
    """The caller's wait of `sync_turn` and of a tool call."""
    found: Measured = {}
    numbers = {"healthy": 20 if quick else 200, "slow": 5 if quick else 20, "hung": 2 if quick else 5}
    with stage.agent() as agent:
        agent.ready()
        for state, fault in (("healthy", None), ("slow", latency(0.3)), ("hung", hang())):
            if fault is not None:
                stage.server.rule(fault=fault)
            found |= _spread(f"sync_turn, {state} server", [agent.turn(number) for number in range(numbers[state])])
            calls = max(2, numbers[state] // 4)
            found |= _spread(f"tool call, {state} server", [agent.tool() for _ in range(calls)])
            stage.server.heal()
    return found


def start(stage: Stage, quick: bool) -> Measured:  # noqa: ARG001 - quick as it is
    """From `initialize` to the first tool call's answer at 100 ms a request."""
    found: Measured = {}
    stage.server.rule(fault=latency(0.1))
    for state in ("new", "existing"):
        with stage.agent() as agent:
            stage.server.clear()
            agent.do("usage")
            since = time.perf_counter()
            refused = agent.ready()
            found[f"first tool call that succeeds, {state} session"] = ((time.perf_counter() - since) * 1000, "ms")
            found[f"tool calls refused until then, {state} session"] = (refused, "")
            found[f"requests until then, {state} session"] = (stage.server.count(), "")
            agent.do("manager", "shutdown_all")
    return found


def requests(stage: Stage, quick: bool) -> Measured:
    """Requests a turn, with what is asked for before and after each."""
    turns = 5 if quick else 20
    with stage.agent() as agent:
        agent.ready()
        stage.server.clear()
        for number in range(turns):
            agent.do("manager", "prefetch_all", f"question {number} of a person")
            agent.turn_by_manager(number)
            agent.do("manager", "queue_prefetch_all", f"question {number} of a person")
            agent.do("manager", "flush_pending", 5.0)
            stage.arrived(number + 1, 5.0)
        stage.server.wait_idle()
        return {"requests a turn": (stage.server.count() / turns, "")}


def backlog(stage: Stage, quick: bool) -> Measured:
    """Turns given while the server refuses connections; then it is back."""
    turns = 30 if quick else 300
    with stage.agent() as agent:
        agent.ready()
        stage.server.stop()
        for number in range(turns):
            agent.turn_by_manager(number)
        time.sleep(2)
        stage.server.clear()
        stage.server.start()
        seconds = stage.arrived(turns, 20)
        sent = stage.server.count()
        return {
            "until all have arrived, 20 s at most": (seconds, "s"),
            "requests meanwhile": (sent, ""),
            **stage.tally(turns),
        }


def outage(stage: Stage, quick: bool) -> Measured:
    """Twenty turns, with connections refused for some seconds in the middle of them."""
    turns, away = 20, 1.0 if quick else 4.0
    with stage.agent() as agent:
        agent.ready()
        for number in range(turns):
            if number == turns // 3:
                stage.server.stop()
            if number == 2 * turns // 3:
                time.sleep(away)
                stage.server.start()
            agent.turn_by_manager(number)
            time.sleep(0.1)
        stage.arrived(turns, 12)
        agent.do("manager", "on_session_end", [])
        agent.do("manager", "shutdown_all")
        return stage.tally(turns)


def lost_answers(stage: Stage, quick: bool) -> Measured:
    """Every third answer to a write of messages is lost after the work is done."""
    turns, writes = 6 if quick else 20, 0

    def third(seen: Seen) -> bool:
        nonlocal writes
        writes += seen.is_for("POST", "/messages$")
        return seen.is_for("POST", "/messages$") and writes % 3 == 0

    with stage.agent() as agent:
        agent.ready()
        stage.server.rule(match=third, fault=reset_after_work())
        for number in range(turns):
            agent.turn_by_manager(number)
            agent.do("manager", "flush_pending", 5.0)
            stage.arrived(number + 1, 2)
        stage.arrived(turns, 10)
        stage.server.heal()
        agent.do("manager", "shutdown_all")
        return stage.tally(turns)


def kill(stage: Stage, quick: bool) -> Measured:
    """SIGKILL right after `sync_turn` has returned for the last of the turns, then a new process."""
    turns = 6 if quick else 20
    with stage.agent() as agent:
        agent.ready()
        stage.server.rule(fault=latency(0.1))
        for number in range(turns):
            agent.turn(number)
    stage.server.heal()
    with stage.agent() as agent:
        agent.ready()
        stage.arrived(turns, 8)
        agent.do("manager", "shutdown_all")
    return stage.tally(turns)


def leaving(stage: Stage, quick: bool) -> Measured:  # noqa: ARG001 - quick as it is
    """The end of the process while the server hangs, with one turn that has not arrived."""
    found: Measured = {}
    for way in ("with shutdown", "without shutdown"):
        with stage.agent() as agent:
            agent.ready()
            stage.server.rule(fault=hang())
            agent.turn_by_manager(0)
            closing = agent.do("manager", "shutdown_all")[0] if way == "with shutdown" else 0.0
            ended = agent.leave()
            found[f"exit {way}"] = (None if ended is None else closing + ended, "s")
        stage.server.release()
        stage.server.heal()
    return found


def sessions(stage: Stage, quick: bool) -> Measured:
    """A gateway's process: many conversations, a turn in each."""
    number = 20 if quick else 200
    with stage.agent() as agent:
        before, start = agent.do("usage")[1], time.perf_counter()
        for each in range(number):
            agent.ready(f"chat-{each}")
            agent.turn(each)
        here = stage.arrived(number, 30)
        seconds, after = time.perf_counter() - start, agent.do("usage")[1]
        units = {"threads": "", "files": "", "rss": "MiB"}
        return {f"until all turns of {number} sessions are there": (None if here is None else seconds, "s")} | {
            f"{name.replace('files', 'open files').replace('rss', 'memory')} added": (after[name] - before[name], unit)
            for name, unit in units.items()
            if name in after
        }


def conclusions(stage: Stage, quick: bool) -> Measured:  # noqa: ARG001 - quick as it is
    """Thirteen conclusions in a row at 50 ms a request."""
    with stage.agent() as agent:
        agent.ready()
        stage.server.rule(fault=latency(0.05))
        times, failed = [], 0
        for number in range(13):
            content = {"conclusion": f"Ada likes tea number {number}."}
            seconds, answer = agent.do("manager", "handle_tool_call", "honcho_conclude", content)
            times.append(seconds)
            failed += "error" in json.loads(answer)
        return {"conclusions failed, of 13": (failed, ""), **_spread("a conclusion", times)}


SCENARIOS: dict[str, Callable[[Stage, bool], Measured]] = {
    "wait": wait,
    "start": start,
    "requests": requests,
    "backlog": backlog,
    "outage": outage,
    "lost-answers": lost_answers,
    "kill": kill,
    "exit": leaving,
    "sessions": sessions,
    "conclusions": conclusions,
}


def measured(scenario: str, *, quick: bool) -> list[dict[str, Any]]:
    """Play one scenario for both; a row for each measure."""
    found: dict[str, Measured] = {}
    for name in PROVIDERS:
        print(f"{scenario}: {name} …", file=sys.stderr, flush=True)
        with staged(name) as stage:
            try:
                found[name] = SCENARIOS[scenario](stage, quick)
            except TooLongError as error:
                print(f"{scenario}: {name}: {error} took more than {CALL_LIMIT:g} s", file=sys.stderr)
                found[name] = {}
    rows = []
    for what in dict.fromkeys([*found["ours"], *found["bundled"]]):
        (ours, unit), (bundled, other) = (found[name].get(what, (None, "")) for name in PROVIDERS)
        rows.append(
            {
                "scenario": scenario,
                "what": what,
                "unit": unit or other,
                "ours": _short(ours),
                "bundled": _short(bundled),
            }
        )
    return rows


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def machine() -> dict[str, Any]:
    """Where it was measured, in general terms."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.system(),
        "hermes-agent": version("hermes-agent"),
        "honcho-ai": version("honcho-ai"),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "timeout": TIMEOUT,
    }


def main() -> None:
    """Measure, print the rows, and write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns; the figures say little")
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="this scenario; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--write", action="store_true", help="renew docs/benchmarks.md, .json and .svg")
    arguments = parser.parse_args()
    if arguments.write and (arguments.quick or arguments.only):
        parser.error("--write takes a whole run: neither --quick nor --only")
    began = time.perf_counter()
    rows = [row for name in arguments.only or SCENARIOS for row in measured(name, quick=arguments.quick)]
    result = {"machine": machine(), "seconds": round(time.perf_counter() - began), "rows": rows}
    for row in rows:
        print(f"{row['scenario']:13} {row['what']:52} {row['ours']!s:>9} {row['bundled']!s:>9} {row['unit']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.write:
        write(result)


if __name__ == "__main__":
    main()
