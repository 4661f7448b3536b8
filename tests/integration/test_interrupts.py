"""An exception that a signal handler raises in any call leaves nothing locked, and no turn stored by half."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from support import interrupted_caller
from support.faulty import FaultyServer, Gate, gate
from support.interrupts import interrupted_at
from support.providers import MakeProvider

from honcho_exec import HonchoProvider
from honcho_exec.model import Receipt

Call = Callable[[HonchoProvider, int], object]


def tool(name: str, **args: object) -> Call:
    return lambda provider, number: provider.handle_tool_call(
        name, {key: value.format(number) if isinstance(value, str) else value for key, value in args.items()}
    )


CALLS: dict[str, Call] = {
    "sync_turn": lambda provider, number: provider.sync_turn(f"u{number}", f"a{number}"),
    "remember": lambda provider, number: provider.remember("said", "user", f"r{number}"),
    "profile": tool("honcho_profile"),
    "card": tool("honcho_profile", card=["fact"]),
    "search": tool("honcho_search", query="u1"),
    "reasoning": tool("honcho_reasoning", query="who?"),
    "context": tool("honcho_context"),
    "conclude": tool("honcho_conclude", conclusion="fact {}"),
    "list": tool("honcho_conclude", list=True),
    "repr": lambda provider, _: repr(provider),
    "stats": lambda provider, _: provider.stats(),
    "status": lambda provider, _: provider.status(),
    "prefetch": lambda provider, _: provider.prefetch("what?"),
    "queue_prefetch": lambda provider, _: provider.queue_prefetch("what?"),
    "on_turn_start": lambda provider, number: provider.on_turn_start(number),
    "on_session_end": lambda provider, _: provider.on_session_end(),
    "flush": lambda provider, _: provider.flush(10),
}


def texts(provider: HonchoProvider) -> list[str]:
    """Everything that the session holds, in its order."""
    conversation = provider._lifecycle.begun().conversation
    api = conversation.connect()
    return [message.content for message in api.reads.session_context(conversation.ref.session, tokens=100_000).messages]


@pytest.mark.parametrize("name", CALLS)
def test_call_that_is_interrupted_at_any_line_stops_nothing(make_provider: MakeProvider, name: str) -> None:
    provider = make_provider("said")
    provider.sync_turn("first", "").result(10)
    number, kept = 1, []
    while (interrupt := interrupted_at(number, partial(CALLS[name], provider, number))) is not None:
        # A notebook keeps it, and with it every frame.
        kept.append(interrupt)
        assert provider.sync_turn(f"after {number}", "").result(10).written == 1
        number += 1
    assert number > 3, "nothing was interrupted"
    assert provider.flush(10) == 0
    there = texts(provider)
    assert [text for text in there if text.startswith("after")] == [f"after {n}" for n in range(1, number)]
    counts = Counter(there)
    assert max(counts.values()) == 1
    assert [n for n in range(1, number) if counts[f"u{n}"] != counts[f"a{n}"]] == []
    provider.shutdown()


def test_shutdown_that_is_interrupted_at_any_line_gives_everything_back(make_provider: MakeProvider) -> None:
    interrupts: list[BaseException | None] = []
    while not interrupts or interrupts[-1] is not None:
        provider = make_provider(f"s{len(interrupts)}")
        provider.sync_turn("said", "")
        interrupts.append(interrupted_at(len(interrupts) + 1, provider.shutdown))
        provider.shutdown()
    assert len(interrupts) > 3
    assert make_provider("later").flush(10) == 0


@pytest.mark.parametrize("wait", ["result", "exception"])
def test_future_is_completed_although_a_waiting_caller_was_interrupted(
    server: FaultyServer, make_provider: MakeProvider, wait: str
) -> None:
    provider = make_provider(base_url=server.url)
    interrupts: list[BaseException | None] = []
    while not interrupts or interrupts[-1] is not None:
        held = Gate()
        server.rule(match=("POST", "/messages$"), fault=gate(held), times=1)
        future = provider.sync_turn(f"{len(interrupts)}", "")
        other = provider.sync_turn(f"{len(interrupts)}, again", "")

        def waits(future: Future[Receipt] = future) -> None:
            with suppress(TimeoutError):
                getattr(future, wait)(0.01)

        interrupts.append(interrupted_at(len(interrupts) + 1, waits))
        held.proceed.set()
        assert future.result(10) == other.result(10) == Receipt(1)
    assert len(interrupts) > 3


def test_future_is_completed_although_its_condition_stays_locked(
    server: FaultyServer, make_provider: MakeProvider
) -> None:
    provider = make_provider(base_url=server.url)
    held = Gate()
    server.rule(match=("POST", "/messages$"), fault=gate(held), times=1)
    future = provider.sync_turn("one", "")
    told: Future[Receipt] = Future()
    future.add_done_callback(lambda done: told.set_result(done.result()))
    # As a caller leaves it that is interrupted inside `concurrent.futures.wait`.
    future._condition.acquire()
    other = provider.sync_turn("two", "")
    held.proceed.set()
    assert [future.result(10), other.result(10), told.result(10)] == [Receipt(1)] * 3
    future._condition.release()


def test_futures_of_turns_work_with_the_standard_library(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url)
    held = Gate()
    server.rule(match=("POST", "/messages$"), fault=gate(held), times=1)
    futures = [provider.sync_turn(f"{number}", "") for number in range(5)]
    assert concurrent.futures.wait(futures, timeout=0.01).not_done == set(futures)

    async def all_of_them() -> list[Receipt]:
        threading.Timer(0.05, held.proceed.set).start()
        return await asyncio.gather(*(asyncio.wrap_future(future) for future in futures))

    assert asyncio.run(all_of_them()) == [Receipt(1)] * 5
    assert concurrent.futures.wait(futures, timeout=10).done == set(futures)
    assert set(concurrent.futures.as_completed(futures, timeout=10)) == set(futures)
    held = Gate()
    server.rule(match=("POST", "/messages$"), fault=gate(held), times=1)
    more = [provider.sync_turn(f"{number}", "") for number in range(5, 10)]
    threading.Timer(0.05, held.proceed.set).start()
    assert set(concurrent.futures.as_completed([*futures, *more], timeout=10)) == {*futures, *more}
    assert not any(future.cancel() or future.cancelled() or future.running() for future in more)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
@pytest.mark.parametrize("embedded", [True, False])
def test_signals_at_random_moments_stop_nothing(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path, embedded: bool, seed: int
) -> None:
    begun = time.monotonic()
    command = [sys.executable, interrupted_caller.__file__, tmp_path / "state", "" if embedded else server.url]
    done = subprocess.run([*command, "250", f"{seed}"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said["seconds"] < 5
    assert time.monotonic() - begun < 60
    provider = make_provider("said", **({} if embedded else {"base_url": server.url}))
    assert provider.flush(20) == 0
    there = texts(provider)
    assert there[::2] == [text.replace("a", "u") for text in there[1::2]], "a turn is stored by half"
    numbers = [int(text.split()[0]) for text in there[::2]]
    assert numbers == sorted(set(numbers)), "a turn is stored twice, or out of order"
    assert set(said["accepted"]) <= set(numbers)
