"""Everything that can go wrong, at random and at once, for as long as you like; then everything is counted.

    python tests/tools/soak.py [--seconds 60] [--seed N] [--processes 3] [--json]

Real processes share one state folder and talk to a real server that misbehaves; they are killed, stopped and
started again, their calls are interrupted, their wall clock jumps, and their folder is replaced by a backup or used
as a copy. In the end the server is healed, a last process delivers what is left, and what the server has is compared
with what was accepted. The exit status is 1 if anything is lost, doubled, halved, out of order or refused, if a
session's times decrease, or if anything is left.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

# A checkout is enough: nothing has to be installed but what the package needs.
sys.path[:0] = map(str, Path(__file__).parents[1:3])

from rich.console import Console
from rich.progress import track
from support.crowd import SHARED, Crowd, WallClock
from support.faulty import FaultyServer
from support.processes import conclusions_on, dated_messages_on
from support.victim import JumpingClock
from support.weather import POISON, Restartable, Weather

from honcho_exec import HonchoProvider

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
TICK = 0.1
DRAIN_SECONDS = 120.0


@dataclass
class Result:
    """What it came to.

    Attributes:
        seed: repeats the run, as far as processes can be repeated.
        seconds: how long it took.
        accepted: what was stored when its call returned.
        interrupted: calls in which an exception was raised.
        unknown: what such calls gave, and what was to be stored when a lock is released.
        of_these_stored: how much of that arrived.
        not_restored: what was accepted after a backup that was put back.
        on_the_server: what the server has.
        lost: what was accepted and is neither on the server nor parked.
        doubled: what the server has more than once.
        halved: turns of which the server has one of two messages.
        out_of_order: what stands before something that was given earlier.
        dated_back: messages that are dated before the one before them.
        refused: what was neither accepted nor interrupted.
        pending: what was left.
        parked_poison: what the server refused each time.
        parked_otherwise: what was parked besides.
        requests: what the server was asked.
        events: what happened, and how often.
        faults: which faults requests met, and how often.
    """

    seed: int
    seconds: float = 0.0
    accepted: int = 0
    interrupted: int = 0
    unknown: int = 0
    of_these_stored: int = 0
    not_restored: int = 0
    on_the_server: int = 0
    lost: int = 0
    doubled: int = 0
    halved: int = 0
    out_of_order: int = 0
    dated_back: int = 0
    refused: int = 0
    pending: int = 0
    parked_poison: int = 0
    parked_otherwise: int = 0
    requests: int = 0
    events: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        broken = self.lost + self.doubled + self.halved + self.out_of_order + self.dated_back + self.refused
        return not (broken or self.pending)


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
    events: Counter[str] = Counter()
    start = time.monotonic()
    dice = [random.Random(seed + number) for number in range(3)]  # noqa: S311 - moments, not secrets
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        honcho = stack.enter_context(Restartable(folder / "server" / "memory.db"))
        server = stack.enter_context(FaultyServer(honcho.app))
        weather = Weather(server, honcho, dice[0], events, timeout=TIMEOUT)
        clock = WallClock(folder / "clock", dice[2], events)
        crowd = Crowd(
            server.url,
            folder / "state",
            processes,
            clock=clock,
            calm=weather.calm,
            dice=dice[1],
            events=events,
            settings=SETTINGS,
        )
        stack.callback(crowd.end)
        steps = range(int(seconds / TICK))
        ends = time.monotonic() + seconds
        for _ in track(steps, "soaking", console=ticks) if ticks else steps:
            if time.monotonic() >= ends:
                break
            weather.change()
            clock.change()
            crowd.change()
            server.wait_count(sys.maxsize, timeout=TICK)
        weather.clear_up()
        crowd.end()
        parked: set[str] = set()
        for home in crowd.homes:
            weather.calm()
            parked |= drain(server.url, home, crowd.boot, result)
        result.requests = len(server.requests)
        result.events, result.faults = dict(sorted(events.items())), weather.met()
        judge(result, server.url, crowd, parked)
    result.seconds = round(time.monotonic() - start, 1)
    return result


def drain(url: str, home: Path, boot: str | None, result: Result) -> set[str]:
    """Deliver what is left in a state folder, and return what is parked."""
    with provider(url, home, boot) as last:
        # What the server chokes on is told from a server that fails by what passes beside it.
        last.sync_turn("the end", "")
        pending = last.flush(DRAIN_SECONDS)
        with last.outbox() as outbox:
            result.pending += max(pending, outbox.inspection.counts().pending)
            return {
                str(getattr(row.write, "content", "")) for row in outbox.inspection.rows(parked=True, limit=1_000_000)
            }


@contextmanager
def provider(url: str, home: Path, boot: str | None) -> Iterator[HonchoProvider]:
    """A provider in this process."""
    environ = {"HOME": str(home), "LOGNAME": "ada", "HONCHO_BASE_URL": url}
    environ |= {f"HONCHO_{name.upper()}": str(value) for name, value in SETTINGS.items()}
    environ["HONCHO_TIMEOUT"] = "10"
    with HonchoProvider("last", environ=environ, home=home, clock=JumpingClock(None, boot)) as opened:
        yield opened


def judge(result: Result, url: str, crowd: Crowd, parked: set[str]) -> None:
    """Compare what was accepted with what is there."""
    times = {text: moments for victim in crowd.ended for text, moments in victim.times.items()}
    unknown = set[str]().union(*(victim.unknown for victim in crowd.ended))
    refused = {text: why for victim in crowd.ended for text, why in victim.refused.items()}
    sessions = [dated_messages_on(url, session) for session in (*crowd.sessions, SHARED)]
    there = Counter(conclusions_on(url))
    for session in sessions:
        there.update(text for text, _ in session)
    lost = times.keys() - there.keys() - parked - crowd.not_restored
    result.accepted = len(times)
    result.interrupted = sum(victim.interrupts for victim in crowd.ended)
    result.unknown = len(unknown)
    result.of_these_stored = len(unknown & there.keys())
    result.not_restored = len(crowd.not_restored)
    result.on_the_server = there.total()
    result.lost = len(lost)
    result.doubled = there.total() - len(there)
    result.halved = sum(is_half(text, there, parked, crowd.not_restored) for text in there)
    result.refused = len(refused)
    result.parked_poison = sum(text.startswith(tuple(POISON)) for text in parked)
    result.parked_otherwise = len(parked) - result.parked_poison
    for home in crowd.homes:
        # Two folders are two queues. What a backup does not know of may arrive at any time.
        texts = {text for victim in crowd.ended if victim.home == home for text in victim.times} - crowd.not_restored
        told = {text: times[text] for text in texts}
        result.out_of_order += sum(overtaken([text for text, _ in session], told) for session in sessions)
    back = [
        f"{later}: {after}, after {earlier}: {before}"
        for session in sessions
        for (earlier, before), (later, after) in pairwise(session)
        if after < before
    ]
    result.dated_back = len(back)
    report("refused", (f"{text}: {why}" for text, why in refused.items()))
    report("lost", lost)
    report("doubled", (text for text, count in there.items() if count > 1))
    report("dated back", back)


def is_half(text: str, there: Mapping[str, int], parked: set[str], not_restored: set[str]) -> bool:
    """Whether this is one of the two messages of a turn, and the other one is nowhere."""
    kind, _, mark = text.partition(" ")
    if kind not in ("own", "reply"):
        return False
    other = f"{'reply' if kind == 'own' else 'own'} {mark}"
    return not (other in there or other in parked or other in not_restored)


def overtaken(session: list[str], times: Mapping[str, tuple[float, float]]) -> int:
    """How many stand before one whose call had returned when theirs began, whichever process they are of."""
    count, earliest = 0, float("inf")
    for text in reversed(session):
        begun, ended = times.get(text, (float("-inf"), float("inf")))
        count += begun > earliest
        earliest = min(earliest, ended)
    return count


def report(kind: str, what: Iterable[str]) -> None:
    """Print on the standard error what a person needs to find the reason."""
    for one in sorted(what):
        print(f"{kind}: {one}", file=sys.stderr)


def show(result: Result) -> None:
    """Print the counts for a person."""
    for name, value in asdict(result).items():
        if isinstance(value, dict):
            for what, count in value.items():
                print(f"{name[:-1]:>18}  {count:6}  {what}")
        else:
            print(f"{name.replace('_', ' '):>18}  {value}")


if __name__ == "__main__":
    main()
