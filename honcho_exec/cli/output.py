"""Print text for people: aligned, wrapped on a terminal only, without control characters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from honcho_exec.cli.context import printable
from honcho_exec.transfer.importer import Progress

__all__ = ["print_fields", "print_text", "progress_bar", "stdout", "without_password"]

_WIDEST = 100
_UNWRAPPED = 1_000_000
_PASSWORD = re.compile(r"(?<=://)[^/\s@]+@")


def without_password(text: str) -> str:
    """Return a text without the user names and passwords of URLs in it."""
    return _PASSWORD.sub("…@", text)


def stdout(*, widest: int = _WIDEST) -> Console:
    """Return the console for answers: colour and wrapping on a terminal, plain unbroken lines elsewhere.

    Args:
        widest: the maximum number of columns.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = min(console.width, widest) if console.is_terminal else _UNWRAPPED
    return console


def print_text(console: Console, text: str, *, indent: int = 0, style: str = "") -> None:
    """Print paragraphs, wrapped and indented."""
    for paragraph in printable(text).split("\n"):
        # The second line of a list item is aligned with the text of the first.
        hang = 2 if paragraph.startswith("- ") else 0
        lines = Text(paragraph, style=style).wrap(console, max(20, console.width - indent - hang))
        for index, line in enumerate(lines):
            line.rstrip()
            margin = " " * (indent + (hang if index else 0)) if line else ""
            console.print(Text(margin) + line, soft_wrap=True)


def print_fields(console: Console, rows: Iterable[tuple[str, str, str]]) -> None:
    """Print (label, value, style) rows with the values aligned."""
    rows = list(rows)
    column = max((len(label) for label, _, _ in rows), default=0) + 4
    for label, value, style in rows:
        lines = Text(printable(value), style=style).wrap(console, max(20, console.width - column))
        for index, line in enumerate(lines):
            line.rstrip()
            head = Text(f"  {label}" if index == 0 else "", style="dim")
            head.pad_right(column - len(head))
            console.print(Text.assemble(head, line), soft_wrap=True)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Progress]:
    """Show a progress bar on stderr if that is a terminal."""
    console = Console(stderr=True)
    with ProgressBar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[trouble]}"),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(title, total=total, trouble="")

        def report(done: int, trouble: str = "") -> None:
            bar.update(task, advance=done, trouble=printable(trouble).replace("[", "("))

        yield report
