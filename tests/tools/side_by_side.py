"""This provider and the one that Hermes Agent bundles, on the same misbehaving server, measured in one run.

    python tests/tools/side_by_side.py [--quick] [--only NAME …] [--limit SECONDS] [--json [FILE]] [--write]

Each provider runs in a process of its own with an empty home, under the host's own manager; the server is an embedded
Honcho behind `tests/support/faulty.py` in this process. `--write` renews docs/benchmarks.md, its JSON and its plot.
The exit code is 0 when everything was measured, and 1 when the time was up before.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from threading import Timer
from typing import Any

# A checkout is enough: nothing has to be installed but what the package and the host need.
sys.path[:0] = [str(Path(__file__).parent), *map(str, Path(__file__).parents[1:3])]

if any(importlib.util.find_spec(name) is None for name in ("agent", "plugins")):
    sys.exit("hermes-agent, with the provider that it bundles, is not installed: python -m pip install -e '.[test]'")

from side_by_side_page import write
from side_by_side_stage import (
    CALL_LIMIT,
    PROVIDERS,
    TIMEOUT,
    Curtain,
    Measured,
    Stage,
    TimeUpError,
    TooLongError,
    staged,
)
from support.faulty import Seen, hang, latency, reset_after_work

LIMIT = 900.0
"""All of it takes no longer, unless `--limit` says so (seconds)."""
AT_ONCE = 4
"""So many are played at the same time with `--quick`."""


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
    numbers = {"healthy": 20 if quick else 200, "slow": 5 if quick else 20, "hung": 1 if quick else 5}
    with stage.agent() as agent:
        agent.ready()
        for state, fault in (("healthy", None), ("slow", latency(0.3)), ("hung", hang())):
            if fault is not None:
                stage.server.rule(fault=fault)
            found |= _spread(f"sync_turn, {state} server", [agent.turn(number) for number in range(numbers[state])])
            calls = 1 if numbers[state] == 1 else max(2, numbers[state] // 4)
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
            stage.arrived([number], 5.0)
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
        stage.pause(2)
        stage.server.clear()
        stage.server.start()
        seconds = stage.arrived(range(turns), 20)
        sent = stage.server.count()
        return {
            "until all have arrived, 20 s at most": (seconds, "s"),
            "requests meanwhile": (sent, ""),
            **stage.tally(range(turns)),
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
                stage.pause(away)
                stage.server.start()
            agent.turn_by_manager(number)
            stage.pause(0.1)
        stage.arrived(range(turns), 12)
        agent.do("manager", "on_session_end", [])
        agent.do("manager", "shutdown_all")
        return stage.tally(range(turns))


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
            stage.arrived([number], 2)
        stage.arrived(range(turns), 10)
        stage.server.heal()
        agent.do("manager", "shutdown_all")
        return stage.tally(range(turns))


def kill(stage: Stage, quick: bool) -> Measured:
    """SIGKILL while a turn is given, each time at another point; then a new process in the same conversation.

    Before the first kill one turn was accepted, that is, its `sync_turn` had returned; before the second two, and so
    on.
    """
    kills = 3 if quick else 10
    accepted: list[int] = []
    latest = range(0)
    for number in range(kills + 1):
        stage.server.heal()
        with stage.agent() as agent:
            if number:
                # The one before was killed in this conversation.
                agent.ready(f"talk-{number - 1}")
                stage.arrived(latest, 6)
            if number == kills:
                agent.do("manager", "shutdown_all")
                break
            agent.ready(f"talk-{number}")
            stage.server.rule(fault=latency(0.1))
            latest = range(latest.stop + 1, latest.stop + 2 + number)
            for turn in latest:
                agent.turn(turn)
            accepted += latest
            agent.begin_turn(latest.stop)
            stage.pause(number * 0.2 / kills)
    return stage.tally(accepted, what=f", in {kills} kills")


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
        here = stage.arrived(range(number), 30)
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


def played(scenario: str, name: str, curtain: Curtain, *, quick: bool) -> Measured:
    """Play one scenario for one provider; nothing when a call in it took too long."""
    curtain.check()
    since = time.perf_counter()
    _tell(f"{scenario}: {name} …")
    with staged(name, curtain) as stage:
        try:
            found = SCENARIOS[scenario](stage, quick)
        except TooLongError as error:
            _tell(f"{scenario}: {name}: {error} took more than {CALL_LIMIT:g} s")
            found = {}
    _tell(f"{scenario}: {name}: {time.perf_counter() - since:.1f} s")
    return found


def rows_of(scenario: str, ours: Measured, bundled: Measured) -> list[dict[str, Any]]:
    """A row for each measure of a scenario."""
    rows = []
    for what in dict.fromkeys([*ours, *bundled]):
        (here, unit), (there, other) = (found.get(what, (None, "")) for found in (ours, bundled))
        figures = {"ours": _short(here), "bundled": _short(there)}
        rows.append({"scenario": scenario, "what": what, "unit": unit or other, **figures})
    return rows


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help=f"fewer turns, {AT_ONCE} plays at once; the figures say little"
    )
    parser.add_argument(
        "--only", choices=SCENARIOS, nargs="+", action="extend", metavar="NAME", help=f"of {', '.join(SCENARIOS)}"
    )
    parser.add_argument(
        "--limit", type=float, default=LIMIT, metavar="SECONDS", help="end then, whatever runs (default: %(default)g)"
    )
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="the figures; without a FILE instead of the table"
    )
    parser.add_argument("--write", action="store_true", help="renew docs/benchmarks.md, .json and .svg")
    asked = parser.parse_args()
    if asked.write and (asked.quick or asked.only):
        parser.error("--write takes a whole run: neither --quick nor --only")
    if importlib.util.find_spec("agent") is None or importlib.util.find_spec("plugins") is None:
        parser.error(
            "hermes-agent is not installed, and its bundled provider with it: python -m pip install -e '.[test]'"
        )
    return asked


def run(names: Sequence[str], *, quick: bool, limit: float) -> dict[str, Any]:
    """Measure these scenarios, and end in any case when the limit is reached.

    One is played after the other, so that none takes the machine from another; several at once where the figures say
    little anyway.
    """
    curtain, began = Curtain(), time.perf_counter()
    alarm = Timer(limit, curtain.fall)
    alarm.daemon = True
    alarm.start()
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    with ThreadPoolExecutor(AT_ONCE if quick else 1) as stages:
        plays = {
            scenario: [stages.submit(played, scenario, name, curtain, quick=quick) for name in PROVIDERS]
            for scenario in names
        }
        try:
            for scenario, (ours, bundled) in plays.items():
                try:
                    rows += rows_of(scenario, ours.result(), bundled.result())
                except TimeUpError:
                    missing.append(scenario)
        finally:
            curtain.fall()
    alarm.cancel()
    if missing:
        _tell(f"the limit of {limit:g} s was reached; not measured: {', '.join(missing)}")
    return {"machine": machine(), "seconds": round(time.perf_counter() - began), "not_measured": missing, "rows": rows}


def main() -> int:
    """Measure, print the rows, and write what was asked for."""
    asked = arguments()
    result = run(list(dict.fromkeys(asked.only or SCENARIOS)), quick=asked.quick, limit=asked.limit)
    text = json.dumps(result, indent=1)
    if asked.json == "-":
        print(text)
    else:
        for row in result["rows"]:
            print(f"{row['scenario']:13} {row['what']:52} {row['ours']!s:>9} {row['bundled']!s:>9} {row['unit']}")
    if asked.json not in (None, "-"):
        Path(asked.json).write_text(text + "\n", encoding="utf-8")
    if asked.write and not result["not_measured"]:
        write(result)
    return 1 if result["not_measured"] else 0


if __name__ == "__main__":
    sys.exit(main())
