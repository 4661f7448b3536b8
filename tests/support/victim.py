"""A program that uses a provider and dies, as `kill -9` would have it, where it is told to.

    python victim.py HOME SESSION SETTINGS [POINT]

SETTINGS is a JSON object of settings. Orders come on stdin and answers go to stdout, a JSON array a line:
`["turn", text, …]`, `["conclude", text]`, `["replace", old, new]` (in the host's memory), `["talk", name, pause]`,
`["chat", name, pause, shared session]`, `["flush", seconds]`. Talking and chatting go on until the next order. What was
accepted is printed once its call has returned: `["accepted", text, begun, ended]`, in seconds that all processes share.
The end of stdin shuts the provider down.

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

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from honcho_exec import HonchoProvider
from honcho_exec.errors import RequestError
from honcho_exec.model import Receipt
from honcho_exec.outbox import Outbox
from honcho_exec.outbox_file import OutboxFile


def main() -> None:
    """Obey until stdin ends."""
    home, session, settings, *points = sys.argv[1:]
    for point in points:
        _die_at(point)
    environ = {"HOME": home, "LOGNAME": "ada"}
    environ |= {f"HONCHO_{name.upper()}": str(value) for name, value in json.loads(settings).items()}
    provider = HonchoProvider(session, environ=environ, home=Path(home))
    provider.initialize()
    _say("ready")
    for line in sys.stdin:
        _obey(provider, *json.loads(line))
    provider.shutdown()


def _obey(provider: HonchoProvider, order: str, *details: Any) -> None:
    match order:
        case "turn":
            for text in details:
                _give(text, lambda text=text: provider.sync_turn(text, ""))  # type: ignore[misc] # a lambda's default
        case "conclude":
            _conclude(provider, details[0])
        case "replace":
            old, new = details
            _give(new, lambda: provider.on_memory_write("replace", "user", new, metadata={"old_text": old}))
        case "talk":
            name, pause = details
            for number in _until_told(pause):
                _give(f"{name}.{number}", lambda: provider.sync_turn(f"{name}.{number}", ""))  # noqa: B023 - at once
        case "chat":
            _chat(provider, *details)
        case "flush":
            _say("left", provider.flush(details[0]))


def _chat(provider: HonchoProvider, name: str, pause: float, shared: str) -> None:
    """Do by turns all that can be done; what it is stands in the text."""
    for number in _until_told(pause):
        mark = f"{name}.{number}"
        if number % 11 == 5:
            _conclude(provider, f"conclusion {mark}")
        elif number % 101 == 7:
            word = "choke" if number % 5 == 0 else "poison"
            _give(f"{word} {mark}", lambda: provider.sync_turn(f"{word} {mark}", ""))  # noqa: B023 - at once
        elif number % 2:
            _give(f"own {mark}", lambda: provider.sync_turn(f"own {mark}", ""))  # noqa: B023 - at once
        else:
            key = mark if number % 5 == 0 else None
            _give(
                f"shared {mark}",
                lambda: provider.remember(shared, "user", f"shared {mark}", source_key=key),  # noqa: B023 - at once
            )


def _until_told(pause: float) -> Iterator[int]:
    number = 0
    while not select.select([sys.stdin], [], [], pause)[0]:
        yield number
        number += 1


def _give(text: str, call: Callable[[], Future[Receipt]]) -> None:
    begun = time.monotonic()
    future = call()
    ended = time.monotonic()
    # What is stored has no error yet, or one that a request met.
    if not future.done() or future.exception() is None or isinstance(future.exception(), RequestError):
        _say("accepted", text, begun, ended)


def _conclude(provider: HonchoProvider, text: str) -> None:
    begun = time.monotonic()
    if "is kept" in provider.handle_tool_call("honcho_conclude", {"conclusion": text}):
        _say("accepted", text, begun, time.monotonic())


def _say(*what: object) -> None:
    print(json.dumps(what), flush=True)


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at(point: str) -> None:
    if point == "settling":
        OutboxFile.transaction = _dying(OutboxFile.transaction)  # type: ignore[method-assign]
        return
    method, after = {
        "frozen": ("claim", True),
        "recorded": ("sending", True),
        "answered": ("settle", False),
        "settled": ("settle", True),
        "halved": ("halve", True),
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


def _dying(original: Callable[..., Any]) -> Callable[..., Any]:
    @contextmanager
    def transaction(self: OutboxFile) -> Iterator[Any]:
        with original(self) as connection:
            yield connection
            _die()

    return transaction


if __name__ == "__main__":
    main()
