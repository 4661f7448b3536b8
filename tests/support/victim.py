"""A program that uses a provider and dies, as `kill -9` would have it, where it is told to.

    python victim.py HOME SESSION SETTINGS [POINT] [--clock FILE] [--boot NAME] [--interrupts SEED]

SETTINGS is a JSON object of settings. Orders come on stdin and answers go to stdout, a JSON array a line:
`["turn", text, …]`, `["conclude", text]`, `["replace", old, new]` (in the host's memory), `["talk", name, pause]`,
`["chat", name, pause, shared session]`, `["flush", seconds]`. Talking and chatting go on until the next order. What was
accepted is printed once its call has returned: `["accepted", text, begun, ended]`, in seconds that all processes share.
What is stored only when another process releases the file is `["unstored", text]`, what was not accepted
`["refused", text, why]`. The end of stdin shuts the provider down.

FILE holds the seconds by which the wall clock is ahead of the machine's; it is read each time. NAME replaces the id of
the machine's boot. With SEED, a signal handler raises at random moments of the calls of a chat: the outcome of such a
call is unknown, `["interrupted", text]`; a text is empty if the call stores nothing.

POINT names where it dies:
    frozen: a batch is frozen and nothing sent
    recorded: it is recorded that a request is sent, and none was
    answered: the answer has come and nothing of it is recorded
    settling: inside the transaction that drops the rows
    settled: the rows are dropped and nobody was told
    halved: a refused batch is halved
    parked: a refused row is parked
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from honcho_exec import HonchoProvider
from honcho_exec.clock import BootTime, SystemClock
from honcho_exec.delivery.futures import TurnFuture
from honcho_exec.errors import HonchoExecError, RequestError
from honcho_exec.model import Receipt
from honcho_exec.outbox.file import OutboxFile
from honcho_exec.outbox.outbox import Outbox

# A notebook keeps the traceback of its last exceptions, and with it all frames.
_KEPT_EXCEPTIONS = 50
# In how many calls of a chat an exception is to be raised, and after how long on average.
_SHARE = 0.3
_MEAN_SECONDS = (0.0005, 0.005, 0.05)


class Interrupted(BaseException):
    """What the signal handler raises."""


class JumpingClock(SystemClock):
    """The machine's clock, with a wall clock and a boot that a soak sets."""

    def __init__(self, offset: Path | None, boot: str | None) -> None:
        self._offset = offset
        self._boot = boot

    def now(self) -> float:
        """See `honcho_exec.clock.Clock.now`."""
        return super().now() + (0.0 if self._offset is None else float(self._offset.read_text("ascii")))

    def boot_time(self) -> BootTime:
        """See `honcho_exec.clock.Clock.boot_time`."""
        real = super().boot_time()
        return real if self._boot is None else replace(real, boot=self._boot)


class Interrupts:
    """Raises `Interrupted` at random moments of calls; never without a seed."""

    def __init__(self, seed: int | None) -> None:
        self._dice = None if seed is None else random.Random(seed)  # noqa: S311 - moments, not secrets
        self._armed = False
        self._kept: deque[Interrupted] = deque(maxlen=_KEPT_EXCEPTIONS)
        signal.signal(signal.SIGALRM, self._raise)

    def around(self, text: str, call: Callable[[], Any]) -> Any:
        """Return what the call returns, or print that it was interrupted and return None."""
        if self._dice is None or self._dice.random() > _SHARE:
            return call()
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, 1e-6 + self._dice.expovariate(1 / self._dice.choice(_MEAN_SECONDS)))
            result = call()
            self._armed = False
        except Interrupted as interrupted:
            self._kept.append(interrupted)
            _say("interrupted", text)
            return None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return result

    def _raise(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise Interrupted


def main() -> None:
    """Obey until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("session")
    parser.add_argument("settings", type=json.loads)
    parser.add_argument("points", nargs="*")
    parser.add_argument("--clock", type=Path)
    parser.add_argument("--boot")
    parser.add_argument("--interrupts", type=int)
    arguments = parser.parse_args()
    for point in arguments.points:
        _die_at(point)
    environ = {"HOME": str(arguments.home), "LOGNAME": "ada"}
    environ |= {f"HONCHO_{name.upper()}": str(value) for name, value in arguments.settings.items()}
    clock = JumpingClock(arguments.clock, arguments.boot)
    provider = HonchoProvider(arguments.session, environ=environ, home=arguments.home, clock=clock)
    provider.initialize()
    interrupts = Interrupts(arguments.interrupts)
    _say("ready")
    for line in sys.stdin:
        _obey(provider, interrupts, *json.loads(line))
    provider.shutdown()


def _obey(provider: HonchoProvider, interrupts: Interrupts, order: str, *details: Any) -> None:
    match order:
        case "turn":
            for text in details:
                _give(partial(provider.sync_turn, text, ""), text)
        case "conclude":
            _conclude(provider, details[0])
        case "replace":
            old, new = details
            _give(partial(provider.on_memory_write, "replace", "user", new, metadata={"old_text": old}), new)
        case "talk":
            name, pause = details
            for number in _until_told(pause):
                text = f"{name}.{number}"
                _give(partial(provider.sync_turn, text, ""), text)
        case "chat":
            _chat(provider, interrupts, *details)
        case "flush":
            _say("left", provider.flush(details[0]))


def _chat(provider: HonchoProvider, interrupts: Interrupts, name: str, pause: float, shared: str) -> None:
    """Do by turns all that can be done; what it is stands in the text."""
    reads: list[Callable[[], object]] = [
        provider.stats,
        partial(repr, provider),
        partial(provider.flush, 0.01),
        partial(provider.handle_tool_call, "honcho_search", {"query": "own"}),
        partial(provider.handle_tool_call, "honcho_conclude", {"list": True}),
    ]
    for number in _until_told(pause):
        mark = f"{name}.{number}"
        if number % 11 == 5:
            _conclude(provider, f"conclusion {mark}", interrupts)
        elif number % 101 == 7:
            text = f"{'choke' if number % 5 == 0 else 'poison'} {mark}"
            _give(partial(provider.sync_turn, text, ""), text, interrupts=interrupts)
        elif number % 2:
            texts = f"own {mark}", f"reply {mark}"
            _give(partial(provider.sync_turn, *texts), *texts, interrupts=interrupts)
        else:
            text, key = f"shared {mark}", mark if number % 5 == 0 else None
            call = partial(provider.remember, shared, "user", text, source_key=key)
            _give(call, text, interrupts=interrupts)
        if number % 23 == 3:
            interrupts.around("", reads[number // 23 % len(reads)])


def _until_told(pause: float) -> Iterator[int]:
    number = 0
    while not select.select([sys.stdin], [], [], pause)[0]:
        yield number
        number += 1


def _give(call: Callable[[], Future[Receipt]], *texts: str, interrupts: Interrupts | None = None) -> None:
    begun = time.monotonic()
    try:
        future = call() if interrupts is None else interrupts.around(texts[0], call)
    except HonchoExecError as error:
        _say("refused", texts[0], str(error))
        return
    ended = time.monotonic()
    if future is None:
        return
    # What is stored has no error yet, or one that a request met.
    error = future.exception() if future.done() else None
    if error is not None and not isinstance(error, RequestError):
        _say("refused", texts[0], str(error))
    elif isinstance(future, TurnFuture) and not future.durable:
        _say("unstored", texts[0])
    else:
        for text in texts:
            _say("accepted", text, begun, ended)


def _conclude(provider: HonchoProvider, text: str, interrupts: Interrupts | None = None) -> None:
    begun = time.monotonic()
    call = partial(provider.handle_tool_call, "honcho_conclude", {"conclusion": text})
    answer = call() if interrupts is None else interrupts.around(text, call)
    if answer is None:
        return
    if "is kept" in answer:
        _say("accepted", text, begun, time.monotonic())
    elif "is not stored yet" in answer:
        _say("unstored", text)
    else:
        _say("refused", text, answer)


def _say(*what: object) -> None:
    print(json.dumps(what), flush=True)


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at(point: str) -> None:
    if point == "settling":
        Outbox.delete_delivered = _dying_inside(Outbox.delete_delivered)  # type: ignore[method-assign]
        return
    method, after = {
        "frozen": ("claim", True),
        "recorded": ("mark_sent", True),
        "answered": ("delete_delivered", False),
        "settled": ("delete_delivered", True),
        "halved": ("bisect", True),
        "parked": ("park", True),
    }[point]
    original: Callable[..., object] = getattr(Outbox, method)

    def replaced(*args: Any, **kwargs: Any) -> object:
        if not after:
            _die()
        result = original(*args, **kwargs)
        if result is not None or method != "claim":
            _die()
        return result

    setattr(Outbox, method, replaced)


def _dying_inside(settle: Callable[..., None]) -> Callable[..., None]:
    """Let it die in the transaction of a method, before that is committed."""
    original = OutboxFile.transaction

    @contextmanager
    def transaction(self: OutboxFile, patience: float | None = None) -> Iterator[Any]:
        with original(self, patience) as connection:
            yield connection
            _die()

    def replaced(*args: Any) -> None:
        OutboxFile.transaction = transaction  # type: ignore[method-assign]
        settle(*args)

    return replaced


if __name__ == "__main__":
    main()
