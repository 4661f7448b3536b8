"""What people see: aligned, wrapped on a terminal only, and without control characters from stored text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # It takes long to import; --help does without it.
    from rich.console import Console

    from honcho_exec.transfer.importer import Told

__all__ = ["fields", "plain", "progress", "stdout", "text", "without_password"]

_WIDEST = 100
_UNWRAPPED = 1_000_000
# What was said may hold anything, and a terminal obeys escape sequences.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_PASSWORD = re.compile(r"(?<=://)[^/\s@]+@")


def plain(told: str) -> str:
    """`told` without the characters that a terminal would obey."""
    return _CONTROL.sub("", told)


def without_password(told: str) -> str:
    """`told` without the name and password that an address may hold."""
    return _PASSWORD.sub("…@", told)


def stdout(*, widest: int = _WIDEST) -> Console:
    """Where answers go: with colour and wrapped on a terminal, as plain unbroken lines elsewhere.

    Args:
        widest: the most columns of a terminal to use.
    """
    from rich.console import Console  # noqa: PLC0415 - see TYPE_CHECKING

    console = Console(highlight=False, markup=False, emoji=False)
    console.width = min(console.width, widest) if console.is_terminal else _UNWRAPPED
    return console


def text(console: Console, told: str, *, indent: int = 0, style: str = "") -> None:
    """Print paragraphs, wrapped and indented."""
    from rich.text import Text  # noqa: PLC0415 - see TYPE_CHECKING

    for paragraph in plain(told).split("\n"):
        # A list's second line stands under the first one's words.
        hang = 2 if paragraph.startswith("- ") else 0
        lines = Text(paragraph, style=style).wrap(console, max(20, console.width - indent - hang))
        for place, line in enumerate(lines):
            line.rstrip()
            margin = " " * (indent + (hang if place else 0)) if line else ""
            console.print(Text(margin) + line, soft_wrap=True)


def fields(console: Console, rows: Iterable[tuple[str, str, str]]) -> None:
    """Print (label, value, style) rows with the values under each other."""
    from rich.text import Text  # noqa: PLC0415 - see TYPE_CHECKING

    rows = list(rows)
    column = max((len(label) for label, _, _ in rows), default=0) + 4
    for label, value, style in rows:
        lines = Text(plain(value), style=style).wrap(console, max(20, console.width - column))
        for place, line in enumerate(lines):
            line.rstrip()
            head = Text(f"  {label}" if place == 0 else "", style="dim")
            head.pad_right(column - len(head))
            console.print(Text.assemble(head, line), soft_wrap=True)


@contextmanager
def progress(what: str, total: int) -> Iterator[Told]:
    """A progress bar on stderr while it is a terminal, nothing elsewhere."""
    from rich.console import Console  # noqa: PLC0415 - see TYPE_CHECKING
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415 - see TYPE_CHECKING

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[trouble]}"),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=total, trouble="")

        def told(done: int, trouble: str = "") -> None:
            bar.update(task, advance=done, trouble=plain(trouble).replace("[", "("))

        yield told
