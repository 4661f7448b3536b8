"""Give more turns than the embedded Honcho takes in, from many conversations of one process, and measure each call.

    python tests/tools/overload.py [--seconds 60] [--rate 1000] [--conversations 1 10 100 300] [--json]

Each conversation has a provider and a thread of its own. A call's time counts from the moment at which it was due, so
that a late call does not hide the wait of those behind it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path

from honcho_exec import HonchoProvider
from honcho_exec.model import Receipt

__all__ = ["Figures", "overload"]

_USER = "What did we say about the garden on Tuesday, and who was to buy the seeds? "
_ASSISTANT = "You wanted beans and two kinds of lettuce; Ada said that she would buy the seeds on her way home. "
_DRAIN_SECONDS = 1_800.0


@dataclass(frozen=True)
class Figures:
    """What was measured; times of one `sync_turn` in milliseconds."""

    conversations: int
    turns: int
    refused: int
    p50: float
    p99: float
    max: float
    call_p50: float
    call_p99: float
    call_max: float
    drained_seconds: float
    left: int


@dataclass
class _Talk:
    provider: HonchoProvider
    futures: list[Future[Receipt]]
    due: list[float]
    calls: list[float]


def overload(folder: Path, *, conversations: int, rate: float, seconds: float) -> Figures:
    """Give `rate` turns a second in all for so many seconds, and wait until everything is delivered."""
    environ = {"HOME": str(folder), "LOGNAME": "ada"}
    talks = [
        _Talk(HonchoProvider(f"s{number}", environ=environ, home=folder / "state"), [], [], [])
        for number in range(conversations)
    ]
    for talk in talks:
        talk.provider.initialize()
        talk.provider.sync_turn("hello", "hi").result(60)
    every, turns = conversations / rate, round(rate * seconds / conversations)
    begin = time.perf_counter() + 0.5
    pause = threading.Event()

    def speak(talk: _Talk, offset: float) -> None:
        for number in range(turns):
            due = begin + offset + number * every
            if (wait := due - time.perf_counter()) > 0:
                pause.wait(wait)
            begun = time.perf_counter()
            talk.futures.append(talk.provider.sync_turn(_USER * 2, _ASSISTANT * 2))
            ended = time.perf_counter()
            talk.due.append(ended - due)
            talk.calls.append(ended - begun)

    threads = [
        threading.Thread(target=speak, args=(talk, every * number / conversations)) for number, talk in enumerate(talks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = time.perf_counter()
    left = sum(talk.provider.flush(max(0.0, ended + _DRAIN_SECONDS - time.perf_counter())) for talk in talks)
    drained = time.perf_counter() - ended
    refused = sum(1 for talk in talks for one in talk.futures if not one.done() or one.exception() is not None)
    for talk in talks:
        talk.provider.shutdown()
    due = sorted(1000 * one for talk in talks for one in talk.due)
    calls = sorted(1000 * one for talk in talks for one in talk.calls)
    return Figures(
        conversations,
        len(calls),
        refused,
        *(round(_at(due, share), 2) for share in (0.5, 0.99, 1.0)),
        *(round(_at(calls, share), 2) for share in (0.5, 0.99, 1.0)),
        drained_seconds=round(drained, 1),
        left=left,
    )


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    """Measure for each number of conversations, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long turns are given (default: 60)")
    parser.add_argument("--rate", type=float, default=1000.0, help="turns a second in all (default: 1000)")
    parser.add_argument("--conversations", type=int, nargs="+", default=[1, 10, 100, 300], metavar="N")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")
    arguments = parser.parse_args()
    # With a backlog each conversation says once that a sync takes long.
    logging.disable(logging.WARNING)
    if not arguments.json:
        print("conversations   turns  refused |  p50 ms  p99 ms   max ms | of the call alone: p50 p99 max | drained s")
    for number in arguments.conversations:
        with tempfile.TemporaryDirectory(prefix="overload-", ignore_cleanup_errors=True) as folder:
            found = overload(Path(folder), conversations=number, rate=arguments.rate, seconds=arguments.seconds)
        if arguments.json:
            print(json.dumps(asdict(found)), flush=True)
        else:
            print(
                f"{found.conversations:13} {found.turns:7} {found.refused:8} | {found.p50:7.2f} {found.p99:7.2f}"
                f" {found.max:8.2f} | {found.call_p50:.2f} {found.call_p99:.2f} {found.call_max:.2f}"
                f" | {found.drained_seconds:.1f}",
                flush=True,
            )
        if found.refused or found.left:
            sys.exit(1)


if __name__ == "__main__":
    main()
