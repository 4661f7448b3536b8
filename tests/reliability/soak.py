"""Everything that can go wrong, at random and at once, for as long as you like; then everything is counted.

    python tests/reliability/soak.py [--seconds 60] [--seed N] [--processes 3] [--json]

Real processes share one state folder and talk to a real server that misbehaves; they are killed, stopped and
started again. In the end the server is healed, a last process delivers what is left, and what the server has is
compared with what was accepted. The exit status is 1 if anything is lost, doubled or out of order.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

# A checkout is enough: nothing has to be installed but what the package needs.
sys.path[:0] = map(str, Path(__file__).parents[1:3])

from rich.console import Console
from rich.progress import track
from support.faulty import (
    Fault,
    FaultyServer,
    Rule,
    Seen,
    drip,
    garbage,
    hang,
    late_work,
    latency,
    reset_after_work,
    reset_before_work,
    status,
    wrong_json,
)
from support.processes import Victim, conclusions_on, messages_on

from honcho_exec import HonchoProvider
from honcho_exec.embedded import EmbeddedHoncho

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

TIMEOUT = 1.0
SETTINGS = {
    "timeout": TIMEOUT,
    "retry_deadline": 2,
    "retry_max_wait": 0.2,
    "sync_join_timeout": 0.3,
    "shutdown_timeout": 0.5,
    "breaker_cooldown": 1,
    "recall_mode": "tools",
}
SHARED = "shared"
TICK = 0.1
DRAIN_SECONDS = 120.0
POSTS = ("POST", "/(messages|conclusions)$")
LISTS = ("POST", "/list$")
POISON = {"poison": status(422), "choke": status(500)}


@dataclass
class Result:
    """What it came to."""

    seed: int
    seconds: float = 0.0
    accepted: int = 0
    on_the_server: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    pending: int = 0
    parked_poison: int = 0
    parked_otherwise: int = 0
    kills: int = 0
    stops: int = 0
    restarts: int = 0
    outages: int = 0
    server_restarts: int = 0
    wrong_keys: int = 0
    requests: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.doubled or self.out_of_order or self.pending)


def main() -> None:
    """Run, print the counts, and fail if a promise was broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**31) if arguments.seed is None else arguments.seed
    console = Console(stderr=True)
    result = run(arguments.seconds, seed, arguments.processes, ticks=console if console.is_terminal else None)
    if arguments.json:
        print(json.dumps(asdict(result), indent=2))
    else:
        show(result)
    sys.exit(0 if result.good else 1)


def run(seconds: float, seed: int, processes: int, *, ticks: Console | None = None) -> Result:
    """Soak for so many seconds, drain, and count."""
    result = Result(seed)
    start = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        honcho = stack.enter_context(Restartable(folder / "server" / "memory.db"))
        server = stack.enter_context(FaultyServer(honcho.app))
        weather = Weather(server, honcho, random.Random(seed), result)  # noqa: S311 - moments, not secrets
        crowd = Crowd(server.url, folder / "state", processes, random.Random(seed + 1), result)  # noqa: S311 - as above
        stack.callback(crowd.end)
        steps = range(int(seconds / TICK))
        for _ in track(steps, "soaking", console=ticks) if ticks else steps:
            weather.change()
            crowd.change()
            server.wait_count(sys.maxsize, timeout=TICK)
        weather.clear_up()
        crowd.end()
        parked = drain(server.url, folder / "state", result)
        result.requests = len(server.requests)
        weather.count()
        judge(result, server.url, crowd, parked)
    result.seconds = round(time.monotonic() - start, 1)
    return result


class Restartable:
    """A Honcho that forgets all but its file when it is told to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._honcho = EmbeddedHoncho(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._honcho.close()

    def app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The WSGI application."""
        return self._honcho.app(environ, start_response)

    def restart(self) -> None:
        """End, and begin again."""
        self._honcho.close()
        self._honcho = EmbeddedHoncho(self._path)


class Weather:
    """The server's faults: now these, now those, now none, a key that it refuses, and sometimes no server at all."""

    def __init__(self, server: FaultyServer, honcho: Restartable, dice: random.Random, result: Result) -> None:
        self._server = server
        self._honcho = honcho
        self._dice = dice
        self._result = result
        self._rules: list[tuple[str, Rule]] = []
        self._lasts = 0
        self._down = False

    def change(self) -> None:
        """Change the weather, when it has lasted long enough."""
        self._lasts -= 1
        if self._lasts > 0:
            return
        self._lasts = self._dice.randrange(2, 30)
        self.clear_up()
        kind = self._dice.random()
        if kind < 0.12:
            self._server.stop()
            self._down = True
            self._result.outages += 1
            if self._dice.random() < 0.7:
                self._honcho.restart()
                self._result.server_restarts += 1
        elif kind < 0.15:
            self._lasts = min(self._lasts, 10)
            self._rules.append(("a refused key", self._server.rule(fault=status(401))))
            self._result.wrong_keys += 1
        elif kind < 0.8:
            for _ in range(self._dice.randrange(1, 4)):
                self._put_in(self.fault())

    def clear_up(self) -> None:
        """Heal everything but what ails single messages."""
        self._server.heal()
        for word, answer in POISON.items():
            rule = self._server.rule(match=partial(has, word), fault=answer)
            self._rules.append((f"{answer.name} for a message with {word!r}", rule))
        self._server.release()
        if self._down:
            self._server.start()
            self._down = False

    def count(self) -> None:
        """Note how often each fault was met."""
        faults: Counter[str] = Counter()
        for name, rule in self._rules:
            faults[name] += rule.used
        self._result.faults = {name: used for name, used in faults.most_common() if used}

    def fault(self) -> Fault:
        """Any fault."""
        dice = self._dice
        after = dice.random() < 0.5
        return dice.choice(
            [
                status(dice.choice([502, 503]), after_work=after),
                status(503, {"Retry-After": "1"}),
                status(429, {"Retry-After": "1"}),
                status(500, after_work=after),
                status(504, after_work=after),
                reset_before_work(),
                reset_after_work(),
                hang(after_work=after),
                garbage(after_work=after),
                wrong_json(after_work=after),
                latency(dice.uniform(0.01, 0.8), after_work=after),
                late_work(dice.uniform(TIMEOUT, 2.0 * TIMEOUT)),
                drip(0.01),
            ]
        )

    def _put_in(self, fault: Fault) -> None:
        share = self._dice.choice([0.3, 0.7, 1.0])
        where = self._dice.choice([("*", ""), POSTS, POSTS, LISTS])
        dice = random.Random(self._dice.random())  # noqa: S311 - as above

        def meets(seen: Seen) -> bool:
            return seen.is_for(*where) and dice.random() < share

        name = f"{fault.name}, work done" if fault.after_work and "work" not in fault.name else fault.name
        self._rules.append((name, self._server.rule(match=meets, fault=fault)))


class Crowd:
    """Processes that share a state folder, each with a session of its own and one that all write to."""

    def __init__(self, url: str, home: Path, size: int, dice: random.Random, result: Result) -> None:
        self._url = url
        self._home = home
        self._dice = dice
        self._result = result
        self._stopped: dict[int, int] = {}
        self._runs: Counter[int] = Counter()
        self.ended: list[Victim] = []
        self.sessions = [f"own-{place}" for place in range(size)]
        self._living = [self._begin(place) for place in range(size)]

    def change(self) -> None:
        """Kill, stop or restart one of them, now and then."""
        for place in [place for place, ticks in self._stopped.items() if ticks <= 0]:
            self._living[place].signal(signal.SIGCONT)
            del self._stopped[place]
        for place in self._stopped:
            self._stopped[place] -= 1
        place, chance = self._dice.randrange(len(self._living)), self._dice.random()
        if chance < 0.05:
            self._replace(place, self._living[place].kill)
            self._result.kills += 1
        elif place in self._stopped:
            return
        elif chance < 0.06:
            self._replace(place, self._living[place].finish)
            self._result.restarts += 1
        elif chance < 0.08:
            self._living[place].signal(signal.SIGSTOP)
            self._stopped[place] = self._dice.randrange(5, 40)
            self._result.stops += 1

    def end(self) -> None:
        """Kill one half of them and let the other shut down."""
        for place, victim in enumerate(self._living):
            if place % 2:
                victim.kill()
            else:
                victim.signal(signal.SIGCONT)
                victim.finish()
            self.ended.append(victim)
        self._living = []

    def _replace(self, place: int, end: Callable[[], object]) -> None:
        end()
        self._stopped.pop(place, None)
        self.ended.append(self._living[place])
        self._living[place] = self._begin(place)

    def _begin(self, place: int) -> Victim:
        self._runs[place] += 1
        victim = Victim(self._home, self.sessions[place], base_url=self._url, **SETTINGS)
        victim.order("chat", f"{place}.{self._runs[place]}", self._dice.choice([0.01, 0.03, 0.1]), SHARED)
        return victim


def has(word: str, seen: Seen) -> bool:
    """Whether a message with this word is among those to be written."""
    return seen.is_for("POST", "/messages$") and word in str(seen.body_json)


def drain(url: str, home: Path, result: Result) -> set[str]:
    """Deliver what is left, and return what is parked."""
    with provider(url, home) as last:
        # What the server chokes on is told from a server that fails by what passes beside it.
        last.sync_turn("the end", "")
        result.pending = last.flush(DRAIN_SECONDS)
        with last.outbox() as outbox:
            result.pending = max(result.pending, outbox.counts().pending)
            parked = {str(getattr(row.write, "content", "")) for row in outbox.rows(parked=True, limit=1_000_000)}
    result.parked_poison = sum(text.startswith(tuple(POISON)) for text in parked)
    result.parked_otherwise = len(parked) - result.parked_poison
    return parked


@contextmanager
def provider(url: str, home: Path) -> Iterator[HonchoProvider]:
    """A provider in this process."""
    environ = {"HOME": str(home), "LOGNAME": "ada", "HONCHO_BASE_URL": url}
    environ |= {f"HONCHO_{name.upper()}": str(value) for name, value in SETTINGS.items()}
    with HonchoProvider("last", environ=environ | {"HONCHO_TIMEOUT": "10"}, home=home) as opened:
        yield opened


def judge(result: Result, url: str, crowd: Crowd, parked: set[str]) -> None:
    """Compare what was accepted with what is there."""
    times = {text: moments for victim in crowd.ended for text, moments in victim.times.items()}
    sessions = [messages_on(url, session) for session in (*crowd.sessions, SHARED)]
    there = Counter(conclusions_on(url))
    for session in sessions:
        there.update(session)
    result.accepted = len(times)
    result.on_the_server = there.total()
    result.lost = len(times.keys() - there.keys() - parked)
    result.doubled = there.total() - len(there)
    result.out_of_order = sum(overtaken(session, times) for session in sessions)


def overtaken(session: list[str], times: Mapping[str, tuple[float, float]]) -> int:
    """How many stand before one whose call had returned when theirs began, whichever process they are of."""
    count, earliest = 0, float("inf")
    for text in reversed(session):
        begun, ended = times.get(text, (float("-inf"), float("inf")))
        count += begun > earliest
        earliest = min(earliest, ended)
    return count


def show(result: Result) -> None:
    """Print the counts for a person."""
    for name, value in asdict(result).items():
        if name != "faults":
            print(f"{name.replace('_', ' '):>18}  {value}")
    for name, used in result.faults.items():
        print(f"{'fault':>18}  {used:6}  {name}")


if __name__ == "__main__":
    main()
