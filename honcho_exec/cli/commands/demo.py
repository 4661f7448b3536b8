"""`demo`: play a conversation through the provider, and ask about it."""

from __future__ import annotations

import json
import shlex
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from honcho_exec.cli.context import FAILED, command, hint, printable
from honcho_exec.cli.output import print_fields, print_text, progress_bar, stdout
from honcho_exec.model import Receipt
from honcho_exec.provider.provider import HonchoProvider
from honcho_exec.transfer.sources import InputFile, MessageLine, read_messages

__all__ = ["demo"]

_DELIVERY_SECONDS = 30.0
_MAX_LINES = 4
# Written into the demo's own folder, so that other commands can be used on it.
_SETTINGS = {"baseUrl": "embedded", "workspace": "demo", "peerName": "nadia", "aiPeer": "assistant"}
_CALLS: tuple[tuple[str, dict[str, object]], ...] = (
    ("honcho_search", {"query": "What is she allergic to?", "max_tokens": 120}),
    ("honcho_reasoning", {"query": "Who looks after Biscuit while she is away?"}),
    ("honcho_conclude", {"conclusion": "Nadia makes a chest for her father's birthday"}),
    ("honcho_profile", {"card": ["Lives in Tromsø", "Allergic to walnuts", "Has a cat, Biscuit"]}),
    ("honcho_context", {}),
)


@dataclass(frozen=True, slots=True)
class _Turn:
    session: str
    user: MessageLine
    assistant: MessageLine


@command(
    "honcho-exec demo",
    "honcho-exec demo --keep       keep its memory, to try other commands on it",
)
@click.option("--keep", is_flag=True, help="Keep the demo's folder, and print its path.")
@click.pass_context
def demo(ctx: click.Context, *, keep: bool) -> None:
    """Play a conversation and ask all five tools about it.

    Needs no key, server or settings. It has a memory of its own, which is removed at the end; your memory and settings
    are not used.
    """
    began = time.monotonic()
    turns = _conversation()
    console = stdout()
    print_text(
        console,
        f"{len(turns)} turns of two conversations, delivered by the provider to a Honcho inside this process.\n",
    )
    with _folder(keep=keep) as folder, _provider(folder, turns[-1].session) as provider:
        waits, delivered = _play(provider, turns)
        median = statistics.median(waits) * 1000
        print_text(console, f"{delivered} turns delivered. The agent waited {median:.1f} ms for each (median).")
        answered = [_ask(console, provider, tool, args) for tool, args in _CALLS]
    _print_next_steps(console, folder if keep else None, time.monotonic() - began)
    ctx.exit(0 if delivered == len(turns) and all(answered) else FAILED)


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    """Create a folder for settings and state, which is removed at the end unless it is kept."""
    folder = Path(tempfile.mkdtemp(prefix="honcho-exec-demo-"))
    try:
        (folder / "honcho.json").write_text(json.dumps(_SETTINGS), encoding="utf-8")
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _provider(folder: Path, session: str) -> Iterator[HonchoProvider]:
    # Nothing of the user's environment: no variable, no settings file and no memory.
    provider = HonchoProvider(session, environ={"HOME": str(folder)})
    provider.initialize(hermes_home=str(folder))
    try:
        yield provider
    except KeyboardInterrupt:
        provider.shutdown(0.0)
        raise
    finally:
        provider.shutdown()


def _conversation() -> list[_Turn]:
    with as_file(files("honcho_exec.cli") / "demo.jsonl") as path:
        lines = [line for _, line in read_messages([InputFile(str(path))])]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return [_Turn(user.session or "demo", user, assistant) for user, assistant in pairs]


def _play(provider: HonchoProvider, turns: Sequence[_Turn]) -> tuple[list[float], int]:
    """Store every turn; return how long each call took (seconds), and how many turns were delivered."""
    waits, stored, delivered = [], [], 0
    with progress_bar("Playing", len(turns)) as report:
        for turn in turns:
            start = time.perf_counter()
            stored.append(_store(provider, turn))
            waits.append(time.perf_counter() - start)
        for futures in stored:
            wait(futures, _DELIVERY_SECONDS)
            if all(future.done() and future.exception() is None for future in futures):
                delivered += 1
                report(1, "")
    return waits, delivered


def _store(provider: HonchoProvider, turn: _Turn) -> list[Future[Receipt]]:
    """Store a turn of today as an agent does, and an earlier one with its time, as an import does."""
    if turn.user.created_at is None:
        return [provider.sync_turn(turn.user.content, turn.assistant.content)]
    return [
        provider.remember(turn.session, line.role, line.content, name=line.name, created_at=line.created_at)
        for line in (turn.user, turn.assistant)
    ]


def _ask(console: Console, provider: HonchoProvider, tool: str, args: dict[str, object]) -> bool:
    """Call a tool and print call and answer; return whether it succeeded."""
    shown = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in args.items())
    console.print()
    print_text(console, f"{tool}({shown})", style="bold cyan")
    answer: dict[str, Any] = json.loads(provider.handle_tool_call(tool, args))
    if "error" in answer:
        click.echo(f"Error: {printable(answer['error'])}", err=True)
        return False
    print_text(console, "\n".join(_shortened(answer["result"])), indent=2)
    return True


def _shortened(answer: str) -> Iterator[str]:
    """Return the first lines of each paragraph of an answer."""
    parts = [part.split("\n") for part in answer.split("\n\n")]
    for index, lines in enumerate(parts):
        if index and len(lines) > 1:
            yield ""
        yield from lines[:_MAX_LINES]
        if len(lines) > _MAX_LINES:
            yield f"  … and {len(lines) - _MAX_LINES} more"


def _print_next_steps(console: Console, kept: Path | None, seconds: float) -> None:
    state = hint("removed; honcho-exec demo --keep keeps it") if kept is None else f"kept in {kept}"
    look = "" if kept is None else f'honcho-exec --hermes-home {shlex.quote(str(kept))} search "Biscuit"'
    rows = [
        ("backend", "embedded: no key, no server", ""),
        ("folder", state, ""),
        ("took", f"{seconds:.1f} s", ""),
        ("look around", look, ""),
    ]
    console.print()
    print_fields(console, [row for row in rows if row[1]])
    print_text(console, "\nNext")
    print_fields(
        console,
        [
            ("Hermes", hint("honcho-exec install"), ""),
            ("Python", 'with HonchoProvider("my-session") as memory: memory.sync_turn("hi", "hello")', ""),
            ("a server", hint("HONCHO_BASE_URL=http://localhost:8000 honcho-exec status (or HONCHO_API_KEY=…)"), ""),
        ],
    )
