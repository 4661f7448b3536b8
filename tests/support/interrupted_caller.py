"""A program whose signal handler raises at random moments of its calls, and which then ends without `shutdown`.

    python interrupted_caller.py HOME BASE_URL INTERRUPTS SEED

Turn N says "N u" and is answered "N a". Prints a JSON object: the numbers of the turns whose call returned, the last
number, and how many seconds its delivery took.
"""

from __future__ import annotations

import concurrent.futures
import json
import random
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from honcho_exec import HonchoProvider
from honcho_exec.errors import HonchoExecError
from honcho_exec.model import Receipt

_PATIENCE = 30.0


class Interrupted(BaseException):
    """What the handler raises."""


def _raise(*_: object) -> None:
    raise Interrupted


def main() -> None:
    """Give turns and call tools until there were so many interrupts."""
    home, url, interrupts, seed = sys.argv[1:]
    chance = random.Random(int(seed))  # noqa: S311 - a test's moments
    environ = {"HOME": home, "LOGNAME": "ada", "HONCHO_BASE_URL": url}
    provider = HonchoProvider("said", environ={key: value for key, value in environ.items() if value}, home=Path(home))
    provider.initialize()
    provider.sync_turn("0 u", "0 a").result(_PATIENCE)
    given, accepted, last = 0, [0], Future[Receipt]()
    # A notebook keeps the traceback of the last exceptions, and with it all frames.
    kept: list[BaseException] = []
    signal.signal(signal.SIGALRM, _raise)

    def turn() -> None:
        nonlocal given, last
        given += 1
        number = given
        last = provider.sync_turn(f"{number} u", f"{number} a")
        accepted.append(number)

    def wait() -> None:
        try:
            last.result(chance.uniform(0.0, 0.02))
            concurrent.futures.wait([last], 0.001)
        except (TimeoutError, HonchoExecError):
            pass

    calls: list[Callable[[], object]] = [
        turn, turn, turn, wait,
        lambda: repr(provider),
        provider.stats,
        lambda: provider.prefetch("what?"),
        lambda: provider.queue_prefetch("what?"),
        lambda: provider.handle_tool_call("honcho_profile", {}),
        lambda: provider.handle_tool_call("honcho_search", {"query": "u"}),
        lambda: provider.handle_tool_call("honcho_reasoning", {"query": "who?"}),
        lambda: provider.handle_tool_call("honcho_context", {}),
        lambda: provider.handle_tool_call("honcho_conclude", {"conclusion": f"fact {given}"}),
    ]  # fmt: skip
    while len(kept) < int(interrupts):
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.expovariate(500) + 1e-6)
            while True:
                chance.choice(calls)()
        except Interrupted as interrupted:
            kept.append(interrupted)
    signal.setitimer(signal.ITIMER_REAL, 0)
    begun = time.monotonic()
    turn()
    last.result(_PATIENCE)
    sys.stdout.write(json.dumps({"accepted": accepted, "given": given, "seconds": time.monotonic() - begun}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
